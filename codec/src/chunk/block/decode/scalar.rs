//! The definition: one element after the other.

use super::prepared::Prepared;
use super::{Parts, patch};
use crate::error::Result;
use crate::rans::decode::scalar;
use crate::rans::{LANES, Symbol};
use crate::split::planes::Planes;
use crate::wire::Reader;

/// What the elements of a block are decoded with.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    tables: Prepared<scalar::Decoder>,
}

impl Decoder {
    pub(super) fn decode(
        &mut self,
        mut parts: Parts<'_, '_>,
        symbols: &mut Vec<Symbol>,
        tail: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Result<()> {
        symbols.resize(parts.groups * LANES, 0);
        self.tables.prepare(parts.table, scalar::Decoder::new).decode(&mut parts.block, symbols)?;
        let carried = parts.block.finish()?;
        tail.resize(parts.tail_len, 0);
        parts.copy_tail(&carried, 0..parts.tail_len, tail);
        let (planes, patches) = tail.split_at(parts.planes_len);

        let (split, size) = (parts.split, parts.split.size());
        let planes = Planes::read(&mut Reader::new(planes), parts.groups, split.raw_bits())?;
        for (group, (symbols, out)) in symbols.chunks_exact(LANES).zip(out.chunks_mut(LANES * size)).enumerate() {
            let raw = planes.group(group);
            for ((symbol, raw), out) in symbols.iter().zip(raw).zip(out.chunks_exact_mut(size)) {
                let element = split.join(parts.table.keys()[usize::from(*symbol)], raw);
                out.copy_from_slice(&element.to_le_bytes()[..size]);
            }
        }
        patch(split, patches, out)
    }
}
