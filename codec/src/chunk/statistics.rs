//! How often what occurs in a sample.

use crate::rans::Table;
use crate::split::Split;

/// Bits of a patch: the entry itself; the symbol of its stand-in is counted apart.
pub(super) const PATCH_BITS: f64 = 32.0;

/// Counters that take turns. One alone would wait for itself wherever the same key comes twice in a row.
const TURNS: usize = 4;

/// Elements that are counted before counters of 32 bits are emptied into those of 64.
const FULL: usize = 1 << 20;

/// How often each key occurs, and which low bits occur at all.
#[derive(Clone, Debug)]
pub(crate) struct KeyStatistics {
    split: Split,
    /// Occurrences, indexed by key.
    counts: Vec<u64>,
    any: u32,
}

impl KeyStatistics {
    pub(crate) fn new(split: Split) -> KeyStatistics {
        KeyStatistics { split, counts: vec![0; 1 << split.key_bits()], any: 0 }
    }

    /// How often each key occurs.
    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Counts the keys of `bytes`, which are whole elements.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        match self.split.width {
            8 => self.add_all(bytes, |element: [u8; 1]| u32::from(element[0])),
            16 => self.add_all(bytes, |element| u32::from(u16::from_le_bytes(element))),
            32 => self.add_all(bytes, u32::from_le_bytes),
            width => unreachable!("elements of {width} bits are not split"),
        }
    }

    #[inline(always)]
    fn add_all<const SIZE: usize>(&mut self, bytes: &[u8], load: impl Fn([u8; SIZE]) -> u32) {
        let elements = bytes.as_chunks().0;
        let mut turns = vec![0u32; TURNS * self.counts.len()];
        for elements in elements.chunks(FULL) {
            let (quads, rest) = elements.as_chunks::<TURNS>();
            for quad in quads {
                for (turn, element) in turns.chunks_exact_mut(self.counts.len()).zip(quad) {
                    turn[usize::from(self.split.key(load(*element)))] += 1;
                }
            }
            for element in rest {
                turns[usize::from(self.split.key(load(*element)))] += 1;
            }
            for turn in turns.chunks_exact_mut(self.counts.len()) {
                for (all, few) in self.counts.iter_mut().zip(turn) {
                    *all += u64::from(std::mem::take(few));
                }
            }
        }
        self.any |= elements.iter().fold(0, |any, &element| any | load(element));
    }

    /// The bits that all elements take with `table`: symbols, raw bits, patches.
    pub(super) fn bits(&self, table: &Table) -> f64 {
        let elements: u64 = self.counts.iter().sum();
        let (symbol_bits, outside) = table.cost(&self.counts);
        let raw_bits = self.split.without_zeros(self.any).raw_bits();
        symbol_bits + elements as f64 * f64::from(raw_bits) + outside as f64 * PATCH_BITS
    }
}

/// How often each byte occurs at each position of elements of `size` bytes (at most 8, a power of two).
pub(super) fn count_planes(size: usize, bytes: &[u8]) -> Vec<[u64; 256]> {
    const TURNS: usize = 8;
    let mut turns = [[0u64; 256]; TURNS];
    let (whole, rest) = bytes.as_chunks::<TURNS>();
    for bytes in whole {
        for (turn, &byte) in turns.iter_mut().zip(bytes) {
            turn[usize::from(byte)] += 1;
        }
    }
    for (turn, &byte) in turns.iter_mut().zip(rest) {
        turn[usize::from(byte)] += 1;
    }
    let (planes, others) = turns.split_at_mut(size);
    for (other, counts) in others.iter().enumerate() {
        for (all, few) in planes[other % size].iter_mut().zip(counts) {
            *all += few;
        }
    }
    planes.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::tests::splits;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_is_counted(split in splits(), bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let size = usize::from(split.width / 8);
            let bytes = &bytes[..bytes.len() / size * size];
            let mut expected = vec![0; 1 << split.key_bits()];
            let mut any = 0;
            for position in 0..bytes.len() / size {
                let element = split.element(bytes, position);
                expected[usize::from(split.key(element))] += 2;
                any |= element;
            }
            let mut statistics = KeyStatistics::new(split);
            statistics.add(bytes);
            statistics.add(bytes);
            prop_assert_eq!(statistics.counts(), expected);
            prop_assert_eq!(statistics.any, any);
        }

        #[test]
        fn every_byte_is_counted(size in prop::sample::select(vec![1usize, 2, 4, 8]), bytes: Vec<u8>) {
            let bytes = &bytes[..bytes.len() / size * size];
            let planes = count_planes(size, bytes);
            prop_assert_eq!(planes.len(), size);
            for (position, plane) in planes.iter().enumerate() {
                let mut expected = [0; 256];
                bytes.iter().skip(position).step_by(size).for_each(|&byte| expected[usize::from(byte)] += 1);
                prop_assert_eq!(plane, &expected);
            }
        }
    }

    #[test]
    fn counters_are_emptied() {
        let mut statistics = KeyStatistics::new(Split { width: 8, signed: false, shift: 0, zeros: 0 });
        statistics.add(&vec![7; 2 * FULL + 3]);
        assert_eq!(statistics.counts()[7], 2 * FULL as u64 + 3);
    }
}
