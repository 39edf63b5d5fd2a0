//! Sparse chunks: which elements are zero, and the others, packed, as an ordinary block.
//!
//! A mask of four elements is a symbol of an alphabet of 16, entropy coded, which makes use of how frequent zeros are and
//! of where they cluster.

use super::block::{self, Buffers, Coder, Scratch};
use super::statistics::{KeyStatistics, PATCH_BITS};
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::split::Split;
use crate::wire::{Put, Reader};

/// Elements that share a mask.
const MASKED: usize = 4;

/// The tables of the masks and of the elements that are not zero, by their number in the segment.
const MASK_TABLE: u16 = 0;
const VALUE_TABLE: u16 = 1;

/// How masks are cut: they are keys.
fn mask_split() -> Split {
    Split::of_bytes(0)
}

/// Replaces `masks` and `values` by those of `bytes`, elements of `size` bytes.
fn part(bytes: &[u8], size: usize, masks: &mut Vec<u8>, values: &mut Vec<u8>) {
    masks.clear();
    values.clear();
    for four in bytes.chunks(MASKED * size) {
        let mut mask = 0;
        for (bit, element) in four.chunks_exact(size).enumerate() {
            if element.iter().any(|&byte| byte != 0) {
                mask |= 1 << bit;
                values.extend_from_slice(element);
            }
        }
        masks.push(mask);
    }
}

/// The tables for a segment of which `sample` is a part, and the bits that the sample takes, tables left out; `None` when it
/// is hardly sparse.
pub(super) fn plan(sample: &[u8], split: Split) -> Option<([Table; 2], f64)> {
    let size = split.size();
    let zeros = match size {
        1 => sample.iter().filter(|&&byte| byte == 0).count(),
        _ => sample.chunks_exact(size).filter(|element| element.iter().all(|&byte| byte == 0)).count(),
    };
    if zeros * 50 < sample.len() / size {
        return None;
    }
    let (mut masks, mut values) = (Vec::new(), Vec::new());
    part(sample, size, &mut masks, &mut values);
    let (mut of_masks, mut of_values) = (KeyStatistics::new(mask_split()), KeyStatistics::new(split));
    of_masks.add(&masks);
    of_values.add(&values);
    let tables = [Table::fit(of_masks.counts())?, Table::fit(of_values.counts())?];
    let (mask_bits, outside) = tables[0].cost(of_masks.counts());
    let bits = mask_bits + outside as f64 * PATCH_BITS + of_values.bits(&tables[1]);
    Some((tables, bits))
}

/// Appends `bytes`, elements cut by `split`, to `stored`. Returns `false` when there are more patches than a block can have,
/// or nothing but zeros.
pub(super) fn encode(
    [masks, values]: &[Coder; 2],
    split: Split,
    bytes: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> bool {
    let (mut mask_bytes, mut value_bytes) = (std::mem::take(&mut buffers.plane), Vec::new());
    part(bytes, split.size(), &mut mask_bytes, &mut value_bytes);
    stored.put_u32((value_bytes.len() / split.size()) as u32);
    let done = !value_bytes.is_empty()
        && block::encode(&mask_bytes, mask_split(), masks, MASK_TABLE, buffers, stored)
        && block::encode(&value_bytes, split, values, VALUE_TABLE, buffers, stored);
    buffers.plane = mask_bytes;
    done
}

/// Decodes what [`encode`] stored into `out`.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    split: Split,
    tables: &[Table],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let size = split.size();
    if !out.len().is_multiple_of(size) {
        return Err(Error::corrupt(format!("{} bytes are not whole elements of {size}", out.len())));
    }
    let elements = out.len() / size;
    let count = reader.u32()? as usize;
    if count > elements {
        return Err(Error::corrupt(format!("{count} of {elements} elements are not zero")));
    }
    let (mut masks, mut values) = (std::mem::take(&mut scratch.plane), std::mem::take(&mut scratch.values));
    masks.resize(elements.div_ceil(MASKED), 0);
    // One more, which is read and not used.
    values.resize((count + 1) * size, 0);
    let decoded = block::decode(reader, mask_split(), tables, &mut masks, scratch)
        .and_then(|()| block::decode(reader, split, tables, &mut values[..count * size], scratch))
        .and_then(|()| {
            let set: usize = masks.iter().map(|mask| mask.count_ones() as usize).sum();
            let last = masks.last().copied().unwrap_or(0);
            let in_last = elements - masks.len().saturating_sub(1) * MASKED;
            if set != count || masks.iter().any(|&mask| mask > 15) || last >> in_last != 0 {
                return Err(Error::corrupt("the masks of a chunk do not fit its elements"));
            }
            match size {
                1 => expand::<1>(&masks, &values, out),
                2 => expand::<2>(&masks, &values, out),
                _ => expand::<4>(&masks, &values, out),
            }
            Ok(())
        });
    (scratch.plane, scratch.values) = (masks, values);
    decoded
}

/// Puts the values where the masks have bits; there is one value more than bits.
fn expand<const SIZE: usize>(masks: &[u8], values: &[u8], out: &mut [u8]) {
    let values = values.as_chunks::<SIZE>().0;
    let mut next = 0;
    for (mask, four) in masks.iter().zip(out.chunks_mut(MASKED * SIZE)) {
        for (bit, element) in four.as_chunks_mut::<SIZE>().0.iter_mut().enumerate() {
            // Without a branch: zeros are anywhere.
            let is_set = mask >> bit & 1;
            *element = values[next].map(|byte| byte & 0u8.wrapping_sub(is_set));
            next += usize::from(is_set);
        }
    }
}
