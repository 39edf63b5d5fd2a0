//! `bigsmall status`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bigsmall_codec::{Original, Stored};
use serde::Serialize;

use super::{has_container_name, in_container};
use crate::failure::{FAILED, Failure};
use crate::hub::remote::look_into;
use crate::hub::repo::MAIN;
use crate::hub::settings::Settings;
use crate::hub::{Error, Hub, RepoId, Source, workers};
use crate::interrupt;
use crate::tree::{Oddities, Tree};
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{self, percent};

/// Repos that are looked at at a time.
const WORKERS: usize = 8;

const EXAMPLES: &str = "\
Examples:
  bigsmall status
      your repos on the Hub whose names end in -bigsmall
  bigsmall status --user Qwen --suffix ''
      all repos of Qwen that have containers in them
  bigsmall status --local-dirs ~/models /mnt/backup
      what lies here

Of each container on the Hub the index is read, some kilobytes, and not the weights.";

/// Say what your compressed repos and directories save
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The user or organisation; without it the one whose token is used, unless --local-dirs is given
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Look only at repos whose names end so
    #[arg(long, value_name = "SUFFIX", default_value = "-bigsmall")]
    suffix: String,

    /// Directories on this machine to look at, with all that is below them
    #[arg(long, value_name = "DIR", num_args = 1..)]
    local_dirs: Vec<PathBuf>,

    /// Give the result as JSON, with exact numbers
    #[arg(long)]
    json: bool,
}

/// What is known of a repo or a directory.
#[derive(Serialize)]
struct Holding {
    /// The repo or the directory.
    name: String,
    /// Null for directories.
    private: Option<bool>,
    containers: u64,
    original_bytes: u64,
    stored_bytes: u64,
    /// Bytes of files that are no containers.
    other_bytes: u64,
}

#[derive(Serialize)]
struct Json {
    repos: Vec<Holding>,
    directories: Vec<Holding>,
    /// What could not be looked at.
    errors: Vec<String>,
}

/// Tells.
///
/// # Errors
/// When something could not be looked at, after what could was told.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    interrupt::watch()?;
    let mut errors = Vec::new();
    let repos = match (&args.user, args.local_dirs.is_empty()) {
        (None, false) => Vec::new(),
        _ => repos(args, &mut errors)?,
    };
    let mut directories = Vec::new();
    for directory in &args.local_dirs {
        directories.push(local(directory, &mut errors)?);
    }
    let json = Json { repos, directories, errors };
    if args.json {
        ui::print_json(&json)?;
    } else {
        ui::print(&describe(&json))?;
    }
    match json.errors.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        errors => Err(Failure::with_code(FAILED, errors.join("\n"))),
    }
}

fn repos(args: &Args, errors: &mut Vec<String>) -> Result<Vec<Holding>, Failure> {
    let hub = Arc::new(Hub::new(Settings::from_environment()?)?);
    let user = match &args.user {
        Some(user) => user.clone(),
        None => hub.user()?,
    };
    let mut listed = hub.models_of(&user)?;
    listed.retain(|listed| listed.repo.name().ends_with(&args.suffix));
    listed.sort_by(|a, b| a.repo.cmp(&b.repo));
    let meter = Meter::new(listed.len() as u64, true);
    let found = workers::each(&listed, WORKERS, &meter, |listed, watch| {
        watch.check()?;
        match remote(&hub, &listed.repo) {
            Err(error) if error.kind() == crate::hub::ErrorKind::Interrupted => Err(error),
            other => Ok(other),
        }
    })?;
    let mut repos = Vec::new();
    for found in found {
        match found {
            Ok(holding) if holding.containers > 0 => repos.push(holding),
            Ok(_) => {}
            Err(error) => errors.push(error.to_string()),
        }
    }
    Ok(repos)
}

fn remote(hub: &Arc<Hub>, repo: &RepoId) -> Result<Holding, Error> {
    let revision = hub.revision(&Source { repo: repo.clone(), revision: MAIN.to_owned() })?;
    let mut holding = Holding::new(repo.to_string(), Some(revision.private));
    for file in hub.files(&revision)? {
        match has_container_name(file.path.as_path()) {
            true => {
                let held = look_into(hub, &revision, &file)?;
                holding.add(held.original_len, held.stored_len);
            }
            false => holding.other_bytes += file.size,
        }
    }
    Ok(holding)
}

fn local(directory: &std::path::Path, errors: &mut Vec<String>) -> Result<Holding, Failure> {
    let mut holding = Holding::new(directory.display().to_string(), None);
    for file in Tree::read(directory, Oddities::Skip)?.files {
        if !has_container_name(&file.path) {
            holding.other_bytes += file.metadata.len();
            continue;
        }
        match Stored::open(&file.path, &Arc::default()) {
            Ok(stored) => holding.add(stored.len(), file.metadata.len()),
            Err(error) => errors.push(in_container(error, &file.path).to_string()),
        }
    }
    Ok(holding)
}

impl Holding {
    fn new(name: String, private: Option<bool>) -> Holding {
        Holding { name, private, containers: 0, original_bytes: 0, stored_bytes: 0, other_bytes: 0 }
    }

    fn add(&mut self, original: u64, stored: u64) {
        self.containers += 1;
        self.original_bytes += original;
        self.stored_bytes += stored;
    }
}

/// The result for people.
fn describe(json: &Json) -> String {
    let mut table = Table::new(&["where", "containers", "original", "stored", "ratio", "saved"]);
    let mut total = Holding::new("total".to_owned(), None);
    let row = |table: &mut Table, holding: &Holding, name: String| {
        let (original, stored) = (holding.original_bytes, holding.stored_bytes);
        table.row([
            name,
            holding.containers.to_string(),
            show_size(original),
            show_size(stored),
            percent(stored, original).map_or("-".to_owned(), |ratio| format!("{ratio:.2} %")),
            show_size(original.saturating_sub(stored)),
        ]);
    };
    for holding in json.repos.iter().chain(&json.directories) {
        let private = if holding.private == Some(true) { " (private)" } else { "" };
        row(&mut table, holding, format!("{}{private}", holding.name));
        total.containers += holding.containers;
        total.original_bytes += holding.original_bytes;
        total.stored_bytes += holding.stored_bytes;
    }
    row(&mut table, &total, total.name.clone());
    table.render("")
}
