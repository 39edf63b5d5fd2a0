//! `bigsmall decompress`.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bigsmall_codec::container::{EXTENSION, shown_name};
use bigsmall_codec::output::{Attributes, NewFile};
use bigsmall_codec::parity::{self, sidecar_path};
use bigsmall_codec::{Error, ErrorKind, Original, Stored};
use serde::Serialize;

use super::{has_container_name, hub_index, in_container};
use crate::base::{BaseArgs, Bases};
use crate::failure::Failure;
use crate::gpu::Chosen;
use crate::interrupt;
use crate::options::{Force, OnDevice, Report, Threads};
use crate::transfer::{self, Converted, Copied, Fate, Item, Start, Transfer};
use crate::tree::{self, Entry};
use crate::ui;
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::table::Table;

/// What `compress` adds to the name of a directory.
const COMPRESSED: &[u8] = b"-bigsmall";

const EXAMPLES: &str = "\
Examples:
  bigsmall decompress model.bs
      writes model.safetensors beside it (or whatever extension the original had)
  bigsmall decompress model.bs -o /tmp
      writes /tmp/model.safetensors
  bigsmall decompress Llama-3-8B-bigsmall
      writes the directory Llama-3-8B: the original of each container, and a copy of every other file
  bigsmall decompress tuned.bs --base Llama-3-8B
      writes the original of a patch, which is made of Llama-3-8B; bigsmall info says what one is made of
  bigsmall decompress --check model.bs
      compares the SHA-256 of what was written as well

The .bs files of the Python package become safetensors files of the same tensors and metadata.

Each chunk is checked before it is decoded. When one is damaged it is repaired with the parity in SRC.ecc, if bigsmall
protect wrote that; else nothing is written, and bigsmall verify says which tensors are lost.";

/// Restore the original files, byte for byte
///
/// SRC is a container, or a directory with containers in it or below it. Nothing that exists is overwritten without
/// --force, and what cannot be finished leaves nothing behind.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container or directory to decompress
    #[arg(value_name = "SRC")]
    pub(super) source: PathBuf,

    /// Where to write; without it beside SRC: the original's extension in place of .bs, DIR for a directory
    /// DIR-bigsmall, DIR-original for any other
    ///
    /// When SRC is a file and OUT a directory that exists, the original goes into it.
    #[arg(short, long, value_name = "OUT")]
    pub(super) output: Option<PathBuf>,

    #[command(flatten)]
    pub(super) base: BaseArgs,

    /// Compare the SHA-256 of each original with the recorded one before it gets its name
    #[arg(long)]
    pub(super) check: bool,

    #[command(flatten)]
    pub(super) device: OnDevice,

    #[command(flatten)]
    pub(super) threads: Threads,

    #[command(flatten)]
    pub(super) force: Force,

    #[command(flatten)]
    pub(super) report: Report,
}

/// Decompresses.
///
/// # Errors
/// When it may not or cannot be done.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    interrupt::watch()?;
    restore_all(args, &Bases::open(&args.base.bases, args.report.quiet)?)
}

/// Decompresses, patches over `bases` and not over what the arguments name.
///
/// # Errors
/// As [`run`].
pub(super) fn restore_all(args: &Args, bases: &Bases) -> Result<ExitCode, Failure> {
    let device = Chosen::open(args.device)?;
    let plan = plan(args, bases)?;
    let meter = Meter::new(plan.original_len + plan.transfer.copies().bytes, args.report.quiet);
    let restore = |item: &Item, file: &mut NewFile| restore(item, file, bases, args.check, &device, &meter);
    let results = args.threads.run(|| plan.transfer.run(&meter, restore));
    drop(meter);
    show(args.report, &plan.transfer, &results?)?;
    for path in &plan.strangers {
        let path = path.display();
        ui::say(&format!("{path}: is not a bigsmall container in spite of its name; copied as it is"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to become what.
struct Plan {
    transfer: Transfer,
    /// Bytes of all originals.
    original_len: u64,
    /// Files that are named as containers and are none.
    strangers: Vec<PathBuf>,
}

fn plan(args: &Args, bases: &Bases) -> Result<Plan, Failure> {
    let source = &args.source;
    let metadata = tree::source_metadata(source)?;
    if metadata.is_file() {
        let stored = bases.open_stored(source)?;
        let target = file_target(source, &stored, args.output.as_deref())?;
        let transfer = Transfer::file(source, &metadata, &target, args.force.existing(), Start::Anew)?;
        Ok(Plan { transfer, original_len: stored.len(), strangers: Vec::new() })
    } else if metadata.is_dir() {
        plan_directory(args, bases, &metadata)
    } else {
        Err(tree::refuse_oddity(source, &metadata))
    }
}

fn plan_directory(args: &Args, bases: &Bases, metadata: &Metadata) -> Result<Plan, Failure> {
    let source = &args.source;
    let target = match &args.output {
        Some(output) => output.clone(),
        None => transfer::sibling(source, original_directory_name)?,
    };
    let (mut original_len, mut strangers) = (0, Vec::new());
    let transfer = Transfer::directory(
        source,
        metadata,
        &target,
        args.force.existing(),
        Start::Anew,
        |Entry { path, .. }| {
            if let Some(fate) = hub_index::fate(path)? {
                return Ok(fate);
            }
            if !has_container_name(path) {
                // The parity of a container is of no use to its original.
                let sidecar = path.extension() == Some(OsStr::new(parity::EXTENSION));
                let protected = path.with_extension("");
                let leave = sidecar && has_container_name(&protected) && protected.is_file();
                return Ok(if leave { Fate::Leave } else { Fate::Copy });
            }
            if !Stored::is_stored(path)? && !sidecar_path(path).exists() {
                strangers.push(path.clone());
                return Ok(Fate::Copy);
            }
            let stored = bases.open_stored(path)?;
            original_len += stored.len();
            original_name(path, &stored).map(Fate::Convert)
        },
    )?;
    if transfer.conversions().next().is_none() {
        return Err(Failure::new(format!(
            "{}: there is no container (*.{EXTENSION}) in it: nothing to decompress",
            source.display()
        )));
    }
    Ok(Plan { transfer, original_len, strangers })
}

/// Where the original of the container `source` goes.
fn file_target(source: &Path, container: &Stored, output: Option<&Path>) -> Result<PathBuf, Failure> {
    match output {
        Some(directory) if directory.is_dir() => Ok(directory.join(original_name(source, container)?)),
        Some(file) => Ok(file.to_owned()),
        None => Ok(source.with_file_name(original_name(source, container)?)),
    }
}

/// The name of the original of the container at `source`.
fn original_name(source: &Path, container: &Stored) -> Result<OsString, Failure> {
    let name = source.file_name().and_then(|name| shown_name(name, container.original_name()));
    name.ok_or_else(|| {
        Failure::new(format!(
            "{}: its name does not end in .{EXTENSION}, so what to call the original is not clear\n\
             give a name with -o; it was made from {}",
            source.display(),
            container.original_name()
        ))
    })
}

/// The name of the directory that the directory `name` was made from, or another that cannot be taken for it.
fn original_directory_name(name: OsString) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    match name.as_bytes().strip_suffix(COMPRESSED) {
        Some(original) if !original.is_empty() => OsString::from_vec(original.to_vec()),
        _ => {
            let mut name = name;
            name.push("-original");
            name
        }
    }
}

/// Sizes of a container and its original, in bytes, and the original's recorded SHA-256.
struct Restored {
    container_len: u64,
    original_len: u64,
    sha256: Option<[u8; 32]>,
}

/// Writes the original of `item` to `file`, and gives the attributes that the file is to have.
fn restore(
    item: &Item,
    file: &mut NewFile,
    bases: &Bases,
    check: bool,
    device: &Chosen,
    meter: &Meter,
) -> Result<(Restored, Attributes), Failure> {
    let source = &item.source;
    let metadata = tree::source_metadata(source)?;
    if hub_index::is_hub_index(source) {
        let (container_len, original_len) = (metadata.len(), hub_index::write(source, file)?);
        return Ok((Restored { container_len, original_len, sha256: None }, Attributes::of(&metadata)));
    }
    let mended = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&mended);
    let stored = bases.open_stored(source)?.on_mended(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let device = device.for_file(&stored);
    match stored.sha256() {
        Some(recorded) if check => {
            let sha256 = device.decompress_and_hash(&stored, file, meter).map_err(|e| explain(e, source))?;
            if sha256 != *recorded {
                let error = Error::corrupt("its chunks are sound, but the original does not have the recorded SHA-256");
                return Err(explain(error, source));
            }
        }
        _ => device.decompress(&stored, file, meter).map_err(|e| explain(e, source))?,
    }
    let piece = if matches!(stored, Stored::Container(_)) { "chunk" } else { "tensor" };
    let mended = match (stored.has_mended_index(), mended.load(Ordering::Relaxed)) {
        (true, _) => Some("its index is damaged and was".to_owned()),
        (_, 0) => None,
        (_, 1) => Some(format!("1 damaged {piece} was")),
        (_, pieces) => Some(format!("{pieces} damaged {piece}s were")),
    };
    if let Some(mended) = mended {
        let path = source.display();
        ui::say(&format!("{path}: {mended} repaired from its sidecar; bigsmall repair --in-place repairs the file"));
    }
    let (container_len, original_len) = (stored.stored_len(), stored.len());
    Ok((Restored { container_len, original_len, sha256: stored.sha256().copied() }, Attributes::of(&metadata)))
}

/// The failure that `error`, met while the container at `source` was decoded, is.
fn explain(error: Error, source: &Path) -> Failure {
    if error.kind() != ErrorKind::Corrupt {
        return Failure::from(in_container(error, source));
    }
    let mut failure = Failure::from(in_container(error, source));
    failure.message += "\nnothing was written; bigsmall verify says which tensors are lost";
    failure
}

/// The result for programs.
#[derive(Serialize)]
struct Json {
    files: Vec<JsonFile>,
    copied_files: u64,
    copied_bytes: u64,
    total: JsonTotal,
}

#[derive(Serialize)]
struct JsonFile {
    container: String,
    original: String,
    container_bytes: u64,
    original_bytes: u64,
    sha256: Option<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct JsonTotal {
    container_bytes: u64,
    original_bytes: u64,
    seconds: f64,
}

fn show(report: Report, transfer: &Transfer, results: &[Converted<'_, Restored>]) -> Result<(), Failure> {
    let total = JsonTotal {
        container_bytes: results.iter().map(|result| result.outcome.container_len).sum(),
        original_bytes: results.iter().map(|result| result.outcome.original_len).sum(),
        seconds: results.iter().map(|result| result.time).sum::<Duration>().as_secs_f64(),
    };
    let copied = transfer.copies();
    if report.json {
        let files = results.iter().map(|result| JsonFile {
            container: result.item.source.display().to_string(),
            original: transfer.target_of(result.item).display().to_string(),
            container_bytes: result.outcome.container_len,
            original_bytes: result.outcome.original_len,
            sha256: result.outcome.sha256.map(|sha256| ui::hex(&sha256)),
            seconds: result.time.as_secs_f64(),
        });
        let Copied { files: copied_files, bytes: copied_bytes } = copied;
        return ui::print_json(&Json { files: files.collect(), copied_files, copied_bytes, total });
    }
    if report.quiet {
        return Ok(());
    }
    let mut table = Table::new(&["file", "compressed", "original", "speed"]);
    let mut row = |name: String, container: u64, original: u64, seconds: f64| {
        table.row([name, show_size(container), show_size(original), ui::speed(original, seconds)]);
    };
    for Converted { item, outcome, time } in results {
        let name = transfer.target_of(item).display().to_string();
        row(name, outcome.container_len, outcome.original_len, time.as_secs_f64());
    }
    if results.len() > 1 {
        row("total".to_owned(), total.container_bytes, total.original_bytes, total.seconds);
    }
    ui::print(&(table.render("") + &copied.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_get_their_names_back() {
        let name = |name: &str| original_directory_name(OsString::from(name)).into_string().unwrap();
        assert_eq!(name("gpt2-bigsmall"), "gpt2");
        assert_eq!(name("gpt2"), "gpt2-original");
        assert_eq!(name("-bigsmall"), "-bigsmall-original");
    }
}
