//! What blocks are made of: which fields each type has, and where they lie in its bytes.
//!
//! *Halves* are numbers of 16 bits: scales and minima of whole blocks. *Parts* are the small numbers of parts of a block,
//! one byte each here, which scale the block's. *Quants* are the elements. What else there is, indices into codebooks and
//! the like, are *bytes* as they lie there.

use std::ops::Range;

use crate::quantised::BlockType;

/// A half of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    /// Where in the block it begins.
    pub(super) at: usize,
    /// Whether it is a minimum: what is coded is how much larger its magnitude is than the first half's.
    pub(super) minimum: bool,
    /// Whether its sign says the opposite of what it does in other types, which have minima that are taken off.
    pub(super) flipped: bool,
}

/// Parts of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// How many a block has.
    pub(super) per_block: usize,
    /// The classes that they are coded in: those of the parts before, less so many low bits.
    pub(super) given: Option<u32>,
}

/// The elements of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quants {
    /// Elements that share a scale, and with it a table: a row.
    pub(super) row: usize,
    /// Bits of an element.
    pub(super) bits: u32,
    /// What nearly each block has at least one element of, which is then left out: the first that is one of these.
    pub(super) extremes: Option<[u8; 2]>,
    /// What the table of a row is chosen by.
    pub(super) classes: Classes,
}

/// What the table of a row is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Classes {
    /// Its scale beside those of its neighbours, in steps of so many bits of 1/1024 octave: 16 classes.
    Scale {
        /// Bits of a step.
        shift: u32,
    },
    /// Which element stands for zero, in 16 steps, and the scale in 4.
    Zero,
}

/// What the blocks of a type are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) halves: &'static [Half],
    pub(super) parts: &'static [Parts],
    pub(super) bytes: &'static [(usize, usize)],
    pub(super) quants: Option<Quants>,
}

const fn scale(at: usize) -> Half {
    Half { at, minimum: false, flipped: false }
}

const fn parts(per_block: usize) -> Parts {
    Parts { per_block, given: None }
}

const fn quants(row: usize, bits: u32, classes: Classes) -> Option<Quants> {
    Some(Quants { row, bits, extremes: None, classes })
}

/// With elements of which nearly every block has one.
const fn with_extremes(bits: u32, extremes: [u8; 2]) -> Option<Quants> {
    Some(Quants { row: 32, bits, extremes: Some(extremes), classes: BY_SCALE })
}

const BY_SCALE: Classes = Classes::Scale { shift: 6 };

/// Where there is a power of two, or next to one, for a scale.
const BY_COARSE_SCALE: Classes = Classes::Scale { shift: 8 };

/// The largest elements of Q8_0, folded: 127 and -127.
const LARGEST: [u8; 2] = [fold(127), fold(-127i8 as u8)];

/// A signed byte with its sign in the top bit and, if that is set, all others flipped: the lower 7 bits then grow with the
/// magnitude. Folding again undoes it.
#[inline(always)]
pub(super) const fn fold(byte: u8) -> u8 {
    byte ^ ((byte as i8 >> 7) as u8 & 0x7f)
}

impl Fields {
    /// Those of the blocks of this type.
    pub(super) const fn of(kind: BlockType) -> Fields {
        const NONE: Fields = Fields { halves: &[], parts: &[], bytes: &[], quants: None };
        match kind {
            BlockType::Q4_0 => Fields { halves: const { &[scale(0)] }, quants: with_extremes(4, [0, 0]), ..NONE },
            BlockType::Q5_0 => Fields { halves: const { &[scale(0)] }, quants: with_extremes(5, [0, 0]), ..NONE },
            BlockType::Q8_0 => Fields { halves: const { &[scale(0)] }, quants: with_extremes(8, LARGEST), ..NONE },
            BlockType::Q4_1 => Fields {
                halves: const { &[scale(0), Half { at: 2, minimum: true, flipped: true }] },
                quants: quants(32, 4, Classes::Zero),
                ..NONE
            },
            BlockType::Q5_1 => Fields {
                halves: const { &[scale(0), Half { at: 2, minimum: true, flipped: true }] },
                quants: quants(32, 5, Classes::Zero),
                ..NONE
            },
            BlockType::Q2_K => Fields {
                halves: const { &[scale(80), Half { at: 82, minimum: true, flipped: false }] },
                parts: const { &[parts(16), Parts { per_block: 16, given: Some(0) }] },
                quants: quants(16, 2, Classes::Zero),
                ..NONE
            },
            BlockType::Q3_K => Fields {
                halves: const { &[scale(108)] },
                parts: const { &[parts(16)] },
                quants: quants(16, 3, BY_SCALE),
                ..NONE
            },
            BlockType::Q4_K => Fields {
                halves: const { &[scale(0), Half { at: 2, minimum: true, flipped: false }] },
                parts: const { &[parts(8), Parts { per_block: 8, given: Some(2) }] },
                quants: quants(32, 4, Classes::Zero),
                ..NONE
            },
            BlockType::Q5_K => Fields {
                halves: const { &[scale(0), Half { at: 2, minimum: true, flipped: false }] },
                parts: const { &[parts(8), Parts { per_block: 8, given: Some(2) }] },
                quants: quants(32, 5, Classes::Zero),
                ..NONE
            },
            BlockType::Q6_K => Fields {
                halves: const { &[scale(208)] },
                parts: const { &[parts(16)] },
                quants: quants(16, 6, BY_SCALE),
                ..NONE
            },
            BlockType::IQ4_NL => Fields { halves: const { &[scale(0)] }, quants: quants(32, 4, BY_SCALE), ..NONE },
            BlockType::IQ4_XS => Fields {
                halves: const { &[scale(0)] },
                parts: const { &[parts(8)] },
                quants: quants(32, 4, BY_SCALE),
                ..NONE
            },
            BlockType::MXFP4 => Fields { parts: const { &[parts(1)] }, quants: quants(32, 4, BY_COARSE_SCALE), ..NONE },
            BlockType::NVFP4 => Fields { parts: const { &[parts(4)] }, quants: quants(16, 4, BY_COARSE_SCALE), ..NONE },
            BlockType::IQ1_S => Fields { halves: const { &[scale(0)] }, bytes: &[(2, 34), (34, 50)], ..NONE },
            BlockType::IQ1_M => Fields { bytes: &[(0, 32), (32, 48), (48, 56)], ..NONE },
            BlockType::IQ2_XXS => Fields { halves: const { &[scale(0)] }, bytes: &[(2, 66)], ..NONE },
            BlockType::IQ2_XS => Fields { halves: const { &[scale(0)] }, bytes: &[(2, 66), (66, 74)], ..NONE },
            BlockType::IQ2_S => {
                Fields { halves: const { &[scale(0)] }, bytes: &[(2, 34), (34, 66), (66, 74), (74, 82)], ..NONE }
            }
            BlockType::IQ3_XXS => Fields { halves: const { &[scale(0)] }, bytes: &[(2, 66), (66, 98)], ..NONE },
            BlockType::IQ3_S => {
                Fields { halves: const { &[scale(0)] }, bytes: &[(2, 66), (66, 74), (74, 106), (106, 110)], ..NONE }
            }
            BlockType::TQ1_0 => Fields { halves: const { &[scale(52)] }, bytes: &[(0, 48), (48, 52)], ..NONE },
            BlockType::TQ2_0 => Fields { halves: const { &[scale(64)] }, bytes: &[(0, 64)], ..NONE },
        }
    }

    /// The ranges of bytes.
    pub(super) fn byte_ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.bytes.iter().map(|&(start, end)| start..end)
    }
}

/// The numbers of types that [`take_apart`] knows, as patterns.
mod number {
    use crate::quantised::BlockType;

    pub(super) const Q4_0: u8 = BlockType::Q4_0.number();
    pub(super) const IQ4_NL: u8 = BlockType::IQ4_NL.number();
    pub(super) const Q4_1: u8 = BlockType::Q4_1.number();
    pub(super) const Q5_0: u8 = BlockType::Q5_0.number();
    pub(super) const Q5_1: u8 = BlockType::Q5_1.number();
    pub(super) const Q8_0: u8 = BlockType::Q8_0.number();
    pub(super) const Q2_K: u8 = BlockType::Q2_K.number();
    pub(super) const Q3_K: u8 = BlockType::Q3_K.number();
    pub(super) const Q4_K: u8 = BlockType::Q4_K.number();
    pub(super) const Q5_K: u8 = BlockType::Q5_K.number();
    pub(super) const Q6_K: u8 = BlockType::Q6_K.number();
    pub(super) const IQ4_XS: u8 = BlockType::IQ4_XS.number();
    pub(super) const MXFP4: u8 = BlockType::MXFP4.number();
    pub(super) const NVFP4: u8 = BlockType::NVFP4.number();
}

/// Takes a block of type number `KIND` apart: its quants and its parts, one behind the other as [`Fields::parts`] has them.
#[inline(always)]
pub(super) fn take_apart<const KIND: u8>(block: &[u8], parts: &mut [u8], quants: &mut [u8]) {
    use number::*;
    match KIND {
        Q4_0 | IQ4_NL => take_nibbles::<16>(&block[2..], quants),
        Q4_1 => take_nibbles::<16>(&block[4..], quants),
        Q5_0 => {
            take_nibbles::<16>(&block[6..], quants);
            take_bit_of_each(&block[2..], quants);
        }
        Q5_1 => {
            take_nibbles::<16>(&block[8..], quants);
            take_bit_of_each(&block[4..], quants);
        }
        Q8_0 => quants.iter_mut().zip(&block[2..]).for_each(|(quant, &byte)| *quant = fold(byte)),
        Q2_K => {
            let (scales, minima) = parts.split_at_mut(16);
            for ((scale, minimum), &byte) in scales.iter_mut().zip(minima).zip(block) {
                (*scale, *minimum) = (byte & 15, byte >> 4);
            }
            take_pairs_of_bits(&block[16..], quants);
        }
        Q3_K => {
            take_pairs_of_bits(&block[32..], quants);
            take_bits_beside(block, quants, 2);
            let scales = &block[96..108];
            for (at, part) in parts.iter_mut().enumerate() {
                *part = (scales[at % 8] >> (at / 8 * 4) & 15) | (scales[8 + at % 4] >> (at / 4 * 2) & 3) << 4;
            }
        }
        Q4_K => {
            take_six_bits(&block[4..], parts);
            take_nibbles::<32>(&block[16..], quants);
        }
        Q5_K => {
            take_six_bits(&block[4..], parts);
            take_nibbles::<32>(&block[48..], quants);
            take_bits_beside(&block[16..], quants, 4);
        }
        Q6_K => {
            for (half, quants) in quants.chunks_exact_mut(128).enumerate() {
                let (low, high) = (&block[half * 64..][..64], &block[128 + half * 32..][..32]);
                for (at, quant) in quants.iter_mut().enumerate() {
                    *quant = (low[at % 64] >> (at / 64 * 4) & 15) | (high[at % 32] >> (at / 32 * 2) & 3) << 4;
                }
            }
            parts.iter_mut().zip(&block[192..]).for_each(|(part, &byte)| *part = fold(byte));
        }
        IQ4_XS => {
            let high = u16::from_le_bytes([block[2], block[3]]);
            for (at, part) in parts.iter_mut().enumerate() {
                *part = (block[4 + at / 2] >> (at % 2 * 4) & 15) | ((high >> (2 * at)) as u8 & 3) << 4;
            }
            take_nibbles::<16>(&block[8..], quants);
        }
        MXFP4 => {
            parts[0] = block[0];
            take_nibbles::<16>(&block[1..], quants);
        }
        NVFP4 => {
            parts.copy_from_slice(&block[..4]);
            take_nibbles::<8>(&block[4..], quants);
        }
        _ => {}
    }
}

/// Undoes [`take_apart`]: writes quants and parts where they belong in the block. Of each only the bits that there are room
/// for are looked at.
#[inline(always)]
pub(super) fn put_together<const KIND: u8>(block: &mut [u8], parts: &[u8], quants: &[u8]) {
    use number::*;
    match KIND {
        Q4_0 | IQ4_NL => put_nibbles::<16>(&mut block[2..], quants),
        Q4_1 => put_nibbles::<16>(&mut block[4..], quants),
        Q5_0 => {
            put_nibbles::<16>(&mut block[6..], quants);
            put_bit_of_each(&mut block[2..], quants);
        }
        Q5_1 => {
            put_nibbles::<16>(&mut block[8..], quants);
            put_bit_of_each(&mut block[4..], quants);
        }
        Q8_0 => block[2..].iter_mut().zip(quants).for_each(|(byte, &quant)| *byte = fold(quant)),
        Q2_K => {
            let (scales, minima) = parts.split_at(16);
            for (byte, (scale, minimum)) in block.iter_mut().zip(scales.iter().zip(minima)) {
                *byte = scale & 15 | minimum << 4;
            }
            put_pairs_of_bits(&mut block[16..], quants);
        }
        Q3_K => {
            put_bits_beside(block, quants, 2);
            put_pairs_of_bits(&mut block[32..], quants);
            let (low, high) = block[96..108].split_at_mut(8);
            for (at, byte) in low.iter_mut().enumerate() {
                *byte = parts[at] & 15 | parts[at + 8] << 4;
            }
            for (at, byte) in high.iter_mut().enumerate() {
                let bits = |group: usize| (parts[at + 4 * group] >> 4 & 3) << (2 * group);
                *byte = bits(0) | bits(1) | bits(2) | bits(3);
            }
        }
        Q4_K => {
            put_six_bits(&mut block[4..], parts);
            put_nibbles::<32>(&mut block[16..], quants);
        }
        Q5_K => {
            put_six_bits(&mut block[4..], parts);
            put_bits_beside(&mut block[16..], quants, 4);
            put_nibbles::<32>(&mut block[48..], quants);
        }
        Q6_K => {
            let (low, rest) = block.split_at_mut(128);
            for (low, quants) in low.chunks_exact_mut(64).zip(quants.chunks_exact(128)) {
                let (first, second) = quants.split_at(64);
                for (byte, (first, second)) in low.iter_mut().zip(first.iter().zip(second)) {
                    *byte = first & 15 | second << 4;
                }
            }
            for (high, quants) in rest.chunks_exact_mut(32).zip(quants.chunks_exact(128)) {
                for (at, byte) in high.iter_mut().enumerate() {
                    let bits = |group: usize| (quants[at + 32 * group] >> 4 & 3) << (2 * group);
                    *byte = bits(0) | bits(1) | bits(2) | bits(3);
                }
            }
            rest[64..].iter_mut().zip(parts).for_each(|(byte, &part)| *byte = fold(part));
        }
        IQ4_XS => {
            let high = parts.iter().enumerate().fold(0, |high, (at, part)| high | u16::from(part >> 4 & 3) << (2 * at));
            block[2..4].copy_from_slice(&high.to_le_bytes());
            for (byte, pair) in block[4..8].iter_mut().zip(parts.chunks_exact(2)) {
                *byte = pair[0] & 15 | pair[1] << 4;
            }
            put_nibbles::<16>(&mut block[8..], quants);
        }
        MXFP4 => {
            block[0] = parts[0];
            put_nibbles::<16>(&mut block[1..], quants);
        }
        NVFP4 => {
            block[..4].copy_from_slice(parts);
            put_nibbles::<8>(&mut block[4..], quants);
        }
        _ => {}
    }
}

/// Low halves of `HALF` bytes are so many quants, their high halves the next; and so on.
#[inline(always)]
fn take_nibbles<const HALF: usize>(bytes: &[u8], quants: &mut [u8]) {
    for (quants, bytes) in quants.chunks_exact_mut(2 * HALF).zip(bytes.as_chunks::<HALF>().0) {
        let (low, high) = quants.split_at_mut(HALF);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
}

#[inline(always)]
fn put_nibbles<const HALF: usize>(bytes: &mut [u8], quants: &[u8]) {
    for (bytes, quants) in bytes.as_chunks_mut::<HALF>().0.iter_mut().zip(quants.chunks_exact(2 * HALF)) {
        let (low, high) = quants.split_at(HALF);
        for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
            *byte = low & 15 | high << 4;
        }
    }
}

/// The fifth bits of 32 quants, the first in the lowest bit of the first byte.
#[inline(always)]
fn take_bit_of_each(bytes: &[u8], quants: &mut [u8]) {
    for (at, quant) in quants.iter_mut().enumerate() {
        *quant |= (bytes[at / 8] >> (at % 8) & 1) << 4;
    }
}

#[inline(always)]
fn put_bit_of_each(bytes: &mut [u8], quants: &[u8]) {
    for (byte, quants) in bytes.iter_mut().zip(quants.as_chunks::<8>().0) {
        // The product has the bit of quant `i` at bit 56 + i, and no carries into those.
        let bits = u64::from_le_bytes(*quants) >> 4 & 0x0101_0101_0101_0101;
        *byte = (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    }
}

/// 32 bytes with the lowest two bits of 32 quants, of the next 32 and so on, then again.
#[inline(always)]
fn take_pairs_of_bits(bytes: &[u8], quants: &mut [u8]) {
    for (quants, bytes) in quants.chunks_exact_mut(128).zip(bytes.chunks_exact(32)) {
        for (group, quants) in quants.chunks_exact_mut(32).enumerate() {
            quants.iter_mut().zip(bytes).for_each(|(quant, byte)| *quant = byte >> (2 * group) & 3);
        }
    }
}

#[inline(always)]
fn put_pairs_of_bits(bytes: &mut [u8], quants: &[u8]) {
    for (bytes, quants) in bytes.chunks_exact_mut(32).zip(quants.chunks_exact(128)) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            let bits = |group: usize| (quants[at + 32 * group] & 3) << (2 * group);
            *byte = bits(0) | bits(1) | bits(2) | bits(3);
        }
    }
}

/// 32 bytes with one bit of 32 quants, of the next 32 and so on: the bits above the lowest `above`.
#[inline(always)]
fn take_bits_beside(bytes: &[u8], quants: &mut [u8], above: u32) {
    for (group, quants) in quants.chunks_exact_mut(32).enumerate() {
        quants.iter_mut().zip(bytes).for_each(|(quant, byte)| *quant |= (byte >> group & 1) << above);
    }
}

#[inline(always)]
fn put_bits_beside(bytes: &mut [u8], quants: &[u8], above: u32) {
    for (at, byte) in bytes[..32].iter_mut().enumerate() {
        let bit = |group: usize| (quants[at + 32 * group] >> above & 1) << group;
        *byte = bit(0) | bit(1) | bit(2) | bit(3) | bit(4) | bit(5) | bit(6) | bit(7);
    }
}

/// 8 scales and 8 minima of 6 bits in 12 bytes.
#[inline(always)]
fn take_six_bits(bytes: &[u8], parts: &mut [u8]) {
    for at in 0..4 {
        let [first, second, third] = [bytes[at], bytes[at + 4], bytes[at + 8]];
        parts[at] = first & 63;
        parts[at + 8] = second & 63;
        parts[at + 4] = third & 15 | first >> 6 << 4;
        parts[at + 12] = third >> 4 | second >> 6 << 4;
    }
}

#[inline(always)]
fn put_six_bits(bytes: &mut [u8], parts: &[u8]) {
    for at in 0..4 {
        let [first, second] = [parts[at + 4], parts[at + 12]];
        bytes[at] = parts[at] & 63 | first >> 4 << 6;
        bytes[at + 4] = parts[at + 8] & 63 | second >> 4 << 6;
        bytes[at + 8] = first & 15 | second << 4;
    }
}
