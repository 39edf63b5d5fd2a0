//! Decoding a block: this is the definition, one element after the other.

use super::{PATCH_BYTES, Scratch, carried_len};
use crate::error::{Error, Result};
use crate::rans::decode::Block;
use crate::rans::decode::scalar::Decoder;
use crate::rans::{LANES, Table};
use crate::split::Split;
use crate::split::planes::{Planes, planes_len};
use crate::wire::Reader;

/// Takes a block off the front of `reader` and decodes it into `out`, which is as long as its elements; `split` says
/// what elements they are, `tables` are those of the segment.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    split: Split,
    tables: &[Table],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let size = usize::from(split.width / 8);
    if !out.len().is_multiple_of(size) {
        return Err(Error::corrupt(format!("{} bytes are not whole elements of {size}", out.len())));
    }
    let groups = (out.len() / size).div_ceil(LANES);
    let [streams, shift, zeros, reserved] = reader.array()?;
    if reserved != 0 {
        return Err(Error::corrupt("a reserved byte of a block is not zero"));
    }
    let split = split.at(shift, zeros)?;
    let table = reader.u16()?;
    let table =
        tables.get(usize::from(table)).ok_or_else(|| Error::corrupt(format!("the segment has no table {table}")))?;
    let patches = usize::from(reader.u16()?);
    let block = Block::read(reader, usize::from(streams))?;
    let planes_len = planes_len(groups, split.raw_bits());
    let tail_len = planes_len + patches * PATCH_BYTES;
    let carried_len = carried_len(tail_len, block.streams);
    let stored_tail = reader.take(tail_len - carried_len)?;

    scratch.symbols.resize(groups * LANES, 0);
    let carried = Decoder::new(table).decode(&block, &mut scratch.symbols)?;
    let tail = &mut scratch.tail;
    tail.clear();
    tail.extend_from_slice(stored_tail);
    tail.extend_from_slice(&carried[..carried_len]);
    let (planes, patches) = tail.split_at(planes_len);
    let planes = Planes::read(&mut Reader::new(planes), groups, split.raw_bits())?;
    for (group, (symbols, out)) in scratch.symbols.chunks_exact(LANES).zip(out.chunks_mut(LANES * size)).enumerate() {
        let raw = planes.group(group);
        for ((symbol, raw), out) in symbols.iter().zip(raw).zip(out.chunks_exact_mut(size)) {
            let element = split.join(table.keys()[usize::from(*symbol)], raw);
            out.copy_from_slice(&element.to_le_bytes()[..size]);
        }
    }
    patch(split, patches, out)
}

/// Moves the keys of the elements that the patch list names to where they belong.
fn patch(split: Split, patches: &[u8], out: &mut [u8]) -> Result<()> {
    let size = usize::from(split.width / 8);
    let mut position = 0;
    for entry in patches.as_chunks::<PATCH_BYTES>().0 {
        position += usize::from(u16::from_le_bytes([entry[0], entry[1]]));
        let step = u16::from_le_bytes([entry[2], entry[3]]);
        if step != 0 {
            let element = out
                .get_mut(position * size..(position + 1) * size)
                .ok_or_else(|| Error::corrupt("a patch lies beyond the end of its chunk"))?;
            let mut value = [0; 4];
            value[..size].copy_from_slice(element);
            let moved = split.move_key(u32::from_le_bytes(value), step);
            element.copy_from_slice(&moved.to_le_bytes()[..size]);
        }
    }
    Ok(())
}
