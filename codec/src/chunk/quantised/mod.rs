//! Quantised blocks, as GGUF files have them: their fields taken apart, each coded by itself, the quants with a table that is
//! chosen by what is known of their row already.
//!
//! The elements of a block are small integers that look like noise, and nearly are. What they can be made smaller by:
//!
//! * Their distribution has a shape, which depends on where zero is and on how large the scale is ([`classes`]): rows are coded
//!   with one of up to 16 tables.
//! * A scale was chosen so that the largest element of its block becomes the largest that there is. Of that only the place is
//!   stored, which takes 5 bits where coding it among the others takes 6.4.
//! * Scales of parts of a block are far from uniform, and minima like scales.

mod classes;
mod fields;
mod halves;
mod plan;
mod rows;
mod taken;

pub(crate) use plan::{BlockPlan, BlockStatistics};

use super::block::{self, Buffers, Coder};
use super::plane;
use crate::error::{Error, Result};
use crate::quantised::BlockType;
use crate::rans::Table;
use crate::simd::{Level, at_level};
use crate::wire::Reader;
use classes::RowScales;
use fields::{Fields, Quants};
use rows::Order;
use taken::{OTHER, Taken, coded_row, half, place_of};

/// Memory that encoding uses again from chunk to chunk.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    taken: Taken,
    order: Order,
}

/// Appends the blocks of a chunk to `stored`. Returns `false`, with `stored` in an unspecified state beyond its old end, when
/// they are not such as the plan was made for.
pub(super) fn encode(
    plan: &BlockPlan<Coder>,
    kind: BlockType,
    blocks: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> bool {
    let Apart { mut taken, mut order } = std::mem::take(&mut buffers.apart);
    taken.take(kind, buffers.level(), blocks);
    for (plan, halves) in plan.halves.iter().zip(&taken.halves) {
        plan.encode(halves, buffers, stored);
    }
    for (plan, plane) in plan.planes.iter().zip(taken.planes(kind)) {
        plan.encode(plane, buffers, stored);
    }
    stored.extend_from_slice(&taken.others);
    let coded = plan
        .rows
        .iter()
        .zip(taken.rows(kind))
        .all(|(plan, rows)| plan.encode(rows.symbols, rows.len, rows.classes, &mut order, buffers, stored));
    buffers.apart = Apart { taken, order };
    coded
}

/// Memory that decoding uses again from chunk to chunk.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    halves: [Vec<u16>; 2],
    parts: [Vec<u8>; 2],
    bytes: [Vec<u8>; 4],
    extremes: Vec<u8>,
    /// What is at the place of each.
    extreme_quants: Vec<u8>,
    classes: Vec<u8>,
    /// Quants in the order of their rows' tables, and the same of parts. (Memory of its own for each, since what is made longer is
    /// cleared.)
    sorted: Vec<u8>,
    sorted_parts: Vec<u8>,
    half_bytes: Vec<u8>,
    order: Order,
    scales: RowScales,
}

/// Bytes before and behind the sorted quants that putting them together may look at: a row more than there is.
const BEFORE: usize = 1;
const BEHIND: usize = 32;

/// Decodes the blocks of a chunk, which fill `out`.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when they are not what an encoder writes.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    kind: BlockType,
    tables: &[Table],
    out: &mut [u8],
    scratch: &mut block::Scratch,
) -> Result<()> {
    let mut own = std::mem::take(&mut scratch.quantised);
    let decoded = own.decode(reader, kind, tables, out, scratch);
    scratch.quantised = own;
    decoded
}

impl Scratch {
    fn decode(
        &mut self,
        reader: &mut Reader<'_>,
        kind: BlockType,
        tables: &[Table],
        out: &mut [u8],
        scratch: &mut block::Scratch,
    ) -> Result<()> {
        let fields = Fields::of(kind);
        let (count, size, level) = (out.len() / kind.bytes(), kind.bytes(), scratch.level());
        for (number, &field) in fields.halves.iter().enumerate() {
            let (first, [halves, ..]) = self.halves.split_at_mut(number) else { unreachable!("there are two") };
            halves::decode(reader, tables, count, halves, &mut self.half_bytes, scratch)?;
            match first.first() {
                Some(first) => {
                    halves.iter_mut().zip(first).for_each(|(half, &first)| *half = half::decoded(field, *half, first));
                }
                None => halves.iter_mut().for_each(|half| *half = half::decoded(field, *half, 0)),
            }
            if fields.quants.is_none() {
                put_halves(field, halves, size, out);
            }
        }
        for (parts, all) in fields.parts.iter().zip(&mut self.parts).filter(|(parts, _)| parts.given.is_none()) {
            all.resize(count * parts.per_block, 0);
            plane::decode(reader, tables, all, scratch)?;
        }
        for (range, bytes) in fields.byte_ranges().zip(&mut self.bytes) {
            bytes.resize(count * range.len(), 0);
            plane::decode(reader, tables, bytes, scratch)?;
            for (block, bytes) in out.chunks_exact_mut(size).zip(bytes.chunks_exact(range.len())) {
                block[range.clone()].copy_from_slice(bytes);
            }
        }
        let Some(quants) = fields.quants else { return Ok(()) };
        if let Some(extremes) = quants.extremes {
            self.decode_extremes(reader, extremes, count, tables, scratch)?;
        }
        if let Some(&fields::Parts { per_block, given: Some(shift) }) = fields.parts.get(1) {
            let [first, second] = &mut self.parts;
            taken::classes_given(first, shift, &mut self.classes);
            let sorted = &mut self.sorted_parts;
            sorted.resize(count * per_block, 0);
            let split = crate::split::Split::of_bytes(0);
            rows::decode(reader, tables, (split, 1, &self.classes), &mut self.order, sorted, scratch)?;
            second.clear();
            second.extend(self.order.positions.iter().map(|&position| sorted[position as usize]));
        }
        let (halves, parts) = (self.halves.each_ref().map(|h| &h[..]), self.parts.each_ref().map(|p| &p[..]));
        self.scales.classes(kind, level, halves, parts, &mut self.classes);
        let (row, symbols) = (coded_row(&quants), self.classes.len() * coded_row(&quants));
        self.sorted.resize(BEFORE + symbols + BEHIND, 0);
        let (split, sorted) = (plan::split_of_quants(quants.bits), &mut self.sorted[BEFORE..][..symbols]);
        rows::decode(reader, tables, (split, row, &self.classes), &mut self.order, sorted, scratch)?;
        self.put_together(kind, &quants, level, out);
        Ok(())
    }

    fn decode_extremes(
        &mut self,
        reader: &mut Reader<'_>,
        [first, last]: [u8; 2],
        count: usize,
        tables: &[Table],
        scratch: &mut block::Scratch,
    ) -> Result<()> {
        self.extremes.resize(count, 0);
        plane::decode(reader, tables, &mut self.extremes, scratch)?;
        self.extreme_quants.clear();
        self.extreme_quants
            .extend(self.extremes.iter().map(|&extreme| if place_of(extreme).1 == 0 { first } else { last }));
        // Nearly every block has one of the two.
        if self.extremes.iter().fold(0, |most, &extreme| most.max(place_of(extreme).1)) >= OTHER {
            for (quant, &extreme) in self.extreme_quants.iter_mut().zip(&self.extremes) {
                match place_of(extreme).1 {
                    0 | 1 => {}
                    OTHER => *quant = reader.u8()?,
                    _ => return Err(Error::corrupt("a block has an extreme that there is none of")),
                }
            }
        }
        self.extremes.iter_mut().for_each(|extreme| *extreme = place_of(*extreme).0);
        Ok(())
    }

    /// Writes all quants and parts where they belong.
    fn put_together(&self, kind: BlockType, quants: &Quants, level: Level, out: &mut [u8]) {
        let scratch = self;
        macro_rules! put_all {
            (rows: $($row_kind:ident)*; extremes: $($extreme_kind:ident)*) => {
                match kind {
                    $(BlockType::$row_kind => {
                        at_level!(level, put_rows::<{ BlockType::$row_kind.number() }>(scratch: &Scratch, out: &mut [u8]));
                    })*
                    $(BlockType::$extreme_kind => {
                        debug_assert_eq!(quants.row, WITH_EXTREME);
                        at_level!(
                            level,
                            put_with_extremes::<{ BlockType::$extreme_kind.number() }>(scratch: &Scratch, out: &mut [u8])
                        );
                    })*
                    _ => unreachable!("{kind:?} has no quants"),
                }
            };
        }
        put_all!(
            rows: Q4_1 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NVFP4;
            extremes: Q4_0 Q5_0 Q8_0
        );
    }
}

/// What is constant for the type with a number.
const fn kind_of(number: u8) -> BlockType {
    let mut at = 0;
    while BlockType::ALL[at].number() != number {
        at += 1;
    }
    BlockType::ALL[at]
}

/// Writes a half of each block where it belongs.
fn put_halves(field: fields::Half, halves: &[u16], size: usize, out: &mut [u8]) {
    for (half, block) in halves.iter().zip(out.chunks_exact_mut(size)) {
        block[field.at..field.at + 2].copy_from_slice(&half.to_le_bytes());
    }
}

/// Fetches what lies some blocks behind this one into the caches, to be written.
#[inline(always)]
fn fetch_ahead(block: &mut [u8]) {
    /// Bytes.
    const AHEAD: usize = 2048;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: fetching does nothing that one could see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(block.as_mut_ptr().wrapping_add(AHEAD).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (block, AHEAD);
}

/// Puts blocks together whose rows are complete.
#[inline(always)]
fn put_rows<const KIND: u8>(scratch: &Scratch, out: &mut [u8]) {
    let kind = const { kind_of(KIND) };
    let fields = const { Fields::of(kind_of(KIND)) };
    let row = const {
        match Fields::of(kind_of(KIND)).quants {
            Some(quants) => quants.row,
            None => 1,
        }
    };
    let (rows, each) = (kind.elements() / row, if fields.parts.is_empty() { 0 } else { fields.parts[0].per_block });
    let (mut quants, mut parts) = ([0; 256], [0; 32]);
    let blocks = out.chunks_exact_mut(kind.bytes()).zip(scratch.order.positions.chunks_exact(rows));
    for (number, (block, positions)) in blocks.enumerate() {
        fetch_ahead(block);
        for (quants, &position) in quants[..kind.elements()].chunks_exact_mut(row).zip(positions) {
            quants.copy_from_slice(&scratch.sorted[BEFORE + position as usize..][..row]);
        }
        for (parts, all) in parts.chunks_exact_mut(each.max(1)).zip(&scratch.parts[..fields.parts.len()]) {
            parts.copy_from_slice(&all[number * each..][..each]);
        }
        for (field, halves) in fields.halves.iter().zip(&scratch.halves) {
            block[field.at..field.at + 2].copy_from_slice(&halves[number].to_le_bytes());
        }
        fields::put_together::<KIND>(block, &parts[..each * fields.parts.len()], &quants[..kind.elements()]);
    }
}

/// Elements of a block from which an extreme is left out.
const WITH_EXTREME: usize = 32;

/// Puts blocks together of whose elements one is left out of the rows.
#[inline(always)]
fn put_with_extremes<const KIND: u8>(scratch: &Scratch, out: &mut [u8]) {
    let kind = const { kind_of(KIND) };
    let extremes = scratch.extremes.iter().zip(&scratch.extreme_quants);
    let given = scratch.order.positions.iter().zip(&scratch.halves[0]).zip(extremes);
    let blocks = out.chunks_exact_mut(kind.bytes()).zip(given);
    for (block, ((&position, &half), (&place, &extreme))) in blocks {
        fetch_ahead(block);
        block[..2].copy_from_slice(&half.to_le_bytes());
        // Those behind the place are one further than in the row.
        let row = &scratch.sorted[position as usize..][..BEFORE + WITH_EXTREME];
        let (behind, before) = (&row[..WITH_EXTREME], &row[BEFORE..]);
        let mut quants = [0; WITH_EXTREME];
        for (at, (quant, (&behind, &before))) in (0..).zip(quants.iter_mut().zip(behind.iter().zip(before))) {
            let of_row = if at < place { before } else { behind };
            *quant = if at == place { extreme } else { of_row };
        }
        fields::put_together::<KIND>(block, &[], &quants);
    }
}

#[cfg(test)]
mod tests;
