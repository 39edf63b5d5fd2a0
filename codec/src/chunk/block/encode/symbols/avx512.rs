//! Thirty-two elements at a time: keys of 16 bits, looked up in a window of 128 symbols in registers.

use std::arch::x86_64::*;

use super::window::WINDOW;
use super::{OUTSIDE, SymbolMap};
use crate::rans::{LANES, Symbol};
use crate::split::Split;

/// See [`SymbolMap::map`]; `bytes` and `symbols` are whole groups.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn map_groups<const SIZE: usize>(map: &SymbolMap, bytes: &[u8], split: Split, symbols: &mut [Symbol]) -> u32 {
    let last = split.last_key();
    let window = &map.window;
    let quarters = window.symbols.as_chunks::<LANES>().0;
    let table: [__m512i; WINDOW / LANES] = std::array::from_fn(|quarter| widen(&quarters[quarter]));
    let (base, last) = (_mm512_set1_epi16(window.base as i16), _mm512_set1_epi16(last as i16));
    let other = _mm512_set1_epi16(window.other.0.wrapping_sub(window.base) as i16 & split.last_key() as i16);
    let other_symbol = _mm512_set1_epi16(i16::from(window.other.1));
    let shift = _mm_cvtsi32_si128(i32::from(split.shift));
    let mut any = _mm512_setzero_si512();
    for (group, symbols) in bytes.chunks_exact(LANES * SIZE).zip(symbols.as_chunks_mut::<LANES>().0) {
        let keys = match SIZE {
            1 => {
                let elements = widen(group.try_into().expect("a group of bytes"));
                any = _mm512_or_si512(any, elements);
                _mm512_srl_epi16(elements, shift)
            }
            2 => {
                let elements = load(group, 0);
                any = _mm512_or_si512(any, elements);
                _mm512_srl_epi16(elements, shift)
            }
            _ => {
                let elements = [load(group, 0), load(group, 64)];
                any = _mm512_or_si512(any, _mm512_or_si512(elements[0], elements[1]));
                let [low, high] = [_mm512_srl_epi32(elements[0], shift), _mm512_srl_epi32(elements[1], shift)];
                let low = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(low));
                _mm512_inserti64x4::<1>(low, _mm512_cvtepi32_epi16(high))
            }
        };
        // What the shift left of the sign goes with the mask of all keys.
        let at = _mm512_and_si512(_mm512_sub_epi16(keys, base), last);
        let inside = _mm512_cmplt_epu16_mask(at, _mm512_set1_epi16(WINDOW as i16));
        let is_other = _mm512_cmpeq_epi16_mask(at, other);
        let upper = _mm512_test_epi16_mask(at, _mm512_set1_epi16(WINDOW as i16 / 2));
        let low = _mm512_permutex2var_epi16(table[0], at, table[1]);
        let high = _mm512_permutex2var_epi16(table[2], at, table[3]);
        let found = _mm512_mask_mov_epi16(low, upper, high);
        let found = _mm512_mask_mov_epi16(_mm512_set1_epi16(i16::from(OUTSIDE)), inside, found);
        let found = _mm512_mask_mov_epi16(found, is_other, other_symbol);
        // SAFETY: `symbols` are the 32 bytes that are written.
        unsafe { _mm256_storeu_si256(symbols.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(found)) };
        if window.is_part {
            map.look_up(split, group, !(inside | is_other), symbols);
        }
    }
    let any = match SIZE {
        1 | 2 => _mm512_or_si512(any, _mm512_srli_epi32::<16>(any)),
        _ => any,
    };
    _mm512_reduce_or_epi32(any) as u32 & (u32::MAX >> (32 - split.width))
}

/// Sixty-four bytes from byte `from` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8], from: usize) -> __m512i {
    let bytes: &[u8; 64] = bytes[from..from + 64].try_into().expect("they are as many");
    // SAFETY: `bytes` is as long as a vector.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Bytes as lanes of 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widen(bytes: &[u8; LANES]) -> __m512i {
    // SAFETY: `bytes` is as long as a vector of 256 bits.
    _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}
