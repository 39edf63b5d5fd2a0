//! Decoding runs with AVX2: the 16 lanes of a stream are two vectors of 32 bits each, and so are all elements.

use std::arch::x86_64::*;

use super::{Ready, Streams};
use crate::chunk::delta::{CONTEXTS, GROUPS, LANES, RUN};
use crate::rans::decode::avx2::{EXPANSIONS, Index};

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
fn any(vector: Half) -> bool {
    _mm256_testz_si256(vector, vector) == 0
}

/// Decodes whole runs that have these codes, in 1, 2 or 4 streams. Stops early when a stream has come to its end too soon, which its
/// position tells then.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn runs(ready: &Ready, streams: &mut Streams<'_>, origin: i16, runs: (&[u8], &[u8], &mut [u8])) {
    // SAFETY: the caller's promise.
    unsafe {
        match (ready.kind.width, streams.count) {
            (8, 1) => runs_of::<1, 1>(ready, streams, origin, runs),
            (8, 2) => runs_of::<1, 2>(ready, streams, origin, runs),
            (8, 4) => runs_of::<1, 4>(ready, streams, origin, runs),
            (16, 1) => runs_of::<2, 1>(ready, streams, origin, runs),
            (16, 2) => runs_of::<2, 2>(ready, streams, origin, runs),
            (16, 4) => runs_of::<2, 4>(ready, streams, origin, runs),
            (32, 1) => runs_of::<4, 1>(ready, streams, origin, runs),
            (32, 2) => runs_of::<4, 2>(ready, streams, origin, runs),
            (32, 4) => runs_of::<4, 4>(ready, streams, origin, runs),
            _ => unreachable!("other numbers of streams are not decoded so"),
        }
    }
}

/// The same for elements of `SIZE` bytes in so many streams.
///
/// # Safety
/// As [`runs`].
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn runs_of<const SIZE: usize, const STREAMS: usize>(
    ready: &Ready,
    streams: &mut Streams<'_>,
    origin: i16,
    (codes, base, out): (&[u8], &[u8], &mut [u8]),
) {
    assert!(base.len() == codes.len() * RUN * SIZE && out.len() == base.len());
    // No stream reads more of the words in a run than the padding behind them has, as long as it began where it may.
    assert!(streams.ends.iter().all(|&end| end + super::PADDING <= streams.words.len()));
    let slots = ready.slots().as_ptr();
    let first_word = streams.words.as_ptr();
    let mut states = [[_mm256_setzero_si256(); 2]; STREAMS];
    let mut words = [first_word; STREAMS];
    let mut ends = [first_word; STREAMS];
    for stream in 0..STREAMS {
        // SAFETY: a stream has 16 lanes, and its words lie in those of all.
        unsafe {
            let at = streams.states[stream].as_ptr().cast::<__m256i>();
            states[stream] = [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))];
            words[stream] = first_word.add(streams.next[stream]);
            ends[stream] = first_word.add(streams.ends[stream]);
        }
    }
    let runs = codes.iter().zip(base.chunks_exact(RUN * SIZE)).zip(out.chunks_exact_mut(RUN * SIZE));
    for ((&code, base), out) in runs {
        if code == 0 {
            out.copy_from_slice(base);
            continue;
        }
        let tables = tables_of::<SIZE>(ready, origin.saturating_add(code.into()), base);
        for round in 0..GROUPS / STREAMS {
            let (base, out) = (&base[round * STREAMS * LANES * SIZE..], &mut out[round * STREAMS * LANES * SIZE..]);
            // SAFETY: bases and output are as long; indices of contexts are below 64, and from where a table begins there are 4096 slots.
            // Of the words there are enough, since no stream is beyond its end when a run begins.
            unsafe {
                let tables = &tables[round * STREAMS * LANES..];
                round_of::<SIZE, STREAMS>(slots, tables, &mut states, &mut words, base, out);
            }
        }
        if words.iter().zip(&ends).any(|(words, end)| words > end) {
            break;
        }
    }
    for stream in 0..STREAMS {
        // SAFETY: as above.
        unsafe {
            let at = streams.states[stream].as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(at, states[stream][0]);
            _mm256_storeu_si256(at.add(1), states[stream][1]);
        }
        streams.next[stream] = words[stream].addr() - first_word.addr();
    }
}

/// The table of each element of a run, whose base this is.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn tables_of<const SIZE: usize>(ready: &Ready, place: i16, base: &[u8]) -> [u8; RUN] {
    let mut contexts = [0; RUN];
    let mantissa = ready.kind.mantissa;
    for (context, element) in contexts.iter_mut().zip(base.as_chunks::<SIZE>().0) {
        // Exponents have 8 bits at most, so that all of this fits in 16.
        let exponent = match element.as_slice() {
            [byte] => i16::from(byte & 0x7f) >> mantissa,
            [low, high] => ((u16::from(*low) | u16::from(*high) << 8) & 0x7fff) as i16 >> mantissa,
            element => (u32::from_le_bytes([element[0], element[1], element[2], element[3]]) >> mantissa & 0xff) as i16,
        };
        *context = place.saturating_sub(exponent).clamp(0, CONTEXTS as i16 - 1) as u8;
    }
    let mut tables = [0; RUN];
    for (tables, contexts) in tables.as_chunks_mut::<32>().0.iter_mut().zip(contexts.as_chunks::<32>().0) {
        // SAFETY: both are as long as a vector.
        unsafe {
            let at = Index::new(_mm256_loadu_si256(contexts.as_ptr().cast()));
            _mm256_storeu_si256(tables.as_mut_ptr().cast(), at.look_up(&ready.tables_of_contexts));
        }
    }
    tables
}

/// How many bits belong to each key.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn bits_of(keys: Half) -> Half {
    let one = _mm256_set1_epi32(1);
    _mm256_sub_epi32(_mm256_max_epi32(_mm256_srli_epi32::<2>(keys), one), one)
}

/// Decodes a group of each stream.
///
/// # Safety
/// As [`runs_of`].
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn round_of<const SIZE: usize, const STREAMS: usize>(
    slots: *const u32,
    tables: &[u8],
    states: &mut [[Half; 2]; STREAMS],
    words: &mut [*const u8; STREAMS],
    base: &[u8],
    out: &mut [u8],
) {
    let (one, zero) = (_mm256_set1_epi32(1), _mm256_setzero_si256());
    let slot_bits = _mm256_set1_epi32(4095);
    let mut keys = [[zero; 2]; STREAMS];
    // SAFETY: the caller's promises.
    unsafe {
        // Streams do not wait for one another, so that the processor has something to do while one of them waits for its slots.
        for stream in 0..STREAMS {
            for half in 0..2 {
                let tables = _mm_loadl_epi64(tables.as_ptr().add(stream * LANES + half * HALF).cast());
                let begins = _mm256_slli_epi32::<12>(_mm256_cvtepu8_epi32(tables));
                let at = _mm256_or_si256(_mm256_and_si256(states[stream][half], slot_bits), begins);
                // Eight loads take less time than a gather of eight where this was measured.
                let mut places = [0u32; 8];
                _mm256_storeu_si256(places.as_mut_ptr().cast(), at);
                let slot = |lane: usize| *slots.add(places[lane] as usize) as i32;
                keys[stream][half] =
                    _mm256_setr_epi32(slot(0), slot(1), slot(2), slot(3), slot(4), slot(5), slot(6), slot(7));
            }
        }
        for stream in 0..STREAMS {
            for half in 0..2 {
                let slot = keys[stream][half];
                let rank = _mm256_and_si256(_mm256_srli_epi32::<7>(slot), slot_bits);
                let high = _mm256_srli_epi32::<12>(states[stream][half]);
                let next = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32::<19>(slot), high), rank);
                states[stream][half] = refill(next, &mut words[stream]);
                keys[stream][half] = _mm256_and_si256(slot, _mm256_set1_epi32(127));
            }
        }
        let mut largest = zero;
        for keys in keys.as_flattened() {
            largest = _mm256_max_epi32(largest, *keys);
        }
        let mut extra = [[zero; 2]; STREAMS];
        if any(_mm256_cmpgt_epi32(largest, _mm256_set1_epi32(7))) {
            for stream in 0..STREAMS {
                let bits = [bits_of(keys[stream][0]), bits_of(keys[stream][1])];
                let mut low = bits;
                if SIZE == 4 {
                    let most = _mm256_set1_epi32(16);
                    low = [_mm256_min_epi32(bits[0], most), _mm256_min_epi32(bits[1], most)];
                }
                extra[stream] = pop_bits(&mut states[stream], low, &mut words[stream]);
                if SIZE == 4 {
                    let high = [_mm256_sub_epi32(bits[0], low[0]), _mm256_sub_epi32(bits[1], low[1])];
                    if any(_mm256_or_si256(high[0], high[1])) {
                        let high = pop_bits(&mut states[stream], high, &mut words[stream]);
                        for half in 0..2 {
                            extra[stream][half] =
                                _mm256_or_si256(extra[stream][half], _mm256_slli_epi32::<16>(high[half]));
                        }
                    }
                }
            }
        }
        for stream in 0..STREAMS {
            let mut sizes = [zero; 2];
            for half in 0..2 {
                let key = keys[stream][half];
                let bucket = _mm256_srli_epi32::<1>(key);
                let lead = _mm256_or_si256(_mm256_and_si256(bucket, one), _mm256_set1_epi32(2));
                let least = _mm256_sllv_epi32(lead, bits_of(key));
                let least = _mm256_blendv_epi8(bucket, least, _mm256_cmpgt_epi32(bucket, one));
                sizes[half] = _mm256_add_epi32(least, extra[stream][half]);
            }
            let at = stream * LANES * SIZE;
            move_by::<SIZE>(sizes, keys[stream], base.as_ptr().add(at), out.as_mut_ptr().add(at));
        }
    }
}

/// Stores a group of elements that are so far from those of the base in the direction that the lowest bits of the keys tell.
///
/// # Safety
/// The processor has AVX2; there are 16 elements at `base`, and room for them at `out`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn move_by<const SIZE: usize>(sizes: [Half; 2], keys: [Half; 2], base: *const u8, out: *mut u8) {
    let zero = _mm256_setzero_si256();
    // SAFETY: the caller's promises.
    unsafe {
        if SIZE == 4 {
            let (sign, magnitude_bits) = (_mm256_set1_epi32(i32::MIN), _mm256_set1_epi32(i32::MAX));
            for half in 0..2 {
                let base = _mm256_loadu_si256(base.cast::<__m256i>().add(half));
                let negative = _mm256_sub_epi32(zero, _mm256_and_si256(keys[half], _mm256_set1_epi32(1)));
                let difference = _mm256_sub_epi32(_mm256_xor_si256(sizes[half], negative), negative);
                let place = _mm256_add_epi32(_mm256_and_si256(base, magnitude_bits), difference);
                let fold = _mm256_and_si256(magnitude_bits, _mm256_srai_epi32::<31>(place));
                let moved = _mm256_xor_si256(_mm256_xor_si256(place, fold), _mm256_and_si256(base, sign));
                _mm256_storeu_si256(out.cast::<__m256i>().add(half), moved);
            }
            return;
        }
        // Packing leaves the quarters in the order 0, 2, 1, 3.
        let packed =
            |vectors: [Half; 2]| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(vectors[0], vectors[1]));
        let (size, key) = (packed(sizes), packed(keys));
        let base = match SIZE {
            1 => _mm256_cvtepu8_epi16(_mm_loadu_si128(base.cast())),
            _ => _mm256_loadu_si256(base.cast()),
        };
        let sign = _mm256_set1_epi16((1u16 << (8 * SIZE - 1)) as i16);
        let magnitude_bits = _mm256_set1_epi16(((1u16 << (8 * SIZE - 1)) - 1) as i16);
        let negative = _mm256_sub_epi16(zero, _mm256_and_si256(key, _mm256_set1_epi16(1)));
        let difference = _mm256_sub_epi16(_mm256_xor_si256(size, negative), negative);
        let mut place = _mm256_add_epi16(_mm256_and_si256(base, magnitude_bits), difference);
        if SIZE == 1 {
            place = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(place));
        }
        let fold = _mm256_and_si256(magnitude_bits, _mm256_srai_epi16::<15>(place));
        let moved = _mm256_xor_si256(_mm256_xor_si256(place, fold), _mm256_and_si256(base, sign));
        if SIZE == 1 {
            let bytes = _mm256_and_si256(moved, _mm256_set1_epi16(0xff));
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            _mm_storeu_si128(out.cast(), bytes);
        } else {
            _mm256_storeu_si256(out.cast(), moved);
        }
    }
}
