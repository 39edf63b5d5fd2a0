//! `bigsmall pipeline`: fetch, compress, verify and upload a model, shard by shard.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bigsmall_codec::container::{Mode, Options};
use bigsmall_codec::output::Existing;
use bigsmall_codec::{Container, Progress};
use serde::Serialize;

use super::compress::holds_weights;
use super::in_container;
use crate::failure::Failure;
use crate::hub::api::{File, Revision};
use crate::hub::card::{CARD, Card, Row, is_ours};
use crate::hub::checkpoint::{Checkpoint, Record, State, Step, lock};
use crate::hub::digest::ContentId;
use crate::hub::place::{Compression, Delivery, Place, passes};
use crate::hub::repo::MAIN;
use crate::hub::settings::{Settings, Token};
use crate::hub::upload::{Contents, Item, Way};
use crate::hub::workers::{self, Watch};
use crate::hub::{Error, ErrorKind, Hub, RepoId, RepoPath, Source};
use crate::interrupt;
use crate::options::{Private, Report, Threads, Workers};
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{self, count, hex, percent};

/// What is said of the commit.
const MESSAGE: &str = "Upload bigsmall containers";

const EXAMPLES: &str = "\
Examples:
  bigsmall pipeline run Qwen/Qwen3-0.6B work --repo-id me/Qwen3-0.6B-bigsmall
      fetches each file, makes the weights containers, checks and uploads them; in the end the
      repo shows all at once
  bigsmall pipeline run Qwen/Qwen3-0.6B work --discard
      into a repo of yours, called Qwen3-0.6B-bigsmall; work holds no more than what is being
      worked on
  bigsmall pipeline run Qwen/Qwen3-0.6B work --no-upload
      only makes the directory
  bigsmall pipeline status work
      says how far it is";

/// Fetch, compress, check and publish a model, shard by shard
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(RunArgs),
    Status(StatusArgs),
}

/// Do it, or go on with it
///
/// As many shards as there are workers lie on disk as they are. Every step is noted when it is done: killed at any moment, the same
/// command goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct RunArgs {
    /// The repo of the originals, such as org/name, and a branch, tag or commit of it
    #[arg(value_name = "SRC[@REVISION]", value_parser = Source::parse)]
    source: Source,

    /// The directory to work in, which is made
    #[arg(value_name = "DST_DIR")]
    directory: PathBuf,

    /// The repo to publish in; without it one of yours called SRC-bigsmall
    #[arg(long, value_name = "REPO", value_parser = RepoId::parse, conflicts_with = "no_upload")]
    repo_id: Option<RepoId>,

    #[command(flatten)]
    private: Private,

    /// Leave everything in DST_DIR
    #[arg(long, conflicts_with = "private")]
    no_upload: bool,

    /// Remove each file from DST_DIR as soon as the Hub has it
    #[arg(long, conflicts_with = "no_upload")]
    discard: bool,

    /// Copy the files as they are
    #[arg(long)]
    no_compress: bool,

    /// What to optimise the containers for
    #[arg(long, value_name = "MODE", default_value = "balanced", value_parser = ["storage", "balanced", "inference"])]
    mode: String,

    #[command(flatten)]
    workers: Workers,

    /// The token; HF_TOKEN does not show in the list of processes and is better
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    token: Option<Token>,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    report: Report,
}

fn parse_token(text: &str) -> Result<Token, String> {
    Token::new(text).ok_or_else(|| "not a token".to_owned())
}

/// Say how far it is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct StatusArgs {
    /// The directory that is worked in
    #[arg(value_name = "DST_DIR")]
    directory: PathBuf,

    /// Give the result as JSON, with exact numbers
    #[arg(long)]
    json: bool,
}

/// Does what is asked for.
///
/// # Errors
/// When it cannot.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Run(args) => run_pipeline(args),
        Command::Status(args) => {
            let state = State::read(&args.directory)?
                .ok_or_else(|| Failure::new(format!("{}: no pipeline has worked in it", args.directory.display())))?;
            show(&args.directory, &state, args.json)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A pipeline at work.
struct Pipeline<'a> {
    args: &'a RunArgs,
    hub: &'a Hub,
    delivery: Delivery<'a>,
    checkpoint: Checkpoint,
    /// Where it goes.
    target: Option<Source>,
}

fn run_pipeline(args: &RunArgs) -> Result<ExitCode, Failure> {
    let mut settings = Settings::from_environment()?;
    settings.token = args.token.clone().or(settings.token);
    let hub = Hub::new(settings)?;
    interrupt::watch()?;
    let repo = match (&args.repo_id, args.no_upload) {
        (_, true) => None,
        (Some(repo), _) => Some(repo.clone()),
        (None, _) => {
            let name = format!("{}/{}-bigsmall", hub.user()?, args.source.repo.name());
            Some(RepoId::parse(&name).map_err(|e| Failure::new(format!("{e}\n--repo-id gives another name")))?)
        }
    };
    let held = lock(&args.directory)?;
    let state = begin(args, &hub, repo.as_ref())?;
    let target = repo.map(|repo| Source { repo, revision: MAIN.to_owned() });
    // Before hours of work, rather than after them.
    let base = target.as_ref().map(|target| hub.ensure_branch(target, args.private.private)).transpose()?;
    let pool = args.threads.pool()?;
    let mode = match args.mode.as_str() {
        "storage" => Mode::Storage,
        "inference" => Mode::Inference,
        _ => Mode::Balanced,
    };
    let options = Options { mode, chunk_size: mode.chunk_size() };
    let revision =
        Revision { repo: args.source.repo.clone(), commit: state.commit.clone(), private: false, files: None };
    let all = hub.files(&revision)?;
    let delivery = Delivery {
        hub: &hub,
        revision: &revision,
        place: Place::Directory { root: args.directory.clone(), existing: Existing::Refuse },
        compression: (!args.no_compress).then_some(Compression { options, pool: &pool }),
        all: all.iter().map(|file| file.path.clone()).collect(),
    };
    // The card of the originals is not that of the containers.
    let is_card = |file: &File| target.is_some() && !args.no_compress && file.path.as_str() == CARD;
    let files: Vec<File> = all.into_iter().filter(|file| !is_card(file)).collect();
    let checkpoint = Checkpoint::new(&args.directory, state, held)?;
    checkpoint.change(|state| {
        state.wanted = files.iter().map(|file| (file.path.to_string(), file.size)).collect();
        let current = |path: &String, record: &mut Record| {
            files.iter().any(|file| file.path.as_str() == path && file.id.to_string() == record.source_id)
        };
        state.files.retain(current);
    })?;
    let pipeline = Pipeline { args, hub: &hub, delivery, checkpoint, target };
    pipeline.work(&files, base.as_ref())?;
    let state = pipeline.checkpoint.state();
    if !args.report.quiet {
        show(&args.directory, &state, args.report.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was done before, or that nothing was.
fn begin(args: &RunArgs, hub: &Hub, repo: Option<&RepoId>) -> Result<State, Failure> {
    let source = args.source.to_string();
    let mode = if args.no_compress { "none" } else { args.mode.as_str() };
    let repo = repo.map(RepoId::to_string);
    match State::read(&args.directory)? {
        Some(state) if (state.source.as_str(), state.mode.as_str()) != (source.as_str(), mode) => {
            Err(Failure::new(format!(
                "{}: a pipeline of {} (mode {}) has worked in it; give another directory",
                args.directory.display(),
                state.source,
                state.mode
            )))
        }
        // To go on is to go on with the same commit, whatever the branch is by now.
        Some(state) if !state.finished && state.repo == repo => Ok(state),
        Some(mut state) => {
            state.commit = hub.revision(&args.source)?.commit;
            if state.repo != repo {
                // What one repo has, another has not.
                state.files.values_mut().for_each(|record| record.step = Step::Stored);
            }
            (state.repo, state.finished, state.published) = (repo, false, None);
            Ok(state)
        }
        None => Ok(State::new(source, hub.revision(&args.source)?.commit, mode.to_owned(), repo)),
    }
}

impl Pipeline<'_> {
    fn work(&self, files: &[File], base: Option<&Revision>) -> Result<(), Failure> {
        let compressed = self.delivery.compression.is_some();
        let upload = |file: &File| if base.is_some() { file.size } else { 0 };
        let total = files.iter().map(|file| passes(file, compressed) + upload(file)).sum();
        let meter = Meter::new(total, self.args.report.quiet);
        let result = workers::each(files, self.args.workers.number(compressed), &meter, |file, watch| {
            self.step(file, base, watch)
        });
        let mut items = result?;
        let published = match (&self.target, base) {
            (Some(target), Some(base)) => Some(self.publish(target, base, &mut items, &meter)?),
            _ => None,
        };
        drop(meter);
        self.checkpoint.change(|state| (state.finished, state.published) = (true, published))?;
        Ok(())
    }

    /// Brings one file as far as it goes by itself.
    fn step(&self, file: &File, base: Option<&Revision>, watch: &Watch<'_>) -> Result<Item, Error> {
        let known = self.checkpoint.state().files.remove(file.path.as_str());
        if let Some(item) = known.as_ref().and_then(|record| self.done(record, base.is_some())) {
            watch.advance(passes(file, self.delivery.compression.is_some()) + file.size);
            return Ok(item);
        }
        let placed = self.delivery.bring(file, watch)?;
        let relative = placed.target.strip_prefix(&self.args.directory).unwrap_or(&placed.target);
        let item = Item::of_file(RepoPath::of(relative)?, placed.target.clone(), watch)?;
        let record = Record {
            source_id: file.id.to_string(),
            original_bytes: file.size,
            file: item.path.to_string(),
            stored_bytes: item.size,
            sha256: ContentId::Sha256(item.sha256).to_string(),
            step: Step::Stored,
            tensor_md5s: self.tensor_md5s(file, &placed.target)?,
        };
        self.checkpoint.change(|state| state.note(file.path.as_str(), record))?;
        let (Some(target), Some(base)) = (&self.target, base) else { return Ok(item) };
        let plan = self.hub.ways(&base.repo, &target.revision, std::slice::from_ref(&item))?;
        if plan != [Way::Lfs] {
            return Ok(item);
        }
        self.hub.upload(&target.repo, &target.revision, &item, watch)?;
        self.checkpoint.change(|state| {
            if let Some(record) = state.files.get_mut(file.path.as_str()) {
                record.step = Step::Uploaded;
            }
        })?;
        if self.args.discard {
            fs::remove_file(&placed.target).map_err(|e| Error::file(&placed.target, "cannot be removed", &e))?;
        }
        Ok(Item { contents: Contents::Uploaded, ..item })
    }

    /// The MD5s of the tensors of what a file became, if that is a container.
    fn tensor_md5s(&self, file: &File, target: &Path) -> Result<Vec<(String, String)>, Error> {
        if self.delivery.compression.is_none() || !holds_weights(file.path.as_path()) {
            return Ok(Vec::new());
        }
        let container = Container::open(target).map_err(|e| in_container(e, target))?;
        Ok(container.tensors().iter().map(|tensor| (tensor.name.clone(), hex(&tensor.md5))).collect())
    }

    /// What a record says, if nothing is left to do for it.
    fn done(&self, record: &Record, upload: bool) -> Option<Item> {
        let Some(ContentId::Sha256(sha256)) = ContentId::parse(&record.sha256) else { return None };
        let path = RepoPath::parse(&record.file).ok()?;
        let here = self.args.directory.join(path.as_path());
        let contents = match record.step {
            Step::Uploaded if upload => Contents::Uploaded,
            // Large ones are still to be uploaded.
            _ if upload => return None,
            _ if fs::metadata(&here).is_ok_and(|there| there.len() == record.stored_bytes) => Contents::File(here),
            _ => return None,
        };
        Some(Item { path, contents, size: record.stored_bytes, sha256 })
    }

    /// Puts all of it into the repo, with a card, and says which commit has it.
    fn publish(&self, target: &Source, base: &Revision, items: &mut Vec<Item>, meter: &Meter) -> Result<String, Error> {
        if self.delivery.compression.is_some() {
            self.add_card(target, base, items)?;
        }
        for _ in 0..2 {
            let now = self.hub.revision(target)?;
            let plan = workers::alone(meter, |watch| self.hub.plan(&now, &target.revision, items.clone(), watch))?;
            if plan.missing.iter().all(|(_, way)| *way == Way::Ignored) {
                return Ok(now.commit);
            }
            for (item, way) in &plan.missing {
                if *way == Way::Lfs {
                    workers::alone(meter, |watch| self.hub.upload(&target.repo, &target.revision, item, watch))?;
                }
            }
            match self.hub.commit(&plan, &target.revision, MESSAGE) {
                // The answer was lost, or somebody else was faster: look again at what is there.
                Err(error) if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Conflict) => {}
                other => return other,
            }
        }
        let message = format!("{}: the commit does not get through; run the same command again", target.repo);
        Err(Error::new(ErrorKind::Unreachable, message))
    }

    /// Adds the model card, unless somebody wrote one for the repo or here.
    fn add_card(&self, target: &Source, base: &Revision, items: &mut Vec<Item>) -> Result<(), Error> {
        let path = RepoPath::parse(CARD)?;
        let here = self.args.directory.join(CARD);
        match fs::read_to_string(&here) {
            Ok(text) if !is_ours(&text) => {
                items.push(Item::of_text(path, text));
                return Ok(());
            }
            _ if self.hub.text(base, &path)?.is_some_and(|text| !is_ours(&text)) => return Ok(()),
            _ => {}
        }
        let state = self.checkpoint.state();
        let rows: Vec<Row> = state.files.iter().filter(|(path, _)| holds_weights(Path::new(path))).map(row).collect();
        let base_card = self.hub.text(self.delivery.revision, &path)?;
        let card = Card {
            repo: &target.repo,
            base: Some(&self.args.source.repo),
            base_card: base_card.as_deref(),
            endpoint: &self.hub.settings().endpoint,
            rows: &rows,
        };
        let text = card.render();
        if !self.args.discard {
            fs::write(&here, &text).map_err(|e| Error::file(&here, "cannot be written", &e))?;
        }
        items.push(Item::of_text(path, text));
        Ok(())
    }
}

/// What a card says of a file that was worked on.
fn row((path, record): (&String, &Record)) -> Row {
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = match ContentId::parse(&record.source_id) {
        Some(ContentId::Sha256(sha256)) => Some(sha256),
        _ => None,
    };
    Row {
        container: record.file.clone(),
        original: name,
        original_len: record.original_bytes,
        stored_len: record.stored_bytes,
        sha256,
        patch_of: None,
        md5s: record.tensor_md5s.clone(),
    }
}

/// The result for programs.
#[derive(Serialize)]
struct Json<'a> {
    directory: String,
    source: &'a str,
    commit: &'a str,
    repo: Option<&'a str>,
    finished: bool,
    published: Option<&'a str>,
    files: Vec<JsonFile<'a>>,
    original_bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct JsonFile<'a> {
    path: &'a str,
    step: &'static str,
    original_bytes: u64,
    /// Null as long as it is not stored.
    stored_bytes: Option<u64>,
}

fn show(directory: &Path, state: &State, json: bool) -> Result<(), Failure> {
    let files = state.wanted.iter().map(|(path, size)| {
        let record = state.files.get(path);
        let step = match record.map(|record| record.step) {
            None => "waiting",
            Some(Step::Stored) if state.published.is_some() => "published",
            Some(Step::Stored) => "stored",
            Some(Step::Uploaded) if state.published.is_some() => "published",
            Some(Step::Uploaded) => "uploaded",
        };
        JsonFile { path, step, original_bytes: *size, stored_bytes: record.map(|record| record.stored_bytes) }
    });
    let files: Vec<JsonFile<'_>> = files.collect();
    let done = files.iter().filter(|file| file.stored_bytes.is_some());
    let original = done.clone().map(|file| file.original_bytes).sum();
    let stored = done.clone().filter_map(|file| file.stored_bytes).sum();
    if json {
        return ui::print_json(&Json {
            directory: directory.display().to_string(),
            source: &state.source,
            commit: &state.commit,
            repo: state.repo.as_deref(),
            finished: state.finished,
            published: state.published.as_deref(),
            files,
            original_bytes: original,
            stored_bytes: stored,
        });
    }
    let done = done.count();
    let mut table = Table::new(&["file", "original", "stored", "step"]);
    for file in &files {
        let stored = file.stored_bytes.map_or("-".to_owned(), show_size);
        table.row([file.path.to_owned(), show_size(file.original_bytes), stored, file.step.to_owned()]);
    }
    let share = percent(stored, original).map_or(String::new(), |share| format!(", {share:.2} %"));
    let mut text = table.render("");
    text += &format!(
        "{} of {}: {} in {}{share}\n",
        done,
        count(files.len() as u64, "file"),
        show_size(original),
        show_size(stored)
    );
    text += &match (&state.repo, &state.published, state.finished) {
        (Some(repo), Some(commit), _) => format!("published in {repo} at {}\n", &commit[..commit.len().min(8)]),
        (Some(repo), None, _) => format!("not published in {repo} yet; the same command goes on\n"),
        (None, _, true) => format!("all of it is in {}\n", directory.display()),
        (None, _, false) => "not finished; the same command goes on\n".to_owned(),
    };
    ui::print(&ui::printable(&text))
}
