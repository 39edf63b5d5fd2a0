//! `bigsmall protect`, and the parity that `bigsmall compress --ecc` writes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use bigsmall_codec::output::{Attributes, Existing, NewFile, check_replaceable};
use bigsmall_codec::parity::{self, Geometry, Share, sidecar_path};
use bigsmall_codec::{Container, Error, ErrorKind, Original, PlainFile, Progress};
use serde::Serialize;

use super::containers_in;
use crate::failure::{DAMAGED, Failure};
use crate::interrupt;
use crate::options::{Force, Report, Threads};
use crate::tree;
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{self, percent};

const EXAMPLES: &str = "\
Examples:
  bigsmall protect model.bs
      writes model.bs.ecc: any tenth of model.bs may then be lost
  bigsmall protect --ecc 25 Llama-3-8B-bigsmall
      a quarter, for every container in and below the directory
  bigsmall compress --ecc model.safetensors
      compresses and protects

bigsmall repair puts damage right; decompress and verify --json say when there is any.

Exit codes: 0 done, 1 the container is damaged already and was not protected, 2 it could not be done.";

/// Write parity from which damage to a container can be repaired
///
/// The sidecar FILE.ecc holds Reed-Solomon parity: as much of the container and of the sidecar as the parity is large may
/// be damaged, in one burst or in thousands of places, and all of it comes back. The container stays as it is; it is
/// checked first, since damage that is there already cannot be told from what was meant.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container or directory to protect
    #[arg(value_name = "FILE")]
    source: PathBuf,

    /// How large the parity is, in per cent of the container: 1 to 100
    #[arg(long, value_name = "PERCENT", default_value = DEFAULT_PERCENT, value_parser = parse_share)]
    ecc: Share,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    report: Report,
}

/// [`Share::DEFAULT`] as it is written on the command line.
pub const DEFAULT_PERCENT: &str = "10";

/// The share of parity that `text` means.
///
/// # Errors
/// A sentence for people.
pub fn parse_share(text: &str) -> Result<Share, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let share = number.parse().ok().and_then(|percent| Share::percent(percent).ok());
    share.ok_or_else(|| "not a whole number of per cent from 1 to 100".to_owned())
}

/// A file that has a sidecar now. Its fields are the result for programs.
#[derive(Debug, Serialize)]
pub struct Protected {
    file: String,
    sidecar: String,
    file_bytes: u64,
    sidecar_bytes: u64,
    /// The longest burst that can be repaired, wherever it is.
    burst_bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Json<'a> {
    files: &'a [Protected],
}

/// Protects.
///
/// # Errors
/// When a container is damaged, or its sidecar may not or cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let metadata = tree::source_metadata(&args.source)?;
    let paths = if metadata.is_dir() { containers_in(&args.source)? } else { vec![args.source.clone()] };
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(tree::refuse_oddity(&args.source, &metadata));
    }
    let existing = args.force.existing();
    let mut total = 0;
    for path in &paths {
        may_write_sidecar(path, existing)?;
        // It is read twice: checked, and then protected.
        total += 2 * tree::source_metadata(path)?.len();
    }
    interrupt::watch()?;
    let meter = Meter::new(total, args.report.quiet);
    let protected = args.threads.run(|| {
        let protect = |path: &PathBuf| {
            check(path, &meter)?;
            protect(path, args.ecc, existing, &meter)
        };
        paths.iter().map(protect).collect::<Result<Vec<_>, _>>()
    });
    drop(meter);
    let protected = protected?;
    if args.report.json {
        ui::print_json(&Json { files: &protected })?;
    } else if !args.report.quiet {
        ui::print(&describe(&protected))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails when the sidecar of the container at `path` may not be written.
///
/// # Errors
/// When it exists and is to stay.
pub fn may_write_sidecar(path: &Path, existing: Existing) -> Result<(), Failure> {
    check_replaceable(&sidecar_path(path), existing).map_err(|e| match (e.kind(), existing) {
        (ErrorKind::AlreadyExists, Existing::Refuse) => Failure::new(format!("{e}\n--force replaces it")),
        _ => Failure::from(e),
    })
}

/// Fails unless the container at `path` is sound, as far as its checksums tell.
fn check(path: &Path, meter: &Meter) -> Result<(), Failure> {
    meter.set_file(&path.display().to_string());
    let damaged = |what: String| {
        Failure::with_code(
            DAMAGED,
            format!("{}: {what}\nit was not protected; bigsmall verify says what is lost", path.display()),
        )
    };
    let container = Container::open(path).map_err(|e| match e.kind() {
        ErrorKind::Corrupt => Failure::with_code(DAMAGED, e.to_string()),
        _ => Failure::from(e),
    })?;
    match container.damaged_chunks(meter)? {
        0 => Ok(()),
        chunks => Err(damaged(format!("{} damaged", ui::count(chunks, "stored chunk")))),
    }
}

/// Writes the sidecar of the file at `path`.
///
/// # Errors
/// When it may not or cannot be written.
pub fn protect(path: &Path, share: Share, existing: Existing, meter: &dyn Progress) -> Result<Protected, Failure> {
    write_sidecar(path, existing, |file, out| parity::protect(file, share, out, meter))
}

/// Writes the sidecar of the file at `path` anew, with the geometry that it had.
///
/// # Errors
/// When it cannot be written.
pub fn renew(path: &Path, geometry: Geometry, meter: &dyn Progress) -> Result<Protected, Failure> {
    write_sidecar(path, Existing::Replace, |file, out| {
        parity::protect_as(file, geometry, out, meter).map(|()| geometry)
    })
}

fn write_sidecar(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&PlainFile, &NewFile) -> Result<Geometry, Error>,
) -> Result<Protected, Failure> {
    let start = Instant::now();
    let sidecar = sidecar_path(path);
    let file = PlainFile::open(path)?;
    let metadata = file.file().metadata().map_err(|e| Error::io("cannot be read", e).in_file(path))?;
    let out = NewFile::create(&sidecar, existing)?;
    let geometry = write(&file, &out)?;
    out.commit(&Attributes::of(&metadata))?;
    Ok(Protected {
        file: path.display().to_string(),
        sidecar: sidecar.display().to_string(),
        file_bytes: file.len(),
        sidecar_bytes: geometry.sidecar_len(),
        burst_bytes: (geometry.parity_blocks() * geometry.block).min(file.len()),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The result for people.
pub fn describe(protected: &[Protected]) -> String {
    let mut table = Table::new(&["sidecar", "container", "parity", "share", "speed"]);
    for Protected { sidecar, file_bytes, sidecar_bytes, seconds, .. } in protected {
        let share = percent(*sidecar_bytes, *file_bytes).map_or("-".to_owned(), |percent| format!("{percent:.1} %"));
        let speed = ui::speed(*file_bytes, *seconds);
        table.row([sidecar.clone(), show_size(*file_bytes), show_size(*sidecar_bytes), share, speed]);
    }
    table.render("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_per_cent() {
        assert_eq!(parse_share(DEFAULT_PERCENT), Ok(Share::DEFAULT));
        assert_eq!(parse_share("25%"), Ok(Share::percent(25).unwrap()));
        for text in ["0", "101", "-1", "x", "", "1.5"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }
}
