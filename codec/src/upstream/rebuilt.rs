//! The safetensors file that the tensors of an upstream file make.
//!
//! The original's own header is not recorded. This is the one that the library `safetensors` would write for the same
//! tensors and metadata: tensors by dtype, then by name, metadata first, padded to a multiple of eight. Most originals were
//! written by that library, and come back byte for byte.

use std::cmp::Ordering;
use std::ops::Range;

use serde_json::Value;

use super::dtype::Dtype;
use crate::error::{Error, Result};

/// A tensor that is to be in the file.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [u64],
    /// Its length in bytes.
    pub(super) bytes: u64,
}

/// The order of two tensors in the file.
pub(super) fn order(a: (Dtype, &str), b: (Dtype, &str)) -> Ordering {
    a.cmp(&b)
}

/// The header, its length before it, and where in the file each of `parts` lies, which are [ordered](order).
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the lengths overflow.
pub(super) fn header(metadata: Option<&[(String, String)]>, parts: &[Part<'_>]) -> Result<(Vec<u8>, Vec<Range<u64>>)> {
    let mut json = String::from("{");
    let text = |text: &str| Value::from(text).to_string();
    if let Some(metadata) = metadata {
        let pairs: Vec<String> = metadata.iter().map(|(key, value)| format!("{}:{}", text(key), text(value))).collect();
        json += &format!("\"__metadata__\":{{{}}}", pairs.join(","));
    }
    let mut end = 0u64;
    let mut ranges = Vec::with_capacity(parts.len());
    for part in parts {
        let start = end;
        end = end.checked_add(part.bytes).ok_or_else(|| Error::corrupt("the lengths of the tensors overflow"))?;
        ranges.push(start..end);
        if json.len() > 1 {
            json.push(',');
        }
        let shape: Vec<String> = part.shape.iter().map(u64::to_string).collect();
        let (name, dtype, shape) = (text(part.name), part.dtype.name(), shape.join(","));
        json += &format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}");
    }
    json.push('}');
    let padded = json.len().next_multiple_of(8);
    let mut header = (padded as u64).to_le_bytes().to_vec();
    header.extend(json.bytes());
    header.resize(8 + padded, b' ');
    let data = header.len() as u64;
    if end.checked_add(data).is_none() {
        return Err(Error::corrupt("the lengths of the tensors overflow"));
    }
    Ok((header, ranges.into_iter().map(|range| range.start + data..range.end + data).collect()))
}
