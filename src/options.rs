//! Options that several commands have.

use std::num::NonZeroUsize;

use bigsmall_codec::output::Existing;

use crate::failure::Failure;

/// `--threads`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Threads {
    /// Use N threads; without it, as many as there are cores
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Threads {
    /// Runs `work` on so many threads.
    ///
    /// # Errors
    /// Those of `work`, and when the threads cannot be started.
    pub fn run<T: Send>(self, work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        self.pool()?.install(work)
    }

    /// So many threads.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn pool(self) -> Result<rayon::ThreadPool, Failure> {
        // Zero is rayon's word for all cores.
        let threads = self.threads.map_or(0, NonZeroUsize::get);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|e| Failure::new(format!("cannot start {threads} threads: {e}")))
    }
}

/// `--force`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Force {
    /// Replace files that exist already, and write into a directory that exists already
    #[arg(short, long)]
    force: bool,
}

impl Force {
    /// What to do with files that exist.
    pub fn existing(self) -> Existing {
        if self.force { Existing::Replace } else { Existing::Refuse }
    }
}

/// `--private`.
#[cfg(feature = "hub")]
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Private {
    /// If the repo has to be made, make it private; fail if it is public
    #[arg(long)]
    pub private: bool,
}

/// `--workers`.
#[cfg(feature = "hub")]
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Workers {
    /// Work on N files at a time; without it 4, or 2 if they are compressed
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
}

#[cfg(feature = "hub")]
impl Workers {
    /// How many files are worked on at a time.
    pub fn number(self, compressing: bool) -> usize {
        self.workers.map_or(if compressing { 2 } else { 4 }, NonZeroUsize::get)
    }
}

/// `--quiet` and `--json`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Report {
    /// Show no progress and no result; only what goes wrong is said
    #[arg(short, long)]
    pub quiet: bool,

    /// Give the result as JSON, with exact numbers
    #[arg(long)]
    pub json: bool,
}

/// `--device`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OnDevice {
    /// What decodes: cpu, cuda (an NVIDIA GPU; cuda:1 for the second one), or auto, whichever is faster
    #[arg(long = "device", value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    pub device: DeviceChoice,
}

/// What is to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    Processor,
    /// The GPU of that number.
    Cuda(usize),
    /// Whichever is faster.
    Faster,
}

/// Reads the name of a device.
///
/// # Errors
/// What it should have been.
pub fn parse_device(text: &str) -> Result<DeviceChoice, String> {
    match text.split_once(':') {
        None if text == "cpu" => Ok(DeviceChoice::Processor),
        None if text == "auto" => Ok(DeviceChoice::Faster),
        None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
        Some(("cuda", number)) => number.parse().map(DeviceChoice::Cuda).map_err(|_| format!("{number} is no number")),
        _ => Err("not cpu, auto, cuda or cuda:NUMBER".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert_eq!(parse_device("cpu"), Ok(DeviceChoice::Processor));
        assert_eq!(parse_device("auto"), Ok(DeviceChoice::Faster));
        assert_eq!(parse_device("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(parse_device("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "cuda:0:1"] {
            assert!(parse_device(wrong).is_err(), "{wrong}");
        }
    }
}
