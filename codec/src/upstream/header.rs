//! The frame and the JSON header of a file.

use std::ops::Range;

use serde_json::Value;

use super::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::original::Original;

/// What such a file starts with.
pub(super) const MAGIC: &[u8; 4] = b"BGSM";
/// What the package's files of two qualities start with.
pub(super) const DUAL_MAGIC: &[u8; 4] = b"BGSD";
/// The magic, the version and the length of the header.
const FRAME_LEN: u64 = 10;
/// The longest header that is looked into.
const LONGEST_HEADER: u32 = 100_000_000;

/// What the header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u16,
    /// Whether some tensors are differences from a base.
    pub(super) is_delta: bool,
    /// The `__metadata__` of the file that was compressed, by key.
    pub(super) metadata: Option<Vec<(String, String)>>,
    pub(super) entries: Vec<Entry>,
}

/// A tensor of the header.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    /// In elements of the dtype.
    pub(super) shape: Vec<u64>,
    /// The product of the shape as the file has it.
    pub(super) elements: usize,
    pub(super) bytes: usize,
    pub(super) codec: String,
    /// Where its bytes are stored, in the file.
    pub(super) stored: Range<u64>,
    pub(super) md5: Option<[u8; 16]>,
    /// What the codec needs to know.
    pub(super) extra: Value,
}

/// Reads and checks the header of `store`.
///
/// # Errors
/// [`ErrorKind::NotAContainer`], [`Unsupported`](ErrorKind::Unsupported), [`Corrupt`](ErrorKind::Corrupt), and those of
/// reading.
pub(super) fn read(store: &dyn Original) -> Result<Header> {
    let mut frame = [0; FRAME_LEN as usize];
    let present = (store.len().min(FRAME_LEN)) as usize;
    store.read_at(0, &mut frame[..present])?;
    if frame.starts_with(DUAL_MAGIC) {
        return Err(Error::unsupported(
            "a .bsd file of the Python package, which holds a model in two qualities; only that package reads it",
        ));
    }
    if !frame.starts_with(MAGIC) {
        return Err(Error::new(ErrorKind::NotAContainer, "not a .bs file of the Python package"));
    }
    if store.len() < FRAME_LEN {
        return Err(Error::corrupt("the file ends within its first ten bytes"));
    }
    let version = u16::from_le_bytes([frame[4], frame[5]]);
    if !(1..=2).contains(&version) {
        return Err(Error::unsupported(format!("version {version} of the Python package's files is not known")));
    }
    let len = u32::from_le_bytes([frame[6], frame[7], frame[8], frame[9]]);
    let data = FRAME_LEN + u64::from(len);
    if len > LONGEST_HEADER || data > store.len() {
        return Err(Error::corrupt(format!("a header of {len} bytes in a file of {}", store.len())));
    }
    let mut json = vec![0; len as usize];
    store.read_at(FRAME_LEN, &mut json)?;
    let json: Value = serde_json::from_slice(&json).map_err(|e| Error::corrupt(format!("the header: {e}")))?;
    let corrupt = |what: &str| Error::corrupt(format!("the header {what}"));
    let entries = json.get("tensors").and_then(Value::as_array).ok_or_else(|| corrupt("lists no tensors"))?;
    if json.get("tensor_count").and_then(Value::as_u64).is_some_and(|count| count != entries.len() as u64) {
        return Err(corrupt("counts other tensors than it lists"));
    }
    let entries = entries.iter().map(|entry| parse_entry(entry, data, store.len())).collect::<Result<Vec<_>>>()?;
    Ok(Header {
        version,
        is_delta: json.get("model_type").and_then(Value::as_str) == Some("delta"),
        metadata: parse_metadata(json.get("safetensors_metadata")).ok_or_else(|| corrupt("has metadata of no text"))?,
        entries,
    })
}

/// `None` when it is neither absent nor a map of text.
#[expect(clippy::option_option, reason = "nothing recorded is not the same as nonsense recorded")]
fn parse_metadata(metadata: Option<&Value>) -> Option<Option<Vec<(String, String)>>> {
    match metadata {
        None | Some(Value::Null) => Some(None),
        Some(Value::Object(map)) => {
            let mut pairs = map
                .iter()
                .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect::<Option<Vec<_>>>()?;
            pairs.sort_unstable();
            Some(Some(pairs))
        }
        Some(_) => None,
    }
}

fn parse_entry(entry: &Value, data: u64, len: u64) -> Result<Entry> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let name = text("name").ok_or_else(|| Error::corrupt("a tensor of the header has no name"))?.to_owned();
    let parsed = (|| {
        let missing = |what: &str| Error::corrupt(format!("its {what} is missing or none"));
        let number = |key: &str| entry.get(key).and_then(Value::as_u64).ok_or_else(|| missing(key));
        let (dtype, pairs) = Dtype::parse(text("dtype").ok_or_else(|| missing("dtype"))?)?;
        let shape = entry.get("shape").and_then(Value::as_array).ok_or_else(|| missing("shape"))?;
        let mut shape: Vec<u64> =
            shape.iter().map(Value::as_u64).collect::<Option<_>>().ok_or_else(|| missing("shape"))?;
        let product = |shape: &[u64]| shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let too_large = || Error::corrupt("its shape is that of no possible tensor");
        let elements = product(&shape).ok_or_else(too_large)?;
        if pairs {
            let last = shape.last_mut().ok_or_else(too_large)?;
            *last = last.checked_mul(2).ok_or_else(too_large)?;
        }
        let bytes = product(&shape).and_then(|elements| dtype.bytes(elements)).ok_or_else(too_large)?;
        let start = data.checked_add(number("offset")?);
        let end = start.and_then(|start| start.checked_add(number("compressed_bytes").ok()?));
        let stored = match (start, end) {
            (Some(start), Some(end)) if end <= len => start..end,
            _ => return Err(Error::corrupt("its stored bytes lie outside of the file")),
        };
        let size = |number: u64| usize::try_from(number).map_err(|_| too_large());
        Ok(Entry {
            name: String::new(),
            dtype,
            shape,
            elements: size(elements)?,
            bytes: size(bytes)?,
            codec: text("codec").ok_or_else(|| missing("codec"))?.to_owned(),
            stored,
            md5: match entry.get("md5") {
                None | Some(Value::Null) => None,
                Some(md5) => Some(md5.as_str().and_then(parse_md5).ok_or_else(|| missing("md5"))?),
            },
            extra: entry.get("extra").cloned().unwrap_or(Value::Null),
        })
    })();
    match parsed {
        Ok(entry) => Ok(Entry { name, ..entry }),
        Err(error) => Err(error.context(format_args!("tensor {name:?}"))),
    }
}

fn parse_md5(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut md5 = [0; 16];
    for (number, byte) in md5.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * number..2 * number + 2], 16).ok()?;
    }
    Some(md5)
}
