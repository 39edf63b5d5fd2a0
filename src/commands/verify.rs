//! `bigsmall verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bigsmall_codec::verify::{Cause, Damage, verify};
use bigsmall_codec::{Container, ErrorKind, Original};
use serde::Serialize;

use super::{containers_in, has_container_name};
use crate::failure::{DAMAGED, FAILED, Failure};
use crate::interrupt;
use crate::options::{Report, Threads};
use crate::tree;
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::{self, count};

/// Findings of a file that are shown to people; programs get all.
const SHOWN_FINDINGS: usize = 20;

/// What [`Cause::OriginalHash`] is called in the result for programs.
const ORIGINAL_HASH: &str = "original_sha256";

const EXAMPLES: &str = "\
Examples:
  bigsmall verify model.bs
  bigsmall verify Llama-3-8B-bigsmall
      every container in and below the directory
  bigsmall verify --json model.bs
      the same for programs: status sound, damaged or unchecked, and each finding

Exit codes: 0 everything is sound, 1 something is damaged, 2 nothing is known to be damaged but something could not be
checked.";

/// Read all of a container and check every byte
///
/// Decodes every chunk after checking its checksum, and compares the MD5 of each tensor and the SHA-256 of the whole
/// original with the recorded ones. Damage does not end the check: all that is lost is named. Nothing is written.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container or directory to check
    #[arg(value_name = "SRC")]
    source: PathBuf,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    report: Report,
}

/// What is known about a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Sound,
    Damaged,
    Unchecked,
}

/// The check of one container. Its fields are the result for programs.
#[derive(Serialize)]
struct Checked {
    file: String,
    status: Status,
    /// What is wrong with the container as a whole, if it could not be opened.
    error: Option<String>,
    original_bytes: Option<u64>,
    chunks: Option<u64>,
    tensors: Option<u64>,
    damage: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    cause: &'static str,
    tensor: Option<String>,
    /// The first byte of the original that is lost, and the first behind it that is not.
    start: u64,
    end: u64,
    message: String,
}

#[derive(Serialize)]
struct Json {
    files: Vec<Checked>,
    sound: usize,
    damaged: usize,
    unchecked: usize,
}

/// Checks.
///
/// # Errors
/// When something is damaged or could not be checked.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let metadata = tree::source_metadata(&args.source)?;
    let paths = if metadata.is_dir() { containers_in(&args.source)? } else { vec![args.source.clone()] };
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(tree::refuse_oddity(&args.source, &metadata));
    }
    interrupt::watch()?;
    // Not kept open: there may be more of them than a process may open.
    let total = paths.iter().filter_map(|path| Some(Container::open(path).ok()?.len())).sum();
    let meter = Meter::new(total, args.report.quiet);
    let files = args.threads.run(|| paths.iter().map(|path| check(path, &meter)).collect::<Result<Vec<_>, _>>());
    drop(meter);
    let files = files?;
    let failure = failure(&files);
    show(args.report, files)?;
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Checks the container at `path`.
///
/// # Errors
/// Only when it is interrupted.
fn check(path: &Path, meter: &Meter) -> Result<Checked, Failure> {
    let file = path.display().to_string();
    meter.set_file(&file);
    let container = match Container::open(path) {
        Ok(container) => container,
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::Corrupt => Status::Damaged,
                // Who calls a file so says that it is a container.
                ErrorKind::NotAContainer if has_container_name(path) => Status::Damaged,
                _ => Status::Unchecked,
            };
            let (error, damage) = (Some(error.to_string()), Vec::new());
            return Ok(Checked { file, status, error, original_bytes: None, chunks: None, tensors: None, damage });
        }
    };
    let report = verify(&container, meter)?;
    let status = if report.is_sound() {
        Status::Sound
    } else if report.damage.iter().any(|damage| damage.kind == ErrorKind::Corrupt) {
        Status::Damaged
    } else {
        Status::Unchecked
    };
    let damage = report.damage.into_iter().map(|damage| finding(&container, damage)).collect();
    Ok(Checked {
        file,
        status,
        error: None,
        original_bytes: Some(report.original_len),
        chunks: Some(report.chunks),
        tensors: Some(report.tensors),
        damage,
    })
}

fn finding(container: &Container, damage: Damage) -> Finding {
    let cause = match damage.cause {
        Cause::Chunk => "chunk",
        Cause::TensorHash => "tensor_md5",
        Cause::OriginalHash => ORIGINAL_HASH,
    };
    let tensor = damage.tensor.map(|number| container.tensors()[number].name.clone());
    Finding { cause, tensor, start: damage.range.start, end: damage.range.end, message: damage.message }
}

/// The failure that these results are, if they are one.
fn failure(files: &[Checked]) -> Option<Failure> {
    let with = |status| files.iter().filter(move |file| file.status == status);
    let (code, status, what) = if with(Status::Damaged).next().is_some() {
        (DAMAGED, Status::Damaged, "damaged")
    } else if with(Status::Unchecked).next().is_some() {
        (FAILED, Status::Unchecked, "not checked")
    } else {
        return None;
    };
    let message = match files {
        [file] => match (&file.error, status) {
            (Some(error), _) => error.clone(),
            (None, _) => format!("{}: {what}", file.file),
        },
        _ => format!("{} of {} {what}", with(status).count(), count(files.len() as u64, "container")),
    };
    Some(Failure::with_code(code, message))
}

fn show(report: Report, files: Vec<Checked>) -> Result<(), Failure> {
    if report.json {
        let number = |status| files.iter().filter(|file| file.status == status).count();
        let (sound, damaged, unchecked) = (number(Status::Sound), number(Status::Damaged), number(Status::Unchecked));
        return ui::print_json(&Json { files, sound, damaged, unchecked });
    }
    if report.quiet {
        return Ok(());
    }
    let text: String = files.iter().map(describe).collect();
    ui::print(&ui::printable(&text))
}

/// The result for people.
fn describe(checked: &Checked) -> String {
    let Checked { file, status, .. } = checked;
    let mut text = match (status, checked.original_bytes, checked.chunks, checked.tensors) {
        (Status::Sound, Some(bytes), Some(chunks), Some(tensors)) => {
            let (size, chunks, tensors) = (show_size(bytes), count(chunks, "chunk"), count(tensors, "tensor"));
            format!("{file}: sound ({size}, {chunks}, {tensors})\n")
        }
        (Status::Damaged, ..) => format!("{file}: damaged\n"),
        _ => format!("{file}: not checked\n"),
    };
    if let Some(error) = &checked.error {
        // It begins with the file's name, which is there already.
        let error = error.strip_prefix(&format!("{file}: ")).unwrap_or(error);
        text += &format!("  {error}\n");
    }
    for finding in checked.damage.iter().take(SHOWN_FINDINGS) {
        let Finding { tensor, start, end, message, .. } = finding;
        text += &match tensor {
            _ if finding.cause == ORIGINAL_HASH => format!("  {message}\n"),
            Some(name) => format!("  tensor {name:?}, bytes {start} to {end}: {message}\n"),
            None => format!("  no tensor, bytes {start} to {end}: {message}\n"),
        };
    }
    if checked.damage.len() > SHOWN_FINDINGS {
        text += &format!("  and {} more; --json gives all\n", checked.damage.len() - SHOWN_FINDINGS);
    }
    text
}
