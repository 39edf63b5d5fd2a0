//! `bigsmall pull`.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
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
use crate::options::{Force, Report, Threads};
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::{self, count};

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

    #[command(flatten)]
    mode: ModeArgs,

    /// Fetch N files at a time; without it 4, with --compress 2
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

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

/// Fetches.
///
/// # Errors
/// When not all of it could be brought; what has arrived is kept for the next time.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let settings = Settings::from_environment()?;
    let cache = RepoCache::new(&settings.cache, &args.source.repo);
    if let (true, None, Some(known)) = (settings.offline, &args.directory, cache.known(&args.source)) {
        ui::print(&format!("{}: as it was last fetched, since HF_HUB_OFFLINE is set\n", args.source))?;
        ui::print(&format!("{}\n", known.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let hub = Hub::new(settings)?;
    interrupt::watch()?;
    let revision = hub.revision(&args.source)?;
    let all = hub.files(&revision)?;
    let names: BTreeSet<_> = all.iter().map(|file| file.path.clone()).collect();
    let wanted =
        |file: &File| args.include.is_empty() || args.include.iter().any(|pattern| pattern.matches(file.path.as_str()));
    let files: Vec<File> = all.into_iter().filter(wanted).collect();
    if files.is_empty() {
        let patterns: Vec<&str> = args.include.iter().map(glob::Pattern::as_str).collect();
        return Err(Failure::new(match patterns.as_slice() {
            [] => format!("{}: there is no file in it", args.source),
            _ => format!("{}: there is no file in it that --include {} fits", args.source, patterns.join(" or ")),
        }));
    }
    let (place, root) = match &args.directory {
        Some(directory) => {
            fs::create_dir_all(directory)
                .map_err(|e| Failure::new(format!("{}: cannot be created: {e}", directory.display())))?;
            let existing = args.force.existing();
            (Place::Directory { root: directory.clone(), existing }, directory.clone())
        }
        None => (Place::Cache(cache.clone()), cache.snapshot(&revision.commit)),
    };
    let pool = args.threads.pool()?;
    let mode = args.mode.mode();
    let options = Options { mode, chunk_size: mode.chunk_size() };
    let compression = args.compress.then_some(Compression { options, pool: &pool });
    let workers = args.workers.map_or(if args.compress { 2 } else { 4 }, NonZeroUsize::get);
    let meter = Meter::new(files.iter().map(|file| passes(file, args.compress)).sum(), args.report.quiet);
    let delivery = Delivery { hub: &hub, revision: &revision, place, compression, all: names };
    let placed = workers::each(&files, workers, &meter, |file, watch| delivery.bring(file, watch));
    drop(meter);
    let placed = placed?;
    if args.directory.is_none() {
        cache.set_ref(&args.source.revision, &revision.commit)?;
    }
    show(args, &revision, &root, &files, &placed)?;
    Ok(ExitCode::SUCCESS)
}

fn show(
    args: &Args,
    revision: &Revision,
    root: &std::path::Path,
    files: &[File],
    placed: &[Placed],
) -> Result<(), Failure> {
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
    ui::print(&ui::printable(&format!("{text}\n{}\n", root.display())))
}
