//! `bigsmall push`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bigsmall_codec::output::TEMPORARY_SUFFIX;
use bigsmall_codec::{Original, Stored};
use serde::Serialize;

use super::{has_container_name, in_container};
use crate::failure::Failure;
use crate::hub::api::Revision;
use crate::hub::card::{CARD, Card, Row, is_ours};
use crate::hub::download::PARTIAL_SUFFIX;
use crate::hub::repo::{MAIN, parse_revision};
use crate::hub::settings::Settings;
use crate::hub::upload::{Item, Way};
use crate::hub::{ErrorKind, Hub, RepoId, RepoPath, Source, workers};
use crate::interrupt;
use crate::options::{Private, Report, Workers};
use crate::tree::{Entry, Oddities, Tree};
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::{self, count, hex};

/// Directories that belong to tools and not to the model.
const NOT_OF_THE_MODEL: [&str; 4] = [".git", ".cache", ".bigsmall", "__pycache__"];

const EXAMPLES: &str = "\
Examples:
  bigsmall push Qwen3-0.6B-bigsmall me/Qwen3-0.6B-bigsmall --base-model Qwen/Qwen3-0.6B
      what bigsmall compress made of Qwen3-0.6B; makes the repo if there is none, and all of it
      appears there in one commit
  bigsmall push --private --revision next Qwen3-0.6B-bigsmall me/Qwen3-0.6B-bigsmall
      in a private repo, in the branch next
  bigsmall push my-tune-patch me/my-tune-patch --base-model meta-llama/Llama-3-8B
      a patch; the card says what it is of, so that bigsmall pull --patch finds that

Interrupted, the same command goes on with the file at which it stopped. What the repo has already
is not sent again, and nothing is removed from it. HF_TOKEN must be a token that may write, unless
you have logged in.";

/// Put a directory of containers into a repo of the Hugging Face Hub
///
/// Without a README.md in DIR or in the repo a model card is written: what it is, what is saved, how to use it. A card that somebody
/// wrote stays.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The directory, as bigsmall compress makes it
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// The repo, such as me/name
    #[arg(value_name = "REPO", value_parser = RepoId::parse)]
    repo: RepoId,

    #[command(flatten)]
    private: Private,

    /// The branch to put it into, which is made of main if there is none
    #[arg(long, value_name = "BRANCH", default_value = MAIN, value_parser = parse_revision)]
    revision: String,

    /// What the commit is called
    #[arg(long, value_name = "TEXT", default_value = "Upload bigsmall containers")]
    message: String,

    /// The repo of the originals, or of what patches were made of, for the model card
    #[arg(long, value_name = "REPO", value_parser = RepoId::parse)]
    base_model: Option<RepoId>,

    #[command(flatten)]
    workers: Workers,

    #[command(flatten)]
    report: Report,
}

/// The result for programs.
#[derive(Serialize)]
struct Json {
    repo: String,
    revision: String,
    /// The commit that has it all; the one that was there if there was nothing to do.
    commit: String,
    url: String,
    files: u64,
    /// Files that the repo had already.
    present: u64,
    /// Files that a .gitignore in the repo names.
    ignored: Vec<String>,
    /// Bytes of large files that were sent.
    sent_bytes: u64,
}

/// Uploads.
///
/// # Errors
/// When not all of it is in the repo afterwards.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let files = files_of(&args.directory)?;
    let rows = rows_of(&files)?;
    if rows.is_empty() {
        let advice = "bigsmall compress makes them";
        return Err(Failure::new(format!("{}: there is no container in it; {advice}", args.directory.display())));
    }
    let hub = Hub::new(Settings::from_environment()?)?;
    interrupt::watch()?;
    let target = Source { repo: args.repo.clone(), revision: args.revision.clone() };
    let base = hub.ensure_branch(&target, args.private.private)?;
    let meter = Meter::new(files.iter().map(|file| file.metadata.len()).sum(), args.report.quiet);
    let result = publish(args, &hub, &target, base, &files, &rows, &meter);
    drop(meter);
    let json = result?;
    show(args.report, &json)?;
    Ok(ExitCode::SUCCESS)
}

fn publish(
    args: &Args,
    hub: &Hub,
    target: &Source,
    base: Revision,
    files: &[Entry],
    rows: &[Row],
    meter: &Meter,
) -> Result<Json, Failure> {
    let workers = args.workers.number(false);
    let mut items = workers::each(files, workers, meter, |file, watch| {
        Item::of_file(RepoPath::of(&file.relative)?, file.path.clone(), watch)
    })?;
    let number = items.len() as u64;
    add_card(args, hub, &base, rows, &mut items)?;
    let plan = |base: &Revision| workers::alone(meter, |watch| hub.plan(base, &target.revision, items.clone(), watch));
    let first = plan(&base)?;
    let sent = workers::each(&first.missing, workers, meter, |(item, way), watch| match way {
        Way::Lfs => hub.upload(&args.repo, &target.revision, item, watch),
        Way::Commit | Way::Ignored => Ok(0),
    })?;
    let todo = first.missing.iter().filter(|(_, way)| *way != Way::Ignored).count();
    let commit = if todo == 0 {
        first.base.commit.clone()
    } else {
        match hub.commit(&first, &target.revision, &args.message) {
            // The answer was lost, or somebody did the same at the same time: what matters is what is there now.
            Err(error) if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Conflict) => {
                let now = plan(&hub.revision(target)?)?;
                match now.missing.iter().any(|(_, way)| *way != Way::Ignored) {
                    true => {
                        return Err(Failure::new(format!(
                            "{error}\nrun the same command again: what was sent is there"
                        )));
                    }
                    false => now.base.commit,
                }
            }
            other => other?,
        }
    };
    let ignored = first.missing.iter().filter(|(_, way)| *way == Way::Ignored);
    Ok(Json {
        repo: args.repo.to_string(),
        revision: target.revision.clone(),
        commit,
        url: format!("{}/{}/tree/{}", hub.settings().endpoint, args.repo, target.revision),
        files: number,
        present: (items.len() - first.missing.len()) as u64,
        ignored: ignored.map(|(item, _)| item.path.to_string()).collect(),
        sent_bytes: sent.iter().sum(),
    })
}

/// The files of a directory that belong to the model.
fn files_of(directory: &Path) -> Result<Vec<Entry>, Failure> {
    let is_ours = |entry: &Entry| {
        let name = entry.relative.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = name.ends_with(PARTIAL_SUFFIX) || name.ends_with(TEMPORARY_SUFFIX);
        let tools = entry.relative.iter().any(|part| NOT_OF_THE_MODEL.iter().any(|tool| part == OsStr::new(tool)));
        !unfinished && !tools
    };
    let mut files = Tree::read(directory, Oddities::Refuse)?.files;
    files.retain(is_ours);
    Ok(files)
}

/// What a card says of the containers among these files.
fn rows_of(files: &[Entry]) -> Result<Vec<Row>, Failure> {
    let containers = files.iter().filter(|file| has_container_name(&file.path));
    let rows = containers.map(|file| {
        let stored = Stored::open(&file.path, &Arc::default()).map_err(|e| in_container(e, &file.path))?;
        Ok(Row {
            container: file.relative.display().to_string(),
            original: stored.original_name().to_owned(),
            original_len: stored.len(),
            stored_len: file.metadata.len(),
            sha256: stored.sha256().copied(),
            patch_of: stored.base_record().map(|base| (base.name.clone(), base.fingerprint)),
            md5s: stored.tensor_md5s().into_iter().map(|(name, md5)| (name, hex(&md5))).collect(),
        })
    });
    rows.collect()
}

/// Adds the model card to what is to be in the repo, unless somebody wrote one.
fn add_card(args: &Args, hub: &Hub, base: &Revision, rows: &[Row], items: &mut Vec<Item>) -> Result<(), Failure> {
    let path = RepoPath::parse(CARD)?;
    let local = args.directory.join(CARD);
    if let Ok(text) = std::fs::read_to_string(&local) {
        if !is_ours(&text) {
            return Ok(());
        }
        items.retain(|item| item.path != path);
    } else if hub.text(base, &path)?.is_some_and(|text| !is_ours(&text)) {
        return Ok(());
    }
    let endpoint = &hub.settings().endpoint;
    let card = Card { repo: &args.repo, base: args.base_model.as_ref(), base_card: None, endpoint, rows };
    items.push(Item::of_text(path, card.render()));
    Ok(())
}

fn show(report: Report, json: &Json) -> Result<(), Failure> {
    if report.json {
        return ui::print_json(json);
    }
    if report.quiet {
        return Ok(());
    }
    let mut text =
        format!("{} at {}: {}", json.repo, &json.commit[..json.commit.len().min(8)], count(json.files, "file"));
    text += &match json.present {
        0 => format!(", {} sent", show_size(json.sent_bytes)),
        present => format!(", {present} were there, {} sent", show_size(json.sent_bytes)),
    };
    if !json.ignored.is_empty() {
        text += &format!("\nleft out, since a .gitignore in the repo names them: {}", json.ignored.join(", "));
    }
    ui::print(&ui::printable(&format!("{text}\n{}\n", json.url)))
}
