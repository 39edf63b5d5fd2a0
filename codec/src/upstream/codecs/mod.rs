//! The codecs of the Python package: the stored bytes of a tensor in, its own bytes out.

mod bf16_composed;
mod bf16_context;
mod bf16_parallel;
mod blosc;
mod floats;
mod groups;
mod separate;
mod special;

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

pub(super) use groups::group_members;

/// Bytes that a stored byte can stand for, at the most: a tensor of one value costs its coder so little.
const LARGEST_RATIO: u64 = 1 << 19;

/// The largest tensor that may be stored so well. Larger ones are held to what Zstandard makes of zeros, so that a small file
/// cannot take all memory.
const LARGEST_OF_THAT_RATIO: u64 = 256 << 20;
const LARGEST_RATIO_BEYOND: u64 = 1 << 15;

/// Bytes that any tensor may have, however few are stored.
const FREE: u64 = 1 << 20;

/// What a tensor must be once it is decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// How many elements those are.
    pub(super) elements: usize,
    /// How many bytes it has.
    pub(super) bytes: usize,
}

/// Decodes the `stored` bytes of a tensor by the codec called `codec`, whose parameters are `extra`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when there is no such codec, [`ErrorKind::Corrupt`] when the bytes are not what it writes.
pub(super) fn decode(codec: &str, extra: &Value, stored: &[u8], expected: &Expected) -> Result<Vec<u8>> {
    check_ratio(stored.len(), expected.bytes)?;
    let bytes = if expected.bytes == 0 {
        Vec::new()
    } else {
        decode_some(codec, extra, stored, expected).map_err(|e| e.context(codec))?
    };
    match bytes.len() {
        len if len == expected.bytes => Ok(bytes),
        len => Err(Error::corrupt(format!("{codec}: {len} bytes are stored where {} are expected", expected.bytes))),
    }
}

/// Fails when so few `stored` bytes cannot be those of a tensor of so many `bytes`, before memory is asked for it.
pub(super) fn check_ratio(stored: usize, bytes: usize) -> Result<()> {
    let stored_len = stored as u64;
    let excellent = stored_len.saturating_mul(LARGEST_RATIO).min(LARGEST_OF_THAT_RATIO);
    let most = FREE.saturating_add(excellent).max(stored_len.saturating_mul(LARGEST_RATIO_BEYOND));
    if bytes as u64 > most {
        return Err(Error::corrupt(format!("{bytes} bytes cannot come of {stored}")));
    }
    Ok(())
}

fn decode_some(codec: &str, extra: &Value, stored: &[u8], expected: &Expected) -> Result<Vec<u8>> {
    let of_size = |size: usize, codec: fn(&[u8], usize) -> Result<Vec<u8>>| {
        expected.check_element_size(size)?;
        codec(stored, expected.elements)
    };
    match codec {
        "raw" => copy(stored),
        "zstd" => inflate(stored, expected.bytes),
        "bf16_se_rans" => of_size(2, separate::bf16_se_rans),
        "bf16_se_ac" => of_size(2, separate::bf16_se_ac),
        "bf16_se_tans" => of_size(2, separate::bf16_se_tans),
        "bf16_se_single_kernel" => of_size(2, separate::single_kernel),
        "bf16_parallel_v1" => of_size(2, bf16_parallel::decode),
        "bf16_sparsity_v1" => of_size(2, bf16_composed::sparsity),
        "fp2_residual_v1" => of_size(2, bf16_composed::residual),
        "bf16_v8" => of_size(2, bf16_context::decode),
        "fp16_se_ac" => of_size(2, separate::fp16_se_ac),
        "bf16_native_f32" => of_size(4, floats::native_f32),
        "bf16_native_f32_v2" => of_size(4, floats::native_f32_v2),
        "fp32_se_ac" => of_size(4, floats::fp32),
        "fp8_cat_ac" => floats::fp8(stored, expected.bytes),
        "fp4_cat_ac" => floats::fp4(stored, expected.bytes),
        "special" => special::decode(extra, stored, expected),
        "group_stream_v1" => groups::decode(extra, stored, expected),
        "tied_ref" | "group_member" => Err(Error::corrupt("a reference where bytes are expected")),
        _ => Err(Error::unsupported("this codec of the Python package is not known to this version of bigsmall")),
    }
}

impl Expected {
    /// Fails unless elements have this many bytes.
    fn check_element_size(&self, size: usize) -> Result<()> {
        match self.elements.checked_mul(size) {
            Some(bytes) if bytes == self.bytes => Ok(()),
            _ => Err(Error::corrupt(format!("the codec is for elements of {size} bytes, which the dtype has not"))),
        }
    }
}

/// `len` zeros.
///
/// # Errors
/// [`ErrorKind::Io`] when there is not enough memory.
pub(super) fn zeros<T: Copy + Default>(len: usize) -> Result<Vec<T>> {
    let mut values = reserve(len)?;
    values.resize(len, T::default());
    Ok(values)
}

/// An empty vector with room for `len` values.
fn reserve<T>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| {
        let why = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        Error::io(format_args!("no memory for a tensor of {len} elements"), why)
    })?;
    Ok(values)
}

fn copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = reserve(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// The `len` bytes in a Zstandard frame.
pub(super) fn inflate(frame: &[u8], len: usize) -> Result<Vec<u8>> {
    let damaged = |what: &str| Error::new(ErrorKind::Corrupt, format!("a Zstandard frame {what}"));
    let declared = zstd::zstd_safe::get_frame_content_size(frame).map_err(|_| damaged("has no valid header"))?;
    if declared.is_some_and(|declared| declared != len as u64) {
        return Err(damaged(&format!("of {} bytes where {len} are expected", declared.unwrap_or(0))));
    }
    let mut bytes = reserve(len)?;
    zstd::bulk::Decompressor::new()
        .and_then(|mut zstd| zstd.decompress_to_buffer(frame, &mut bytes))
        .map_err(|e| damaged(&format!("cannot be inflated: {e}")))?;
    match bytes.len() {
        inflated if inflated == len => Ok(bytes),
        inflated => Err(damaged(&format!("holds {inflated} bytes where {len} are expected"))),
    }
}
