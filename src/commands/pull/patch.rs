//! `bigsmall pull --patch`: the base of what came, and what the two make.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use bigsmall_codec::patch::{BaseRecord, Check};
use bigsmall_codec::{Error, Stored};
use bigsmall_fs::models::{Depth, ModelFiles, in_directory};

use super::{Args, fetch};
use crate::base::{BaseArgs, Bases, model_of};
use crate::commands::{containers_in, decompress, has_container_name, holds_weights, in_container};
use crate::failure::Failure;
use crate::hub::card::{CARD, base_model};
use crate::hub::repo::MAIN;
use crate::hub::{Hub, RepoId, Source};
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
    let (base, bases) = if args.bases.is_empty() {
        let known = in_directory(cache, Depth::AllBelow).unwrap_or_default();
        match find(&known, &patches) {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => fetched(args, hub, root, &patches)?,
        }
    } else {
        (args.bases.clone(), Bases::open(&args.bases)?)
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

/// The patches in a directory.
fn patches_in(root: &Path) -> Result<Vec<Patch>, Failure> {
    let mut patches = Vec::new();
    for path in containers_in(root).unwrap_or_default() {
        let stored = Stored::open(&path, &Default::default()).map_err(|e| in_container(e, &path))?;
        if let Some(record) = stored.base_record() {
            patches.push(Patch { record: record.clone(), path });
        }
    }
    Ok(patches)
}

/// The first of the models that is the base of all patches. What cannot be read is no base.
///
/// # Errors
/// Why the last model of that name is not the base, if there is one.
fn find(models: &[ModelFiles], patches: &[Patch]) -> Result<Option<(Vec<PathBuf>, Bases)>, Error> {
    let mut refused = None;
    for ModelFiles { parts } in models {
        let files: Vec<PathBuf> = parts.iter().map(|part| part.path.clone()).collect();
        let Ok(model) = model_of(&files) else { continue };
        let fits = patches.iter().try_for_each(|patch| model.base_for(&patch.record, Check::Probe, &()).map(drop));
        match (fits, files.as_slice()) {
            (Ok(()), [file]) => return Ok(Some((vec![file.clone()], Bases::of(model)))),
            (Ok(()), files) => {
                let directory = files.first().and_then(|file| file.parent()).map(Path::to_path_buf);
                return Ok(Some((directory.into_iter().collect(), Bases::of(model))));
            }
            (Err(error), _) => refused = Some(error),
        }
    }
    refused.map_or(Ok(None), Err)
}

/// The base, from the repo that the card of the patch names.
fn fetched(args: &Args, hub: Option<&Hub>, root: &Path, patches: &[Patch]) -> Result<(Vec<PathBuf>, Bases), Failure> {
    let card = fs::read_to_string(root.join(CARD)).unwrap_or_default();
    let record = &patches[0].record;
    let missing = format!(
        "{}: the base {:?} (fingerprint {:.8}...) is not in the cache of the Hub",
        args.source,
        record.name,
        record.fingerprint.to_string()
    );
    let Some(repo) = base_model(&card) else {
        let advice = "its card does not say in which repo it is; give it with --base";
        return Err(Failure::new(format!("{missing}\n{advice}")));
    };
    let Some(hub) = hub.filter(|_| args.yes || is_wanted(args, &repo)) else {
        let advice = format!("bigsmall pull {repo} fetches it, and so does --yes; or give it with --base");
        return Err(Failure::new(format!("{missing}\n{advice}")));
    };
    let source = Source { repo, revision: MAIN.to_owned() };
    // What belongs to the weights is of no use to a base.
    let base = fetch(args, hub, &source, None, |file| {
        holds_weights(file.path.as_path()) || has_container_name(file.path.as_path())
    })?;
    let models = in_directory(&base.root, Depth::AllBelow);
    let models = models.map_err(|e| Failure::new(format!("{}: cannot be read: {e}", base.root.display())))?;
    let another = |why: &str| Failure::new(format!("{source}, which the card of {} names: {why}", args.source));
    match find(&models, patches) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(another("there is no model in it that can be read")),
        Err(error) => Err(another(&error.to_string())),
    }
}

/// Asks whether to fetch a base; nobody who could not answer.
fn is_wanted(args: &Args, repo: &RepoId) -> bool {
    let (input, mut screen) = (io::stdin(), io::stderr());
    if !input.is_terminal() || !screen.is_terminal() || args.report.quiet || args.report.json {
        return false;
    }
    let _ = write!(screen, "The base is not in the cache of the Hub. Fetch {repo}? [y/N] ");
    let mut answer = String::new();
    let read = input.read_line(&mut answer).is_ok() && interrupt::caught().is_none();
    read && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}
