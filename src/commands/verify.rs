//! `bigsmall verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bigsmall_codec::parity;
use bigsmall_codec::upstream::PackageParity;
use bigsmall_codec::verify::{Cause, Damage, Sample};
use bigsmall_codec::{ErrorKind, Original, PlainFile, Stored};
use serde::Serialize;

#[cfg(feature = "hub")]
use super::against_hub::{Listing, Verdict};
use super::{containers_in, has_container_name};
use crate::base::{BaseArgs, Bases};
use crate::failure::{DAMAGED, FAILED, Failure};
use crate::gpu::Chosen;
#[cfg(feature = "hub")]
use crate::hub::Source;
use crate::interrupt;
use crate::options::{OnDevice, Report, Threads};
use crate::tree;
use crate::ui::progress::{Meter, Quiet};
use crate::ui::size::show_size;
use crate::ui::{self, count};

/// Findings of a file that are shown to people; programs get all.
const SHOWN_FINDINGS: usize = 20;

/// What [`Cause::OriginalHash`] is called in the result for programs.
const ORIGINAL_HASH: &str = "original_sha256";

/// What a difference from the file on the Hub is called there.
const HUB_HASH: &str = "hub_hash";

#[cfg(feature = "hub")]
macro_rules! hub_example {
    () => {
        "  bigsmall verify --against-hub Qwen/Qwen3-0.6B Qwen3-0.6B-bigsmall
      compares the SHA-256 of each original with the one that the Hub has
"
    };
}

#[cfg(not(feature = "hub"))]
macro_rules! hub_example {
    () => {
        ""
    };
}

const EXAMPLES: &str = concat!(
    "\
Examples:
  bigsmall verify model.bs
  bigsmall verify Llama-3-8B-bigsmall
      every container in and below the directory
  bigsmall verify --fast Llama-3-8B-bigsmall
      only that each container is whole and its index sound, in milliseconds
  bigsmall verify --sample 0.05 model.bs
      a twentieth of the chunks, chosen at random, and how probable it is that damage was missed
  bigsmall verify --source model.safetensors model.bs
      compares every byte with the original as well
",
    hub_example!(),
    "  bigsmall verify tuned.bs --base Llama-3-8B
      a patch, over what it was made of
  bigsmall verify --json model.bs
      the same for programs: status sound, damaged or unchecked, and each finding

A .bs file of the Python package has MD5s of its tensors to be compared with and no checksums besides.

Exit codes: 0 everything is sound, 1 something is damaged, 2 nothing is known to be damaged but something could not be
checked."
);

/// Read all of a container and check every byte
///
/// Decodes every chunk after checking its checksum, and compares the MD5 of each tensor and the SHA-256 of the whole
/// original with the recorded ones. If there is a sidecar (SRC.ecc), every block of it is checked too. Damage does not
/// end the check: all that is lost is named. Nothing is written.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container or directory to check
    #[arg(value_name = "SRC")]
    source: PathBuf,

    #[command(flatten)]
    base: BaseArgs,

    /// Check only the structure and the checksums of header and index; no weights are read
    #[arg(long, group = "depth")]
    fast: bool,

    /// Check only a part of the chunks, chosen at random: more than 0, at most 1
    #[arg(long, value_name = "FRACTION", group = "depth", value_parser = parse_fraction)]
    sample: Option<f64>,

    /// Compare every byte with the file ORIGINAL as well; SRC is one container
    #[arg(long = "source", value_name = "ORIGINAL", group = "depth")]
    source_file: Option<PathBuf>,

    /// Compare the SHA-256 of each original with the one that the Hugging Face Hub has of the file as well
    ///
    /// Nothing is fetched but the list of the files. Below SRC, originals are looked for where they lie in the repo.
    #[cfg(feature = "hub")]
    #[arg(long, value_name = "REPO[@REVISION]", group = "depth", value_parser = Source::parse)]
    against_hub: Option<Source>,

    #[command(flatten)]
    device: OnDevice,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    report: Report,
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction = text.parse().ok().filter(|&fraction: &f64| fraction > 0.0 && fraction <= 1.0);
    fraction.ok_or_else(|| "not a number above 0 and at most 1".to_owned())
}

/// How thoroughly to look.
#[derive(Clone, Copy, Debug)]
enum Depth<'a> {
    Full,
    Fast,
    /// Of this part of the chunks.
    Sample(f64),
    /// All, and compared with this file.
    Source(&'a Path),
}

impl Args {
    fn depth(&self) -> Depth<'_> {
        match (self.fast, self.sample, &self.source_file) {
            (true, ..) => Depth::Fast,
            (_, Some(fraction), _) => Depth::Sample(fraction),
            (.., Some(source)) => Depth::Source(source),
            _ => Depth::Full,
        }
    }
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
    /// The sidecar, if there is one.
    sidecar: Option<Sidecar>,
    /// What was looked at if not all was.
    sample: Option<Sampled>,
}

/// The check of a sidecar.
#[derive(Serialize)]
struct Sidecar {
    file: String,
    status: Status,
    /// What is wrong with it.
    error: Option<String>,
    /// Blocks of the container, of those that its parity protects, that are damaged; null if they were not looked at, or it is of
    /// the Python package.
    damaged_blocks: Option<u64>,
    /// Whether `bigsmall repair` can repair them.
    repairable: Option<bool>,
}

/// What the check of a part of the chunks is worth.
#[derive(Serialize)]
struct Sampled {
    chunks: u64,
    /// How probable it is that damage to so many chunks was missed.
    missed: Vec<Missed>,
}

#[derive(Serialize)]
struct Missed {
    damaged_chunks: u64,
    /// What so many chunks are of the original on average, in bytes.
    bytes: u64,
    probability: f64,
}

/// A part of a container that is lost.
#[derive(Serialize)]
pub struct Finding {
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
    let depth = args.depth();
    #[cfg(feature = "hub")]
    let listing = args.against_hub.as_ref().map(Listing::of).transpose()?;
    if let (Depth::Source(source), true) = (depth, metadata.is_dir()) {
        let message = "can be compared with one container, not with a directory of them";
        return Err(Failure::new(format!("{}: {message}", source.display())));
    }
    let device = Chosen::open(args.device)?;
    interrupt::watch()?;
    let bases = Bases::open(&args.base.bases, args.report.quiet)?;
    // Not kept open: there may be more of them than a process may open. Their bases are read now, since only one meter can be shown at a
    // time; what is wrong with them is told file by file below.
    let len = |path: &PathBuf| {
        let stored = open(path).ok()?;
        let len = stored.len();
        let _ = bases.attach(stored, path);
        Some(len)
    };
    let lens = paths.iter().filter_map(len);
    let total: u64 = match depth {
        Depth::Fast => 0,
        Depth::Sample(fraction) => (lens.sum::<u64>() as f64 * fraction) as u64,
        Depth::Full => lens.sum(),
        Depth::Source(_) => 2 * lens.sum::<u64>(),
    };
    let meter = Meter::new(total, args.report.quiet);
    let files = args.threads.run(|| {
        let check = |path: &PathBuf| {
            let checked = check(path, &bases, depth, &device, &meter)?;
            #[cfg(feature = "hub")]
            let checked = match &listing {
                Some(listing) => compare_with_hub(listing, &args.source, path, checked, &meter)?,
                None => checked,
            };
            Ok(checked)
        };
        paths.iter().map(check).collect::<Result<Vec<_>, Failure>>()
    });
    drop(meter);
    let files = files?;
    let failure = failure(&files);
    print(args.report, depth, files)?;
    failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Checks the container at `path`.
///
/// # Errors
/// When it is interrupted, and when the file to compare it with cannot be read.
fn check(path: &Path, bases: &Bases, depth: Depth<'_>, device: &Chosen, meter: &Meter) -> Result<Checked, Failure> {
    let file = path.display().to_string();
    meter.set_file(&file);
    let opened = open(path);
    let sidecar = check_sidecar(path, depth, meter)?;
    let mut checked = Checked {
        file,
        status: Status::Sound,
        error: None,
        original_bytes: None,
        chunks: None,
        tensors: None,
        damage: Vec::new(),
        sidecar,
        sample: None,
    };
    let stored = match opened {
        Ok(stored) => stored,
        Err(error) => {
            checked.status = match error.kind() {
                ErrorKind::Corrupt => Status::Damaged,
                // Who calls a file so says that it is a container.
                ErrorKind::NotAContainer if has_container_name(path) => Status::Damaged,
                _ => Status::Unchecked,
            };
            checked.error = Some(error.to_string());
            return Ok(checked);
        }
    };
    let names: Vec<String> = stored.tensors().into_iter().map(|tensor| tensor.name.to_owned()).collect();
    checked.original_bytes = Some(stored.len());
    checked.chunks = Some(stored.grid().chunks());
    checked.tensors = Some(names.len() as u64);
    let complete = match (depth, stored) {
        // It reads no weights.
        (Depth::Fast, stored) => Ok(stored),
        (_, stored) => bases.attach(stored, path).and_then(|stored| {
            stored.check_complete().map_err(|e| e.in_file(path))?;
            Ok(stored)
        }),
    };
    let stored = match complete {
        Ok(stored) => stored,
        Err(failure) if interrupt::caught().is_some() => return Err(failure),
        Err(failure) => {
            checked.status = Status::Unchecked;
            checked.error = Some(failure.message);
            return Ok(checked);
        }
    };
    let mut damage = match depth {
        Depth::Fast => Vec::new(),
        Depth::Sample(fraction) => {
            let sample = stored.sample(fraction, seed(), meter)?;
            checked.sample = Some(sampled(&sample));
            sample.report.damage
        }
        Depth::Full | Depth::Source(_) => device.for_file(&stored).verify(&stored, meter)?.damage,
    };
    if let Depth::Source(source) = depth {
        let differences = stored.compare_with(&PlainFile::open(source)?, meter)?.damage;
        // What cannot be decoded has been found already.
        damage.extend(differences.into_iter().filter(|damage| damage.cause == Cause::Difference));
    }
    let sidecar = checked.sidecar.as_ref().map_or(Status::Sound, |sidecar| sidecar.status);
    checked.status = if damage.is_empty() && sidecar == Status::Sound {
        Status::Sound
    } else if sidecar == Status::Damaged || damage.iter().any(|damage| damage.kind == ErrorKind::Corrupt) {
        Status::Damaged
    } else {
        Status::Unchecked
    };
    checked.damage = damage.into_iter().map(|damage| finding(&names, damage)).collect();
    Ok(checked)
}

/// What is known about the container at `path`, which lies in or is `source`, once its original is compared with the file of the Hub.
///
/// # Errors
/// When it is interrupted, and when it can no longer be read.
#[cfg(feature = "hub")]
fn compare_with_hub(
    listing: &Listing,
    source: &Path,
    path: &Path,
    mut checked: Checked,
    meter: &Meter,
) -> Result<Checked, Failure> {
    if checked.status != Status::Sound {
        return Ok(checked);
    }
    let relative = path.strip_prefix(source).ok().filter(|relative| relative.parent().is_some());
    let relative = relative.unwrap_or(Path::new(path.file_name().unwrap_or_default()));
    let stored = open(path)?;
    match listing.compare(relative, &stored, &Quiet(meter))? {
        Verdict::Same => {}
        Verdict::Unknown(what) => (checked.status, checked.error) = (Status::Unchecked, Some(what)),
        Verdict::Different(message) => {
            checked.status = Status::Damaged;
            checked.damage.push(Finding { cause: HUB_HASH, tensor: None, start: 0, end: stored.len(), message });
        }
    }
    Ok(checked)
}

fn open(path: &Path) -> bigsmall_codec::Result<Stored> {
    Stored::open(path, &Arc::default())
}

/// Checks the sidecar of the container at `path`, if it has one.
///
/// # Errors
/// Only when it is interrupted.
fn check_sidecar(path: &Path, depth: Depth<'_>, meter: &Meter) -> Result<Option<Sidecar>, Failure> {
    let sidecar_path = parity::sidecar_path(path);
    if std::fs::symlink_metadata(&sidecar_path).is_err() {
        return Ok(None);
    }
    let file = sidecar_path.display().to_string();
    let mut checked = Sidecar { file, status: Status::Sound, error: None, damaged_blocks: None, repairable: None };
    if PackageParity::is_one(&sidecar_path).unwrap_or(false) {
        check_package_parity(path, &sidecar_path, depth, &mut checked, meter)?;
        return Ok(Some(checked));
    }
    let opened = PlainFile::open(path).and_then(|file| Ok((file, parity::Sidecar::open(&sidecar_path)?)));
    let (container, sidecar) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            checked.status = match error.kind() {
                ErrorKind::Corrupt | ErrorKind::NotAContainer => Status::Damaged,
                _ => Status::Unchecked,
            };
            checked.error = Some(error.to_string());
            return Ok(Some(checked));
        }
    };
    let mut wrong = Vec::new();
    let damage = sidecar.damage();
    if container.len() != sidecar.geometry().file_len {
        let (len, protected) = (container.len(), sidecar.geometry().file_len);
        wrong.push(format!("it protects a container of {protected} bytes, and this one has {len}"));
    }
    if damage.headers > 0 {
        wrong.push("one of its two headers is damaged".to_owned());
    }
    if damage.pages > 0 {
        wrong.push(format!("{} of its checksums damaged", count(damage.pages, "page")));
    }
    if damage.wrong_length {
        wrong.push("it is longer or shorter than it was".to_owned());
    }
    if matches!(depth, Depth::Full | Depth::Source(_)) {
        let len = container.len();
        // What it reads counts as no progress: the bytes of the original do.
        let damage = parity::examine(&parity::Mended::new(sidecar, vec![Box::new(container)])?, len, &Quiet(meter))?;
        if damage.parity_blocks > 0 {
            wrong.push(format!("{} of parity damaged", count(damage.parity_blocks, "block")));
        }
        checked.damaged_blocks = Some(damage.blocks.len() as u64);
        checked.repairable = Some(damage.is_repairable());
        if !damage.blocks.is_empty() {
            let blocks = count(damage.blocks.len() as u64, "block");
            wrong.push(match damage.is_repairable() {
                true => format!("{blocks} of the container are not what it protects; bigsmall repair can restore them"),
                false => format!("{blocks} of the container are not what it protects: more than it can restore"),
            });
        }
    }
    if !wrong.is_empty() {
        checked.status = Status::Damaged;
        checked.error = Some(wrong.join("; "));
    }
    Ok(Some(checked))
}

/// Checks the sidecar that the Python package wrote for the file at `path`. Its parity is compared in a full check alone.
///
/// # Errors
/// Only when it is interrupted.
fn check_package_parity(
    path: &Path,
    sidecar_path: &Path,
    depth: Depth<'_>,
    checked: &mut Sidecar,
    meter: &Meter,
) -> Result<(), Failure> {
    let (file, parity) = match PlainFile::open(path).and_then(|file| Ok((file, PackageParity::open(sidecar_path)?))) {
        Ok(opened) => opened,
        Err(error) => {
            let is_damaged = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotAContainer);
            checked.status = if is_damaged { Status::Damaged } else { Status::Unchecked };
            checked.error = Some(error.to_string());
            return Ok(());
        }
    };
    if !matches!(depth, Depth::Full | Depth::Source(_)) {
        return Ok(());
    }
    let damage = parity.examine(&file, &Quiet(meter))?;
    let mut wrong = Vec::new();
    if damage.wrong_parity_bytes > 0 {
        wrong.push(format!("{} of parity wrong", count(damage.wrong_parity_bytes, "byte")));
    }
    if damage.wrong_bytes > 0 {
        let bytes = count(damage.wrong_bytes, "byte");
        wrong.push(format!("{bytes} of the file are not what it protects; bigsmall repair can put them right"));
    }
    if damage.lost_chunks > 0 || damage.wrong_length {
        wrong.push("more of the file is not what it protects than it can restore".to_owned());
    }
    checked.repairable = Some(damage.lost_chunks == 0 && !damage.wrong_length);
    if !wrong.is_empty() {
        checked.status = Status::Damaged;
        checked.error = Some(wrong.join("; "));
    }
    Ok(())
}

/// What no two runs have in common, to choose other chunks each time.
fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
}

fn sampled(sample: &Sample) -> Sampled {
    let all = sample.report.chunks;
    let sizes = [1, 10, 100, 1000, 10_000].into_iter().filter(|&damaged| damaged <= all);
    let missed = sizes.map(|damaged_chunks| Missed {
        damaged_chunks,
        bytes: (u128::from(sample.report.original_len) * u128::from(damaged_chunks) / u128::from(all)) as u64,
        probability: sample.miss_probability(damaged_chunks),
    });
    Sampled { chunks: sample.chunks, missed: missed.collect() }
}

/// What is wrong, with names; `tensors` are those of all tensors.
pub fn finding(tensors: &[impl AsRef<str>], damage: Damage) -> Finding {
    let cause = match damage.cause {
        Cause::Chunk => "chunk",
        Cause::TensorHash => "tensor_md5",
        Cause::OriginalHash => ORIGINAL_HASH,
        Cause::Difference => "difference",
    };
    let tensor = damage.tensor.map(|number| tensors[number].as_ref().to_owned());
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
            // The container itself is sound.
            (None, _) if file.damage.is_empty() => match &file.sidecar {
                Some(sidecar) => format!("{}: {what}", sidecar.file),
                None => format!("{}: {what}", file.file),
            },
            (None, _) => format!("{}: {what}", file.file),
        },
        _ => format!("{} of {} {what}", with(status).count(), count(files.len() as u64, "container")),
    };
    Some(Failure::with_code(code, message))
}

fn print(report: Report, depth: Depth<'_>, files: Vec<Checked>) -> Result<(), Failure> {
    if report.json {
        let number = |status| files.iter().filter(|file| file.status == status).count();
        let (sound, damaged, unchecked) = (number(Status::Sound), number(Status::Damaged), number(Status::Unchecked));
        return ui::print_json(&Json { files, sound, damaged, unchecked });
    }
    if report.quiet {
        return Ok(());
    }
    let text: String = files.iter().map(|file| describe(file, depth)).collect();
    ui::print(&ui::printable(&text))
}

/// The result for people.
fn describe(checked: &Checked, depth: Depth<'_>) -> String {
    let Checked { file, status, .. } = checked;
    let mut text = match (status, checked.original_bytes, checked.chunks, checked.tensors) {
        (status, Some(bytes), Some(chunks), Some(tensors))
            if *status == Status::Sound || checked.damage.is_empty() && checked.error.is_none() =>
        {
            let (size, chunks, tensors) = (show_size(bytes), count(chunks, "chunk"), count(tensors, "tensor"));
            let sound = match (&checked.sample, depth) {
                (Some(sample), _) => format!("nothing wrong in {}", count(sample.chunks, "chunk")),
                (_, Depth::Fast) => "whole, its index is sound".to_owned(),
                (_, Depth::Source(source)) => format!("sound, and the same as {}", source.display()),
                _ => "sound".to_owned(),
            };
            format!("{file}: {sound} ({size}, {chunks}, {tensors})\n")
        }
        (Status::Damaged, ..) => format!("{file}: damaged\n"),
        _ => format!("{file}: not checked\n"),
    };
    if let Some(error) = &checked.error {
        // It begins with the file's name, which is there already.
        let error = error.strip_prefix(&format!("{file}: ")).unwrap_or(error);
        text += &format!("  {error}\n");
    }
    text += &list(&checked.damage);
    if let Some(sidecar) = &checked.sidecar {
        text += &match &sidecar.error {
            None => format!("  {}: sound\n", sidecar.file),
            Some(error) => {
                format!(
                    "  {}: damaged: {}\n",
                    sidecar.file,
                    error.strip_prefix(&format!("{}: ", sidecar.file)).unwrap_or(error)
                )
            }
        };
    }
    for Missed { damaged_chunks, bytes, probability } in checked.sample.iter().flat_map(|sample| &sample.missed) {
        let chunks = count(*damaged_chunks, "chunk");
        let size = show_size(*bytes);
        text += &format!(
            "  damage to {chunks} (about {size}) was missed with probability {}\n",
            show_probability(*probability)
        );
    }
    text
}

/// A probability for people.
fn show_probability(probability: f64) -> String {
    match probability {
        0.0 => "0".to_owned(),
        p if p < 0.001 => format!("{p:.0e}"),
        p => format!("{p:.3}"),
    }
}

/// The findings for people, a line each, and how many more there are.
pub fn list(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings.iter().take(SHOWN_FINDINGS) {
        let Finding { tensor, start, end, message, .. } = finding;
        text += &match tensor {
            _ if [ORIGINAL_HASH, HUB_HASH].contains(&finding.cause) => format!("  {message}\n"),
            Some(name) => format!("  tensor {name:?}, bytes {start} to {end}: {message}\n"),
            None => format!("  no tensor, bytes {start} to {end}: {message}\n"),
        };
    }
    if findings.len() > SHOWN_FINDINGS {
        text += &format!("  and {} more; --json gives all\n", findings.len() - SHOWN_FINDINGS);
    }
    text
}
