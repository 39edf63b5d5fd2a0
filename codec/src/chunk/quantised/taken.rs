//! Blocks taken apart.

use super::classes::RowScales;
use super::fields::{self, Fields, Parts};
use crate::quantised::BlockType;
use crate::simd::Level;

/// Bits of a place within a row of 32, and what is above them: which of the extremes is there.
const PLACE_BITS: u32 = 5;

/// Stands for anything that is no extreme: what is there is one of [`Taken::others`].
pub(super) const OTHER: u8 = 2;

/// The fields of blocks that lie side by side, each of all blocks.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) halves: [Vec<u16>; 2],
    pub(super) parts: [Vec<u8>; 2],
    pub(super) bytes: [Vec<u8>; 4],
    /// The place of the extreme of each block, and which it is.
    pub(super) extremes: Vec<u8>,
    /// What is there instead of an extreme.
    pub(super) others: Vec<u8>,
    /// The quants, without extremes.
    pub(super) quants: Vec<u8>,
    /// The classes of parts that are given by others, and those of quants.
    pub(super) part_classes: Vec<u8>,
    pub(super) classes: Vec<u8>,
    scales: RowScales,
}

/// Symbols in rows, each of a class.
pub(super) struct Rows<'a> {
    pub(super) symbols: &'a [u8],
    /// Symbols of a row.
    pub(super) len: usize,
    pub(super) classes: &'a [u8],
}

/// What is coded of a half, which is the first or less than that, and what is there of what is coded.
pub(super) mod half {
    use crate::chunk::quantised::fields::Half;

    /// Takes a half, whose block has the first one `first`, to what is coded.
    pub(in crate::chunk::quantised) fn coded(field: Half, half: u16, first: u16) -> u16 {
        let half = if field.flipped { half ^ 0x8000 } else { half };
        let rotated = half.rotate_left(1);
        if field.minimum { rotated.wrapping_sub(first.rotate_left(1)) } else { rotated }
    }

    /// Undoes [`coded`].
    pub(in crate::chunk::quantised) fn decoded(field: Half, coded: u16, first: u16) -> u16 {
        let rotated = if field.minimum { coded.wrapping_add(first.rotate_left(1)) } else { coded };
        let half = rotated.rotate_right(1);
        if field.flipped { half ^ 0x8000 } else { half }
    }
}

/// The number of symbols of a row of quants that are coded.
pub(super) fn coded_row(quants: &fields::Quants) -> usize {
    quants.row - usize::from(quants.extremes.is_some())
}

/// The classes of parts that are given by others.
pub(super) fn classes_given(others: &[u8], shift: u32, classes: &mut Vec<u8>) {
    classes.clear();
    classes.extend(others.iter().map(|other| (other >> shift).min(super::classes::CLASSES as u8 - 1)));
}

impl Taken {
    /// Takes whole blocks apart.
    pub(super) fn take(&mut self, kind: BlockType, level: Level, blocks: &[u8]) {
        let fields = Fields::of(kind);
        let size = kind.bytes();
        for (field, halves) in fields.halves.iter().zip(&mut self.halves) {
            halves.clear();
            halves.extend(
                blocks.chunks_exact(size).map(|block| u16::from_le_bytes([block[field.at], block[field.at + 1]])),
            );
        }
        for (range, bytes) in fields.byte_ranges().zip(&mut self.bytes) {
            bytes.clear();
            blocks.chunks_exact(size).for_each(|block| bytes.extend_from_slice(&block[range.clone()]));
        }
        self.parts.iter_mut().for_each(Vec::clear);
        self.extremes.clear();
        self.others.clear();
        self.quants.clear();
        if let Some(quants) = fields.quants {
            self.take_quants(kind, blocks);
            if let Some(extremes) = quants.extremes {
                self.leave_out_extremes(quants.row, extremes);
            }
            let (halves, parts) = (self.halves.each_ref().map(|h| &h[..]), self.parts.each_ref().map(|p| &p[..]));
            self.scales.classes(kind, level, halves, parts, &mut self.classes);
        }
        if let Some(&Parts { given: Some(shift), .. }) = fields.parts.get(1) {
            classes_given(&self.parts[0], shift, &mut self.part_classes);
        }
        let [first, second] = &mut self.halves;
        if let Some(&field) = fields.halves.get(1) {
            second.iter_mut().zip(&*first).for_each(|(half, &first)| *half = half::coded(field, *half, first));
        }
        if let Some(&field) = fields.halves.first() {
            first.iter_mut().for_each(|half| *half = half::coded(field, *half, 0));
        }
    }

    fn take_quants(&mut self, kind: BlockType, blocks: &[u8]) {
        macro_rules! take_all {
            ($($kind:ident)*) => {
                match kind {
                    $(BlockType::$kind => self.take_quants_of::<{ BlockType::$kind.number() }>(kind, blocks),)*
                    _ => unreachable!("{kind:?} has no quants"),
                }
            };
        }
        take_all!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NVFP4);
    }

    fn take_quants_of<const KIND: u8>(&mut self, kind: BlockType, blocks: &[u8]) {
        let parts_of = Fields::of(kind).parts;
        let each = parts_of.first().map_or(0, |parts| parts.per_block);
        let (mut parts, mut quants) = ([0; 32], [0; 256]);
        let parts = &mut parts[..each * parts_of.len()];
        let quants = &mut quants[..kind.elements()];
        for block in blocks.chunks_exact(kind.bytes()) {
            fields::take_apart::<KIND>(block, parts, quants);
            for (all, parts) in self.parts.iter_mut().zip(parts.chunks_exact(each.max(1))) {
                all.extend_from_slice(parts);
            }
            self.quants.extend_from_slice(quants);
        }
    }

    /// Takes the first extreme out of each row, or else its first quant.
    fn leave_out_extremes(&mut self, row: usize, extremes: [u8; 2]) {
        let rows = self.quants.len() / row;
        for number in 0..rows {
            let quants = &self.quants[number * row..][..row];
            let place = quants.iter().position(|quant| extremes.contains(quant));
            let at = place.unwrap_or(0);
            let quant = quants[at];
            let which = match place {
                Some(_) if quant == extremes[0] => 0,
                Some(_) => 1,
                None => {
                    self.others.push(quant);
                    OTHER
                }
            };
            self.extremes.push(which << PLACE_BITS | at as u8);
            let to = number * (row - 1);
            self.quants.copy_within(number * row..number * row + at, to);
            self.quants.copy_within(number * row + at + 1..(number + 1) * row, to + at);
        }
        self.quants.truncate(rows * (row - 1));
    }

    /// The planes, in the order of a chunk: parts that are given by no others, bytes, extremes.
    pub(super) fn planes(&self, kind: BlockType) -> impl Iterator<Item = &[u8]> {
        let fields = Fields::of(kind);
        let parts =
            fields.parts.iter().zip(&self.parts).filter(|(parts, _)| parts.given.is_none()).map(|(_, all)| &all[..]);
        let bytes = self.bytes[..fields.bytes.len()].iter().map(|bytes| &bytes[..]);
        let extremes = fields.quants.and_then(|quants| quants.extremes).map(|_| &self.extremes[..]);
        parts.chain(bytes).chain(extremes)
    }

    /// What is coded in rows, in the order of a chunk: parts that are given by others, quants.
    pub(super) fn rows(&self, kind: BlockType) -> impl Iterator<Item = Rows<'_>> {
        let fields = Fields::of(kind);
        let given = fields.parts.iter().zip(&self.parts).filter(|(parts, _)| parts.given.is_some());
        let given = given.map(|(_, parts)| Rows { symbols: parts, len: 1, classes: &self.part_classes });
        let quants =
            fields.quants.map(|quants| Rows { symbols: &self.quants, len: coded_row(&quants), classes: &self.classes });
        given.chain(quants)
    }
}

/// The place that a byte of [`Taken::extremes`] names, and which of the extremes is there.
pub(super) fn place_of(extreme: u8) -> (u8, u8) {
    (extreme & ((1 << PLACE_BITS) - 1), extreme >> PLACE_BITS)
}

#[cfg(test)]
mod tests {
    use super::super::fields::fold;
    use super::*;

    #[test]
    fn folded_bytes_grow_with_the_magnitude() {
        assert_eq!([0u8, 1, 127, 255, 128].map(fold), [0, 1, 127, 0x80, 0xff]);
        assert!((0..=255).all(|byte| fold(fold(byte)) == byte));
    }

    #[test]
    fn the_first_extreme_of_each_row_is_left_out() {
        let mut taken = Taken { quants: vec![3, 0, 5, 9, 7, 9, 1, 2, 4, 9, 0, 3], ..Taken::default() };
        taken.leave_out_extremes(4, [9, 0]);
        assert_eq!(taken.quants, [3, 5, 9, 7, 1, 2, 4, 0, 3]);
        assert_eq!(taken.extremes, [1 << 5 | 1, 1, 1]);
        let mut taken = Taken { quants: vec![3, 4], ..Taken::default() };
        taken.leave_out_extremes(2, [9, 0]);
        assert_eq!((&taken.quants[..], &taken.extremes[..], &taken.others[..]), (&[4][..], &[2 << 5][..], &[3][..]));
    }

    #[test]
    fn halves_come_back() {
        for field in [(false, false), (true, false), (true, true)] {
            let field = fields::Half { at: 0, minimum: field.0, flipped: field.1 };
            for (half, first) in [(0u16, 0u16), (0x3c00, 0x2345), (0xbfff, 0x7fff), (0x8000, 0xffff), (0xffff, 1)] {
                assert_eq!(half::decoded(field, half::coded(field, half, first), first), half);
            }
        }
    }
}
