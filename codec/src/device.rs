//! What decodes: the processor, or a GPU.

use crate::Progress;
use crate::decompress::decompress_and_hash;
use crate::error::Result;
#[cfg(not(feature = "cuda"))]
use crate::error::{Error, ErrorKind};
use crate::original::ChunkIndex;
use crate::output::NewFile;
use crate::stored::Stored;
use crate::verify::Report;
#[cfg(feature = "cuda")]
use {
    crate::cuda::Gpu,
    crate::decompress::{write_and_hash, write_windows},
    crate::error::ErrorKind,
    crate::original::Original,
    crate::stream::{Windows, cancelled},
    crate::verify::verify_decoded,
    std::time::{Duration, Instant},
};

/// What decodes whole originals.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// The processor, with all threads of the current rayon pool.
    #[default]
    Processor,
    /// A GPU; the processor reads, checks, and decodes what the GPU cannot.
    #[cfg(feature = "cuda")]
    Gpu(Gpu),
}

impl Device {
    /// The GPU of that number. Loads the driver; where it may be broken, try it in another process first.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) when it cannot be used, or this was built without the feature `cuda`.
    pub fn gpu(number: usize) -> Result<Device> {
        #[cfg(feature = "cuda")]
        return Gpu::open(number).map(Device::Gpu);
        #[cfg(not(feature = "cuda"))]
        Err(Error::new(ErrorKind::Device, format!("GPU {number}: built without GPU support (feature cuda)")))
    }

    /// Whether it can [decode ahead](Device::decode_ahead) while the processor does something else.
    pub fn decodes_ahead(&self) -> bool {
        !matches!(self, Device::Processor)
    }

    /// Decodes the chunks of a container from `first` on, and gives them to `consume`, in order, until that does not want any more. Chunks that cannot be decoded
    /// are left out. Of other files, and by the processor, nothing is.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device).
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "only a GPU does anything"))]
    pub fn decode_ahead(
        &self,
        stored: &Stored,
        first: ChunkIndex,
        consume: &mut (dyn FnMut(ChunkIndex, &[u8]) -> bool + Send),
    ) -> Result<()> {
        match (self, stored) {
            #[cfg(feature = "cuda")]
            (Device::Gpu(gpu), Stored::Container(container)) => gpu.decode_from(container, first, consume),
            _ => Ok(()),
        }
    }

    /// As [`Stored::decompress`], by this device. Files of the Python package are decoded by the processor.
    ///
    /// # Errors
    /// Those, and [`ErrorKind::Device`](crate::ErrorKind::Device).
    pub fn decompress(&self, stored: &Stored, out: &NewFile, progress: &dyn Progress) -> Result<()> {
        match (self, stored) {
            #[cfg(feature = "cuda")]
            (Device::Gpu(gpu), Stored::Container(container)) => {
                write_windows(container.len(), &gpu.decoding(container), out, progress)
            }
            _ => stored.decompress(out, progress),
        }
    }

    /// The same, and gives the SHA-256 of what was written.
    ///
    /// # Errors
    /// As [`decompress`](Device::decompress).
    pub fn decompress_and_hash(&self, stored: &Stored, out: &NewFile, progress: &dyn Progress) -> Result<[u8; 32]> {
        match (self, stored) {
            #[cfg(feature = "cuda")]
            (Device::Gpu(gpu), Stored::Container(container)) => {
                write_and_hash(container.len(), &gpu.decoding(container), out, progress)
            }
            _ => decompress_and_hash(stored, out, progress),
        }
    }

    /// As [`Stored::verify`], by this device. The MD5s of tensors are taken of what the processor decodes, the SHA-256 of what the
    /// device does.
    ///
    /// # Errors
    /// Those, and [`ErrorKind::Device`](crate::ErrorKind::Device).
    pub fn verify(&self, stored: &Stored, progress: &dyn Progress) -> Result<Report> {
        match (self, stored) {
            #[cfg(feature = "cuda")]
            (Device::Gpu(gpu), Stored::Container(container)) => {
                verify_decoded(container, &gpu.decoding(container), progress)
            }
            _ => stored.verify(progress),
        }
    }

    /// Whichever decodes this original faster, `gpu` or the processor: both decode the beginning of it.
    #[cfg(feature = "cuda")]
    pub fn faster(gpu: &Gpu, stored: &Stored) -> Device {
        let Stored::Container(container) = stored else { return Device::Processor };
        if container.len() < TRIAL {
            // It takes longer to find out.
            return Device::Processor;
        }
        let on_processor = &**container as &dyn Original;
        // The first one brings the file to memory.
        let times = [trial(&on_processor), trial(&on_processor), trial(&gpu.decoding(container))];
        match times {
            [_, Some(processor), Some(device)] if device < processor => Device::Gpu(gpu.clone()),
            _ => Device::Processor,
        }
    }
}

/// Bytes of an original that are decoded to see who is faster.
#[cfg(feature = "cuda")]
const TRIAL: u64 = 128 << 20;

/// How long it takes to decode the beginning of an original; `None` if it cannot be decoded.
#[cfg(feature = "cuda")]
fn trial(decoded: &dyn Windows) -> Option<Duration> {
    let (start, mut seen) = (Instant::now(), 0);
    let ended = decoded.windows(&(), &mut |window| {
        seen += window.bytes.len() as u64;
        match seen < TRIAL {
            true => Ok(()),
            false => Err(cancelled()),
        }
    });
    let sound = ended.map_or_else(|error| error.kind() == ErrorKind::Cancelled, |()| true);
    sound.then(|| start.elapsed())
}
