//! Decoding whole containers on NVIDIA GPUs.
//!
//! The kernels are CUDA C++ in `kernels/`. `job` and `shared` are what they are told, `driver` is what is asked of a driver, `nvidia` the
//! real one, and `pipeline` takes a container through a device. `emulator/` runs the same kernels on the processor, for tests.

mod driver;
#[cfg(test)]
mod emulated;
mod job;
mod nvidia;
mod pipeline;
mod shared;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

pub use nvidia::{GpuFacts, count, is_driver_present};

use crate::Progress;
use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::original::{ChunkIndex, Original};
use crate::stream::{Consume, Windows, cancelled};
use driver::{Driver, StreamHandle};
use nvidia::Nvidia;
use pipeline::{Pipeline, Sizes};

/// An NVIDIA GPU that is ready to decode.
#[derive(Clone, Debug)]
pub struct Gpu {
    driver: Arc<dyn Driver>,
    facts: Arc<GpuFacts>,
}

impl Gpu {
    /// Opens the GPU of that number. Loads the driver; where it may be broken, try it in another process first.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) when there is no driver, no such GPU, or it is too old.
    pub fn open(ordinal: usize) -> Result<Gpu> {
        let (nvidia, facts) = Nvidia::open(ordinal)?;
        Ok(Gpu { driver: Arc::new(nvidia), facts: Arc::new(facts) })
    }

    /// What it is.
    pub fn facts(&self) -> &GpuFacts {
        &self.facts
    }

    /// The original of `container`, decoded by it.
    pub(crate) fn decoding<'a>(&'a self, container: &'a Container) -> OnGpu<'a> {
        OnGpu { driver: &self.driver, container }
    }

    /// Decodes the chunks of a container from `first` on, in order, until `consume` does not want any more.
    pub(crate) fn decode_from(
        &self,
        container: &Container,
        first: ChunkIndex,
        consume: &mut (dyn FnMut(ChunkIndex, &[u8]) -> bool + Send),
    ) -> Result<()> {
        let sizes = Sizes::for_memory(self.driver.free_memory()?)?;
        let decoded = Pipeline::new(&self.driver, container, sizes)?.run_from(first, &(), &mut |window| {
            let grid = container.grid();
            for chunk in grid.chunks_of(window.range.clone()) {
                let range = grid.range(chunk);
                let bytes = &window.bytes
                    [(range.start - window.range.start) as usize..(range.end - window.range.start) as usize];
                let is_lost = window.lost.iter().any(|lost| lost.chunk == chunk);
                if !is_lost && !consume(chunk, bytes) {
                    return Err(cancelled());
                }
            }
            Ok(())
        });
        decoded.or_else(|error| if error.kind() == ErrorKind::Cancelled { Ok(()) } else { Err(error) })
    }

    /// Decodes the bytes `range` of the original of `container` to memory of the GPU, where they stay. They are there when it returns.
    ///
    /// `address` is what CUDA calls a `CUdeviceptr`, in the GPU's primary context, which the CUDA runtime and PyTorch use: `data` plus
    /// `byte_offset` of a `DLTensor`, `data_ptr()` of a tensor of PyTorch. Any alignment will do; that of the element type is faster. What
    /// `stream` (a `CUstream`; 0 is the default one) has been given before is waited for, so that memory may come from an allocator
    /// that is ordered by streams. Nothing is left on the stream.
    ///
    /// # Errors
    /// The first chunk's that cannot be decoded, as [`Original::decode_chunk`]; [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument)
    /// when the range reaches beyond the end; [`ErrorKind::Device`](crate::ErrorKind::Device).
    ///
    /// # Safety
    /// From `address` on there is memory for all of `range`, which nobody else uses until this returns, and `stream` is a stream of that
    /// context.
    pub unsafe fn decode_to(
        &self,
        container: &Container,
        range: Range<u64>,
        address: u64,
        stream: usize,
        progress: &dyn Progress,
    ) -> Result<()> {
        if range.start > range.end || range.end > container.len() {
            return Err(Error::invalid(format!(
                "bytes {} to {} are not in an original of {} bytes",
                range.start,
                range.end,
                container.len()
            )));
        }
        self.driver.synchronise(StreamHandle(stream))?;
        let pipeline = Pipeline::new(&self.driver, container, Sizes::for_memory(self.driver.free_memory()?)?)?;
        // SAFETY: the caller's.
        unsafe { pipeline.run_to_device(range, address, progress) }
    }

    /// Copies bytes to memory of the GPU, which is as that of [`decode_to`](Gpu::decode_to): what cannot be decoded there goes this way.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device).
    ///
    /// # Safety
    /// As of [`decode_to`](Gpu::decode_to).
    pub unsafe fn copy_to(&self, bytes: &[u8], address: u64, stream: usize) -> Result<()> {
        self.driver.synchronise(StreamHandle(stream))?;
        // SAFETY: the caller's.
        unsafe { pipeline::copy_to(&self.driver, address, bytes) }
    }
}

/// A container that is decoded by a GPU.
pub(crate) struct OnGpu<'a> {
    driver: &'a Arc<dyn Driver>,
    container: &'a Container,
}

impl Windows for OnGpu<'_> {
    fn windows(&self, progress: &dyn Progress, consume: Consume<'_>) -> Result<()> {
        let sizes = Sizes::for_memory(self.driver.free_memory()?)?;
        Pipeline::new(self.driver, self.container, sizes)?.run_from(ChunkIndex(0), progress, consume)
    }
}

/// The golden files, by which a GPU is tried.
pub(crate) const GOLDEN: [(&str, &[u8]); 5] = [
    ("golden 1.0 kinds", include_bytes!("../../tests/golden/1.0/kinds.bs")),
    ("golden 1.0 minilm-slice", include_bytes!("../../tests/golden/1.0/minilm-slice.bs")),
    ("golden 1.1 kinds", include_bytes!("../../tests/golden/1.1/kinds.bs")),
    ("golden 1.1 pruned-and-quantised", include_bytes!("../../tests/golden/1.1/pruned-and-quantised.bs")),
    ("golden 1.1 special", include_bytes!("../../tests/golden/1.1/special.bs")),
];

/// The golden patch and its base.
pub(crate) const GOLDEN_PATCH: (&[u8], &[u8]) =
    (include_bytes!("../../tests/golden/1.2-patch/patch.bs"), include_bytes!("../../tests/golden/1.1/kinds.bs"));
