//! `bigsmall repair`.

mod package;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bigsmall_codec::container::{EXTENSION, Grafted, graft};
use bigsmall_codec::output::{Attributes, Existing, NewFile, check_replaceable};
use bigsmall_codec::parity::{self, Damage, Geometry, Mended, Sidecar, sidecar_path};
use bigsmall_codec::salvage::salvage;
use bigsmall_codec::verify::verify;
use bigsmall_codec::{Container, Error, ErrorKind, Original, PlainFile, Progress};
use serde::Serialize;

use super::verify::{Finding, finding, list};
use super::{in_container, protect};
use crate::failure::{DAMAGED, Failure};
use crate::interrupt;
use crate::options::{Force, Report, Threads};
use crate::tree;
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::{self, count};

/// Bytes that are copied at a time.
const PIECE: u64 = 4 << 20;

const EXAMPLES: &str = "\
Examples:
  bigsmall repair model.bs
      writes model.repaired.bs, with the help of model.bs.ecc; model.bs stays as it is
  bigsmall repair --in-place model.bs
      repairs model.bs and its sidecar; what was there becomes model.bs.damaged
  bigsmall repair model.bs --from /backup/model.bs
      takes what is damaged from another copy, which may be damaged elsewhere
  bigsmall repair --salvage model.bs
      when that is not enough: writes model.salvaged.safetensors, with every tensor that is sound

Exit codes: 0 the container is sound or was repaired, 1 it is damaged beyond repair, 2 it could not be done.";

/// Repair a damaged container
///
/// What is damaged is rebuilt from the sidecar SRC.ecc that bigsmall protect wrote, taken from another copy, or both. The
/// result gets its name only when the MD5 of each tensor and the SHA-256 of the whole original hold. If they do not, the
/// tensors that are lost are named and nothing is written.
///
/// A .bs file of the Python package is repaired with the sidecar that the package wrote, up to 16 bytes in 223.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container to repair
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Where to write; without it x.repaired.bs for x.bs, beside it
    #[arg(short, long, value_name = "OUT", conflicts_with = "in_place")]
    output: Option<PathBuf>,

    /// Put the repaired container in the place of SRC, which is kept as SRC.damaged, and renew its sidecar
    #[arg(long)]
    in_place: bool,

    /// Take what is damaged from OTHER, a copy of the container
    #[arg(long, value_name = "OTHER")]
    from: Option<PathBuf>,

    /// If the container cannot be repaired, write a safetensors file of the tensors that are sound
    ///
    /// It goes to OUT, or to x.salvaged.safetensors for x.bs. The exit code stays 1.
    #[arg(long, conflicts_with = "in_place")]
    salvage: bool,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    report: Report,
}

/// What became of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// There was nothing to repair.
    Sound,
    Repaired,
    Lost,
}

/// The result for programs.
#[derive(Serialize)]
struct Outcome {
    file: String,
    status: Status,
    /// What was written: the repaired container, or the salvaged tensors.
    output: Option<String>,
    /// What the damaged container is called now.
    backup: Option<String>,
    /// Blocks of the container that were rebuilt from parity, and their bytes.
    rebuilt_blocks: u64,
    rebuilt_bytes: u64,
    /// Bytes that were taken from the other copy.
    copied_bytes: u64,
    /// Whether the sidecar was damaged or is of another file, and has been renewed.
    sidecar_renewed: bool,
    /// What is wrong with the container as a whole if it is lost.
    error: Option<String>,
    lost: Vec<Finding>,
    salvaged_tensors: Option<u64>,
    /// For people.
    #[serde(skip)]
    notes: Vec<String>,
    /// What the result was compared with.
    #[serde(skip)]
    held: &'static str,
}

/// Repairs.
///
/// # Errors
/// When it is damaged beyond repair, or the result may not or cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let metadata = tree::source_metadata(&args.source)?;
    if metadata.is_dir() {
        return Err(Failure::new(format!("{}: is a directory; repair takes one container", args.source.display())));
    } else if !metadata.is_file() {
        return Err(tree::refuse_oddity(&args.source, &metadata));
    }
    let targets = Targets::plan(args)?;
    interrupt::watch()?;
    // Looked at, examined, written, verified.
    let meter = Meter::new(4 * metadata.len(), args.report.quiet);
    let outcome = args.threads.run(|| repair(args, &targets, &Attributes::of(&metadata), &meter));
    drop(meter);
    let outcome = outcome?;
    let failure = (outcome.status == Status::Lost).then(|| {
        let error = outcome.error.as_deref().unwrap_or("damaged beyond repair");
        let error = error.strip_prefix(&format!("{}: ", outcome.file)).unwrap_or(error);
        Failure::with_code(DAMAGED, format!("{}: {error}", outcome.file))
    });
    if args.report.json {
        ui::print_json(&outcome)?;
    } else if !args.report.quiet {
        ui::print(&ui::printable(&describe(&outcome)))?;
    }
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Where things go.
struct Targets {
    repaired: PathBuf,
    existing: Existing,
    backup: Option<PathBuf>,
    salvaged: PathBuf,
}

impl Targets {
    /// # Errors
    /// When something may not be written where it is to be.
    fn plan(args: &Args) -> Result<Targets, Failure> {
        let source = &args.source;
        let named = |middle: &str, extension: &str| {
            let mut name = source.file_stem().map(OsString::from).unwrap_or_default();
            name.push(format!(".{middle}.{extension}"));
            source.with_file_name(name)
        };
        let existing = args.force.existing();
        let targets = if args.in_place {
            let mut backup = source.clone().into_os_string();
            backup.push(".damaged");
            let (repaired, backup) = (source.clone(), Some(PathBuf::from(backup)));
            Targets { repaired, existing: Existing::Replace, backup, salvaged: PathBuf::new() }
        } else {
            let repaired = args.output.clone().unwrap_or_else(|| named("repaired", EXTENSION));
            let salvaged = args.output.clone().unwrap_or_else(|| named("salvaged", "safetensors"));
            Targets { repaired, existing, backup: None, salvaged }
        };
        let mut new = vec![targets.backup.as_ref().unwrap_or(&targets.repaired)];
        if args.salvage {
            new.push(&targets.salvaged);
        }
        let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| tree::Identity::of(&metadata));
        for path in new {
            let sources = [Some(source), args.from.as_ref(), Some(&sidecar_path(source))];
            if identity(path).is_some()
                && sources.into_iter().flatten().any(|source| identity(source) == identity(path))
            {
                let message = "would be written over a file that is read; give another name with -o";
                return Err(Failure::new(format!("{}: {message}", path.display())));
            }
            check_replaceable(path, existing).map_err(|e| match (e.kind(), existing) {
                (ErrorKind::AlreadyExists, Existing::Refuse) => {
                    Failure::new(format!("{e}\n--force replaces it; -o gives another name"))
                }
                _ => Failure::from(e),
            })?;
        }
        Ok(targets)
    }
}

/// What is wrong with a container.
enum Fault {
    /// Parts of it.
    Parts(Vec<Finding>, BTreeSet<usize>),
    /// It cannot be opened.
    Whole(Error),
}

/// Reads all of the container in `store`.
///
/// # Errors
/// Only when it is interrupted.
fn fault(store: Box<dyn Original>, meter: &Meter) -> Result<Option<Fault>, Failure> {
    let container = match Container::from_store(store) {
        Ok(container) => container,
        Err(error) => return Ok(Some(Fault::Whole(error))),
    };
    let mut report = verify(&container, meter)?;
    // Of a patch what is stored is all that can be repaired; its base is not asked for.
    report.damage.retain(|damage| damage.kind != ErrorKind::BaseMissing);
    if report.is_sound() {
        return Ok(None);
    }
    let lost = report.damage.iter().filter_map(|damage| damage.tensor).collect();
    let names: Vec<&str> = container.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    Ok(Some(Fault::Parts(report.damage.into_iter().map(|damage| finding(&names, damage)).collect(), lost)))
}

/// The sidecar, if there is one that can be used, and what it says.
struct Parity {
    mended: Mended,
    damage: Damage,
}

/// # Errors
/// When it is interrupted, or memory is short.
fn parity(args: &Args, notes: &mut Vec<String>, meter: &Meter) -> Result<Option<Parity>, Failure> {
    let path = sidecar_path(&args.source);
    if fs::symlink_metadata(&path).is_err() {
        notes.push(format!("there is no sidecar {}", path.display()));
        return Ok(None);
    }
    let sidecar = match Sidecar::open(&path) {
        Ok(sidecar) => sidecar,
        Err(error) => {
            notes.push(format!("the sidecar cannot be used: {error}"));
            return Ok(None);
        }
    };
    let source = PlainFile::open(&args.source)?;
    let len = source.len();
    let mut copies: Vec<Box<dyn Original>> = vec![Box::new(source)];
    if let Some(other) = &args.from {
        copies.push(Box::new(PlainFile::open(other)?));
    }
    let mended = Mended::new(sidecar, copies)?;
    let damage = parity::examine(&mended, len, meter)?;
    Ok(Some(Parity { mended, damage }))
}

fn repair(args: &Args, targets: &Targets, attributes: &Attributes, meter: &Meter) -> Result<Outcome, Failure> {
    let source = &args.source;
    meter.set_file(&source.display().to_string());
    let mut outcome = Outcome {
        file: source.display().to_string(),
        status: Status::Sound,
        output: None,
        backup: None,
        rebuilt_blocks: 0,
        rebuilt_bytes: 0,
        copied_bytes: 0,
        sidecar_renewed: false,
        error: None,
        lost: Vec::new(),
        salvaged_tensors: None,
        notes: Vec::new(),
        held: "the MD5 of each tensor and the SHA-256 of the original hold",
    };
    if package::is_of_package(source)? {
        return package::repair(args, targets, attributes, outcome, meter);
    }
    let before = fault(Box::new(PlainFile::open(source)?), meter)?;
    let damaged = before.is_some();
    match before {
        Some(Fault::Whole(error)) if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotAContainer) => {
            return Err(in_container(error, source).into());
        }
        _ => {}
    }
    let parity = parity(args, &mut outcome.notes, meter)?;
    if !damaged {
        sound(args, parity.as_ref(), &mut outcome, meter)?;
        return Ok(outcome);
    }
    let out = NewFile::create(&targets.repaired, targets.existing)?;
    match &parity {
        // A sidecar that cannot restore the container and is of one of another length may be of another file altogether.
        Some(Parity { mended, damage }) if damage.is_repairable() || !damage.wrong_length => {
            let geometry = mended.sidecar().geometry();
            outcome.rebuilt_blocks = parity::repair(mended, damage, &out, meter)?;
            outcome.rebuilt_bytes = (outcome.rebuilt_blocks * geometry.block).min(geometry.file_len);
            outcome.copied_bytes = damage.borrowed * geometry.block;
        }
        _ => copy(source, &out, meter)?,
    }
    let mut after = fault(Box::new(out.contents()?), meter)?;
    if let (Some(_), Some(other)) = (&after, &args.from) {
        let container = Container::open(other)?;
        let Grafted { bytes, .. } = graft(&out, &container).map_err(|e| match e.kind() {
            ErrorKind::InvalidArgument => e.in_file(other),
            _ => e,
        })?;
        outcome.copied_bytes += bytes;
        after = fault(Box::new(out.contents()?), meter)?;
    }
    if let (Some(_), Some(parity)) = (&after, &parity)
        && !parity.damage.is_repairable()
    {
        outcome
            .notes
            .push("more is damaged than its sidecar can restore, or the sidecar is of another file".to_owned());
    }
    let Some(fault) = after else {
        commit(args, targets, attributes, out, &mut outcome)?;
        if let (true, Some(parity)) = (args.in_place, &parity) {
            renew(source, parity, &mut outcome, meter)?;
        }
        return Ok(outcome);
    };
    outcome.status = Status::Lost;
    match fault {
        Fault::Whole(error) => {
            outcome.error = Some(format!("damaged beyond repair: {error}"));
            outcome.notes.push("its index is lost, so that nothing in it can be found".to_owned());
        }
        Fault::Parts(findings, lost) => {
            outcome.error = Some("damaged beyond repair".to_owned());
            outcome.lost = findings;
            if args.salvage {
                let saved = NewFile::create(&targets.salvaged, targets.existing)?;
                let container = Container::from_store(Box::new(out.contents()?))?;
                outcome.salvaged_tensors =
                    Some(salvage(&container, &lost, &saved, meter).map_err(|e| match e.kind() {
                        ErrorKind::InvalidArgument => e.in_file(source),
                        _ => e,
                    })?);
                saved.commit(attributes)?;
                outcome.output = Some(targets.salvaged.display().to_string());
            }
        }
    }
    Ok(outcome)
}

/// Deals with a container that needs no repair; its sidecar may.
fn sound(args: &Args, parity: Option<&Parity>, outcome: &mut Outcome, meter: &Meter) -> Result<(), Failure> {
    // Without a sidecar there is nothing to say about it.
    outcome.notes.retain(|note| !note.starts_with("there is no sidecar"));
    let Some(parity) = parity else { return Ok(()) };
    if !parity.damage.file_is_sound() {
        outcome.notes.push("its sidecar is of another file; bigsmall protect --force writes a new one".to_owned());
    } else if !parity.damage.sidecar_is_sound() {
        if args.in_place {
            return renew(&args.source, parity, outcome, meter);
        }
        outcome.notes.push("its sidecar is damaged; --in-place renews it".to_owned());
    }
    Ok(())
}

/// Writes the sidecar anew if it is damaged, now that the container is sound.
fn renew(source: &Path, parity: &Parity, outcome: &mut Outcome, meter: &Meter) -> Result<(), Failure> {
    let geometry: Geometry = *parity.mended.sidecar().geometry();
    if !parity.damage.sidecar_is_sound() && fs::metadata(source).is_ok_and(|file| file.len() == geometry.file_len) {
        protect::renew(source, geometry, meter)?;
        outcome.sidecar_renewed = true;
    }
    Ok(())
}

/// Gives the repaired container its name.
fn commit(
    args: &Args,
    targets: &Targets,
    attributes: &Attributes,
    out: NewFile,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    if let Some(backup) = &targets.backup {
        // A second name for the damaged file: at no moment is there none under its own.
        if args.force.existing() == Existing::Replace && fs::symlink_metadata(backup).is_ok() {
            fs::remove_file(backup).map_err(|e| Error::io("cannot be replaced", e).in_file(backup))?;
        }
        fs::hard_link(&args.source, backup)
            .map_err(|e| Error::io("the damaged container cannot be kept under this name", e).in_file(backup))?;
        outcome.backup = Some(backup.display().to_string());
    }
    out.commit(attributes)?;
    outcome.status = Status::Repaired;
    outcome.output = Some(targets.repaired.display().to_string());
    Ok(())
}

/// Copies `source`; what cannot be read is zeros.
fn copy(source: &Path, out: &NewFile, meter: &Meter) -> Result<(), Failure> {
    let file = PlainFile::open(source)?;
    out.reserve(file.len())?;
    let mut piece = Vec::new();
    for start in (0..file.len()).step_by(PIECE as usize) {
        if meter.cancelled() {
            return Err(interrupt::failure());
        }
        piece.clear();
        piece.resize((file.len() - start).min(PIECE) as usize, 0);
        if file.read_at(start, &mut piece).is_err() {
            for (number, sector) in piece.chunks_mut(4096).enumerate() {
                if file.read_at(start + number as u64 * 4096, sector).is_err() {
                    sector.fill(0);
                }
            }
        }
        out.write_at(start, &piece)?;
        meter.advance(piece.len() as u64);
    }
    Ok(())
}

/// The result for people.
fn describe(outcome: &Outcome) -> String {
    let Outcome { file, .. } = outcome;
    let mut text = match (outcome.status, &outcome.output) {
        (Status::Sound, _) => format!("{file}: sound; nothing to repair\n"),
        (Status::Repaired, Some(output)) => {
            let mut how = Vec::new();
            if outcome.rebuilt_blocks > 0 {
                let blocks = count(outcome.rebuilt_blocks, "block");
                how.push(format!("{blocks} ({}) rebuilt from parity", show_size(outcome.rebuilt_bytes)));
            } else if outcome.rebuilt_bytes > 0 {
                how.push(format!("{} put right with parity", count(outcome.rebuilt_bytes, "byte")));
            }
            if outcome.copied_bytes > 0 {
                how.push(format!("{} taken from the other copy", show_size(outcome.copied_bytes)));
            }
            if how.is_empty() {
                how.push("its length put right".to_owned());
            }
            let mut text = format!("{file}: repaired as {output}: {}\n", how.join(", "));
            text += &format!("  {}\n", outcome.held);
            text
        }
        _ => format!("{file}: damaged beyond repair\n"),
    };
    if let Some(backup) = &outcome.backup {
        text += &format!("  what was damaged is kept as {backup}\n");
    }
    if outcome.sidecar_renewed {
        text += "  its sidecar was damaged and has been written anew\n";
    }
    for note in &outcome.notes {
        text += &format!("  {note}\n");
    }
    text += &list(&outcome.lost);
    match (outcome.status, outcome.salvaged_tensors, &outcome.output) {
        (Status::Lost, Some(tensors), Some(output)) => {
            text += &format!("  {} saved as {output}\n", count(tensors, "sound tensor"));
        }
        (Status::Lost, _, _) if !outcome.lost.is_empty() => {
            text +=
                "  nothing was written; --from takes what is lost from another copy, --salvage writes what is sound\n";
        }
        _ => {}
    }
    text
}
