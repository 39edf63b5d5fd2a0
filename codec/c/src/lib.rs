//! The C interface: `include/bigsmall.h` says what each function does.
//!
//! Here pointers become references and errors become codes; no panic leaves a function. [`file`] is what is behind it.

mod code;
mod file;
mod gpu;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use bigsmall_codec::{Error, Result};

pub use code::Code;
pub use file::{File, Tensor};
pub use gpu::Gpu;

/// The reference that a pointer stands for.
///
/// # Safety
/// It is null or one of a `T` that nobody changes while the reference lives.
unsafe fn given<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: the caller's.
    unsafe { pointer.as_ref() }.ok_or_else(|| Error::invalid(format!("the {what} is NULL")))
}

/// A string that a caller gives.
///
/// # Safety
/// It is null, or bytes that end with a zero.
unsafe fn string<'a>(pointer: *const c_char, what: &str) -> Result<&'a CStr> {
    // SAFETY: it is not null any more, and the rest is the caller's.
    unsafe { given(pointer, what).map(|_| CStr::from_ptr(pointer)) }
}

/// Writes a result to where the caller wants it.
///
/// # Safety
/// `to` is null or can be written.
unsafe fn put<T>(to: *mut T, value: T, what: &str) -> Result<()> {
    if to.is_null() {
        return Err(Error::invalid(format!("the place for the {what} is NULL")));
    }
    // SAFETY: the caller's. What is there is not dropped: it need not be initialised.
    unsafe { to.write(value) };
    Ok(())
}

/// Hands a value over to the caller, who closes it.
///
/// # Safety
/// `to` is null or can be written.
unsafe fn hand_over<T>(to: *mut *mut T, value: T, what: &str) -> Result<()> {
    let handle = Box::into_raw(Box::new(value));
    // SAFETY: the caller's, and the box was made a moment ago.
    unsafe { put(to, handle, what).inspect_err(|_| drop(Box::from_raw(handle))) }
}

/// Closes what was handed over.
///
/// # Safety
/// It is null, or something that was handed over and is not used any more.
unsafe fn close<T>(handle: *mut T) {
    if !handle.is_null() {
        let _ = Code::of(|| {
            // SAFETY: `hand_over` made it of a box.
            drop(unsafe { Box::from_raw(handle) });
            Ok(())
        });
    }
}

/// The version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn bigsmall_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What the last call that failed in this thread had to say.
#[unsafe(no_mangle)]
pub extern "C" fn bigsmall_error() -> *const c_char {
    code::last_message()
}

/// Opens a file.
///
/// # Safety
/// `path` is a string, `bases` as many open files as `base_count` says, `file` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_open(
    path: *const c_char,
    bases: *const *const File,
    base_count: usize,
    file: *mut *mut File,
) -> Code {
    Code::of(|| {
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: the caller's.
        let path = unsafe { string(path, "path") }?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
        let mut given_bases = Vec::new();
        for number in 0..base_count {
            // SAFETY: the caller's; the array is looked at before what is in it.
            given_bases.push(unsafe { given(*given(bases.add(number), "array of bases")?, "base") }?);
        }
        // SAFETY: the caller's.
        unsafe { hand_over(file, File::open(path, &given_bases)?, "file") }
    })
}

/// Closes a file.
///
/// # Safety
/// It is null, or a file that was opened and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_close(file: *mut File) {
    // SAFETY: the caller's.
    unsafe { close(file) }
}

/// Bytes of the original; 0 of no file.
///
/// # Safety
/// It is null or an open file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_len(file: *const File) -> u64 {
    // SAFETY: the caller's.
    unsafe { file.as_ref() }.map_or(0, File::len)
}

/// How many tensors there are; 0 of no file.
///
/// # Safety
/// It is null or an open file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_tensor_count(file: *const File) -> usize {
    // SAFETY: the caller's.
    unsafe { file.as_ref() }.map_or(0, |file| file.tensors().len())
}

/// The tensor of that number.
///
/// # Safety
/// `file` is an open file, `tensor` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_tensor_at(file: *const File, number: usize, tensor: *mut Tensor) -> Code {
    Code::of(|| {
        // SAFETY: the caller's.
        let tensors = unsafe { given(file, "file") }?.tensors();
        let found = tensors
            .get(number)
            .ok_or_else(|| Error::invalid(format!("there is no tensor {number} among {}", tensors.len())))?;
        // SAFETY: the caller's.
        unsafe { put(tensor, found.describe(), "tensor") }
    })
}

/// The tensor of that name.
///
/// # Safety
/// `file` is an open file, `name` a string, `tensor` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_find(file: *const File, name: *const c_char, tensor: *mut Tensor) -> Code {
    Code::of(|| {
        // SAFETY: the caller's.
        let (file, name) = unsafe { (given(file, "file")?, string(name, "name")?) };
        let found = file.find(name.to_bytes())?;
        // SAFETY: the caller's.
        unsafe { put(tensor, found.describe(), "tensor") }
    })
}

/// Decodes bytes of the original to memory of the host.
///
/// # Safety
/// `file` is an open file, and from `to` on there are `len` bytes that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_read(file: *const File, offset: u64, to: *mut c_void, len: usize) -> Code {
    Code::of(|| {
        // SAFETY: the caller's.
        let file = unsafe { given(file, "file") }?;
        if len == 0 {
            return file.read(offset, &mut []);
        }
        // SAFETY: the caller's, though what is there may never have been written; it is written here first.
        let bytes = unsafe {
            given(to.cast::<u8>(), "memory")?;
            to.write_bytes(0, len);
            std::slice::from_raw_parts_mut(to.cast::<u8>(), len)
        };
        file.read(offset, bytes)
    })
}

/// Opens a GPU.
///
/// # Safety
/// `gpu` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_gpu_open(number: c_int, gpu: *mut *mut Gpu) -> Code {
    // SAFETY: the caller's.
    Code::of(|| unsafe { hand_over(gpu, Gpu::open(number)?, "GPU") })
}

/// Closes a GPU.
///
/// # Safety
/// It is null, or a GPU that was opened and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_gpu_close(gpu: *mut Gpu) {
    // SAFETY: the caller's.
    unsafe { close(gpu) }
}

/// Decodes bytes of the original to memory of a GPU.
///
/// # Safety
/// `file` and `gpu` are open, from `address` on there are `len` bytes in the primary context of that GPU that nobody else uses, and
/// `stream` is a stream of that context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bigsmall_read_to_gpu(
    file: *const File,
    gpu: *const Gpu,
    offset: u64,
    address: u64,
    len: usize,
    stream: *mut c_void,
) -> Code {
    Code::of(|| {
        // SAFETY: the caller's.
        let (file, gpu) = unsafe { (given(file, "file")?, given(gpu, "GPU")?) };
        // SAFETY: the caller's.
        unsafe { gpu.read(file, offset, address, len, stream as usize) }
    })
}
