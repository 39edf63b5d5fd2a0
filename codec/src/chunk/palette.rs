//! Chunks of few distinct values: the values, and for each element the number of its value.

use std::collections::BTreeSet;

use super::block::Buffers;
use super::plan::PlanePlan;
use super::{block, encode_plane};
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::wire::{Put, Reader};

/// The most values: as many as a byte tells apart.
const MOST: usize = 256;

/// The values that elements have, ascending (as numbers, little-endian), each of `size` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    size: usize,
    values: Vec<u64>,
}

/// An element of up to 8 bytes as a number.
fn number(element: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..element.len()].copy_from_slice(element);
    u64::from_le_bytes(bytes)
}

impl Palette {
    /// That of elements of `size` bytes (2, 4 or 8); `None` when there are too many values.
    pub(super) fn of(bytes: &[u8], size: usize) -> Option<Palette> {
        let (mut values, mut last) = (BTreeSet::new(), None);
        for element in bytes.chunks_exact(size).map(number) {
            if last != Some(element) && values.insert(element) && values.len() > MOST {
                return None;
            }
            last = Some(element);
        }
        Some(Palette { size, values: values.into_iter().collect() })
    }

    /// Replaces `indices` by those of the elements; `false` when one has another value.
    pub(super) fn indices(&self, bytes: &[u8], indices: &mut Vec<u8>) -> bool {
        indices.clear();
        for element in bytes.chunks_exact(self.size) {
            match self.values.binary_search(&number(element)) {
                Ok(index) => indices.push(index as u8),
                Err(_) => return false,
            }
        }
        true
    }

    /// Bytes that it takes in a chunk.
    pub(super) fn stored_len(&self) -> usize {
        size_of::<u16>() + self.values.len() * self.size
    }

    /// Appends itself and the indices of the elements to `stored`; `false` when an element has another value.
    pub(super) fn encode(
        &self,
        plan: &PlanePlan<block::Coder>,
        bytes: &[u8],
        buffers: &mut Buffers,
        stored: &mut Vec<u8>,
    ) -> bool {
        let mut indices = std::mem::take(&mut buffers.plane);
        let known = self.indices(bytes, &mut indices);
        if known {
            stored.put_u16(self.values.len() as u16);
            self.values.iter().for_each(|value| stored.extend_from_slice(&value.to_le_bytes()[..self.size]));
            encode_plane(plan, &indices, buffers, stored);
        }
        buffers.plane = indices;
        known
    }
}

/// Decodes what [`Palette::encode`] stored into `out`, elements of `size` bytes.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    size: usize,
    tables: &[Table],
    out: &mut [u8],
    scratch: &mut block::Scratch,
) -> Result<()> {
    if !out.len().is_multiple_of(size) {
        return Err(Error::corrupt(format!("{} bytes are not whole elements of {size}", out.len())));
    }
    let count = usize::from(reader.u16()?);
    if count > MOST {
        return Err(Error::corrupt(format!("a palette has {count} values")));
    }
    let values = reader.take(count * size)?;
    let mut indices = std::mem::take(&mut scratch.plane);
    indices.resize(out.len() / size, 0);
    let decoded = super::decode_plane(reader, tables, &mut indices, scratch).and_then(|()| {
        if indices.iter().any(|&index| usize::from(index) >= count) {
            return Err(Error::corrupt("an element has a value that its palette lacks"));
        }
        match size {
            1 => paint::<1>(values, &indices, out),
            2 => paint::<2>(values, &indices, out),
            4 => paint::<4>(values, &indices, out),
            _ => paint::<8>(values, &indices, out),
        }
        Ok(())
    });
    scratch.plane = indices;
    decoded
}

/// Replaces indices, all of which are below the number of values, by values.
fn paint<const SIZE: usize>(values: &[u8], indices: &[u8], out: &mut [u8]) {
    let values = values.as_chunks::<SIZE>().0;
    for (element, index) in out.as_chunks_mut::<SIZE>().0.iter_mut().zip(indices) {
        *element = values[usize::from(*index)];
    }
}
