//! What is asked of a driver, and memory that gives itself back.
//!
//! [`Driver`] is as small as can be, so that all above it runs in tests without a GPU: there the kernels run on the processor.

use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;

use super::job::Batch;
use crate::error::Result;

/// The handle of a stream: what is given to one stream is done in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamHandle(pub(crate) usize);

/// An open device.
///
/// # Safety
/// Memory that is allocated is as long as was asked for and stays so until it is freed; pinned memory is all zeros.
pub(crate) unsafe trait Driver: Send + Sync + Debug {
    /// Bytes of the device's memory that are free.
    fn free_memory(&self) -> Result<u64>;

    fn create_stream(&self) -> Result<StreamHandle>;

    /// Waits for all that the stream was given and destroys it.
    fn destroy_stream(&self, stream: StreamHandle);

    /// Memory of the device; gives its address, a multiple of 256.
    fn allocate(&self, len: usize) -> Result<u64>;

    fn free(&self, address: u64);

    /// Memory of the host that the device can copy from and to.
    fn allocate_pinned(&self, len: usize) -> Result<NonNull<u8>>;

    fn free_pinned(&self, memory: NonNull<u8>, len: usize);

    /// Copies `len` bytes to the device.
    ///
    /// # Safety
    /// Both ranges are in memory of this driver (or `to` in other memory of its context). `from` is not written, and neither is freed, until the stream
    /// was waited for.
    unsafe fn upload(&self, stream: StreamHandle, to: u64, from: *const u8, len: usize) -> Result<()>;

    /// Copies `len` bytes from the device.
    ///
    /// # Safety
    /// As [`upload`](Driver::upload), and `to` is not even read.
    unsafe fn download(&self, stream: StreamHandle, to: *mut u8, from: u64, len: usize) -> Result<()>;

    /// Runs the jobs of a batch, so many of them.
    ///
    /// # Safety
    /// All addresses in `batch` are those of memory of the device as long as `batch` says, and that is not freed until the stream was
    /// waited for. (What a job says need not be true.)
    unsafe fn launch(&self, stream: StreamHandle, batch: &Batch, jobs: u32) -> Result<()>;

    /// Waits until the device has done all that the stream was given.
    fn synchronise(&self, stream: StreamHandle) -> Result<()>;
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    driver: Arc<dyn Driver>,
    pub(super) handle: StreamHandle,
}

impl Stream {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Result<Stream> {
        Ok(Stream { handle: driver.create_stream()?, driver: Arc::clone(driver) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.driver.destroy_stream(self.handle);
    }
}

/// Memory of the device.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    driver: Arc<dyn Driver>,
    pub(super) address: u64,
}

impl DeviceMemory {
    pub(super) fn new(driver: &Arc<dyn Driver>, len: usize) -> Result<DeviceMemory> {
        // A driver allocates nothing of no bytes.
        Ok(DeviceMemory { address: driver.allocate(len.max(1))?, driver: Arc::clone(driver) })
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.driver.free(self.address);
    }
}

/// Memory of the host that the device copies from and to.
#[derive(Debug)]
pub(super) struct Pinned {
    driver: Arc<dyn Driver>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is the only owner of its memory, which any thread may use.
unsafe impl Send for Pinned {}
// SAFETY: as above; what is shared is only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    pub(super) fn new(driver: &Arc<dyn Driver>, len: usize) -> Result<Pinned> {
        let len = len.max(1);
        Ok(Pinned { start: driver.allocate_pinned(len)?, len, driver: Arc::clone(driver) })
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes. The device must not be writing to them.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is `len` bytes, was written when it was allocated, and is freed when this is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes. The device must not be using them.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and there is no other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.driver.free_pinned(self.start, self.len);
    }
}

/// The bytes of numbers that a device is sent.
pub(super) fn bytes_of<T: Plain>(items: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, and a byte has no alignment.
    unsafe { std::slice::from_raw_parts(items.as_ptr().cast(), size_of_val(items)) }
}

/// Types that are numbers without anything between them.
///
/// # Safety
/// There is no padding, and all bits are initialised.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: it is a number.
unsafe impl Plain for u16 {}
// SAFETY: it is numbers of 32 bits.
unsafe impl Plain for super::shared::DeviceTable {}
// SAFETY: a number of 64 bits, then an even number of 32 bits; a test adds them up.
unsafe impl Plain for super::job::Job {}
