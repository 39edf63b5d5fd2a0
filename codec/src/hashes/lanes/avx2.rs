//! Sixteen lanes in two vectors of eight, which are two chains for the processor to work on at once.

use std::arch::x86_64::*;

use super::{BLOCK, LANES, ORDER, SINES};

/// A word of all lanes.
type Word = [__m256i; 2];

/// RFC 1321's functions.
const F: u8 = 0;
const G: u8 = 1;
const H: u8 = 2;
const I: u8 = 3;

/// See [`super::States::update`]: `messages` are equally long and whole blocks.
#[target_feature(enable = "avx2")]
pub(super) fn update(states: &mut [[u32; LANES]; 4], messages: [&[u8]; LANES]) {
    let messages: [&[[u8; BLOCK]]; LANES] = messages.map(|message| message.as_chunks().0);
    let mut state = states.map(|words| [load(&words, 0), load(&words, 8)]);
    for block in 0..messages[0].len() {
        let words = words(messages.map(|message| &message[block]));
        let mut next = state;
        next = round::<F, 7, 12, 17, 22>(next, &words, 0);
        next = round::<G, 5, 9, 14, 20>(next, &words, 1);
        next = round::<H, 4, 11, 16, 23>(next, &words, 2);
        next = round::<I, 6, 10, 15, 21>(next, &words, 3);
        for (state, next) in state.iter_mut().zip(next) {
            *state = add(*state, next);
        }
    }
    for (words, state) in states.iter_mut().zip(state) {
        for (words, state) in words.as_chunks_mut::<8>().0.iter_mut().zip(state) {
            // SAFETY: `words` are the 32 bytes that are written.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), state) };
        }
    }
}

/// The vector that begins at item `first`.
#[inline]
#[target_feature(enable = "avx2")]
fn load<T>(from: &[T], first: usize) -> __m256i {
    let from = &from[first..][..size_of::<__m256i>() / size_of::<T>()];
    // SAFETY: `from` is as long as a vector.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: Word, b: Word) -> Word {
    [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])]
}

/// Sixteen steps of MD5.
#[inline]
#[target_feature(enable = "avx2")]
fn round<const LOGIC: u8, const R0: i32, const R1: i32, const R2: i32, const R3: i32>(
    [mut a, mut b, mut c, mut d]: [Word; 4],
    words: &[Word; 16],
    round: usize,
) -> [Word; 4] {
    let (first, stride) = ORDER[round];
    for quad in 0..4 {
        let mut addend = [[_mm256_setzero_si256(); 2]; 4];
        for (step, addend) in addend.iter_mut().enumerate() {
            let step = quad * 4 + step;
            let sine = _mm256_set1_epi32(SINES[round * 16 + step] as i32);
            *addend = add(words[(first + stride * step) % 16], [sine, sine]);
        }
        a = step::<LOGIC, R0>(a, b, c, d, addend[0]);
        d = step::<LOGIC, R1>(d, a, b, c, addend[1]);
        c = step::<LOGIC, R2>(c, d, a, b, addend[2]);
        b = step::<LOGIC, R3>(b, c, d, a, addend[3]);
    }
    [a, b, c, d]
}

#[inline]
#[target_feature(enable = "avx2")]
fn step<const LOGIC: u8, const ROTATE: i32>(a: Word, b: Word, c: Word, d: Word, addend: Word) -> Word {
    // What does not depend on `b`, the result of the step before, is added first.
    let mut sum = add(a, addend);
    for half in 0..2 {
        sum[half] = _mm256_add_epi32(sum[half], logic::<LOGIC>(b[half], c[half], d[half]));
        let (left, right) = (_mm256_set1_epi32(ROTATE), _mm256_set1_epi32(32 - ROTATE));
        sum[half] = _mm256_or_si256(_mm256_sllv_epi32(sum[half], left), _mm256_srlv_epi32(sum[half], right));
    }
    add(b, sum)
}

#[inline]
#[target_feature(enable = "avx2")]
fn logic<const LOGIC: u8>(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    match LOGIC {
        F => _mm256_xor_si256(d, _mm256_and_si256(b, _mm256_xor_si256(c, d))),
        G => _mm256_xor_si256(c, _mm256_and_si256(d, _mm256_xor_si256(b, c))),
        H => _mm256_xor_si256(_mm256_xor_si256(c, d), b),
        I => _mm256_xor_si256(c, _mm256_or_si256(b, _mm256_xor_si256(d, _mm256_set1_epi32(-1)))),
        _ => unreachable!("RFC 1321 has four functions"),
    }
}

/// From a block of each lane to the lanes of each word.
#[inline]
#[target_feature(enable = "avx2")]
fn words(blocks: [&[u8; BLOCK]; LANES]) -> [Word; 16] {
    let mut words = [[_mm256_setzero_si256(); 2]; 16];
    for (half, blocks) in blocks.as_chunks::<8>().0.iter().enumerate() {
        for (eight, words) in words.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let rows = transpose(blocks.map(|block| load(block, eight * 32)));
            words.iter_mut().zip(rows).for_each(|(word, row)| word[half] = row);
        }
    }
    words
}

/// Rows to columns of 8 x 8 words.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let zero = _mm256_setzero_si256();
    // Four rows at a time: of words 4b to 4b + 3, which are half b of a row, word j in `columns[rows / 4][j]`.
    let mut columns = [[zero; 4]; 2];
    for (four, columns) in rows.as_chunks::<4>().0.iter().zip(&mut columns) {
        let (low, high) = (_mm256_unpacklo_epi32(four[0], four[1]), _mm256_unpackhi_epi32(four[0], four[1]));
        let (low_2, high_2) = (_mm256_unpacklo_epi32(four[2], four[3]), _mm256_unpackhi_epi32(four[2], four[3]));
        *columns = [
            _mm256_unpacklo_epi64(low, low_2),
            _mm256_unpackhi_epi64(low, low_2),
            _mm256_unpacklo_epi64(high, high_2),
            _mm256_unpackhi_epi64(high, high_2),
        ];
    }
    let mut words = [zero; 8];
    for j in 0..4 {
        words[j] = _mm256_permute2x128_si256::<0x20>(columns[0][j], columns[1][j]);
        words[4 + j] = _mm256_permute2x128_si256::<0x31>(columns[0][j], columns[1][j]);
    }
    words
}
