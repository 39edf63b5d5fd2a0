//! `bigsmall doctor`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use bigsmall_codec::container::VERSION;
use bigsmall_codec::self_test;
use bigsmall_fs::session::check_fuse_device;
use serde::Serialize;

use crate::failure::{DAMAGED, Failure};
use crate::ui;
use crate::ui::size::show_size;

const EXAMPLES: &str = "\
Examples:
  bigsmall doctor
  bigsmall doctor --gpu-verify
      also decodes test files on each GPU and compares them with what the processor makes of them
  bigsmall doctor --json
      the same for programs

Exit codes: 0 what was tried works (what is merely missing is told), 1 something decodes wrongly: do not use it.";

/// Say what works on this machine
///
/// Which vector instructions are used, whether there is what a mount needs, which GPUs there are. Every decoder that this
/// processor can run is tried with test data of all kinds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Try each GPU with all test files
    #[arg(long)]
    gpu_verify: bool,

    /// Give the result as JSON
    #[arg(long)]
    json: bool,
}

/// All that was found; the result for programs.
#[derive(Serialize)]
struct Findings {
    version: &'static str,
    container_format: String,
    processor: Processor,
    mount: Mount,
    gpu: Graphics,
    trials: Vec<Trial>,
    /// Whether all that was tried decodes rightly.
    sound: bool,
}

#[derive(Serialize)]
struct Processor {
    architecture: &'static str,
    threads: usize,
    /// The vector instructions that decoders use, and those that they could use.
    instructions: &'static str,
    available_instructions: Vec<&'static str>,
}

#[derive(Serialize)]
struct Mount {
    /// Whether /dev/fuse can be used, and why not.
    fuse: bool,
    fuse_error: Option<String>,
    root: bool,
    /// The program with which others than root mount.
    fusermount3: Option<String>,
    /// Whether others than root may use --allow-other.
    user_allow_other: bool,
    /// Whether the kernel can be asked to read further ahead than its 128 KiB.
    read_ahead: bool,
}

#[derive(Serialize)]
struct Graphics {
    /// Whether this program was built with the feature for them.
    supported: bool,
    /// Why there is none that can be used.
    error: Option<String>,
    gpus: Vec<Gpu>,
}

#[derive(Serialize)]
struct Gpu {
    number: usize,
    name: Option<String>,
    compute_capability: Option<String>,
    memory_bytes: Option<u64>,
    driver_cuda_version: Option<String>,
    error: Option<String>,
}

/// A decoder that was tried.
#[derive(Serialize)]
struct Trial {
    name: String,
    bytes: u64,
    error: Option<String>,
}

/// Looks and tries.
///
/// # Errors
/// When something decodes wrongly, and when the result cannot be printed.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut trials: Vec<Trial> = self_test::try_processor()
        .into_iter()
        .map(|trial| Trial { name: trial.name, bytes: trial.bytes, error: trial.error.map(|e| e.to_string()) })
        .collect();
    let gpu = look_for_gpus(args.gpu_verify, &mut trials);
    let (available_instructions, instructions) = self_test::vector_instructions();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        container_format: VERSION.to_string(),
        processor: Processor { architecture: std::env::consts::ARCH, threads, instructions, available_instructions },
        mount: look_at_mounts(),
        gpu,
        sound: trials.iter().all(|trial| trial.error.is_none()),
        trials,
    };
    if args.json {
        ui::print_json(&findings)?;
    } else {
        ui::print(&ui::printable(&describe(&findings)))?;
    }
    match findings.trials.iter().find(|trial| trial.error.is_some()) {
        None => Ok(ExitCode::SUCCESS),
        Some(trial) => Err(Failure::with_code(DAMAGED, format!("{}: decodes wrongly; do not use it", trial.name))),
    }
}

fn look_at_mounts() -> Mount {
    let fuse = check_fuse_device();
    let root = is_root();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fusermount3 = std::env::split_paths(&path).map(|directory| directory.join("fusermount3")).find(|p| p.is_file());
    let configuration = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    Mount {
        fuse: fuse.is_ok(),
        fuse_error: fuse.err().map(|error| error.to_string()),
        root,
        fusermount3: fusermount3.map(|path| path.display().to_string()),
        user_allow_other: configuration.lines().any(|line| line.trim() == "user_allow_other"),
        read_ahead: root && Path::new("/sys/class/bdi").is_dir(),
    }
}

/// Whether the process may do what root may: the effective one of its user ids is 0.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

#[cfg(not(feature = "cuda"))]
fn look_for_gpus(_verify: bool, _trials: &mut Vec<Trial>) -> Graphics {
    let error = Some("this bigsmall was built without GPU support (feature cuda)".to_owned());
    Graphics { supported: false, error, gpus: Vec::new() }
}

#[cfg(feature = "cuda")]
fn look_for_gpus(verify: bool, trials: &mut Vec<Trial>) -> Graphics {
    use crate::gpu::{Probe, ProbedGpu, ProbedTrial, probe};
    let arguments: &[&str] = if verify { &["--verify"] } else { &[] };
    let probe = probe(arguments).unwrap_or_else(|error| Probe { error: Some(error), ..Probe::default() });
    let mut gpus = Vec::new();
    for found in probe.gpus {
        let ProbedGpu { number, error, name, compute_capability, memory_bytes, driver_cuda_version, trials: tried } =
            found;
        trials.extend(tried.into_iter().map(|ProbedTrial { name, bytes, error }| Trial { name, bytes, error }));
        gpus.push(Gpu { number, name, compute_capability, memory_bytes, driver_cuda_version, error });
    }
    Graphics { supported: true, error: probe.error, gpus }
}

/// The result for people.
fn describe(findings: &Findings) -> String {
    let Findings { version, container_format, processor, mount, gpu, trials, .. } = findings;
    let mut text = format!("bigsmall {version}, containers up to version {container_format}\n");
    let mut line = |what: &str, is: &str| {
        let _ = writeln!(text, "  {what:<12} {}", is.replace('\n', "\n               "));
    };
    line(
        "processor",
        &format!(
            "{}, {}, decodes with {} (of {})",
            processor.architecture,
            ui::count(processor.threads as u64, "thread"),
            processor.instructions,
            processor.available_instructions.join(", ")
        ),
    );
    line("FUSE", mount.fuse_error.as_deref().unwrap_or("/dev/fuse can be used"));
    let rights = match (mount.root, &mount.fusermount3) {
        (true, _) => "root: may mount, show mounts to others, and have the kernel read ahead".to_owned(),
        (false, Some(path)) => {
            let others =
                if mount.user_allow_other { "" } else { "; --allow-other needs user_allow_other in /etc/fuse.conf" };
            format!("mounts with {path}; the kernel reads 128 KiB ahead, which only root may change{others}")
        }
        (false, None) => "cannot mount: fusermount3 (package fuse3) is missing, and this is not root".to_owned(),
    };
    line("rights", &rights);
    if let Some(error) = &gpu.error {
        line("GPU", &format!("none: {error}"));
    } else if gpu.gpus.is_empty() {
        line("GPU", "none: the driver knows none");
    }
    for Gpu { number, name, compute_capability, memory_bytes, driver_cuda_version, error } in &gpu.gpus {
        let text_of = |text: &Option<String>| text.clone().unwrap_or_default();
        let is = match error {
            Some(error) => error.clone(),
            None => format!(
                "{}, {}, compute capability {}, driver for CUDA {}",
                text_of(name),
                show_size(memory_bytes.unwrap_or(0)),
                text_of(compute_capability),
                text_of(driver_cuda_version)
            ),
        };
        line(&format!("GPU {number}"), &is);
    }
    for Trial { name, bytes, error } in trials {
        let is = match error {
            None => format!("{name}: {} decoded as they should be", show_size(*bytes)),
            Some(error) => format!("{name}: WRONG: {error}"),
        };
        line("tried", &is);
    }
    text
}
