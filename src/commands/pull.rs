//! `bigsmall pull`.

mod patch;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bigsmall_codec::container::Options;
use serde::Serialize;

use super::compress::ModeArgs;
use crate::failure::Failure;
use crate::hub::api::{File, Revision};
use crate::hub::cache::RepoCache;
use crate::hub::place::{Compression, Delivery, How, Place, Placed, passes};
use crate::hub::settings::Settings;
use crate::hub::{Hub, Source, workers};
use crate::interrupt;
use crate::options::{Force, Report, Threads, Workers};
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::{self, count};
use patch::Completed;

const EXAMPLES: &str = "\
Examples:
  bigsmall pull Qwen/Qwen3-0.6B
      into the cache that all tools of the Hub share
  bigsmall pull Qwen/Qwen3-0.6B@v1.0 qwen
      the files of the tag v1.0 into the directory qwen
  bigsmall pull --include '*.safetensors' --include '*.json' Qwen/Qwen3-0.6B qwen
      only files of these names
  bigsmall pull --compress Qwen/Qwen3-0.6B qwen
      turns each shard into a .bs as it arrives; bigsmall mount qwen MNT shows them as they were
  bigsmall pull --compress Qwen/Qwen3-0.6B
      so in the cache, to be mounted with --hf-cache
  bigsmall pull --patch me/my-tune-patch -o my-tune
      a patch, and the model that it makes of its base, which is looked for in the cache of the Hub

Interrupted or cut off, the same command goes on where it stopped. HF_ENDPOINT, HF_TOKEN, HF_HOME,
HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean to other tools of the Hub.";

/// Fetch a model from the Hugging Face Hub
///
/// Every file is compared with the size and the hash that the Hub lists and gets its name when it is whole. What is there
/// already is not fetched again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repo, such as org/name, and a branch, tag or commit of it
    #[arg(value_name = "REPO[@REVISION]", value_parser = Source::parse)]
    source: Source,

    /// The directory to put the files in; without it, the cache of the Hub
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Fetch only files whose path this pattern fits, as in '*.json'; may be given more than once
    ///
    /// The characters *, ? and [...] have the meaning that they have in a shell, but * fits slashes too.
    #[arg(long, value_name = "GLOB", value_parser = glob::Pattern::new)]
    include: Vec<glob::Pattern>,

    /// Store each .safetensors and .gguf file as a container as soon as it is there
    ///
    /// As many of them as there are workers lie on disk as they are, and no more. In a directory their containers are called as
    /// bigsmall compress calls them; in the cache they have the names of the files, as with compress --hf-cache.
    #[arg(long)]
    compress: bool,

    /// Find the base of the patches that come, and check it: what --base names, or what it is in the cache of the Hub
    ///
    /// If it is not there, the repo that the card of the patch names is told, and fetched if you wish.
    #[arg(long, conflicts_with = "compress")]
    patch: bool,

    /// What the patches were made of: a file or directory, compressed or not; more than once for patches of patches
    #[arg(long = "base", value_name = "BASE", requires = "patch")]
    bases: Vec<PathBuf>,

    /// Write the model that patches and base make to this directory
    #[arg(short, long, value_name = "OUT", requires = "patch")]
    output: Option<PathBuf>,

    /// Fetch the base without asking
    #[arg(short, long, requires = "patch")]
    yes: bool,

    #[command(flatten)]
    mode: ModeArgs,

    #[command(flatten)]
    workers: Workers,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    report: Report,
}

/// The result for programs.
#[derive(Serialize)]
struct Json {
    repo: String,
    revision: String,
    commit: String,
    /// Where the files are.
    path: String,
    files: Vec<JsonFile>,
    bytes: u64,
    stored_bytes: u64,
    /// With --patch, what the base is.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<Vec<String>>,
    /// The model that was made of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

#[derive(Serialize)]
struct JsonFile {
    path: String,
    /// The size that the Hub lists.
    bytes: u64,
    /// Where it is here, and its size there.
    file: String,
    stored_bytes: u64,
    how: &'static str,
}

/// What has come.
struct Fetched {
    revision: Revision,
    /// Where it is.
    root: PathBuf,
    files: Vec<File>,
    placed: Vec<Placed>,
}

/// Fetches.
///
/// # Errors
/// When not all of it could be brought; what has arrived is kept for the next time.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let settings = Settings::from_environment()?;
    let cache = settings.cache.clone();
    let known = RepoCache::new(&cache, &args.source.repo).known(&args.source);
    if let (true, None, Some(known)) = (settings.offline, &args.directory, known) {
        ui::print(&format!("{}: as it was last fetched, since HF_HUB_OFFLINE is set\n", args.source))?;
        ui::print(&format!("{}\n", known.display()))?;
        if args.patch {
            interrupt::watch()?;
            ui::print(&describe(&known, &patch::complete(args, None, &cache, &known)?))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let hub = Hub::new(settings)?;
    interrupt::watch()?;
    let wanted =
        |file: &File| args.include.is_empty() || args.include.iter().any(|pattern| pattern.matches(file.path.as_str()));
    let fetched = fetch(args, &hub, &args.source, args.directory.as_deref(), wanted)?;
    let completed = args.patch.then(|| patch::complete(args, Some(&hub), &cache, &fetched.root)).transpose()?;
    show(args, &fetched, completed.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

/// Brings those files of a repo that are wanted, into a directory or the cache.
fn fetch(
    args: &Args,
    hub: &Hub,
    source: &Source,
    directory: Option<&Path>,
    wanted: impl Fn(&File) -> bool,
) -> Result<Fetched, Failure> {
    let revision = hub.revision(source)?;
    let all = hub.files(&revision)?;
    let names: BTreeSet<_> = all.iter().map(|file| file.path.clone()).collect();
    let files: Vec<File> = all.into_iter().filter(wanted).collect();
    if files.is_empty() {
        let patterns: Vec<&str> = args.include.iter().map(glob::Pattern::as_str).collect();
        return Err(Failure::new(match patterns.as_slice() {
            [] => format!("{source}: there is no file in it"),
            _ => format!("{source}: there is no file in it that --include {} fits", patterns.join(" or ")),
        }));
    }
    let cache = RepoCache::new(&hub.settings().cache, &source.repo);
    let (place, root) = match directory {
        Some(directory) => {
            fs::create_dir_all(directory)
                .map_err(|e| Failure::new(format!("{}: cannot be created: {e}", directory.display())))?;
            let existing = args.force.existing();
            (Place::Directory { root: directory.to_owned(), existing }, directory.to_owned())
        }
        None => (Place::Cache(cache.clone()), cache.snapshot(&revision.commit)),
    };
    let pool = args.threads.pool()?;
    let mode = args.mode.mode();
    let options = Options { mode, chunk_size: mode.chunk_size() };
    let compression = args.compress.then_some(Compression { options, pool: &pool });
    let workers = args.workers.number(args.compress);
    let meter = Meter::new(files.iter().map(|file| passes(file, args.compress)).sum(), args.report.quiet);
    let delivery = Delivery { hub, revision: &revision, place, compression, all: names };
    let placed = workers::each(&files, workers, &meter, |file, watch| delivery.bring(file, watch));
    drop(meter);
    let placed = placed?;
    if directory.is_none() {
        cache.set_ref(&source.revision, &revision.commit)?;
    }
    Ok(Fetched { revision, root, files, placed })
}

/// What became of a patch at `root`, for people.
fn describe(root: &Path, completed: &Completed) -> String {
    let bases: Vec<String> = completed.base.iter().map(|base| base.display().to_string()).collect();
    let what = match &completed.output {
        Some(output) => format!("the model of both: {}", output.display()),
        None => format!(
            "to have the model of both: bigsmall mount --base {} {} MNT",
            bases.join(" --base "),
            root.display()
        ),
    };
    ui::printable(&format!("its base: {}\n{what}\n", bases.join(" ")))
}

fn show(args: &Args, fetched: &Fetched, completed: Option<&Completed>) -> Result<(), Failure> {
    let Fetched { revision, root, files, placed } = fetched;
    let (bytes, stored) =
        (files.iter().map(|file| file.size).sum(), placed.iter().map(|placed| placed.stored_len).sum());
    if args.report.json {
        let files = files.iter().zip(placed).map(|(file, placed)| JsonFile {
            path: file.path.to_string(),
            bytes: file.size,
            file: placed.target.display().to_string(),
            stored_bytes: placed.stored_len,
            how: match placed.how {
                How::Present => "present",
                How::Fetched => "fetched",
                How::Compressed => "compressed",
            },
        });
        return ui::print_json(&Json {
            repo: revision.repo.to_string(),
            revision: args.source.revision.clone(),
            commit: revision.commit.clone(),
            path: root.display().to_string(),
            files: files.collect(),
            bytes,
            stored_bytes: stored,
            base: completed.map(|completed| completed.base.iter().map(|base| base.display().to_string()).collect()),
            output: completed.and_then(|completed| Some(completed.output.as_ref()?.display().to_string())),
        });
    }
    if args.report.quiet {
        return Ok(());
    }
    let present = placed.iter().filter(|placed| placed.how == How::Present).count();
    let mut text = format!(
        "{} at {}: {}, {}",
        args.source,
        &revision.commit[..8],
        count(files.len() as u64, "file"),
        show_size(bytes)
    );
    if stored != bytes {
        text += &format!(", stored in {}", show_size(stored));
    }
    match present {
        0 => {}
        all if all == placed.len() => text += "; all were there",
        1 => text += "; 1 was there",
        some => text += &format!("; {some} were there"),
    }
    ui::print(&ui::printable(&format!("{text}\n{}\n", root.display())))?;
    completed.map_or(Ok(()), |completed| ui::print(&describe(root, completed)))
}
