//! `bigsmall benchmark`.

mod measure;
mod mounted;
mod portion;
mod scratch;

use std::path::PathBuf;
use std::process::ExitCode;

use bigsmall_codec::container::Options;
use bigsmall_codec::{Mode, PlainFile};
use serde::Serialize;

use super::compress::{WEIGHTS, holds_weights, refuse_container};
use crate::failure::Failure;
use crate::gpu;
use crate::interrupt;
use crate::options::{DeviceChoice, Report, Threads, parse_device};
use crate::tree::{self, Oddities, Tree};
use crate::ui::chart;
use crate::ui::progress::Steps;
use crate::ui::size::{parse_size, show_size};
use crate::ui::table::Table;
use crate::ui::{self, speed};
use measure::{LayerSpeed, Speed};
use portion::Portion;
use scratch::Scratch;

const EXAMPLES: &str = "\
Examples:
  bigsmall benchmark model.safetensors
      how fast this machine encodes and decodes it in each mode, beside memcpy and zstd
  bigsmall benchmark --threads 1 model.safetensors
      the same on one core
  bigsmall benchmark --json Llama-3-8B
      its largest file, for programs

Everything is measured in memory, with what is read and written in it already, but for verify and the mount, which
read a container in the directory for temporary files (TMPDIR); it is removed afterwards. Speeds are in bytes of the
original per second, the best of several runs. Each mode is decoded and compared with the original before it is told.";

/// Measure how fast a model is encoded and decoded on this machine
///
/// SRC is a .safetensors or .gguf file, or a directory, the largest such file of which is taken. Of a large file some tensors are
/// measured, of each kind of layer.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file or directory to measure with
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Measure with about SIZE of it; about three times as much memory is needed
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256M")]
    sample: u64,

    /// Measure decoding by a GPU as well: cuda (an NVIDIA GPU; cuda:1 for the second one), or auto, a GPU if there is one; cpu is none
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    device: DeviceChoice,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    report: Report,
}

/// The result for programs. Speeds are in bytes of the original per second.
#[derive(Serialize)]
struct Json {
    file: String,
    original_bytes: u64,
    /// Bytes that were measured with.
    measured_bytes: u64,
    threads: usize,
    /// The vector instructions in use.
    implementation: &'static str,
    /// `memcpy`, `zstd -1`, `zstd -3`.
    references: Vec<Speed>,
    /// `balanced`, `storage`, `inference`.
    modes: Vec<Speed>,
    /// Decoding the first of these by a GPU, to memory of the host; null unless one is asked for and there is one.
    gpu: Option<Speed>,
    /// On one thread, by kind of layer, in the default mode.
    layers: Vec<LayerSpeed>,
    verify: f64,
    /// Reading a file through the mount: null if nothing can be mounted here, with the reason.
    mount: Option<MountSpeed>,
    mount_error: Option<String>,
}

/// Reading through the mount.
#[derive(Serialize)]
pub struct MountSpeed {
    /// The first time, when all is decoded.
    first: f64,
    /// When the kernel has it.
    again: f64,
}

/// Measures.
///
/// # Errors
/// When the file cannot be read, is a container, or what was coded does not come back.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let path = source(args)?;
    refuse_container(&path)?;
    let file = PlainFile::open(&path)?;
    let gpu = gpu::number_of(args.device)?;
    interrupt::watch()?;
    let result = args.threads.run(|| measure_all(&path.display().to_string(), &file, gpu, args))?;
    if args.report.json {
        ui::print_json(&result)?;
    } else if !args.report.quiet {
        ui::print(&describe(&result))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file to measure with.
fn source(args: &Args) -> Result<PathBuf, Failure> {
    let source = &args.source;
    let metadata = tree::source_metadata(source)?;
    if metadata.is_file() {
        return Ok(source.clone());
    }
    if !metadata.is_dir() {
        return Err(tree::refuse_oddity(source, &metadata));
    }
    let files = Tree::read(source, Oddities::Skip)?.files.into_iter().filter(|file| holds_weights(&file.path));
    let largest = files.max_by_key(|file| file.metadata.len()).map(|file| file.path);
    largest.ok_or_else(|| {
        Failure::new(format!("{}: there is no {WEIGHTS} in it: nothing to measure with", source.display()))
    })
}

/// The modes, by the names of their options.
const MODES: [(&str, Mode); 3] =
    [("balanced", Mode::Balanced), ("storage", Mode::Storage), ("inference", Mode::Inference)];

fn measure_all(name: &str, file: &PlainFile, gpu: Option<usize>, args: &Args) -> Result<Json, Failure> {
    let steps = Steps::new(8 + u64::from(gpu.is_some()), args.report.quiet);
    steps.begin("reading");
    let Portion { source, whole_len } = portion::of(file, name, args.sample)?;
    let mut out = vec![0; source.bytes().len()];
    let mut references = Vec::new();
    steps.begin("memcpy and zstd");
    references.push(measure::memcpy(source.bytes(), &mut out)?);
    for level in [1, 3] {
        references.push(measure::zstd(level, source.bytes(), &mut out)?);
    }
    let mut modes = Vec::new();
    let mut containers = Vec::new();
    for (name, mode) in MODES {
        steps.begin(name);
        let options = Options { mode, chunk_size: mode.chunk_size() };
        let (speed, container) = measure::mode(name, &options, &source, &mut out)?;
        modes.push(speed);
        containers.push(container);
    }
    drop(out);
    let gpu = gpu.map(|number| {
        steps.begin("GPU");
        measure::gpu(number, &source, &containers[0])
    });
    let gpu = gpu.transpose()?;
    steps.begin("layers");
    let layers = measure::layers(&source, &containers[0])?;
    let scratch = Scratch::new()?;
    let container = scratch.write("model.bs", containers.swap_remove(0).bytes())?;
    drop(containers);
    steps.begin("verify");
    let verify = measure::verify(&container)?;
    steps.begin("mount");
    let mounted = mounted::read(&scratch, source.bytes().len() as u64);
    scratch.remove()?;
    interrupted()?;
    let (mount, mount_error) = match mounted {
        Ok(speed) => (Some(speed), None),
        Err(failure) => (None, Some(failure.message)),
    };
    Ok(Json {
        file: name.to_owned(),
        original_bytes: whole_len,
        measured_bytes: source.bytes().len() as u64,
        threads: rayon::current_num_threads(),
        implementation: bigsmall_codec::implementation(),
        references,
        modes,
        gpu,
        layers,
        verify,
        mount,
        mount_error,
    })
}

/// Ends with what a signal asks for.
fn interrupted() -> Result<(), Failure> {
    interrupt::caught().map_or(Ok(()), |_| Err(interrupt::failure()))
}

/// The result for people.
fn describe(result: &Json) -> String {
    let per_second = |speed: Option<f64>| speed.map_or("-".to_owned(), speed_of);
    let of = if result.measured_bytes == result.original_bytes {
        show_size(result.original_bytes)
    } else {
        format!("{} of {}", show_size(result.measured_bytes), show_size(result.original_bytes))
    };
    let threads = ui::count(result.threads as u64, "thread");
    let mut text = format!("{}: {of}, {threads}, {}\n\n", result.file, result.implementation);
    let all = || result.references.iter().chain(&result.modes).chain(&result.gpu);
    let mut table = Table::new(&["", "ratio", "encode", "decode", "of memcpy"]);
    let memcpy = result.references[0].decode;
    for row in all() {
        table.row([
            row.name.clone(),
            format!("{:.2} %", row.ratio * 100.0),
            per_second(row.encode),
            speed_of(row.decode),
            format!("{:.2}", row.decode / memcpy),
        ]);
    }
    table.row(["verify".to_owned(), String::new(), String::new(), speed_of(result.verify), String::new()]);
    if let Some(mount) = &result.mount {
        for (name, speed) in [("mount, first read", mount.first), ("mount, read again", mount.again)] {
            table.row([
                name.to_owned(),
                String::new(),
                String::new(),
                speed_of(speed),
                format!("{:.2}", speed / memcpy),
            ]);
        }
    }
    text += &table.render("  ");
    if let Some(error) = &result.mount_error {
        text += &format!("  nothing was mounted: {}\n", ui::printable(error));
    }
    let rows: Vec<_> = all().map(|row| (row.name.clone(), row.decode, speed_of(row.decode))).collect();
    text += &format!("\n  decode\n{}", chart::bars(&rows, "  "));
    let rows: Vec<_> = all().filter_map(|row| Some((row.name.clone(), row.encode?, speed_of(row.encode?)))).collect();
    text += &format!("\n  encode\n{}", chart::bars(&rows, "  "));
    if !result.layers.is_empty() {
        let mut table =
            Table::with_words(&["layers, on one thread", "dtype", "original", "ratio", "encode", "decode"], &[1]);
        for layer in &result.layers {
            table.row([
                layer.tensors.clone(),
                layer.dtype.clone(),
                show_size(layer.original_bytes),
                format!("{:.2} %", layer.ratio * 100.0),
                speed_of(layer.encode),
                speed_of(layer.decode),
            ]);
        }
        text += &format!("\n{}", table.render("  "));
    }
    text
}

fn speed_of(bytes_per_second: f64) -> String {
    speed(bytes_per_second as u64, 1.0)
}
