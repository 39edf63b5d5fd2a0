//! GPUs, where the library was built for them.

use std::ffi::c_int;

use bigsmall_codec::{Error, Result};

use crate::File;

/// A GPU that is ready to decode: `bigsmall_gpu`.
#[derive(Debug)]
pub struct Gpu {
    #[cfg(feature = "cuda")]
    gpu: bigsmall_codec::cuda::Gpu,
    /// There is none to be had.
    #[cfg(not(feature = "cuda"))]
    never: std::convert::Infallible,
}

impl Gpu {
    /// Opens the GPU of that number.
    #[cfg(feature = "cuda")]
    pub(crate) fn open(number: c_int) -> Result<Gpu> {
        let number = usize::try_from(number).map_err(|_| Error::invalid(format!("no GPU has number {number}")))?;
        Ok(Gpu { gpu: bigsmall_codec::cuda::Gpu::open(number)? })
    }

    /// There is none.
    #[cfg(not(feature = "cuda"))]
    pub(crate) fn open(_: c_int) -> Result<Gpu> {
        Err(Error::unsupported("this libbigsmall was built without GPU support (feature cuda)"))
    }

    /// Decodes bytes of an original to memory of the GPU.
    ///
    /// # Safety
    /// As of `bigsmall_read_to_gpu`.
    #[cfg(feature = "cuda")]
    pub(crate) unsafe fn read(&self, file: &File, offset: u64, address: u64, len: usize, stream: usize) -> Result<()> {
        if address == 0 && len > 0 {
            return Err(Error::invalid("the address on the GPU is 0"));
        }
        // Before there is memory made for it.
        let end = file.end_of(offset, len)?;
        match file.container() {
            // SAFETY: the caller's.
            Some(container) => unsafe { self.gpu.decode_to(container, offset..end, address, stream, &()) },
            None => {
                let mut bytes = Vec::new();
                bigsmall_codec::make_room(&mut bytes, len)?;
                file.read(offset, &mut bytes)?;
                // SAFETY: the caller's.
                unsafe { self.gpu.copy_to(&bytes, address, stream) }
            }
        }
    }

    /// There is none to do it.
    ///
    /// # Safety
    /// It does nothing.
    #[cfg(not(feature = "cuda"))]
    pub(crate) unsafe fn read(&self, _: &File, _: u64, _: u64, _: usize, _: usize) -> Result<()> {
        match self.never {}
    }
}
