//! rANS encoding of sixteen lanes in a vector, two vectors a group.

use std::arch::x86_64::*;

use super::{Encoder, States};
use crate::rans::table::MAX_SYMBOLS;
use crate::rans::{FREQUENCY_BITS, LANES, MAX_STREAMS, Symbol, TOTAL};

/// The lanes of a vector.
const HALF: usize = 16;

/// A table of 64 entries in registers.
type Registers = [__m512i; MAX_SYMBOLS / HALF];

/// See [`super::scalar::encode`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
pub(super) fn encode(
    encoder: &Encoder,
    symbols: &[Symbol],
    streams: usize,
    states: &mut States,
    words: &mut [u16],
    begins: &mut [usize; MAX_STREAMS],
) {
    match streams {
        1 => encode_streams::<1>(encoder, symbols, states, words, begins),
        2 => encode_streams::<2>(encoder, symbols, states, words, begins),
        3 => encode_streams::<3>(encoder, symbols, states, words, begins),
        _ => encode_streams::<MAX_STREAMS>(encoder, symbols, states, words, begins),
    }
}

/// The same with the number of streams known, so that all their states stay in registers: a step of one stream is a long
/// chain, and the processor works on those of all streams at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
fn encode_streams<const STREAMS: usize>(
    encoder: &Encoder,
    symbols: &[Symbol],
    states: &mut States,
    words: &mut [u16],
    all_begins: &mut [usize; MAX_STREAMS],
) {
    let tables = Tables::new(encoder);
    let part = words.len() / STREAMS;
    let mut begins = *all_begins;
    let mut vectors: [[__m512i; 2]; STREAMS] = std::array::from_fn(|stream| {
        let halves = states[stream].as_chunks::<HALF>().0;
        [load(&halves[0]), load(&halves[1])]
    });
    let mut parts = words.chunks_exact_mut(part.max(1));
    let parts: [&mut [u16]; STREAMS] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let (rounds, rest) = symbols.as_chunks::<LANES>().0.as_chunks::<STREAMS>();
    for (stream, group) in rest.iter().enumerate().rev() {
        step(&tables, group, &mut vectors[stream], parts[stream], &mut begins[stream]);
    }
    for round in rounds.iter().rev() {
        // Not a loop, which the compiler would keep, with the states in memory.
        let mut step = |stream: usize| {
            step(&tables, &round[stream], &mut vectors[stream], parts[stream], &mut begins[stream]);
        };
        if STREAMS > 3 {
            step(3);
        }
        if STREAMS > 2 {
            step(2);
        }
        if STREAMS > 1 {
            step(1);
        }
        step(0);
    }
    for (states, vectors) in states.iter_mut().zip(vectors) {
        for (half, vector) in states.as_chunks_mut::<HALF>().0.iter_mut().zip(vectors) {
            // SAFETY: `half` is as long as the vector.
            unsafe { _mm512_storeu_si512(half.as_mut_ptr().cast(), vector) };
        }
    }
    *all_begins = begins;
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(half: &[u32; HALF]) -> __m512i {
    // SAFETY: `half` is as long as a vector.
    unsafe { _mm512_loadu_si512(half.as_ptr().cast()) }
}

/// What coding takes, by symbol.
struct Tables<'a> {
    /// See [`Encoder`].
    coding: Registers,
    /// The same, as bits.
    inverse: Registers,
    /// The slots by rank. A gather reads 32 bits at each, so there is one more than can be asked for.
    slots: &'a [u16; TOTAL as usize + 1],
}

impl<'a> Tables<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(encoder: &'a Encoder) -> Tables<'a> {
        let inverses = encoder.inverses.map(f32::to_bits);
        Tables { coding: registers(&encoder.packed_codings), inverse: registers(&inverses), slots: &encoder.slots }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn registers(table: &[u32; MAX_SYMBOLS]) -> Registers {
    let quarters = table.as_chunks::<HALF>().0;
    [load(&quarters[0]), load(&quarters[1]), load(&quarters[2]), load(&quarters[3])]
}

/// Codes a group, the upper half of its lanes first, so that the words of all lie in the order of their lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
fn step(tables: &Tables<'_>, group: &[Symbol; LANES], states: &mut [__m512i; 2], words: &mut [u16], begin: &mut usize) {
    for (symbols, state) in group.as_chunks::<HALF>().0.iter().zip(states).rev() {
        *state = step_half(tables, symbols, *state, words, begin);
    }
}

/// Codes half a group: what [`super::scalar`] does to each lane. Returns the new states.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
fn step_half(
    tables: &Tables<'_>,
    symbols: &[Symbol; HALF],
    state: __m512i,
    words: &mut [u16],
    begin: &mut usize,
) -> __m512i {
    let low_word = _mm512_set1_epi32(0xffff);
    // SAFETY: `symbols` are the 16 bytes that are read.
    let symbols = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(symbols.as_ptr().cast()) });
    let upper = _mm512_test_epi32_mask(symbols, _mm512_set1_epi32(MAX_SYMBOLS as i32 / 2));
    let coding = look_up(&tables.coding, symbols, upper);
    let inverse = _mm512_castsi512_ps(look_up(&tables.inverse, symbols, upper));
    let frequency = _mm512_srli_epi32::<16>(coding);

    let limit = _mm512_srli_epi32::<{ 32 - FREQUENCY_BITS }>(state);
    let emits = _mm512_cmpge_epu32_mask(limit, frequency);
    let count = emits.count_ones() as usize;
    let emitted = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(emits, state));
    let target = &mut words[*begin - count..*begin];
    *begin -= count;
    // SAFETY: `target` has `count` words, and as many are written.
    unsafe { _mm256_mask_storeu_epi16(target.as_mut_ptr().cast(), _bzhi_u32(0xffff, count as u32) as u16, emitted) };
    let state = _mm512_mask_srli_epi32::<16>(state, emits, state);

    let estimate = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepu32_ps(state), inverse));
    // The remainder is less than twice the frequency, so that its lower 16 bits, which those of the factors make, are
    // all of it. The others are set to zero.
    let product = _mm512_mullo_epi16(estimate, frequency);
    let remainder = _mm512_maskz_sub_epi16(0x5555_5555, state, product);
    let short = _mm512_cmpge_epu32_mask(remainder, frequency);
    let high = _mm512_mask_add_epi32(estimate, short, estimate, _mm512_set1_epi32(1));
    let rank = _mm512_mask_sub_epi32(remainder, short, remainder, frequency);

    // The mask takes the frequency away.
    let index = _mm512_and_si512(_mm512_add_epi32(coding, rank), _mm512_set1_epi32(TOTAL as i32 - 1));
    // SAFETY: an index is below `TOTAL`, by the mask, and `slots` has one slot more, so that 32 bits can be read there.
    let slots = unsafe { _mm512_i32gather_epi32::<2>(index, tables.slots.as_ptr().cast()) };
    // The quotient above, the slot below, of which the gather read 16 bits too many: a | (b & c).
    _mm512_ternarylogic_epi32::<0xf8>(_mm512_slli_epi32::<FREQUENCY_BITS>(high), slots, low_word)
}

/// The entry of each symbol; `upper` says which are 32 or more.
#[inline]
#[target_feature(enable = "avx512f")]
fn look_up(table: &Registers, symbols: __m512i, upper: __mmask16) -> __m512i {
    let low = _mm512_permutex2var_epi32(table[0], symbols, table[1]);
    let high = _mm512_permutex2var_epi32(table[2], symbols, table[3]);
    _mm512_mask_mov_epi32(low, upper, high)
}
