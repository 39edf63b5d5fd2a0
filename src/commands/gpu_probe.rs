//! `bigsmall gpu-probe`: what another bigsmall runs to see whether the driver of NVIDIA's GPUs can be trusted not to take it down.

use std::process::ExitCode;

use bigsmall_codec::cuda::{self, Gpu};
use bigsmall_codec::self_test::{self, Trial};

use crate::failure::Failure;
use crate::gpu::{Probe, ProbedGpu, ProbedTrial};
use crate::ui;

/// Try the driver and its GPUs
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the GPU of this number
    number: Option<usize>,

    /// With all that there is to try, not only a little
    #[arg(long)]
    verify: bool,
}

/// Prints what was found, as JSON.
///
/// # Errors
/// Only when it cannot be printed.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let probe = match (cuda::count(), args.number) {
        (Err(error), _) => Probe { error: Some(error.to_string()), gpus: Vec::new() },
        (Ok(_), Some(number)) => Probe { error: None, gpus: vec![look_at(number, args.verify)] },
        (Ok(count), None) => {
            Probe { error: None, gpus: (0..count).map(|number| look_at(number, args.verify)).collect() }
        }
    };
    ui::print_json(&probe).map(|()| ExitCode::SUCCESS)
}

fn look_at(number: usize, verify: bool) -> ProbedGpu {
    let nothing = ProbedGpu {
        number,
        error: None,
        name: None,
        compute_capability: None,
        memory_bytes: None,
        driver_cuda_version: None,
        trials: Vec::new(),
    };
    let gpu = match Gpu::open(number) {
        Ok(gpu) => gpu,
        Err(error) => return ProbedGpu { error: Some(error.to_string()), ..nothing },
    };
    let trials = if verify { self_test::try_gpu(&gpu) } else { vec![self_test::try_gpu_once(&gpu)] };
    let facts = gpu.facts();
    ProbedGpu {
        name: Some(facts.name.clone()),
        compute_capability: Some(format!("{}.{}", facts.capability.0, facts.capability.1)),
        memory_bytes: Some(facts.memory),
        driver_cuda_version: Some(format!("{}.{}", facts.driver.0, facts.driver.1)),
        trials: trials.into_iter().map(ProbedTrial::from).collect(),
        ..nothing
    }
}

impl From<Trial> for ProbedTrial {
    fn from(Trial { name, bytes, error }: Trial) -> ProbedTrial {
        ProbedTrial { name, bytes, error: error.map(|error| error.to_string()) }
    }
}
