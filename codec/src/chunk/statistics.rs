//! How often what occurs in a sample.

use crate::rans::Table;
use crate::simd::{self, Level};
use crate::split::Split;

/// Bits of a patch: the entry itself; the symbol of its stand-in is counted apart.
pub(super) const PATCH_BITS: f64 = 32.0;

/// Counters that take turns. One alone would wait for itself wherever the same key comes twice in a row.
const TURNS: usize = 4;

/// Elements that are counted before counters of 32 bits are emptied into those of 64.
const FULL: usize = 1 << 20;

/// Elements whose keys are cut out together.
const AT_ONCE: usize = 256;

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
        self.add_with(simd::level(), bytes);
    }

    fn add_with(&mut self, level: Level, bytes: &[u8]) {
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only given where the processor has what it stands for.
            Level::Avx2 => unsafe { self.add_avx2(bytes) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512 | Level::Avx512Vbmi2 => unsafe { self.add_avx512(bytes) },
            _ => self.add_anyhow(bytes),
        }
    }

    /// [`add_anyhow`](KeyStatistics::add_anyhow), compiled for AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn add_avx2(&mut self, bytes: &[u8]) {
        self.add_anyhow(bytes);
    }

    /// [`add_anyhow`](KeyStatistics::add_anyhow), compiled for AVX-512.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn add_avx512(&mut self, bytes: &[u8]) {
        self.add_anyhow(bytes);
    }

    /// The definition, of which a compiler makes whatever vectors it may use.
    #[inline(always)]
    fn add_anyhow(&mut self, bytes: &[u8]) {
        match self.split.width {
            8 => self.add_all::<1>(bytes),
            16 => self.add_all::<2>(bytes),
            32 => self.add_all::<4>(bytes),
            width => unreachable!("elements of {width} bits are not split"),
        }
    }

    /// The same for elements of `SIZE` bytes.
    #[inline(always)]
    fn add_all<const SIZE: usize>(&mut self, bytes: &[u8]) {
        let mut turns = vec![0u32; TURNS * self.counts.len()];
        for bytes in bytes.chunks(FULL * SIZE) {
            let (first, rest) = turns.split_at_mut(self.counts.len());
            let (second, rest) = rest.split_at_mut(self.counts.len());
            let (third, fourth) = rest.split_at_mut(self.counts.len());
            for bytes in bytes.chunks(AT_ONCE * SIZE) {
                // All keys are cut out first, which is done in vectors.
                let mut keys = [0; AT_ONCE];
                self.any |= cut::<SIZE>(self.split, bytes, &mut keys);
                let (quads, rest) = keys[..bytes.len() / SIZE].as_chunks::<TURNS>();
                for quad in quads {
                    first[usize::from(quad[0])] += 1;
                    second[usize::from(quad[1])] += 1;
                    third[usize::from(quad[2])] += 1;
                    fourth[usize::from(quad[3])] += 1;
                }
                for &key in rest {
                    first[usize::from(key)] += 1;
                }
            }
            for turn in turns.chunks_exact_mut(self.counts.len()) {
                for (all, few) in self.counts.iter_mut().zip(turn) {
                    *all += u64::from(std::mem::take(few));
                }
            }
        }
    }

    /// The raw bits of an element.
    pub(super) fn raw_bits(&self) -> u8 {
        self.split.without_zeros(self.any).raw_bits()
    }

    /// The bits that all elements take with `table`: symbols, raw bits, patches.
    pub(super) fn bits(&self, table: &Table) -> f64 {
        let elements: u64 = self.counts.iter().sum();
        let (symbol_bits, outside) = table.cost(&self.counts);
        symbol_bits + elements as f64 * f64::from(self.raw_bits()) + outside as f64 * PATCH_BITS
    }
}

/// Puts the keys of the elements of `SIZE` bytes of which `bytes` are made into `keys`. Returns the bits that any has.
#[inline(always)]
fn cut<const SIZE: usize>(split: Split, bytes: &[u8], keys: &mut [u16; AT_ONCE]) -> u32 {
    let (shift, last) = (u32::from(split.shift), split.last_key());
    // In as many bits as there are, so that a vector holds as many elements as it can.
    if SIZE == 4 {
        let mut any = 0;
        for (key, element) in keys.iter_mut().zip(bytes.as_chunks().0) {
            let element = u32::from_le_bytes(*element);
            any |= element;
            *key = element.wrapping_shr(shift) as u16 & last;
        }
        any
    } else {
        let mut any = 0;
        for (key, element) in keys.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
            let element = u16::from_le_bytes([element[0], if SIZE == 2 { element[SIZE - 1] } else { 0 }]);
            any |= element;
            *key = element.wrapping_shr(shift) & last;
        }
        u32::from(any)
    }
}

/// How often each byte occurs.
pub(super) fn count_bytes(bytes: &[u8]) -> [u64; 256] {
    count_planes(1, bytes)[0]
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
            for level in Level::available() {
                let mut statistics = KeyStatistics::new(split);
                statistics.add_with(level, bytes);
                statistics.add_with(level, bytes);
                prop_assert_eq!(statistics.counts(), &expected, "{:?}", level);
                prop_assert_eq!(statistics.any, any);
            }
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
