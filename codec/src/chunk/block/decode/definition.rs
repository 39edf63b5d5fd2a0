//! The definition: one element after the other.

use super::Parts;
use super::prepared::Prepared;
use crate::chunk::scale::QUAD;
use crate::error::Result;
use crate::rans::decode::scalar;
use crate::rans::{LANES, Symbol};

/// What the keys of a block are decoded with.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    tables: Prepared<scalar::Decoder>,
}

impl Decoder {
    /// Decodes the keys of the elements of `out`, which are the last of their block, from quad `first` on, and undoes their
    /// normalisation. They lack raw bits.
    pub(super) fn keys(&mut self, parts: &mut Parts<'_, '_>, first: usize, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let (split, size) = (parts.split, parts.split.size());
        for (quad, out) in (first..).zip(out.chunks_mut(QUAD * size)) {
            let table = parts.scaled.map_or(0, |scaled| usize::from(scaled.quads[quad].phase));
            // That one alone: most often there is one quad to decode, the last of its block.
            self.tables.prepare(&parts.tables[table..=table], scalar::Decoder::new);
            let (decoder, keys) = (&self.tables.current()[0], parts.tables[table].keys());
            for (group, out) in (quad * QUAD / LANES..).zip(out.chunks_mut(LANES * size)) {
                let mut symbols = [0 as Symbol; LANES];
                decoder.decode(&mut parts.block, group, &mut symbols)?;
                for (lane, (symbol, out)) in symbols.iter().zip(out.chunks_exact_mut(size)).enumerate() {
                    let element = split.join(keys[usize::from(*symbol)], 0);
                    let element = match &parts.scaled {
                        Some(scaled) => split.add_steps(element, scaled.offset(group * LANES + lane)),
                        None => element,
                    };
                    out.copy_from_slice(&element.to_le_bytes()[..size]);
                }
            }
        }
        Ok(())
    }
}
