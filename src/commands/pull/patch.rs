//! `bigsmall pull --patch`: the base of what came, and what the two make.

use std::collections::HashSet;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use bigsmall_codec::patch::{BaseRecord, Check};
use bigsmall_codec::{Error, Stored};
use bigsmall_fs::models::{Depth, ModelFiles, in_directory};

use super::{Args, fetch};
use crate::base::{BaseArgs, Bases, model_of};
use crate::commands::{containers_in, decompress, has_container_name, holds_weights, in_container};
use crate::failure::Failure;
use crate::hub::card::{CARD, base_model};
use crate::hub::repo::MAIN;
use crate::hub::{self, Hub, RepoId, Source};
use crate::interrupt;
use crate::options::{DeviceChoice, OnDevice, Report};

/// A patch that has its base.
pub struct Completed {
    /// The files or directories that the base is, as bigsmall mount --base takes them.
    pub base: Vec<PathBuf>,
    /// The model that was made of the two, if it was asked for.
    pub output: Option<PathBuf>,
}

/// A patch, and what it says of its base.
struct Patch {
    path: PathBuf,
    record: BaseRecord,
}

/// Finds the base of the patches at `root`, in what was named or in the cache at `cache`, or fetches it there if `hub` may be asked; checks
/// it, and makes the model of both if that is wanted.
///
/// # Errors
/// When there is no patch, its base is not found or is another one, or what is wanted cannot be made. The patch stays.
pub fn complete(args: &Args, hub: Option<&Hub>, cache: &Path, root: &Path) -> Result<Completed, Failure> {
    let patches = patches_in(root)?;
    if patches.is_empty() {
        return Err(Failure::new(format!("{}: there is no patch in it; pull it without --patch", args.source)));
    }
    let Found { paths: base, bases } = match args.bases.as_slice() {
        [] => Search { args, hub, cache }.base_of(&args.source.to_string(), root, &patches, 1)?,
        named => Found { paths: named.to_vec(), bases: Bases::open(named, args.report.quiet)? },
    };
    if let Some(output) = &args.output {
        // It compares every tensor that is needed of the base before it writes anything.
        let quiet = args.report.quiet || args.report.json;
        decompress::restore_all(
            &decompress::Args {
                source: root.to_owned(),
                output: Some(output.clone()),
                base: BaseArgs::default(),
                check: true,
                device: OnDevice { device: DeviceChoice::Processor },
                threads: args.threads,
                force: args.force,
                report: Report { quiet, json: false },
            },
            &bases,
        )?;
    } else {
        for patch in &patches {
            bases.open_stored(&patch.path)?;
        }
    }
    Ok(Completed { base, output: args.output.clone() })
}

/// The most patches in a row: as many as a mount follows.
const LONGEST_CHAIN: usize = 16;

/// What patches are of.
struct Found {
    /// The files or directories, as `bigsmall mount --base` takes them.
    paths: Vec<PathBuf>,
    bases: Bases,
}

/// A model that is what some patches are of.
struct Candidate {
    files: Vec<PathBuf>,
    /// Those of its files that are patches themselves.
    patches: Vec<Patch>,
}

/// Looking for bases in the cache, and in the repos that cards name.
struct Search<'a> {
    args: &'a Args,
    hub: Option<&'a Hub>,
    cache: &'a Path,
}

impl Search<'_> {
    /// The base of the patches of `name` that lie at `root`, which are so many in a row.
    fn base_of(&self, name: &str, root: &Path, patches: &[Patch], depth: usize) -> Result<Found, Failure> {
        if depth > LONGEST_CHAIN {
            return Err(Failure::new(format!("{name}: more than {LONGEST_CHAIN} patches are made of one another")));
        }
        let known = in_directory(self.cache, Depth::AllBelow).unwrap_or_default();
        match find(&known, patches) {
            Ok(Some(candidate)) => {
                let directory = candidate.directory();
                self.complete(&directory.display().to_string(), &directory, &candidate, depth)
            }
            Ok(None) | Err(_) => self.fetched(name, root, patches, depth),
        }
    }

    /// A base over its own base, if it is a patch; its card lies at `root`.
    fn complete(&self, name: &str, root: &Path, candidate: &Candidate, depth: usize) -> Result<Found, Failure> {
        let own = match candidate.patches.as_slice() {
            [] => Found { paths: Vec::new(), bases: Bases::default() },
            patches => self.base_of(name, root, patches, depth + 1)?,
        };
        let (mut paths, bases) = (own.paths, own.bases.with(&candidate.files)?);
        paths.push(match candidate.files.as_slice() {
            [file] => file.clone(),
            _ => candidate.directory(),
        });
        Ok(Found { paths, bases })
    }

    /// The base, from the repo that the card of the patches names.
    fn fetched(&self, name: &str, root: &Path, patches: &[Patch], depth: usize) -> Result<Found, Failure> {
        let card = fs::read_to_string(root.join(CARD)).unwrap_or_default();
        let record = &patches[0].record;
        let missing = format!(
            "{name}: the base {:?} (fingerprint {:.8}...) is not in the cache of the Hub",
            record.name,
            record.fingerprint.to_string()
        );
        let Some(repo) = base_model(&card) else {
            let advice = "its card does not say in which repo it is; give it with --base";
            return Err(Failure::new(format!("{missing}\n{advice}")));
        };
        let wanted = self.args.yes || self.hub.is_some() && is_wanted(self.args, &repo)?;
        let Some(hub) = self.hub.filter(|_| wanted) else {
            let advice = format!("bigsmall pull {repo} fetches it, and so does --yes; or give it with --base");
            return Err(Failure::new(format!("{missing}\n{advice}")));
        };
        let source = Source { repo, revision: MAIN.to_owned() };
        // What belongs to the weights is of no use to a base, but the card may say what that is of.
        let base = fetch(self.args, hub, &source, None, |file| {
            let path = file.path.as_path();
            holds_weights(path) || has_container_name(path) || file.path.as_str() == CARD
        })?;
        let models = in_directory(&base.root, Depth::AllBelow);
        let models = models.map_err(|e| Failure::new(format!("{}: cannot be read: {e}", base.root.display())))?;
        let another = |why: &str| Failure::new(format!("{source}, which the card of {name} names: {why}"));
        match find(&models, patches) {
            Ok(Some(candidate)) => self.complete(&source.to_string(), &base.root, &candidate, depth),
            Ok(None) => Err(another("there is no model in it that can be read")),
            Err(error) => Err(another(&error.to_string())),
        }
    }
}

impl Candidate {
    /// The directory that its files are in.
    fn directory(&self) -> PathBuf {
        self.files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")).to_owned()
    }
}

/// The patches in a directory.
fn patches_in(root: &Path) -> Result<Vec<Patch>, Failure> {
    Ok(patches_among(&containers_in(root).unwrap_or_default())?)
}

/// The patches among these files.
fn patches_among(files: &[PathBuf]) -> Result<Vec<Patch>, Error> {
    let mut patches = Vec::new();
    for path in files {
        if Stored::is_stored(path)? {
            let stored = Stored::open(path, &Default::default()).map_err(|e| in_container(e, path))?;
            if let Some(record) = stored.base_record() {
                patches.push(Patch { record: record.clone(), path: path.clone() });
            }
        }
    }
    Ok(patches)
}

/// The first of the models that is the base of all patches; one that is not a patch itself if there is one. What cannot be read is no base.
///
/// # Errors
/// Why the last model that was compared is not the base, if none is.
fn find(models: &[ModelFiles], patches: &[Patch]) -> Result<Option<Candidate>, Error> {
    let (mut chained, mut refused) = (None, None);
    for ModelFiles { parts } in models {
        let files: Vec<PathBuf> = parts.iter().map(|part| part.path.clone()).collect();
        let Ok(own) = patches_among(&files) else { continue };
        if !own.is_empty() {
            let is_new = chained.is_none() && !patches.iter().any(|patch| files.contains(&patch.path));
            if is_new && has_recorded(&files, patches).unwrap_or(false) {
                chained = Some(Candidate { files, patches: own });
            }
            continue;
        }
        let Ok(model) = model_of(&files) else { continue };
        match patches.iter().try_for_each(|patch| model.base_for(&patch.record, Check::Probe, &()).map(drop)) {
            Ok(()) => return Ok(Some(Candidate { files, patches: own })),
            Err(error) => refused = Some(error),
        }
    }
    match (chained, refused) {
        (None, Some(error)) => Err(error),
        (chained, _) => Ok(chained),
    }
}

/// Whether containers, which may be patches that wait for their base, have recorded tensors with the MD5s of all that these patches need.
fn has_recorded(files: &[PathBuf], patches: &[Patch]) -> Result<bool, Error> {
    let mut md5s = HashSet::new();
    for file in files {
        md5s.extend(Stored::open(file, &Default::default())?.tensor_md5s().into_iter().map(|(_, md5)| md5));
    }
    Ok(patches.iter().flat_map(|patch| &patch.record.tensors).all(|needed| md5s.contains(&needed.md5)))
}

/// Asks whether to fetch a base; nobody who could not answer.
///
/// # Errors
/// When a signal is the answer.
fn is_wanted(args: &Args, repo: &RepoId) -> Result<bool, Failure> {
    let mut screen = io::stderr();
    if !io::stdin().is_terminal() || !screen.is_terminal() || args.report.quiet || args.report.json {
        return Ok(false);
    }
    let _ = write!(screen, "The base is not in the cache of the Hub. Fetch {repo}? [y/N] ");
    // To read goes on after a signal, so that another thread has to do it.
    let (sender, answers) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = String::new();
        let _ = io::stdin().read_line(&mut answer);
        let _ = sender.send(answer);
    });
    loop {
        match answers.recv_timeout(Duration::from_millis(50)) {
            Ok(answer) => return Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str())),
            Err(RecvTimeoutError::Timeout) if interrupt::caught().is_none() => {}
            Err(_) => {
                let _ = writeln!(screen);
                return Err(hub::Error::interrupted().into());
            }
        }
    }
}
