//! Arithmetic on the upper 16 bits of the magnitudes of many elements: in loops that a compiler makes vectors of.

use crate::chunk::scale::{Columns, QUAD, QuadScale};
use crate::rans::LANES;
use crate::simd::{Level, at_level};
use crate::split::Element;

/// Elements that are summed up together.
pub(super) const BLOCK: usize = 64;

/// Where magnitudes are cut off before they are averaged, in steps: zeros would outweigh all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clamp {
    pub(super) low: u16,
    pub(super) high: u16,
}

/// The bits of an element's upper 16 that are not its sign.
fn magnitude_mask(size: usize) -> u16 {
    if size == 1 { 0x7f } else { 0x7fff }
}

/// The upper 16 bits of an element, or its 8.
#[inline(always)]
fn upper<const SIZE: usize>(element: &[u8; SIZE]) -> u16 {
    match SIZE {
        1 => u16::from(element[0]),
        _ => u16::from_le_bytes([element[SIZE - 2], element[SIZE - 1]]),
    }
}

/// Replaces `magnitudes` by those of `bytes`.
pub(super) fn upper_magnitudes(element: Element, bytes: &[u8], level: Level, magnitudes: &mut Vec<u16>) {
    magnitudes.resize(bytes.len() / element.size(), 0);
    let out = &mut magnitudes[..];
    match element.size() {
        1 => at_level!(level, cut::<1>(bytes: &[u8], out: &mut [u16])),
        2 => at_level!(level, cut::<2>(bytes: &[u8], out: &mut [u16])),
        _ => at_level!(level, cut::<4>(bytes: &[u8], out: &mut [u16])),
    }
}

#[inline(always)]
fn cut<const SIZE: usize>(bytes: &[u8], out: &mut [u16]) {
    let mask = magnitude_mask(SIZE);
    for (magnitude, element) in out.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
        *magnitude = upper(element) & mask;
    }
}

/// Replaces `sums` by those of the blocks of `magnitudes`, each of them clamped and then less the lower end.
pub(super) fn block_sums(magnitudes: &[u16], clamp: Clamp, level: Level, sums: &mut Vec<u32>) {
    sums.resize(magnitudes.len().div_ceil(BLOCK), 0);
    let out = &mut sums[..];
    at_level!(level, sum_blocks(magnitudes: &[u16], clamp: Clamp, out: &mut [u32]));
}

#[inline(always)]
fn sum_blocks(magnitudes: &[u16], clamp: Clamp, out: &mut [u32]) {
    let (blocks, rest) = magnitudes.as_chunks::<BLOCK>();
    let sum = |block: &[u16]| -> u32 {
        block.iter().map(|&magnitude| u32::from(magnitude.clamp(clamp.low, clamp.high) - clamp.low)).sum()
    };
    let (full, last) = out.split_at_mut(blocks.len());
    full.iter_mut().zip(blocks).for_each(|(out, block)| *out = sum(block));
    last.iter_mut().for_each(|out| *out = sum(rest));
}

/// Adds the magnitudes of `bytes`, each clamped and then less the lower end, to `sums`, which are as many.
pub(super) fn add_clamped(element: Element, bytes: &[u8], clamp: Clamp, level: Level, sums: &mut [u32]) {
    match element.size() {
        1 => at_level!(level, add_row::<1>(bytes: &[u8], clamp: Clamp, sums: &mut [u32])),
        2 => at_level!(level, add_row::<2>(bytes: &[u8], clamp: Clamp, sums: &mut [u32])),
        _ => at_level!(level, add_row::<4>(bytes: &[u8], clamp: Clamp, sums: &mut [u32])),
    }
}

#[inline(always)]
fn add_row<const SIZE: usize>(bytes: &[u8], clamp: Clamp, sums: &mut [u32]) {
    let mask = magnitude_mask(SIZE);
    for (sum, element) in sums.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
        *sum += u32::from((upper(element) & mask).clamp(clamp.low, clamp.high) - clamp.low);
    }
}

/// Replaces `out` by the elements of `bytes`, of whose magnitudes the offsets of their quads and columns are taken, modulo
/// the number of magnitudes. The first is in column `column`.
pub(super) fn take_offsets(
    element: Element,
    bytes: &[u8],
    quads: &[QuadScale],
    columns: &Columns,
    column: usize,
    level: Level,
    out: &mut Vec<u8>,
) {
    out.resize(bytes.len(), 0);
    let out = &mut out[..];
    match element.size() {
        1 => {
            at_level!(level, take::<1>(bytes: &[u8], quads: &[QuadScale], columns: &Columns, column: usize, out: &mut [u8]))
        }
        2 => {
            at_level!(level, take::<2>(bytes: &[u8], quads: &[QuadScale], columns: &Columns, column: usize, out: &mut [u8]))
        }
        _ => {
            at_level!(level, take::<4>(bytes: &[u8], quads: &[QuadScale], columns: &Columns, column: usize, out: &mut [u8]))
        }
    }
}

#[inline(always)]
fn take<const SIZE: usize>(bytes: &[u8], quads: &[QuadScale], columns: &Columns, mut column: usize, out: &mut [u8]) {
    let mask = magnitude_mask(SIZE);
    let groups = bytes.chunks(LANES * SIZE).zip(out.chunks_mut(LANES * SIZE));
    for (number, (group, out)) in groups.enumerate() {
        let offset = quads[number * LANES / QUAD].offset;
        let offsets =
            columns.offsets()[column..].first_chunk::<LANES>().expect("they go on for a group beyond the period");
        column = (column + LANES) % columns.period();
        let elements = group.as_chunks::<SIZE>().0.iter().zip(out.as_chunks_mut::<SIZE>().0);
        for ((element, out), of_column) in elements.zip(offsets) {
            let before = upper(element);
            let after = (before & !mask) | (before.wrapping_sub(offset).wrapping_sub(*of_column) & mask);
            *out = *element;
            let [low, high] = after.to_le_bytes();
            if SIZE == 1 {
                out[0] = low;
            } else {
                out[SIZE - 2] = low;
                out[SIZE - 1] = high;
            }
        }
    }
}
