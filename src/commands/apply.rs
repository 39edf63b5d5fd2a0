//! `bigsmall apply`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::decompress;
use crate::base::BaseArgs;
use crate::failure::Failure;
use crate::options::{Force, OnDevice, Report, Threads};

const EXAMPLES: &str = "\
Examples:
  bigsmall apply Llama-3-8B tuned.bs
      writes tuned.safetensors, made of the model Llama-3-8B and the patch tuned.bs
  bigsmall apply Llama-3-8B-bigsmall tuned-patch -o tuned
      the same for a directory of patches; it makes no difference whether the base is compressed
  bigsmall apply first.bs second.bs --base Llama-3-8B
      first.bs is itself a patch, of Llama-3-8B

The base is compared with what the patch says about it before anything is written. It may differ in what the patch does not
need.";

/// Make the original of a patch and its base, byte for byte
///
/// The same as bigsmall decompress PATCH --base BASE. Nothing that exists is overwritten without --force, and what cannot be
/// finished leaves nothing behind.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What the patch was made of: a file or directory, compressed or not
    #[arg(value_name = "BASE")]
    first: PathBuf,

    /// The patch, or a directory of patches
    #[arg(value_name = "PATCH")]
    patch: PathBuf,

    /// Where to write; without it as bigsmall decompress PATCH does
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,

    #[command(flatten)]
    base: BaseArgs,

    /// Compare the SHA-256 of each original with the recorded one before it gets its name
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    device: OnDevice,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    report: Report,
}

/// Applies.
///
/// # Errors
/// When it may not or cannot be done.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let bases = std::iter::once(&args.first).chain(&args.base.bases).cloned().collect();
    decompress::run(&decompress::Args {
        source: args.patch.clone(),
        output: args.output.clone(),
        base: BaseArgs { bases },
        check: args.check,
        device: args.device,
        threads: args.threads,
        force: args.force,
        report: args.report,
    })
}
