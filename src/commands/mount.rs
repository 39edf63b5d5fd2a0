//! `bigsmall mount`.

use std::path::PathBuf;
use std::process::ExitCode;

use bigsmall_fs::session::{MountOptions, SessionError};
use bigsmall_fs::view::Recognise;

use crate::failure::Failure;
use crate::gpu;
use crate::logging::{self, LogLevel, Sink};
use crate::options::{DeviceChoice, parse_device};
use crate::ui::size::parse_size;

const EXAMPLES: &str = "\
Examples:
  bigsmall mount models /mnt/models
      every x.bs in and below models appears as x.safetensors, everything else as it is
  bigsmall mount model.bs /mnt/model
      one file, /mnt/model/model.safetensors
  bigsmall mount --foreground --cache-size 1GiB models /mnt/models
  bigsmall mount --hf-cache ~/.cache/huggingface/hub /mnt/hub
      a cache of the Hub in which files were replaced by their containers; HF_HUB_CACHE=/mnt/hub uses it
  bigsmall mount --base /models/Llama-3-8B tunes /mnt/tunes
      patches of a model that lies elsewhere appear as whole models
  bigsmall umount /mnt/models

The mount is read-only and goes to the background once it can be used. SIGTERM and SIGINT unmount it.";

/// Show containers as the files they were made from
///
/// The originals appear byte for byte, with the times and permissions of their containers; programs read them as any
/// other files, and only the ranges that they read are decoded. A container that cannot be opened, or whose name is
/// taken by a real file, is shown as the plain file it is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A directory, or one container
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// An existing directory to mount on
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,

    /// Stay in the foreground, with the log on standard error, until unmounted
    #[arg(short, long)]
    foreground: bool,

    /// Memory for decoded chunks, such as 64MiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    cache_size: u64,

    /// Memory for decoded tensors of the Python package's files, or one tensor if that is larger
    ///
    /// Such a file has no chunks: whatever is read of a tensor, all of it is decoded, and kept until all of it was read.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    tensor_cache_size: u64,

    /// What the kernel reads ahead of a program that reads in sequence; more than 128 KiB takes effect only for root
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_read_ahead)]
    read_ahead: u32,

    /// Let other users look, as far as the permissions of the files allow
    #[arg(long)]
    allow_other: bool,

    /// Let nothing that lies in the mount be run as a program
    #[arg(long)]
    noexec: bool,

    /// Append the log to FILE while the mount is in the background; without it, it goes to the system's log
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log: Option<PathBuf>,

    /// How much is logged
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_enum)]
    log_level: LogLevel,

    /// Also show files of other names that are containers, under their own names: for the cache of the Hugging Face Hub
    #[arg(long)]
    hf_cache: bool,

    /// Look for the bases of patches in BASE as well, a file or a directory with all below it; several times if need be
    ///
    /// They are looked for in SRC and in the cache of the Hugging Face Hub in any case.
    #[arg(long = "base", value_name = "BASE")]
    bases: Vec<PathBuf>,

    /// Unmount also when the process that serves the mount is killed
    #[arg(long)]
    auto_unmount: bool,

    /// What decodes ahead of programs that read whole files: cpu (nothing), cuda (an NVIDIA GPU; cuda:1 for the second one), or
    /// auto, a GPU if there is one
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    device: DeviceChoice,
}

/// The most that the kernel is asked to read ahead: beyond it, lazy loads get much slower and nothing gets faster.
const MOST_READ_AHEAD: u64 = 16 << 20;

fn parse_read_ahead(text: &str) -> Result<u32, String> {
    match parse_size(text)? {
        size if size <= MOST_READ_AHEAD => Ok(size as u32),
        _ => Err("the kernel should not read ahead more than 16 MiB".to_owned()),
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        Failure::new(error.to_string())
    }
}

/// Mounts; returns when the mount is ready, or in the foreground when it is gone.
///
/// # Errors
/// When it cannot be mounted.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    // In the background, standard error is the file, if there is one.
    let to_system = !args.foreground && args.log.is_none();
    logging::start(args.log_level, if to_system { Sink::system() } else { Sink::StandardError });
    let options = MountOptions {
        source: args.source.clone(),
        mountpoint: args.mountpoint.clone(),
        cache_size: args.cache_size,
        tensor_cache_size: args.tensor_cache_size,
        read_ahead: args.read_ahead,
        allow_other: args.allow_other,
        noexec: args.noexec,
        recognise: if args.hf_cache { Recognise::ByContent } else { Recognise::ByName },
        bases: args.bases.clone(),
        auto_unmount: args.auto_unmount,
        gpu: gpu::number_of(args.device)?,
    };
    let prepared = options.prepare()?;
    if args.foreground {
        prepared.mount()?.serve()?;
    } else {
        prepared.mount_in_background(args.log.as_deref())?;
    }
    Ok(ExitCode::SUCCESS)
}
