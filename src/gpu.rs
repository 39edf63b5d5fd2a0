//! Which device decodes.
//!
//! A driver that is broken can end the process that loads it. So another process loads it first, and tries a GPU with a little
//! container; this one does so only if that went well.

#[cfg(feature = "cuda")]
use bigsmall_codec::cuda::Gpu;
use bigsmall_codec::{Device, Stored};

use crate::failure::Failure;
use crate::options::{DeviceChoice, OnDevice};

/// What decodes the files of a command.
#[derive(Debug)]
pub enum Chosen {
    /// The processor.
    Processor,
    /// This GPU.
    #[cfg(feature = "cuda")]
    Gpu(Gpu),
    /// This GPU where it is faster than the processor.
    #[cfg(feature = "cuda")]
    Faster(Gpu),
}

impl Chosen {
    /// Opens what was chosen.
    ///
    /// # Errors
    /// When a GPU is asked for by name and cannot be used.
    pub fn open(OnDevice { device }: OnDevice) -> Result<Chosen, Failure> {
        match number_of(device)? {
            None => Ok(Chosen::Processor),
            #[cfg(feature = "cuda")]
            Some(number) => match (Gpu::open(number), device) {
                (Ok(gpu), DeviceChoice::Faster) => Ok(Chosen::Faster(gpu)),
                (Ok(gpu), _) => Ok(Chosen::Gpu(gpu)),
                (Err(_), DeviceChoice::Faster) => Ok(Chosen::Processor),
                (Err(error), _) => Err(refusal(error.to_string())),
            },
            #[cfg(not(feature = "cuda"))]
            Some(_) => unreachable!("nothing was built that could use one"),
        }
    }

    /// The device for a file.
    pub fn for_file(&self, #[cfg_attr(not(feature = "cuda"), allow(unused))] stored: &Stored) -> Device {
        match self {
            Chosen::Processor => Device::Processor,
            #[cfg(feature = "cuda")]
            Chosen::Gpu(gpu) => Device::Gpu(gpu.clone()),
            #[cfg(feature = "cuda")]
            Chosen::Faster(gpu) => Device::faster(gpu, stored),
        }
    }
}

/// The number of the GPU that was chosen, if one was and there is one, for those who open it themselves; another process has tried it.
///
/// # Errors
/// When a GPU is asked for by name and cannot be used.
pub fn number_of(device: DeviceChoice) -> Result<Option<usize>, Failure> {
    match device {
        DeviceChoice::Processor => Ok(None),
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(number) => with_cuda::try_gpu(number).map(|()| Some(number)).map_err(refusal),
        #[cfg(feature = "cuda")]
        DeviceChoice::Faster => Ok(with_cuda::try_gpu(0).is_ok().then_some(0)),
        #[cfg(not(feature = "cuda"))]
        DeviceChoice::Cuda(_) => Err(refusal("this bigsmall was built without GPU support (feature cuda)".to_owned())),
        #[cfg(not(feature = "cuda"))]
        DeviceChoice::Faster => Ok(None),
    }
}

fn refusal(reason: String) -> Failure {
    Failure::new(format!("--device cuda: {reason}; leave --device away to decode on the processor"))
}

#[cfg(feature = "cuda")]
pub use with_cuda::{Probe, ProbedGpu, ProbedTrial, probe};

#[cfg(feature = "cuda")]
mod with_cuda {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use serde::{Deserialize, Serialize};

    /// The hidden command that the other process runs.
    pub const COMMAND: &str = "gpu-probe";

    /// How long a driver may take, the compilation of kernels included.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// How often the other process is looked at.
    const POLL: Duration = Duration::from_millis(10);

    /// What the other process found.
    #[derive(Debug, Default, Deserialize, Serialize)]
    pub struct Probe {
        /// Why there is no GPU, if there is none.
        pub error: Option<String>,
        pub gpus: Vec<ProbedGpu>,
    }

    /// A GPU.
    #[derive(Debug, Deserialize, Serialize)]
    pub struct ProbedGpu {
        pub number: usize,
        /// Why it cannot be used, if it cannot.
        pub error: Option<String>,
        pub name: Option<String>,
        pub compute_capability: Option<String>,
        pub memory_bytes: Option<u64>,
        pub driver_cuda_version: Option<String>,
        pub trials: Vec<ProbedTrial>,
    }

    /// Something that a GPU decoded.
    #[derive(Debug, Deserialize, Serialize)]
    pub struct ProbedTrial {
        pub name: String,
        pub bytes: u64,
        pub error: Option<String>,
    }

    /// Has another process try a GPU.
    pub fn try_gpu(number: usize) -> Result<(), String> {
        let probe = probe(&[&number.to_string()])?;
        if let Some(error) = probe.error {
            return Err(error);
        }
        let gpu = probe.gpus.into_iter().next().ok_or("the driver knows no GPU")?;
        let failed = gpu.trials.into_iter().find_map(|trial| trial.error);
        match gpu.error.or(failed) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Has another process look for GPUs and try them, as these arguments say.
    pub fn probe(arguments: &[&str]) -> Result<Probe, String> {
        let program = std::env::current_exe().map_err(|e| format!("this program cannot be found again: {e}"))?;
        let mut child = Command::new(program)
            .arg(COMMAND)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("the process that tries the driver cannot be started: {e}"))?;
        // Read by threads, so that it never waits for a reader.
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let said = thread::spawn(move || read(stdout));
        let complained = thread::spawn(move || read(stderr));
        let start = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if start.elapsed() < PATIENCE => thread::sleep(POLL),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("the NVIDIA driver does not answer within {} seconds", PATIENCE.as_secs()));
                }
            }
        };
        let (said, complained) = (said.join().unwrap_or_default(), complained.join().unwrap_or_default());
        match (status.signal(), status.success()) {
            (Some(signal), _) => {
                Err(format!("the NVIDIA driver does not work: a process that loaded it died of signal {signal}"))
            }
            (None, true) => serde_json::from_str(&said).map_err(|e| format!("the NVIDIA driver does not work: {e}")),
            (None, false) => {
                let last = complained.lines().rfind(|line| !line.is_empty()).unwrap_or("it failed without a word");
                Err(format!("the NVIDIA driver does not work: {last}"))
            }
        }
    }

    fn read(pipe: Option<impl Read>) -> String {
        let mut bytes = Vec::new();
        // What was read before an error is as good.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
