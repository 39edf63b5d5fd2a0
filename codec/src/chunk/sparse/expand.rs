//! Putting the elements of a sparse chunk where they belong, and the filler everywhere else.
//!
//! [`expand_anyhow`] is the definition, the vectors do the same to many elements at once.

use crate::simd::Level;

/// Elements that a vectorised step takes at most: as many as there are bits in a word of the mask.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "nothing is vectorised"))]
const STEP: usize = 32;

/// Bytes behind the kept elements, and behind the signs, that may be read but mean nothing.
pub(super) const PADDING: usize = 64;

/// What a chunk is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    /// A bit for each element, the first in the lowest: whether it is kept. Those beyond the last one are not set.
    pub(super) mask: &'a [u8],
    /// The kept elements, as many as bits of the mask are set, and [`PADDING`].
    pub(super) kept: &'a [u8],
    /// All the others, but for their signs.
    pub(super) filler: u64,
    /// Which of the others have the top bit flipped, a bit for each of them, and [`PADDING`]; `None` if none has.
    pub(super) signs: Option<&'a [u8]>,
}

/// Makes the elements of `size` bytes of `out`.
///
/// # Panics
/// When the parts are not as long as they say.
pub(super) fn expand(parts: Parts<'_>, size: usize, level: Level, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    match (level, size) {
        // SAFETY: a level is only given where the processor has what it stands for.
        (Level::Avx512Vbmi2, 1) => return unsafe { avx512::expand_u8(parts, out) },
        // SAFETY: as above.
        (Level::Avx512Vbmi2, 2) => return unsafe { avx512::expand_u16(parts, out) },
        // SAFETY: as above.
        (Level::Avx512 | Level::Avx512Vbmi2, 4) => return unsafe { avx512::expand_u32(parts, out) },
        // SAFETY: as above.
        (Level::Avx512 | Level::Avx512Vbmi2, 8) => return unsafe { avx512::expand_u64(parts, out) },
        _ => {}
    }
    let _ = level;
    expand_anyhow(Cursor::of(parts), size, out);
}

/// What is left of the parts of a chunk.
struct Cursor<'a> {
    parts: Parts<'a>,
    /// How many kept elements are used up.
    kept: usize,
    /// How many others.
    others: usize,
}

impl<'a> Cursor<'a> {
    fn of(parts: Parts<'a>) -> Cursor<'a> {
        Cursor { parts, kept: 0, others: 0 }
    }

    /// The signs of so many others, at most [`STEP`].
    #[inline(always)]
    fn signs(&mut self, count: u32) -> u32 {
        let Some(signs) = self.parts.signs else { return 0 };
        let word = signs[self.others / 8..].first_chunk().expect("padding follows");
        let bits = u64::from_le_bytes(*word) >> (self.others % 8);
        self.others += count as usize;
        (bits & ((1 << count) - 1)) as u32
    }
}

/// The definition.
fn expand_anyhow(cursor: Cursor<'_>, size: usize, out: &mut [u8]) {
    match size {
        1 => expand_elements::<1>(cursor, out),
        2 => expand_elements::<2>(cursor, out),
        4 => expand_elements::<4>(cursor, out),
        _ => expand_elements::<8>(cursor, out),
    }
}

/// The same for elements of `SIZE` bytes.
fn expand_elements<const SIZE: usize>(mut cursor: Cursor<'_>, out: &mut [u8]) {
    let Parts { mask, kept, filler, .. } = cursor.parts;
    let (kept, sign) = (kept.as_chunks::<SIZE>().0, 1u64 << (8 * SIZE - 1));
    for (group, &mask) in out.as_chunks_mut::<SIZE>().0.chunks_mut(8).zip(mask) {
        let others = group.len() as u32 - mask.count_ones();
        let mut signs = cursor.signs(others);
        for (at, element) in group.iter_mut().enumerate() {
            let is_kept = u64::from(mask >> at & 1);
            // Both, and no branch, which nobody could predict.
            let mut value = [0; 8];
            value[..SIZE].copy_from_slice(&kept[cursor.kept]);
            let value = u64::from_le_bytes(value);
            let other = filler ^ (sign & u64::from(signs & 1).wrapping_neg());
            let chosen = other ^ ((value ^ other) & is_kept.wrapping_neg());
            element.copy_from_slice(&chosen.to_le_bytes()[..SIZE]);
            cursor.kept += is_kept as usize;
            signs >>= 1 - is_kept;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Cursor, Parts, STEP, expand_anyhow};

    /// Defines a function that expands `LANES` elements of `SIZE` bytes at a time, as many as a vector or a word of the mask
    /// has.
    macro_rules! expand_with {
        ($name:ident, $features:literal, $size:literal, $lanes:literal, $int:ty, $mask:ty,
         $set:ident, $load:ident, $store:ident, $expand:ident, $xor:ident) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(parts: Parts<'_>, out: &mut [u8]) {
                const { assert!($lanes <= STEP && $lanes * $size <= super::PADDING) };
                let (filler, sign) = ($set(parts.filler as $int), $set((1u64 << (8 * $size - 1)) as $int));
                let mut cursor = Cursor::of(parts);
                let (whole, rest) = out.as_chunks_mut::<{ $lanes * $size }>();
                let (masks, last_mask) = parts.mask.split_at(whole.len() * $lanes / 8);
                for (group, mask) in whole.iter_mut().zip(masks.as_chunks::<{ $lanes / 8 }>().0) {
                    let mask = <$mask>::from_le_bytes(*mask);
                    let others = <$mask>::count_zeros(mask);
                    let signs = _pdep_u32(cursor.signs(others), !mask as u32) as $mask;
                    let others = $xor(filler, signs, filler, sign);
                    let kept: &[u8; $lanes * $size] =
                        parts.kept[cursor.kept * $size..].first_chunk().expect("padding follows");
                    // SAFETY: both are as long as a vector.
                    unsafe {
                        let kept = $load(kept.as_ptr().cast());
                        $store(group.as_mut_ptr().cast(), $expand(others, mask, kept));
                    }
                    cursor.kept += mask.count_ones() as usize;
                }
                cursor.parts.mask = last_mask;
                expand_anyhow(cursor, $size, rest);
            }
        };
    }

    expand_with!(
        expand_u8,
        "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt",
        1,
        32,
        i8,
        u32,
        _mm256_set1_epi8,
        _mm256_loadu_epi8,
        _mm256_storeu_epi8,
        _mm256_mask_expand_epi8,
        xor_epi8
    );
    expand_with!(
        expand_u16,
        "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi2,popcnt",
        2,
        32,
        i16,
        u32,
        _mm512_set1_epi16,
        _mm512_loadu_epi16,
        _mm512_storeu_epi16,
        _mm512_mask_expand_epi16,
        xor_epi16
    );
    expand_with!(
        expand_u32,
        "avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt",
        4,
        16,
        i32,
        u16,
        _mm512_set1_epi32,
        _mm512_loadu_epi32,
        _mm512_storeu_epi32,
        _mm512_mask_expand_epi32,
        _mm512_mask_xor_epi32
    );
    expand_with!(
        expand_u64,
        "avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt",
        8,
        8,
        i64,
        u8,
        _mm512_set1_epi64,
        _mm512_loadu_epi64,
        _mm512_storeu_epi64,
        _mm512_mask_expand_epi64,
        _mm512_mask_xor_epi64
    );

    /// `a ^ b` where the mask says so, else `source`.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl")]
    fn xor_epi8(source: __m256i, mask: u32, a: __m256i, b: __m256i) -> __m256i {
        _mm256_mask_mov_epi8(source, mask, _mm256_xor_si256(a, b))
    }

    /// The same for lanes of 16 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn xor_epi16(source: __m512i, mask: u32, a: __m512i, b: __m512i) -> __m512i {
        _mm512_mask_mov_epi16(source, mask, _mm512_xor_si512(a, b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_level_expands_as_the_definition_does(
            size in prop::sample::select(vec![1usize, 2, 4, 8]), mut mask in prop::collection::vec(any::<u8>(), 0..60), last in 1..=8usize,
            noise in prop::collection::vec(any::<u8>(), 64 * 64), filler: u64, with_signs: bool,
        ) {
            // The last group may be short.
            let elements = (mask.len() * 8).saturating_sub(8 - last);
            if let Some(mask) = mask.last_mut() {
                *mask &= u8::MAX >> (8 - last);
            }
            let count: usize = mask.iter().map(|bits| bits.count_ones() as usize).sum();
            let kept = [&noise[..count * size], &[0xaa; PADDING]].concat();
            let signs = [&noise[..(elements - count).div_ceil(8)], &[0xaa; PADDING]].concat();
            let parts = Parts { mask: &mask, kept: &kept, filler, signs: with_signs.then_some(&signs[..]) };
            // One by one, as the specification says it.
            let (mut next, mut other, mut expected) = (0, 0, Vec::new());
            for at in 0..elements {
                if mask[at / 8] >> (at % 8) & 1 == 1 {
                    expected.extend_from_slice(&kept[next * size..][..size]);
                    next += 1;
                } else {
                    let sign = if with_signs { u64::from(signs[other / 8] >> (other % 8) & 1) } else { 0 };
                    expected.extend_from_slice(&(filler ^ sign << (8 * size - 1)).to_le_bytes()[..size]);
                    other += 1;
                }
            }
            for level in Level::available() {
                let mut out = vec![0x55; elements * size];
                expand(parts, size, level, &mut out);
                prop_assert_eq!(&out, &expected, "{:?}", level);
            }
        }
    }
}
