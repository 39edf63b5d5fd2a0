//! Thirty-two elements at a time: keys of 16 bits, looked up in a window of 128 symbols in eight registers.

use std::arch::x86_64::*;

use super::window::WINDOW;
use super::{OUTSIDE, SymbolMap};
use crate::rans::{LANES, Symbol};
use crate::split::Split;

/// The lanes of a vector of keys.
const HALF: usize = LANES / 2;

/// See [`SymbolMap::map`]; `bytes` and `symbols` are whole groups.
#[target_feature(enable = "avx2")]
pub(super) fn map(map: &SymbolMap, bytes: &[u8], split: Split, symbols: &mut [Symbol]) -> u32 {
    match split.width {
        8 => map_groups::<1>(map, bytes, split, symbols),
        16 => map_groups::<2>(map, bytes, split, symbols),
        32 => map_groups::<4>(map, bytes, split, symbols),
        width => unreachable!("elements of {width} bits are not split"),
    }
}

/// The same for elements of `SIZE` bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn map_groups<const SIZE: usize>(map: &SymbolMap, bytes: &[u8], split: Split, symbols: &mut [Symbol]) -> u32 {
    let last = split.last_key();
    let window = &map.window;
    let rows = window.symbols.as_chunks::<16>().0;
    let table: [__m256i; WINDOW / 16] = std::array::from_fn(|row| _mm256_broadcastsi128_si256(load_128(&rows[row])));
    let base = _mm256_set1_epi16(window.base as i16);
    let other = _mm256_set1_epi16((window.other.0.wrapping_sub(window.base) & last) as i16);
    let other_symbol = _mm256_set1_epi8(window.other.1 as i8);
    let last = _mm256_set1_epi16(last as i16);
    let shift = _mm_cvtsi32_si128(i32::from(split.shift));
    let mut any = _mm256_setzero_si256();
    for (group, symbols) in bytes.chunks_exact(LANES * SIZE).zip(symbols.as_chunks_mut::<LANES>().0) {
        let mut at = [_mm256_setzero_si256(); 2];
        for (half, at) in group.chunks_exact(HALF * SIZE).zip(&mut at) {
            let keys = match SIZE {
                1 => {
                    let elements = _mm256_cvtepu8_epi16(load_128(half.try_into().expect("half a group of bytes")));
                    any = _mm256_or_si256(any, elements);
                    _mm256_srl_epi16(elements, shift)
                }
                2 => {
                    let elements = load(half, 0);
                    any = _mm256_or_si256(any, elements);
                    _mm256_srl_epi16(elements, shift)
                }
                _ => {
                    let elements = [load(half, 0), load(half, 32)];
                    any = _mm256_or_si256(any, _mm256_or_si256(elements[0], elements[1]));
                    // Only 16 bits of each, or packing would saturate.
                    let low_word = _mm256_set1_epi32(0xffff);
                    let keys = elements.map(|elements| _mm256_and_si256(_mm256_srl_epi32(elements, shift), low_word));
                    in_order(_mm256_packus_epi32(keys[0], keys[1]))
                }
            };
            // What the shift left of the sign goes with the mask of all keys.
            *at = _mm256_and_si256(_mm256_sub_epi16(keys, base), last);
        }
        let is_other = _mm256_packs_epi16(_mm256_cmpeq_epi16(at[0], other), _mm256_cmpeq_epi16(at[1], other));
        let at = at.map(|at| _mm256_min_epu16(at, _mm256_set1_epi16(0xff)));
        let at = _mm256_packus_epi16(at[0], at[1]);
        // Of `at` the upper four bits say in which row the symbol is: there they become 7, in all others 8 or more, for
        // which a shuffle gives zero.
        let mut found = _mm256_setzero_si256();
        for (row, symbols) in table.into_iter().enumerate() {
            let in_row = _mm256_xor_si256(at, _mm256_set1_epi8((row << 4) as i8));
            let in_row = _mm256_adds_epu8(in_row, _mm256_set1_epi8(0x70));
            found = _mm256_or_si256(found, _mm256_shuffle_epi8(symbols, in_row));
        }
        // From 128 on there is none: all bits set, which is `OUTSIDE`.
        const { assert!(OUTSIDE == u8::MAX) };
        let outside = _mm256_cmpgt_epi8(_mm256_setzero_si256(), at);
        let found = _mm256_blendv_epi8(_mm256_or_si256(found, outside), other_symbol, is_other);
        // SAFETY: `symbols` are the 32 bytes that are written.
        unsafe { _mm256_storeu_si256(symbols.as_mut_ptr().cast(), in_order(found)) };
        if window.is_part {
            let others = in_order(_mm256_andnot_si256(is_other, outside));
            map.look_up(split, group, _mm256_movemask_epi8(others) as u32, symbols);
        }
    }
    let mut words = [0u32; 8];
    // SAFETY: `words` are the 32 bytes that are written.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), any) };
    let any = words.into_iter().fold(0, |any, word| any | word);
    if SIZE == 4 { any } else { (any | any >> 16) & (u32::MAX >> (32 - split.width)) }
}

/// What packing two vectors put into the order of their quarters 0, 2, 1, 3.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(packed: __m256i) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
}

/// Thirty-two bytes from byte `from` on.
#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], from: usize) -> __m256i {
    let bytes: &[u8; 32] = bytes[from..from + 32].try_into().expect("they are as many");
    // SAFETY: `bytes` is as long as a vector.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: `bytes` is as long as a vector of 128 bits.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
