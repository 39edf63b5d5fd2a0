//! `bigsmall umount`.

use std::path::PathBuf;
use std::process::ExitCode;

use bigsmall_fs::mounts::unmount;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  bigsmall umount /mnt/models
  bigsmall umount --lazy /mnt/models
      also while programs use it; it ends when the last of them does";

/// End a mount
///
/// Unmounts what `bigsmall mount` mounted. Also cleans up after a mount whose process was killed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The directory that was mounted on
    #[arg(value_name = "MNT")]
    mountpoint: PathBuf,

    /// Take a mount in use out of the tree now and end it when its last user has gone
    #[arg(short, long)]
    lazy: bool,
}

/// Unmounts.
///
/// # Errors
/// When nothing of ours is mounted there, or it is in use.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    unmount(&args.mountpoint, args.lazy)?;
    Ok(ExitCode::SUCCESS)
}
