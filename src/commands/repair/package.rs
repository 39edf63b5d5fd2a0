//! `bigsmall repair` of a file of the Python package, with the sidecar that the package wrote beside it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bigsmall_codec::output::{Attributes, NewFile};
use bigsmall_codec::parity::sidecar_path;
use bigsmall_codec::upstream::PackageParity;
use bigsmall_codec::{Error, ErrorKind, PlainFile, Stored};

use super::super::verify::finding;
use super::{Args, Fault, Outcome, Status, Targets, commit};
use crate::failure::Failure;
use crate::ui::progress::Meter;

/// Whether `source` is to be repaired as such a file: it begins as one, or has such a sidecar.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_of_package(source: &Path) -> Result<bool, Failure> {
    let is_upstream = matches!(Stored::open(source, &Arc::default()), Ok(Stored::Upstream(_)));
    Ok(is_upstream || PackageParity::is_one(&sidecar_path(source)).unwrap_or(false))
}

/// Repairs it.
///
/// # Errors
/// As [`repair`](super::repair).
pub(super) fn repair(
    args: &Args,
    targets: &Targets,
    attributes: &Attributes,
    mut outcome: Outcome,
    meter: &Meter,
) -> Result<Outcome, Failure> {
    let source = &args.source;
    if args.from.is_some() || args.salvage {
        let option = if args.salvage { "--salvage" } else { "--from" };
        return Err(Failure::new(format!(
            "{}: a file of the Python package: {option} is for containers of ours",
            source.display()
        )));
    }
    outcome.held = "the MD5 of each tensor holds";
    let Some(before) = fault(PlainFile::open(source)?, source, meter)? else { return Ok(outcome) };
    let path = sidecar_path(source);
    let parity = match fs::symlink_metadata(&path).map(|_| PackageParity::open(&path)) {
        Ok(Ok(parity)) => parity,
        unusable => {
            outcome.notes.push(match unusable {
                Ok(Err(error)) => format!("the sidecar cannot be used: {error}"),
                _ => format!("there is no sidecar {}", path.display()),
            });
            lose(before, &mut outcome);
            return Ok(outcome);
        }
    };
    let out = NewFile::create(&targets.repaired, targets.existing)?;
    let damage = parity.repair(&PlainFile::open(source)?, &out, meter)?;
    outcome.rebuilt_bytes = damage.wrong_bytes;
    if damage.lost_chunks > 0 {
        outcome
            .notes
            .push("more is damaged than its sidecar can restore, or the sidecar is of another file".to_owned());
    }
    if damage.wrong_parity_bytes > 0 {
        outcome.notes.push("its sidecar is damaged as well; bigsmall migrate makes a container of ours".to_owned());
    }
    match fault(out.contents()?, source, meter)? {
        None => commit(args, targets, attributes, out, &mut outcome)?,
        Some(after) => lose(after, &mut outcome),
    }
    Ok(outcome)
}

fn lose(fault: Fault, outcome: &mut Outcome) {
    outcome.status = Status::Lost;
    outcome.error = Some("damaged beyond repair".to_owned());
    match fault {
        Fault::Whole(error) => outcome.error = Some(format!("damaged beyond repair: {error}")),
        Fault::Parts(findings, _) => outcome.lost = findings,
    }
}

/// Reads all of the file, which errors call `path`.
///
/// # Errors
/// When it is interrupted, or the file is no such one and no damaged one either.
fn fault(file: PlainFile, path: &Path, meter: &Meter) -> Result<Option<Fault>, Failure> {
    let stored = match Stored::from_file(file, path, &Arc::default()) {
        Ok(stored) => stored,
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotAContainer) => {
            return Ok(Some(Fault::Whole(error)));
        }
        Err(error) => return Err(error.into()),
    };
    stored.check_complete().map_err(|e: Error| e.in_file(path))?;
    let report = stored.verify(meter)?;
    if report.is_sound() {
        return Ok(None);
    }
    let lost = report.damage.iter().filter_map(|damage| damage.tensor).collect();
    let names: Vec<&str> = stored.tensors().into_iter().map(|tensor| tensor.name).collect();
    Ok(Some(Fault::Parts(report.damage.into_iter().map(|damage| finding(&names, damage)).collect(), lost)))
}
