//! Files of a repo on this machine: in the cache or in a directory, as they are or as containers, and whole in any case.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use bigsmall_codec::container::{self, Options};
use bigsmall_codec::output::{Attributes, Existing, NewFile};
use bigsmall_codec::{Container, Original, PlainFile, Progress, verify};

use super::api::{File, Revision};
use super::cache::RepoCache;
use super::digest::ContentId;
use super::download::{Partial, fetch};
use super::workers::Watch;
use super::{Error, ErrorKind, Hub, RepoPath, Result};
use crate::commands::compress::{container_name_among, holds_weights, recorded_name};

/// Where files go.
#[derive(Clone, Debug)]
pub enum Place {
    Cache(RepoCache),
    Directory { root: PathBuf, existing: Existing },
}

/// What becomes of files that hold weights.
#[derive(Clone, Debug)]
pub struct Compression<'a> {
    pub options: Options,
    /// The threads that compress.
    pub pool: &'a rayon::ThreadPool,
}

/// How a file came to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was there.
    Present,
    Fetched,
    /// It came and was stored as a container.
    Compressed,
}

/// A file that is where it should be.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The file, as programs look for it.
    pub target: PathBuf,
    /// Its size on disk.
    pub stored_len: u64,
    pub how: How,
}

/// What is to be brought where.
pub struct Delivery<'a> {
    pub hub: &'a Hub,
    pub revision: &'a Revision,
    pub place: Place,
    pub compression: Option<Compression<'a>>,
    /// The paths of all files of the repo.
    pub all: BTreeSet<RepoPath>,
}

/// How many times the bytes of a file go by, for progress: once when it comes, and to be coded and decoded.
pub fn passes(file: &File, compressed: bool) -> u64 {
    if compressed && holds_weights(file.path.as_path()) { 3 * file.size } else { file.size }
}

impl Delivery<'_> {
    /// Brings one file.
    ///
    /// # Errors
    /// When it does not come, is not what the Hub lists, or another file is where it should be.
    pub fn bring(&self, file: &File, watch: &Watch<'_>) -> Result<Placed> {
        watch.set_file(file.path.as_str());
        let compression = self.compression.as_ref().filter(|_| holds_weights(file.path.as_path()));
        match &self.place {
            Place::Cache(cache) => {
                let blob = cache.blob(&file.id);
                let how = self.bring_to(file, &blob, compression, watch, Existing::Replace, &|| {
                    // Contents are named by their hash, and get their name when they are whole.
                    let stored = Container::open(&blob).is_ok_and(|container| is_of(&container, &file.id));
                    Ok(fs::metadata(&blob).is_ok_and(|there| there.is_file() && (there.len() == file.size || stored)))
                })?;
                cache.link(&self.revision.commit, &file.path, &file.id)?;
                let target = cache.snapshot(&self.revision.commit).join(file.path.as_path());
                Ok(Placed { stored_len: size(&target)?, target, how })
            }
            Place::Directory { root, existing } => {
                let target = root.join(self.name_of(file, compression.is_some()));
                let how = self.bring_to(file, &target, compression, watch, *existing, &|| {
                    has_contents(&target, file, compression.is_some(), watch)
                })?;
                Ok(Placed { stored_len: size(&target)?, target, how })
            }
        }
    }

    /// The path of a file below the directory that it goes to.
    fn name_of(&self, file: &File, compressed: bool) -> PathBuf {
        let path = file.path.as_path();
        if !compressed {
            return path.to_owned();
        }
        let exists = |path: &Path| {
            path.to_str().is_some_and(|path| RepoPath::parse(path).is_ok_and(|path| self.all.contains(&path)))
        };
        path.with_file_name(container_name_among(path, exists))
    }

    fn bring_to(
        &self,
        file: &File,
        target: &Path,
        compression: Option<&Compression<'_>>,
        watch: &Watch<'_>,
        existing: Existing,
        is_there: &dyn Fn() -> Result<bool>,
    ) -> Result<How> {
        let settle = || -> Result<Option<How>> {
            if fs::symlink_metadata(target).is_err() {
                return Ok(None);
            }
            if is_there()? {
                watch.advance(passes(file, compression.is_some()));
                return Ok(Some(How::Present));
            }
            match existing {
                Existing::Replace => Ok(None),
                Existing::Refuse => Err(Error::new(
                    ErrorKind::Other,
                    format!("{}: exists already and is another file\n--force replaces it", target.display()),
                )),
            }
        };
        if let Some(how) = settle()? {
            return Ok(how);
        }
        let partial = Partial::beside(target, &file.id, watch)?;
        // Another process may have brought it while this one waited.
        if let Some(how) = settle()? {
            partial.remove()?;
            return Ok(how);
        }
        fetch(self.hub, self.revision, file, &partial, watch)?;
        let Some(compression) = compression else {
            partial.keep(target, existing)?;
            return Ok(How::Fetched);
        };
        let in_cache = matches!(self.place, Place::Cache(_));
        if compress(&partial, file, target, existing, compression, in_cache, watch)? {
            partial.remove()?;
            Ok(How::Compressed)
        } else {
            partial.keep(target, existing)?;
            Ok(How::Fetched)
        }
    }
}

/// Makes the container of a file that has come, and compares what it decodes to. `false`, and there is no container, when it
/// would not be smaller and `if_smaller` is asked for.
fn compress(
    partial: &Partial,
    file: &File,
    target: &Path,
    existing: Existing,
    compression: &Compression<'_>,
    if_smaller: bool,
    watch: &Watch<'_>,
) -> Result<bool> {
    let cannot_read = |e| Error::file(partial.path(), "cannot be read", &e);
    let source = PlainFile::from_file(partial.file().try_clone().map_err(cannot_read)?, partial.path())?;
    let attributes = Attributes::of(&partial.file().metadata().map_err(cannot_read)?);
    let mut new = NewFile::create(target, existing)?;
    let name = recorded_name(file.path.as_path());
    let mut out = BufWriter::with_capacity(1 << 20, &mut new);
    let summary =
        compression.pool.install(|| container::compress(&source, &name, &compression.options, &mut out, watch));
    drop(out);
    let summary = summary.map_err(|e| new.name_failure(e))?;
    if if_smaller && summary.stored_len >= summary.original_len {
        return Ok(false);
    }
    let container = Container::from_store(Box::new(new.contents()?)).map_err(|e| e.in_file(target))?;
    let report = compression.pool.install(|| verify::verify(&container, watch))?;
    let same = match file.id {
        ContentId::Sha256(id) => summary.sha256 == id,
        ContentId::GitBlob(_) => ContentId::of(&container, &file.id, &())? == file.id,
    };
    if !report.is_sound() || !same {
        let message =
            "what was written does not decode to what came, and was removed; is the disk or the memory faulty?";
        return Err(Error::new(ErrorKind::Corrupt, format!("{}: {message}", target.display())));
    }
    new.commit(&attributes)?;
    Ok(true)
}

/// Whether a container says that its original is what has this id.
fn is_of(container: &Container, id: &ContentId) -> bool {
    *id == ContentId::Sha256(*container.sha256())
}

/// Whether the file at `target` has the contents of `file`, or is a container of them.
fn has_contents(target: &Path, file: &File, compressed: bool, watch: &Watch<'_>) -> Result<bool> {
    if !fs::metadata(target).is_ok_and(|there| there.is_file()) {
        return Ok(false);
    }
    let original: Box<dyn Original> = match compressed {
        true => match Container::open(target) {
            Ok(container) if is_of(&container, &file.id) => return Ok(true),
            Ok(container) => Box::new(container),
            Err(_) => return Ok(false),
        },
        false => Box::new(PlainFile::open(target)?),
    };
    // It counts as done when it is.
    struct Still<'a>(&'a Watch<'a>);
    impl Progress for Still<'_> {
        fn advance(&self, _: u64) {}
        fn cancelled(&self) -> bool {
            self.0.cancelled()
        }
    }
    Ok(original.len() == file.size && ContentId::of(&*original, &file.id, &Still(watch))? == file.id)
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(|e| Error::file(path, "cannot be read", &e))?.len())
}
