//! `special`: tensors of few values, and tables whose rows resemble each other.

use serde_json::Value;

use super::separate::sized;
use super::{Expected, blosc, inflate, reserve};
use crate::error::{Error, Result};
use crate::wire::Reader;

pub(super) fn decode(extra: &Value, stored: &[u8], expected: &Expected) -> Result<Vec<u8>> {
    match extra.get("special_kind").and_then(Value::as_str) {
        Some("lowcard") => few_values(stored, expected),
        Some("wpe_delta") => rows(stored, expected),
        Some(kind) => Err(Error::unsupported(format!("a special tensor of kind {kind:?} is not known"))),
        None => Err(Error::corrupt("a special tensor without its kind")),
    }
}

/// A palette, and one byte for each element that points into it.
fn few_values(stored: &[u8], expected: &Expected) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    let width = width(&mut reader, expected)?;
    let colours = usize::from(reader.u8()?);
    let palette = reader.take(colours * width)?;
    let items = expected.bytes / width;
    let indices = inflate(sized(&mut reader)?, items)?;
    if reader.u32()? as usize != items {
        return Err(Error::corrupt(format!("other than the {items} elements of the shape are stored")));
    }
    reader.finish()?;
    if indices.iter().any(|&index| usize::from(index) >= colours) {
        return Err(Error::corrupt(format!("an element points beyond the {colours} values that there are")));
    }
    let mut bytes = reserve(expected.bytes)?;
    indices.into_iter().for_each(|index| bytes.extend_from_slice(&palette[usize::from(index) * width..][..width]));
    Ok(bytes)
}

/// A Blosc2 chunk of elements, or of differences from the row above.
fn rows(stored: &[u8], expected: &Expected) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    let width = width(&mut reader, expected)?;
    let differences = match reader.u8()? {
        0 => false,
        1 => true,
        other => return Err(Error::corrupt(format!("{other} is neither differences nor elements"))),
    };
    let (rows, columns) = (reader.u32()? as usize, reader.u32()? as usize);
    if rows.checked_mul(columns).and_then(|elements| elements.checked_mul(width)) != Some(expected.bytes) {
        return Err(Error::corrupt(format!("{rows} rows of {columns} elements are not {} bytes", expected.bytes)));
    }
    let chunk = sized(&mut reader)?;
    reader.finish()?;
    let mut bytes = blosc::decode(chunk, width, expected.bytes)?;
    if differences {
        match width {
            1 => accumulate::<1>(&mut bytes, columns, |a, b| [a[0].wrapping_add(b[0])]),
            2 => accumulate::<2>(&mut bytes, columns, add_u16),
            _ => accumulate::<4>(&mut bytes, columns, |a, b| {
                u32::from_le_bytes(a).wrapping_add(u32::from_le_bytes(b)).to_le_bytes()
            }),
        }
    }
    Ok(bytes)
}

fn add_u16(a: [u8; 2], b: [u8; 2]) -> [u8; 2] {
    u16::from_le_bytes(a).wrapping_add(u16::from_le_bytes(b)).to_le_bytes()
}

/// Adds each row to the one below.
fn accumulate<const W: usize>(bytes: &mut [u8], columns: usize, add: impl Fn([u8; W], [u8; W]) -> [u8; W]) {
    let (words, _) = bytes.as_chunks_mut::<W>();
    for position in columns..words.len() {
        words[position] = add(words[position], words[position - columns]);
    }
}

/// The size in bytes of what counts as an element here, of which the tensor must have a whole number.
fn width(reader: &mut Reader<'_>, expected: &Expected) -> Result<usize> {
    match usize::from(reader.u8()?) {
        width @ (1 | 2 | 4) if expected.bytes.is_multiple_of(width) => Ok(width),
        width => Err(Error::corrupt(format!("elements of {width} bytes, which the dtype has not"))),
    }
}
