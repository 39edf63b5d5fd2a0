//! SIGINT, SIGTERM and SIGHUP during a long command: it stops at the next chunk and takes its temporary files away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::Failure;

/// The signal that came, 0 before one does.
static CAUGHT: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From now on the signals do not end the process; the command asks [`caught`] for them.
///
/// One that is ignored stays ignored: that is how `nohup` and a shell's background jobs are protected.
///
/// # Errors
/// When the operating system refuses to install a handler.
pub fn watch() -> Result<(), Failure> {
    let caught = CAUGHT.get_or_init(Arc::default);
    let ignored = ignored_signals();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if ignored >> (signal - 1) & 1 == 0 {
            signal_hook::flag::register_usize(signal, Arc::clone(caught), signal as usize)
                .map_err(|e| Failure::new(format!("cannot watch for signal {signal}: {e}")))?;
        }
    }
    Ok(())
}

/// The set of signals that this process ignores, signal 1 in the lowest bit; none where the kernel does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// The signal that asks the command to end, if one came.
pub fn caught() -> Option<u8> {
    match CAUGHT.get()?.load(Ordering::Relaxed) {
        0 => None,
        signal => u8::try_from(signal).ok(),
    }
}

/// How a command that was interrupted ends: with 128 and the signal's number, as a shell would report it.
pub fn failure() -> Failure {
    let signal = caught().unwrap_or(SIGINT as u8);
    Failure::with_code(128 + signal, "interrupted; no unfinished file was left behind")
}
