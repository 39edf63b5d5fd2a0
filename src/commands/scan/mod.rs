//! `bigsmall scan`.

mod findings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bigsmall_codec::scan::{Estimate, Extent, MODES, PerMode, Scan, pattern, scan};
use bigsmall_codec::{Mode, Original, PlainFile};
use serde::Serialize;

use super::auto_delta::{self, Choice, JsonChoice};
use super::compress::{WEIGHTS, holds_weights, refuse_container};
use crate::failure::Failure;
use crate::interrupt;
use crate::options::{Report, Threads};
use crate::search::Places;
use crate::tree::{self, Oddities, Tree};
use crate::ui::progress::{Meter, Quiet};
use crate::ui::size::{parse_size, show_size};
use crate::ui::table::Table;
use crate::ui::{self, count};
use findings::Finding;

const EXAMPLES: &str = "\
Examples:
  bigsmall scan model.safetensors
      what its container would take, and what its tensors are like
  bigsmall scan Llama-3-8B
      all .safetensors and .gguf files in and below the directory, together
  bigsmall scan --full model.gguf
      the same from all of it, which takes as long as compressing it three times
  bigsmall scan --base-dir /models my-tune
      looks in /models, too, for the model that it is a fine-tune of, and says what a patch would take
  bigsmall scan --json Llama-3-8B
      the same for programs, with exact numbers

Tensors whose names differ in numbers only are told together. What they would take comes from coding a sample of each kind as
bigsmall compress would; after ± stands how far off it may be, in points of the original's size. What is said of values
comes from that sample too, and from a few places of every tensor: --full has seen them all.";

/// Say what to expect of a model before it is compressed
///
/// SRC is a file, or a directory with .safetensors or .gguf files in it or below it. Nothing is written.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file or directory to look at
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Read and code everything, not a sample
    #[arg(long, conflicts_with = "sample")]
    full: bool,

    /// Code about SIZE of each file; what is not larger is coded as a whole
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256M")]
    sample: u64,

    /// Look for the base of a fine-tune in DIR and below it as well; several times if need be
    ///
    /// It is looked for in the cache of the Hugging Face Hub and among models that compress --auto-delta has seen in any case.
    #[arg(long = "base-dir", value_name = "DIR")]
    base_dirs: Vec<PathBuf>,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    report: Report,
}

/// A file and what is expected of it.
struct Scanned {
    file: String,
    scan: Scan,
}

/// The result for programs.
#[derive(Serialize)]
struct Json {
    files: Vec<JsonFile>,
    groups: Vec<Group>,
    findings: Vec<Finding>,
    /// The base of each model.
    bases: Vec<JsonChoice>,
    total: Expected,
}

#[derive(Serialize)]
struct JsonFile {
    file: String,
    #[serde(flatten)]
    expected: Expected,
}

/// What is expected of one file or several.
#[derive(Serialize)]
struct Expected {
    original_bytes: u64,
    /// Bytes that the expectation comes from; if these are all it is exact but for the index.
    coded_bytes: u64,
    tensors: u64,
    modes: Modes<Container>,
}

/// Something for each mode, for programs.
#[derive(Serialize)]
struct Modes<T> {
    balanced: T,
    storage: T,
    inference: T,
}

impl<T> Modes<T> {
    /// Of what there is for each of the [`MODES`].
    fn of(each: impl FnMut(usize) -> T) -> Modes<T> {
        let [balanced, storage, inference] = std::array::from_fn(each);
        Modes { balanced, storage, inference }
    }
}

/// A container to be expected.
#[derive(Serialize)]
struct Container {
    container_bytes: u64,
    /// The container is smaller or larger than expected by not more than that, with 95 % probability.
    error_bytes: u64,
    /// As part of the original; null of nothing.
    ratio: Option<f64>,
    seconds: f64,
}

/// Tensors whose names differ in numbers only.
#[derive(Serialize)]
struct Group {
    tensors: String,
    dtype: String,
    count: u64,
    original_bytes: u64,
    modes: Modes<Stored>,
    #[serde(skip)]
    stored: PerMode<Estimate>,
}

/// What tensors are expected to take, without the index.
#[derive(Clone, Copy, Serialize)]
struct Stored {
    stored_bytes: u64,
    error_bytes: u64,
}

impl From<Estimate> for Stored {
    fn from(estimate: Estimate) -> Stored {
        Stored { stored_bytes: estimate.bytes.round() as u64, error_bytes: estimate.error().ceil() as u64 }
    }
}

/// Scans.
///
/// # Errors
/// When something cannot be read, is a container already, or there is nothing to scan.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let paths = sources(args)?;
    interrupt::watch()?;
    let extent = if args.full { Extent::Everything } else { Extent::Sample(args.sample) };
    let originals = paths.iter().map(|path| {
        refuse_container(path)?;
        Ok(PlainFile::open(path)?)
    });
    let originals = originals.collect::<Result<Vec<PlainFile>, Failure>>()?;
    let to_come = originals.iter().map(|original| match extent {
        Extent::Sample(bytes) => original.len().min(bytes),
        Extent::Everything => original.len(),
    });
    let meter = Meter::new(to_come.sum(), args.report.quiet);
    let scanned = args.threads.run(|| {
        let scans = paths.iter().zip(&originals).map(|(path, original)| {
            let file = path.display().to_string();
            meter.set_file(&file);
            Ok(Scanned { file, scan: scan(original, extent, &meter)? })
        });
        let scans = scans.collect::<Result<Vec<Scanned>, Failure>>()?;
        Ok((scans, rayon::current_num_threads()))
    });
    let places = Places { directories: &args.base_dirs, remember: false };
    let bases = auto_delta::choose(&args.source, &paths, places, &Quiet(&meter));
    drop(meter);
    let ((scanned, threads), bases) = (scanned?, bases?);
    if args.report.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    let (groups, findings) = (groups(&scanned), findings::of(&scanned));
    let total = Expected::of(&scanned, threads);
    if args.report.json {
        let files = scanned.iter().map(|scanned| JsonFile {
            file: scanned.file.clone(),
            expected: Expected::of(std::slice::from_ref(scanned), threads),
        });
        let bases = bases.iter().map(Choice::json).collect();
        ui::print_json(&Json { files: files.collect(), groups, findings, bases, total })?;
    } else {
        ui::print(&describe(&scanned, &groups, &findings, &total))?;
        // That there is none is of interest to who has said where it should be.
        if !args.base_dirs.is_empty() || bases.iter().any(Choice::is_found) {
            ui::print(&format!("\n{}", auto_delta::describe(&bases)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The files to scan.
fn sources(args: &Args) -> Result<Vec<PathBuf>, Failure> {
    let source = &args.source;
    let metadata = tree::source_metadata(source)?;
    if metadata.is_file() {
        return Ok(vec![source.clone()]);
    }
    if !metadata.is_dir() {
        return Err(tree::refuse_oddity(source, &metadata));
    }
    let files = Tree::read(source, Oddities::Skip)?.files.into_iter().map(|file| file.path);
    let files: Vec<PathBuf> = files.filter(|path| holds_weights(path)).collect();
    match files.is_empty() {
        true => Err(Failure::new(format!("{}: there is no {WEIGHTS} in it: nothing to scan", source.display()))),
        false => Ok(files),
    }
}

impl Expected {
    /// What is expected of all of them, on so many threads.
    fn of(scanned: &[Scanned], threads: usize) -> Expected {
        let original_bytes = scanned.iter().map(|scanned| scanned.scan.len).sum();
        let modes = Modes::of(|mode| {
            let container =
                scanned.iter().fold(Estimate::default(), |sum, scanned| sum + scanned.scan.containers[mode]);
            let time: Duration = scanned.iter().map(|scanned| scanned.scan.times[mode]).sum();
            Container {
                container_bytes: container.bytes.round() as u64,
                error_bytes: container.error().ceil() as u64,
                ratio: (original_bytes > 0).then(|| container.bytes / original_bytes as f64),
                seconds: time.as_secs_f64() / threads as f64,
            }
        });
        Expected {
            original_bytes,
            coded_bytes: scanned.iter().map(|scanned| scanned.scan.coded).sum(),
            tensors: scanned.iter().map(|scanned| scanned.scan.tensors.len() as u64).sum(),
            modes,
        }
    }
}

/// The tensors of all files in groups, in the order in which the first of each comes.
fn groups(scanned: &[Scanned]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for tensor in scanned.iter().flat_map(|scanned| &scanned.scan.tensors) {
        let place = *places.entry((pattern(&tensor.name), &tensor.dtype)).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group {
                tensors: String::new(),
                dtype: tensor.dtype.clone(),
                count: 0,
                original_bytes: 0,
                modes: Modes::of(|_| Stored { stored_bytes: 0, error_bytes: 0 }),
                stored: Default::default(),
            });
        }
        let group = &mut groups[place];
        group.count += 1;
        // One that is alone keeps its numbers.
        group.tensors = if group.count == 1 { tensor.name.clone() } else { pattern(&tensor.name) };
        group.original_bytes += tensor.range.end - tensor.range.start;
        (0..MODES.len()).for_each(|mode| group.stored[mode] = group.stored[mode] + tensor.stored[mode]);
    }
    for group in &mut groups {
        group.modes = Modes::of(|mode| group.stored[mode].into());
    }
    groups
}

/// The result for people.
fn describe(scanned: &[Scanned], groups: &[Group], findings: &[Finding], total: &Expected) -> String {
    /// Groups that are told; programs are told of all.
    const GROUPS: usize = 60;
    let mut text = String::new();
    let what = match scanned {
        [only] => only.file.clone(),
        all => count(all.len() as u64, "file"),
    };
    let from = match total.coded_bytes == total.original_bytes {
        true => "all of it was coded".to_owned(),
        false => format!("{} of it were coded", show_size(total.coded_bytes)),
    };
    let size = show_size(total.original_bytes);
    text += &format!("{what}: {size}, {}; {from}\n\n", count(total.tensors, "tensor"));

    let mut modes = Table::new(&["mode", "container", "ratio", "±", "saved", "time"]);
    let original = total.original_bytes as f64;
    for (mode, container) in
        MODES.into_iter().zip([&total.modes.balanced, &total.modes.storage, &total.modes.inference])
    {
        let saved = total.original_bytes.saturating_sub(container.container_bytes);
        modes.row([
            name_of(mode).to_owned(),
            show_size(container.container_bytes),
            container.ratio.map_or("-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0)),
            points(container.error_bytes as f64, original),
            show_size(saved),
            show_time(container.seconds),
        ]);
    }
    text += &modes.render("  ");

    if !groups.is_empty() {
        let mut table =
            Table::with_words(&["tensors", "number", "dtype", "original", "balanced", "±", "storage"], &[2]);
        for group in groups.iter().take(GROUPS) {
            let original = group.original_bytes as f64;
            let ratio = |mode: usize| match group.original_bytes {
                0 => "-".to_owned(),
                _ => format!("{:.2} %", group.stored[mode].bytes * 100.0 / original),
            };
            table.row([
                group.tensors.clone(),
                group.count.to_string(),
                group.dtype.clone(),
                show_size(group.original_bytes),
                ratio(0),
                points(group.stored[0].error(), original),
                ratio(1),
            ]);
        }
        text += &format!("\n{}", table.render("  "));
        if groups.len() > GROUPS {
            text += &format!("  and {} more; --json gives all\n", count((groups.len() - GROUPS) as u64, "group"));
        }
    }
    if !findings.is_empty() {
        text.push('\n');
        findings.iter().for_each(|finding| text += &format!("  * {}\n", ui::printable(&finding.message)));
    }
    text
}

/// An error of so many bytes as points of what it is an error of.
fn points(error: f64, original: f64) -> String {
    if original > 0.0 { format!("{:.2}", error * 100.0 / original) } else { "-".to_owned() }
}

/// How the option of a mode is called.
fn name_of(mode: Mode) -> &'static str {
    match mode {
        Mode::Storage => "storage",
        Mode::Balanced => "balanced",
        Mode::Inference => "inference",
    }
}

/// An estimated time: one or two digits of it.
fn show_time(seconds: f64) -> String {
    match seconds {
        _ if seconds < 0.95 => format!("{seconds:.1} s"),
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}
