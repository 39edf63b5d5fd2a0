//! rANS encoding of eight lanes in a vector, four vectors a group.

use std::arch::x86_64::*;

use super::{Encoder, States};
use crate::rans::table::MAX_SYMBOLS;
use crate::rans::{FREQUENCY_BITS, LANES, MAX_STREAMS, Symbol, TOTAL};

/// The lanes of a vector.
const QUARTER: usize = 8;

/// See [`super::scalar::encode`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn encode(
    encoder: &Encoder,
    symbols: &[Symbol],
    streams: usize,
    states: &mut States,
    words: &mut [u16],
    begins: &mut [usize; MAX_STREAMS],
) {
    let part = words.len() / streams;
    for (group, symbols) in symbols.as_chunks::<LANES>().0.iter().enumerate().rev() {
        let stream = group % streams;
        let words = &mut words[stream * part..][..part];
        let states = states[stream].as_chunks_mut::<QUARTER>().0;
        // The upper lanes first, so that the words of all lie in the order of their lanes.
        for (symbols, state) in symbols.as_chunks::<QUARTER>().0.iter().zip(states).rev() {
            begins[stream] = step(encoder, symbols, state, words, begins[stream]);
        }
    }
}

/// Codes a quarter of a group: what [`super::scalar`] does to each lane. `begin` is where in `words` those of the stream
/// begin, and returned is where they begin then.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn step(
    encoder: &Encoder,
    symbols: &[Symbol; QUARTER],
    lanes: &mut [u32; QUARTER],
    words: &mut [u16],
    begin: usize,
) -> usize {
    let low_word = _mm256_set1_epi32(0xffff);
    // SAFETY: `symbols` are the 8 bytes that are read.
    let symbols = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(symbols.as_ptr().cast()) });
    let symbols = _mm256_and_si256(symbols, _mm256_set1_epi32(MAX_SYMBOLS as i32 - 1));
    // SAFETY: the mask keeps what is gathered in the tables.
    let coding = unsafe { _mm256_i32gather_epi32::<4>(encoder.packed_codings.as_ptr().cast(), symbols) };
    // SAFETY: as above.
    let inverse = unsafe { _mm256_i32gather_ps::<4>(encoder.inverses.as_ptr(), symbols) };
    let frequency = _mm256_srli_epi32::<16>(coding);
    // SAFETY: `lanes` is as long as a vector.
    let state = unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) };

    // Those whose next state fits in 32 bits.
    let keeps = _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32::<{ 32 - FREQUENCY_BITS as i32 }>(state));
    let emits = !_mm256_movemask_ps(_mm256_castsi256_ps(keeps)) as u8;
    let begin = emit(_mm256_and_si256(state, low_word), emits, words, begin);
    let state = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(state), state, keeps);

    // There are only conversions of signed integers: 2^32 is added again where it was taken away.
    let wrapped =
        _mm256_and_si256(_mm256_srai_epi32::<31>(state), _mm256_castps_si256(_mm256_set1_ps(4_294_967_296.0)));
    let float = _mm256_add_ps(_mm256_cvtepi32_ps(state), _mm256_castsi256_ps(wrapped));
    let estimate = _mm256_cvttps_epi32(_mm256_mul_ps(float, inverse));
    // The remainder is less than twice the frequency, so that its lower 16 bits, which those of the factors make, are
    // all of it.
    let product = _mm256_mullo_epi16(estimate, frequency);
    let remainder = _mm256_and_si256(_mm256_sub_epi32(state, product), low_word);
    // Zero where the estimate is one too small, else minus one.
    let enough = _mm256_cmpgt_epi32(frequency, remainder);
    let high = _mm256_add_epi32(_mm256_add_epi32(estimate, _mm256_set1_epi32(1)), enough);
    let rank = _mm256_sub_epi32(remainder, _mm256_andnot_si256(enough, frequency));

    // The mask takes the frequency away.
    let index = _mm256_and_si256(_mm256_add_epi32(coding, rank), _mm256_set1_epi32(TOTAL as i32 - 1));
    // SAFETY: an index is below `TOTAL`, by the mask, and `slots` has one slot more, so that 32 bits can be read there.
    let slots = unsafe { _mm256_i32gather_epi32::<2>(encoder.slots.as_ptr().cast(), index) };
    let next = _mm256_or_si256(_mm256_slli_epi32::<{ FREQUENCY_BITS as i32 }>(high), _mm256_and_si256(slots, low_word));
    // SAFETY: `lanes` is as long as a vector.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), next) };
    begin
}

/// Puts the words of the lanes in `emits` in front of `begin`, and returns where they then begin.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(crate) fn emit(low_words: __m256i, emits: u8, words: &mut [u16], begin: usize) -> usize {
    let packed = _mm_packus_epi32(_mm256_castsi256_si128(low_words), _mm256_extracti128_si256::<1>(low_words));
    // SAFETY: an entry of the table is as long as a vector of 128 bits.
    let order = unsafe { _mm_loadu_si128(TO_THE_END[usize::from(emits)].as_ptr().cast()) };
    let emitted = _mm_shuffle_epi8(packed, order);
    let count = emits.count_ones() as usize;
    if let Some(target) = words[..begin].last_chunk_mut::<QUARTER>() {
        // What is written before the words that count is overwritten by those that come later.
        // SAFETY: `target` are the 16 bytes that are written.
        unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), emitted) };
    } else {
        let mut target = [0u16; QUARTER];
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), emitted) };
        words[begin - count..begin].copy_from_slice(&target[QUARTER - count..]);
    }
    begin - count
}

/// For each set of lanes the order in which `pshufb` brings their words together at the end of a vector.
static TO_THE_END: [[u8; 2 * QUARTER]; 256] = {
    let mut orders = [[0; 2 * QUARTER]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut to) = (QUARTER, QUARTER);
        while lane > 0 {
            lane -= 1;
            if set >> lane & 1 == 1 {
                to -= 1;
                orders[set][2 * to] = 2 * lane as u8;
                orders[set][2 * to + 1] = 2 * lane as u8 + 1;
            }
        }
        set += 1;
    }
    orders
};
