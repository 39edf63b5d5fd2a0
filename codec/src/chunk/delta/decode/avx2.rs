//! Decoding runs with AVX2: the 16 lanes of a stream are two vectors of 32 bits each, and so are all elements.

use std::arch::x86_64::*;

use super::{Ready, Run, Streams};
use crate::chunk::delta::step::Kind;
use crate::chunk::delta::{GROUPS, LANES, RUN};
use crate::rans::decode::avx2::EXPANSIONS;

/// Lanes of a vector.
const HALF: usize = LANES / 2;

/// Eight of a stream's lanes.
type Half = __m256i;

/// Gives each lane below 2^16 the next word, and advances `words` by what is taken.
///
/// # Safety
/// 16 bytes can be read at `words`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn refill(states: Half, words: &mut *const u8) -> Half {
    // SAFETY: the caller's promise.
    unsafe {
        let small = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(states), _mm256_setzero_si256());
        let set = _mm256_movemask_ps(_mm256_castsi256_ps(small)) as usize & 0xff;
        let order = _mm_loadu_si128(EXPANSIONS[set].as_ptr().cast());
        let next = _mm_shuffle_epi8(_mm_loadu_si128((*words).cast()), order);
        *words = words.add(2 * set.count_ones() as usize);
        let moved = _mm256_or_si256(_mm256_slli_epi32::<16>(states), _mm256_cvtepu16_epi32(next));
        _mm256_blendv_epi8(states, moved, small)
    }
}

/// Takes so many bits, at most 16, out of each lane of a stream.
///
/// # Safety
/// As for [`refill`], 32 bytes.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn pop_bits(states: &mut [Half; 2], counts: [Half; 2], words: &mut *const u8) -> [Half; 2] {
    let mut bits = counts;
    for half in 0..2 {
        let rest = _mm256_srlv_epi32(states[half], counts[half]);
        bits[half] = _mm256_sub_epi32(states[half], _mm256_sllv_epi32(rest, counts[half]));
        // SAFETY: the caller's promise; each half takes 16 bytes at most.
        states[half] = unsafe { refill(rest, words) };
    }
    bits
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn any(vectors: [Half; 2]) -> bool {
    let both = _mm256_or_si256(vectors[0], vectors[1]);
    _mm256_testz_si256(both, both) == 0
}

/// Decodes a whole run of which something changed.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn run(kind: Kind, ready: &Ready, streams: &mut Streams<'_>, run: Run<'_>) {
    match kind.width {
        // SAFETY: the caller's promise.
        8 => unsafe { run_of::<1>(kind, ready, streams, run) },
        // SAFETY: as above.
        16 => unsafe { run_of::<2>(kind, ready, streams, run) },
        // SAFETY: as above.
        _ => unsafe { run_of::<4>(kind, ready, streams, run) },
    }
}

/// The same for elements of `SIZE` bytes.
///
/// # Safety
/// As [`run`].
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn run_of<const SIZE: usize>(kind: Kind, ready: &Ready, streams: &mut Streams<'_>, run: Run<'_>) {
    assert!(run.base.len() == RUN * SIZE && run.out.len() == RUN * SIZE);
    // No stream reads more of the words than the padding behind them has, as long as it began where it may.
    assert!(streams.next.iter().all(|&next| next + super::PADDING <= streams.words.len()));
    let (one, zero) = (_mm256_set1_epi32(1), _mm256_setzero_si256());
    let sign = _mm256_set1_epi32(1 << (8 * SIZE - 1));
    let magnitude_bits = _mm256_set1_epi32(((1u64 << (8 * SIZE - 1)) - 1) as i32);
    let (place, most) = (_mm256_set1_epi32(run.place), _mm256_set1_epi32(63));
    let mantissa = _mm_cvtsi32_si128(kind.mantissa as i32);
    let unused = _mm_cvtsi32_si128(32 - 8 * SIZE as i32);
    let slot_bits = _mm256_set1_epi32(4095);
    for group in 0..GROUPS {
        let number = group % streams.count;
        let lanes = &mut streams.states[number];
        // SAFETY: there are 16 lanes; a group is 16 elements of the base and the output; contexts are below 64, of which each has
        // a beginning and something behind it to be read with it; from each beginning on there are 4096 slots; of the words
        // there are enough, as asserted above.
        unsafe {
            let at = lanes.as_mut_ptr().cast::<__m256i>();
            let mut states = [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))];
            let mut words = streams.words.as_ptr().add(streams.next[number]);
            let (mut base, mut keys) = ([zero; 2], [zero; 2]);
            for half in 0..2 {
                let from = run.base.as_ptr().add((group * LANES + half * HALF) * SIZE);
                base[half] = match SIZE {
                    1 => _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())),
                    2 => _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())),
                    _ => _mm256_loadu_si256(from.cast()),
                };
                let exponent = _mm256_srl_epi32(_mm256_and_si256(base[half], magnitude_bits), mantissa);
                let context = _mm256_sub_epi32(place, exponent);
                let context = _mm256_max_epi32(_mm256_min_epi32(context, most), zero);
                let begins = _mm256_i32gather_epi32::<4>(ready.wide_begins.as_ptr().cast(), context);
                let at = _mm256_or_si256(_mm256_and_si256(states[half], slot_bits), begins);
                let slot = _mm256_i32gather_epi32::<4>(ready.slots().as_ptr().cast(), at);
                let rank = _mm256_and_si256(_mm256_srli_epi32::<7>(slot), slot_bits);
                let high = _mm256_srli_epi32::<12>(states[half]);
                let next = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32::<19>(slot), high), rank);
                states[half] = refill(next, &mut words);
                keys[half] = _mm256_and_si256(slot, _mm256_set1_epi32(127));
            }
            let bits = keys.map(|keys| _mm256_sub_epi32(_mm256_max_epi32(_mm256_srli_epi32::<2>(keys), one), one));
            let mut extra = [zero; 2];
            if any(bits) {
                let low = if SIZE == 4 { bits.map(|bits| _mm256_min_epi32(bits, _mm256_set1_epi32(16))) } else { bits };
                extra = pop_bits(&mut states, low, &mut words);
                let high = [_mm256_sub_epi32(bits[0], low[0]), _mm256_sub_epi32(bits[1], low[1])];
                if SIZE == 4 && any(high) {
                    let high = pop_bits(&mut states, high, &mut words);
                    for half in 0..2 {
                        extra[half] = _mm256_or_si256(extra[half], _mm256_slli_epi32::<16>(high[half]));
                    }
                }
            }
            _mm256_storeu_si256(at, states[0]);
            _mm256_storeu_si256(at.add(1), states[1]);
            streams.next[number] = words.addr() - streams.words.as_ptr().addr();
            let mut moved = [zero; 2];
            for half in 0..2 {
                let bucket = _mm256_srli_epi32::<1>(keys[half]);
                let lead = _mm256_or_si256(_mm256_and_si256(bucket, one), _mm256_set1_epi32(2));
                let least = _mm256_sllv_epi32(lead, bits[half]);
                let least = _mm256_blendv_epi8(bucket, least, _mm256_cmpgt_epi32(bucket, one));
                let size = _mm256_add_epi32(least, extra[half]);
                let negative = _mm256_sub_epi32(zero, _mm256_and_si256(keys[half], one));
                let difference = _mm256_sub_epi32(_mm256_xor_si256(size, negative), negative);
                let place = _mm256_add_epi32(_mm256_and_si256(base[half], magnitude_bits), difference);
                let place = _mm256_sra_epi32(_mm256_sll_epi32(place, unused), unused);
                let fold = _mm256_and_si256(magnitude_bits, _mm256_srai_epi32::<31>(place));
                let element = _mm256_xor_si256(_mm256_xor_si256(place, fold), _mm256_and_si256(base[half], sign));
                // The sign went into the bits that an element lacks.
                moved[half] = _mm256_srl_epi32(_mm256_sll_epi32(element, unused), unused);
            }
            let to = run.out.as_mut_ptr().add(group * LANES * SIZE);
            // Packing leaves the quarters in the order 0, 2, 1, 3.
            let packed = |vectors: [Half; 2]| {
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(vectors[0], vectors[1]))
            };
            match SIZE {
                1 => {
                    let halves = packed(moved);
                    let bytes = _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
                    _mm_storeu_si128(to.cast(), bytes);
                }
                2 => _mm256_storeu_si256(to.cast(), packed(moved)),
                _ => {
                    _mm256_storeu_si256(to.cast(), moved[0]);
                    _mm256_storeu_si256(to.cast::<__m256i>().add(1), moved[1]);
                }
            }
        }
    }
}
