//! The bases that a command is given for patches: models of one file or many, or patches of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigsmall_codec::patch::{Check, Model};
use bigsmall_codec::{Error, ErrorKind, Original, PlainFile, Stored};

use crate::commands::{container_name, has_container_name, holds_weights};
use crate::failure::Failure;
use crate::tree::{self, Oddities, Tree};
use crate::ui::progress::Meter;

/// `--base`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BaseArgs {
    /// What a patch was made of: a file or directory, compressed or not, wherever its tensors lie in it
    ///
    /// Give it once for each that is needed: if BASE is itself a patch, also what that was made of.
    #[arg(long = "base", value_name = "BASE")]
    pub bases: Vec<PathBuf>,
}

/// Models that patches may be of.
#[derive(Default)]
pub struct Bases {
    /// In the order in which they were given.
    models: Vec<Arc<Model>>,
    /// Whether to show how far comparing them with what patches say is.
    shows: bool,
}

/// A file of a model that may be a patch still to be completed.
struct Part {
    path: PathBuf,
    file: File,
}

enum File {
    Plain(Arc<PlainFile>),
    Stored(Arc<Stored>),
    /// A patch that waits for its base.
    Patch,
}

impl Bases {
    /// Opens the models at `paths`. Those that are patches are of others among them, in whatever order. Unless it is to be `quiet`, a
    /// meter is shown while one is read to be compared with what a patch says about it, so that no other may be shown at that time.
    ///
    /// # Errors
    /// When one cannot be read, or its base is not among them.
    pub fn open(paths: &[PathBuf], quiet: bool) -> Result<Bases, Failure> {
        let mut waiting: Vec<(usize, Vec<Part>)> =
            paths.iter().map(|path| parts(path)).collect::<Result<Vec<_>, _>>()?.into_iter().enumerate().collect();
        let mut opened: Vec<Option<Arc<Model>>> = vec![None; paths.len()];
        while !waiting.is_empty() {
            let known = Bases { models: opened.iter().flatten().cloned().collect(), shows: !quiet };
            let (mut still, mut why) = (Vec::new(), None);
            for (number, parts) in waiting {
                match known.complete(parts) {
                    Ok(parts) => opened[number] = Some(Arc::new(model(&paths[number], parts)?)),
                    Err((parts, failure)) => {
                        why.get_or_insert(failure);
                        still.push((number, parts));
                    }
                }
            }
            // Each turn completes one at least, or none ever will be.
            if known.models.len() == opened.iter().flatten().count() {
                return Err(why.expect("something is waiting"));
            }
            waiting = still;
        }
        Ok(Bases { models: opened.into_iter().flatten().collect(), shows: !quiet })
    }

    /// This model alone.
    pub fn of(model: Model) -> Bases {
        Bases { models: vec![Arc::new(model)], shows: false }
    }

    /// Takes the MD5s of the first of the models, which a patch of it will record.
    ///
    /// # Errors
    /// When it cannot be read, or a signal has come.
    pub fn identify_first(&self) -> Result<(), Failure> {
        let Some(model) = self.first() else { return Ok(()) };
        Ok(model.identify(&self.meter(model, model.unidentified(None)))?)
    }

    /// A meter of so many bytes of a model that are to be read; nothing is shown of none.
    fn meter(&self, model: &Model, bytes: u64) -> Meter {
        let meter = Meter::new(bytes, !self.shows || bytes == 0);
        meter.set_file(&format!("reading the base {}", model.name()));
        meter
    }

    /// These, and the model that consists of `files`; patches among those are of these.
    ///
    /// # Errors
    /// When a file cannot be read, or its base is not among these.
    #[cfg(feature = "hub")]
    pub fn with(mut self, files: &[PathBuf]) -> Result<Bases, Failure> {
        let model = self.model_of(files)?;
        self.models.push(Arc::new(model));
        Ok(self)
    }

    /// The model that consists of `files`; patches among them are of these.
    fn model_of(&self, files: &[PathBuf]) -> Result<Model, Failure> {
        let parts = files.iter().map(|path| part(path.clone())).collect::<Result<Vec<_>, _>>()?;
        let parts = self.complete(parts).map_err(|(_, failure)| failure)?;
        // Patches know it by the name of its only file, or of the directory that its files are in.
        let root = match files {
            [file] => file,
            _ => files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")),
        };
        model(root, parts)
    }

    /// The first of the models that were given.
    pub fn first(&self) -> Option<&Arc<Model>> {
        self.models.first()
    }

    /// Opens a container; over its base if it is a patch.
    ///
    /// # Errors
    /// When it cannot be read, or its base is not among these.
    pub fn open_stored(&self, path: &Path) -> Result<Stored, Failure> {
        let stored = self.attach(Stored::open_protected(path, &Arc::default())?, path)?;
        stored.check_complete().map_err(|e| e.in_file(path))?;
        Ok(stored)
    }

    /// The file at `path` over its base, if it is a patch.
    ///
    /// # Errors
    /// When its base is not among these.
    pub fn attach(&self, stored: Stored, path: &Path) -> Result<Stored, Failure> {
        let Some(record) = stored.base_record() else { return Ok(stored) };
        if self.models.is_empty() {
            let missing = stored.check_complete().expect_err("a patch was not given a base so far");
            return Err(missing_base(missing.in_file(path)));
        }
        let mut refusals = Vec::new();
        for model in &self.models {
            let meter = self.meter(model, model.unidentified(Some(record)));
            match model.base_for(record, Check::Md5, &meter) {
                Ok(base) => return stored.with_base(base).map_err(|e| e.in_file(path).into()),
                Err(error) if error.kind() == ErrorKind::WrongBase => refusals.push(error.in_file(path).to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::new(refusals.join("\n")))
    }

    /// Puts the patches among these parts over their bases, or gives them back and why that was not possible.
    fn complete(&self, parts: Vec<Part>) -> Result<Vec<Part>, (Vec<Part>, Failure)> {
        let mut parts = parts;
        for part in &mut parts {
            if !matches!(part.file, File::Patch) {
                continue;
            }
            let attached = Stored::open_protected(&part.path, &Arc::default())
                .map_err(Failure::from)
                .and_then(|stored| self.attach(stored, &part.path));
            match attached {
                Ok(stored) => part.file = File::Stored(Arc::new(stored)),
                Err(failure) => return Err((parts, failure)),
            }
        }
        Ok(parts)
    }
}

/// The failure of having no base, with what to do.
fn missing_base(error: Error) -> Failure {
    Failure::new(format!("{error}\ngive it with --base"))
}

/// The files of the model at `path`.
fn parts(path: &Path) -> Result<Vec<Part>, Failure> {
    let metadata = tree::source_metadata(path)?;
    let paths = if metadata.is_dir() {
        let files: Vec<PathBuf> = Tree::read(path, Oddities::Skip)?.files.into_iter().map(|file| file.path).collect();
        let (containers, others): (Vec<PathBuf>, Vec<PathBuf>) = files
            .into_iter()
            .filter(|path| has_container_name(path) || holds_weights(path))
            .partition(|path| has_container_name(path));
        // A container beside its own original is no other part of the model.
        let is_beside = |container: &PathBuf| others.iter().any(|other| container_name_of(other) == *container);
        let mut files: Vec<PathBuf> = containers.into_iter().filter(|path| !is_beside(path)).collect();
        files.extend(others.iter().cloned());
        files.sort_unstable();
        if files.is_empty() {
            return Err(Failure::new(format!("{}: there is no model in it", path.display())));
        }
        files
    } else if metadata.is_file() {
        vec![path.to_owned()]
    } else {
        return Err(tree::refuse_oddity(path, &metadata));
    };
    paths.into_iter().map(part).collect()
}

fn part(path: PathBuf) -> Result<Part, Failure> {
    let file = if Stored::is_stored(&path)? {
        let stored = Stored::open_protected(&path, &Arc::default())?;
        match stored.base_record() {
            Some(_) => File::Patch,
            None => File::Stored(Arc::new(stored)),
        }
    } else {
        File::Plain(Arc::new(PlainFile::open(&path)?))
    };
    Ok(Part { path, file })
}

/// The model at `root`, a file or directory, that consists of these parts, all complete.
fn model(root: &Path, parts: Vec<Part>) -> Result<Model, Failure> {
    let name = root.file_name().map_or_else(|| root.display().to_string(), |name| name.to_string_lossy().into_owned());
    let mut model = Model::new(&name);
    for Part { path, file } in parts {
        // The directory that it is in tells parts of a pipeline apart.
        let name = path.strip_prefix(root).ok().filter(|name| !name.as_os_str().is_empty()).map(Path::to_path_buf);
        let name =
            name.or_else(|| path.file_name().map(PathBuf::from)).unwrap_or_default().to_string_lossy().into_owned();
        let added = match file {
            File::Plain(file) => model.add(&name, file),
            File::Stored(stored) => model.add_stored(&name, stored),
            File::Patch => unreachable!("all patches are over their bases"),
        };
        added.map_err(|e| e.in_file(&path))?;
    }
    if model.tensors().is_empty() {
        return Err(Failure::new(format!("{}: there are no tensors in it", root.display())));
    }
    Ok(model)
}

/// Where the container of a file of weights goes unless told otherwise.
fn container_name_of(path: &Path) -> PathBuf {
    path.with_file_name(container_name(path))
}

/// The model at `path`, a file or directory; patches in it are of `bases`. Whether a meter is shown is as in [`Bases::open`].
///
/// # Errors
/// When it cannot be read, has no tensors, or a base of it is not among `bases`.
pub fn open_model(path: &Path, bases: &[PathBuf], quiet: bool) -> Result<Arc<Model>, Failure> {
    let all: Vec<PathBuf> = std::iter::once(path.to_owned()).chain(bases.iter().cloned()).collect();
    let mut opened = Bases::open(&all, quiet)?.models.into_iter();
    Ok(opened.next().expect("as many were opened as were named"))
}

/// The model that consists of these files, none of which is a patch.
///
/// # Errors
/// When one cannot be read, or is a patch; when there are no tensors.
pub fn model_of(files: &[PathBuf]) -> Result<Model, Failure> {
    Bases::default().model_of(files)
}

/// The original at `path`, which is compressed already or not, and the file name that is recorded of it, if one is.
///
/// # Errors
/// When it cannot be read, or is a patch of something else than these bases.
pub fn open_original(path: &Path, bases: &Bases) -> Result<(Box<dyn Original>, Option<String>), Failure> {
    if Stored::is_stored(path)? {
        let stored = bases.open_stored(path)?;
        let name = stored.original_name().to_owned();
        return Ok((Box::new(stored), Some(name)));
    }
    Ok((Box::new(PlainFile::open(path)?), None))
}
