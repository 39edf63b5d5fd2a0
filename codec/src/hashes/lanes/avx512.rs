//! Sixteen lanes in one vector.

use std::arch::x86_64::*;

use super::{BLOCK, LANES, ORDER, SINES};

/// The truth tables of RFC 1321's functions F, G, H and I, as `vpternlogd` takes them.
const F: i32 = 0xca;
const G: i32 = 0xe4;
const H: i32 = 0x96;
const I: i32 = 0x39;

/// See [`super::States::update`]: `messages` are equally long and whole blocks.
#[target_feature(enable = "avx512f")]
pub(super) fn update(states: &mut [[u32; LANES]; 4], messages: [&[u8]; LANES]) {
    let messages: [&[[u8; BLOCK]]; LANES] = messages.map(|message| message.as_chunks().0);
    let mut state = states.map(|words| load(&words));
    for block in 0..messages[0].len() {
        let words = transpose(messages.map(|message| load(&message[block])));
        let mut next = state;
        next = round::<F, 7, 12, 17, 22>(next, &words, 0);
        next = round::<G, 5, 9, 14, 20>(next, &words, 1);
        next = round::<H, 4, 11, 16, 23>(next, &words, 2);
        next = round::<I, 6, 10, 15, 21>(next, &words, 3);
        for (state, next) in state.iter_mut().zip(next) {
            *state = _mm512_add_epi32(*state, next);
        }
    }
    for (words, state) in states.iter_mut().zip(state) {
        // SAFETY: `words` are the 64 bytes that are written.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), state) };
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<T, const N: usize>(from: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == size_of::<__m512i>()) };
    // SAFETY: `from` is as long as a vector.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Sixteen steps of MD5.
#[inline]
#[target_feature(enable = "avx512f")]
fn round<const LOGIC: i32, const R0: i32, const R1: i32, const R2: i32, const R3: i32>(
    [mut a, mut b, mut c, mut d]: [__m512i; 4],
    words: &[__m512i; 16],
    round: usize,
) -> [__m512i; 4] {
    let (first, stride) = ORDER[round];
    for quad in 0..4 {
        let mut addend = [_mm512_setzero_si512(); 4];
        for (step, addend) in addend.iter_mut().enumerate() {
            let step = quad * 4 + step;
            let sine = _mm512_set1_epi32(SINES[round * 16 + step] as i32);
            *addend = _mm512_add_epi32(words[(first + stride * step) % 16], sine);
        }
        a = step::<LOGIC, R0>(a, b, c, d, addend[0]);
        d = step::<LOGIC, R1>(d, a, b, c, addend[1]);
        c = step::<LOGIC, R2>(c, d, a, b, addend[2]);
        b = step::<LOGIC, R3>(b, c, d, a, addend[3]);
    }
    [a, b, c, d]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn step<const LOGIC: i32, const ROTATE: i32>(
    a: __m512i,
    b: __m512i,
    c: __m512i,
    d: __m512i,
    addend: __m512i,
) -> __m512i {
    // What does not depend on `b`, the result of the step before, is added first.
    let sum = _mm512_add_epi32(_mm512_add_epi32(a, addend), _mm512_ternarylogic_epi32::<LOGIC>(b, c, d));
    _mm512_add_epi32(b, _mm512_rol_epi32::<ROTATE>(sum))
}

/// From the 16 words of each lane to the 16 lanes of each word.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    // Four rows at a time: of words 4b to 4b + 3, which are quarter b of a row, word j in `columns[rows / 4][j]`.
    let mut columns = [[zero; 4]; 4];
    for (four, columns) in rows.as_chunks::<4>().0.iter().zip(&mut columns) {
        let (low, high) = (_mm512_unpacklo_epi32(four[0], four[1]), _mm512_unpackhi_epi32(four[0], four[1]));
        let (low_2, high_2) = (_mm512_unpacklo_epi32(four[2], four[3]), _mm512_unpackhi_epi32(four[2], four[3]));
        *columns = [
            _mm512_unpacklo_epi64(low, low_2),
            _mm512_unpackhi_epi64(low, low_2),
            _mm512_unpacklo_epi64(high, high_2),
            _mm512_unpackhi_epi64(high, high_2),
        ];
    }
    // Then quarter b of those of all rows.
    let mut words = [zero; 16];
    for j in 0..4 {
        let [first, second, third, fourth] = columns.map(|columns| columns[j]);
        let even = _mm512_shuffle_i32x4::<0x88>(first, second);
        let odd = _mm512_shuffle_i32x4::<0xdd>(first, second);
        let even_2 = _mm512_shuffle_i32x4::<0x88>(third, fourth);
        let odd_2 = _mm512_shuffle_i32x4::<0xdd>(third, fourth);
        words[j] = _mm512_shuffle_i32x4::<0x88>(even, even_2);
        words[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, odd_2);
        words[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even, even_2);
        words[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_2);
    }
    words
}
