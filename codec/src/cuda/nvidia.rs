//! The driver of NVIDIA's GPUs, loaded when it is asked for.
//!
//! The library that loads it panics when the driver, or a function of it, is missing. So it is asked whether there is one before
//! anything else, and whoever must survive a broken driver tries it in another process first ([`Gpu::self_test`](super::Gpu::self_test)
//! calls every function that is used).

use std::ffi::{CString, c_void};
use std::ptr::NonNull;

use cudarc::driver::{DriverError, result, sys};

use super::driver::{Driver, StreamHandle};
use super::job::{Batch, THREADS};
use crate::error::{Error, ErrorKind, Result};

/// The kernels as the driver compiles them, for GPUs from compute capability 7.5 on. `scripts/kernels.sh` makes it of `kernels/decode.cu`.
const KERNELS: &str = include_str!("kernels/decode.ptx");

/// The name of the kernel in it.
const ENTRY: &str = "bigsmall_decode";

/// The least compute capability that the kernels are compiled for.
const LEAST_CAPABILITY: (i32, i32) = (7, 5);

/// What is known of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFacts {
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its number.
    pub ordinal: usize,
    /// Its compute capability, major and minor.
    pub capability: (i32, i32),
    /// All of its memory, in bytes.
    pub memory: u64,
    /// The version of CUDA that the driver is for, major and minor.
    pub driver: (i32, i32),
}

/// Whether there is a driver that can be loaded.
pub fn is_driver_present() -> bool {
    // SAFETY: it loads the library, which is what all here is about, and calls nothing.
    unsafe { sys::is_culib_present() }
}

/// Starts the driver.
fn start() -> Result<()> {
    if !is_driver_present() {
        return Err(Error::new(ErrorKind::Device, "there is no NVIDIA driver: libcuda.so cannot be loaded"));
    }
    result::init().map_err(|e| failed("the driver cannot be started", e))
}

/// How many GPUs there are.
///
/// # Errors
/// [`ErrorKind::Device`] when there is no driver, or it does not work.
pub fn count() -> Result<usize> {
    start()?;
    let count = result::device::get_count().map_err(|e| failed("the GPUs cannot be counted", e))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A GPU.
#[derive(Debug)]
pub(super) struct Nvidia {
    device: sys::CUdevice,
    context: sys::CUcontext,
    kernel: sys::CUfunction,
    module: sys::CUmodule,
}

// SAFETY: handles of the driver may be used by any thread that has the context made current, which `enter` does.
unsafe impl Send for Nvidia {}
// SAFETY: as above; the driver has its own locks.
unsafe impl Sync for Nvidia {}

fn failed(what: &str, error: DriverError) -> Error {
    let said = error.error_string().map(|text| text.to_string_lossy().into_owned());
    Error::new(ErrorKind::Device, format!("{what}: {}", said.unwrap_or_else(|_| format!("{:?}", error.0))))
}

impl Nvidia {
    /// Opens the GPU of that number and has the kernels compiled for it.
    pub(super) fn open(ordinal: usize) -> Result<(Nvidia, GpuFacts)> {
        let count = count()?;
        if ordinal >= count {
            return Err(Error::new(ErrorKind::Device, format!("there is no GPU {ordinal}: {count} in all")));
        }
        let doing = |what: &'static str| move |error| failed(what, error);
        let device = result::device::get(ordinal as i32).map_err(doing("the GPU cannot be opened"))?;
        let facts = facts(device, ordinal).map_err(doing("the GPU cannot be asked what it is"))?;
        if facts.capability < LEAST_CAPABILITY {
            let ((have, have_minor), (want, want_minor)) = (facts.capability, LEAST_CAPABILITY);
            return Err(Error::new(
                ErrorKind::Device,
                format!("{} has compute capability {have}.{have_minor}, and {want}.{want_minor} is needed", facts.name),
            ));
        }
        // The context that all libraries of a process share, so that addresses mean the same to all.
        // SAFETY: the device is one that the driver gave.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(doing("the GPU cannot be used"))?;
        let compiled = compile(context);
        match compiled {
            Ok((module, kernel)) => Ok((Nvidia { device, context, kernel, module }, facts)),
            Err(error) => {
                // SAFETY: it was retained a moment ago, and nobody has it.
                let _ = unsafe { result::primary_ctx::release(device) };
                Err(failed("the kernels cannot be compiled by the driver; it may be too old", error))
            }
        }
    }

    /// Makes the context that of this thread, for a while.
    fn enter(&self) -> std::result::Result<Entered, DriverError> {
        // SAFETY: the context is retained until this is dropped.
        unsafe { Entered::new(self.context) }
    }
}

/// That a context is that of this thread. When dropped, the one that was before is again: callers may be at work on another GPU.
#[must_use]
struct Entered {
    before: sys::CUcontext,
}

impl Entered {
    /// # Safety
    /// The context is retained as long as this lives.
    unsafe fn new(context: sys::CUcontext) -> std::result::Result<Entered, DriverError> {
        let before = result::ctx::get_current()?.unwrap_or(std::ptr::null_mut());
        // SAFETY: the caller's.
        unsafe { result::ctx::set_current(context)? };
        Ok(Entered { before })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // SAFETY: the driver gave it, and takes null for none. It refuses one that is gone, and then there is nothing to go back to.
        let _ = unsafe { result::ctx::set_current(self.before) };
    }
}

/// The kernels, compiled in a context.
fn compile(context: sys::CUcontext) -> std::result::Result<(sys::CUmodule, sys::CUfunction), DriverError> {
    let text = CString::new(KERNELS).expect("assembly has no zero byte");
    let name = CString::new(ENTRY).expect("a name has no zero byte");
    // SAFETY: the context is retained, and the text ends with a zero byte and lives until the call ends.
    unsafe {
        let _entered = Entered::new(context)?;
        let module = result::module::load_data(text.as_ptr().cast())?;
        let kernel = result::module::get_function(module, name);
        if kernel.is_err() {
            let _ = result::module::unload(module);
        }
        Ok((module, kernel?))
    }
}

fn facts(device: sys::CUdevice, ordinal: usize) -> std::result::Result<GpuFacts, DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let mut version = 0;
    // SAFETY: the device is one that the driver gave, and the version lives until the call ends.
    unsafe {
        sys::cuDriverGetVersion(&mut version).result()?;
        Ok(GpuFacts {
            name: result::device::get_name(device)?,
            ordinal,
            capability: (result::device::get_attribute(device, MAJOR)?, result::device::get_attribute(device, MINOR)?),
            memory: result::device::total_mem(device)? as u64,
            driver: (version / 1000, version % 1000 / 10),
        })
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // SAFETY: module and context are this one's, and all that used them has been dropped before: it holds this.
        unsafe {
            let _ = self.enter().and_then(|_entered| result::module::unload(self.module));
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

fn stream_of(handle: StreamHandle) -> sys::CUstream {
    handle.0 as sys::CUstream
}

// SAFETY: the driver gives as much memory as it is asked for, and pinned memory is filled with zeros here.
unsafe impl Driver for Nvidia {
    fn free_memory(&self) -> Result<u64> {
        let info = self.enter().and_then(|_entered| result::mem_get_info());
        info.map(|(free, _)| free as u64).map_err(|e| failed("the GPU cannot be asked for its memory", e))
    }

    fn create_stream(&self) -> Result<StreamHandle> {
        let stream = self.enter().and_then(|_entered| result::stream::create(result::stream::StreamKind::NonBlocking));
        stream.map(|stream| StreamHandle(stream as usize)).map_err(|e| failed("the GPU gives no stream", e))
    }

    fn destroy_stream(&self, stream: StreamHandle) {
        // SAFETY: it is one that `create_stream` gave and is not used again. What cannot be waited for is lost with its GPU.
        unsafe {
            let _ = self.enter().and_then(|_entered| {
                let _ = result::stream::synchronize(stream_of(stream));
                result::stream::destroy(stream_of(stream))
            });
        }
    }

    fn allocate(&self, len: usize) -> Result<u64> {
        // SAFETY: nobody reads the memory before it is written.
        let memory = self.enter().and_then(|_entered| unsafe { result::malloc_sync(len) });
        memory.map_err(|e| failed(&format!("the GPU gives no {len} bytes of memory"), e))
    }

    fn free(&self, address: u64) {
        // SAFETY: it is one that `allocate` gave, and is not used again.
        let _ = self.enter().and_then(|_entered| unsafe { result::free_sync(address) });
    }

    fn allocate_pinned(&self, len: usize) -> Result<NonNull<u8>> {
        // SAFETY: it is written before it is read.
        let memory = self.enter().and_then(|_entered| unsafe { result::malloc_host(len, 0) });
        let memory = memory.map_err(|e| failed(&format!("the driver gives no {len} bytes of pinned memory"), e))?;
        let memory = NonNull::new(memory.cast::<u8>()).expect("the driver succeeded");
        // SAFETY: the driver gave that many bytes.
        unsafe { memory.write_bytes(0, len) };
        Ok(memory)
    }

    fn free_pinned(&self, memory: NonNull<u8>, _len: usize) {
        // SAFETY: it is one that `allocate_pinned` gave, and is not used again.
        let _ = self.enter().and_then(|_entered| unsafe { result::free_host(memory.as_ptr().cast()) });
    }

    unsafe fn upload(&self, stream: StreamHandle, to: u64, from: *const u8, len: usize) -> Result<()> {
        // SAFETY: the caller promises that both ranges are what they should be until the stream was waited for.
        let copied = self.enter().and_then(|_entered| unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, from.cast::<c_void>(), len, stream_of(stream)).result()
        });
        copied.map_err(|e| failed("nothing can be copied to the GPU", e))
    }

    unsafe fn download(&self, stream: StreamHandle, to: *mut u8, from: u64, len: usize) -> Result<()> {
        // SAFETY: as above.
        let copied = self.enter().and_then(|_entered| unsafe {
            sys::cuMemcpyDtoHAsync_v2(to.cast::<c_void>(), from, len, stream_of(stream)).result()
        });
        copied.map_err(|e| failed("nothing can be copied from the GPU", e))
    }

    unsafe fn launch(&self, stream: StreamHandle, batch: &Batch, jobs: u32) -> Result<()> {
        let mut batch = *batch;
        let mut arguments = [(&raw mut batch).cast::<c_void>()];
        // SAFETY: the kernel takes one such batch, which the driver copies during the call; the caller promises that its addresses are good
        // until the stream was waited for, and the kernel keeps inside of them.
        let launched = self.enter().and_then(|_entered| unsafe {
            result::launch_kernel(self.kernel, (jobs, 1, 1), (THREADS, 1, 1), 0, stream_of(stream), &mut arguments)
        });
        launched.map_err(|e| failed("the GPU does not run the kernel", e))
    }

    fn synchronise(&self, stream: StreamHandle) -> Result<()> {
        // SAFETY: the stream is one that `create_stream` gave, or a caller's that lives.
        let waited = self.enter().and_then(|_entered| unsafe { result::stream::synchronize(stream_of(stream)) });
        waited.map_err(|e| failed("the GPU failed", e))
    }
}
