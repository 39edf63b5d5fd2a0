//! The entropy coder of differences with AVX2: the 16 lanes of a stream are two vectors.

use std::arch::x86_64::*;

use super::Pushed;
use crate::chunk::delta::encode::{DeltaCoder, Measured};
use crate::chunk::delta::{GROUPS, LANES};
use crate::rans::encode::avx2::emit;

/// Lanes of a vector.
const HALF: usize = LANES / 2;

/// A stream's lanes, and its words with where they begin.
struct Stream<'a> {
    states: [__m256i; 2],
    words: &'a mut [u16],
    begin: usize,
}

impl Stream<'_> {
    /// Takes a word from each lane of a half but those of `keeps`.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn emit(&mut self, half: usize, keeps: __m256i) {
        let state = self.states[half];
        let emits = !_mm256_movemask_ps(_mm256_castsi256_ps(keeps)) as u8;
        let low_words = _mm256_and_si256(state, _mm256_set1_epi32(0xffff));
        self.begin = emit(low_words, emits, self.words, self.begin);
        self.states[half] = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(state), state, keeps);
    }

    /// Adds the low bits, as many of each lane as `counts` says, at most 16. The upper lanes come first, so that the words of all lie in the
    /// order of their lanes.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn push_bits(&mut self, bits: [__m256i; 2], counts: [__m256i; 2]) {
        for half in [1, 0] {
            let unused = _mm256_sub_epi32(_mm256_set1_epi32(32), counts[half]);
            let above = _mm256_srlv_epi32(self.states[half], unused);
            self.emit(half, _mm256_cmpeq_epi32(above, _mm256_setzero_si256()));
            let others = _mm256_sllv_epi32(_mm256_set1_epi32(-1), counts[half]);
            let bits = _mm256_andnot_si256(others, bits[half]);
            self.states[half] = _mm256_or_si256(_mm256_sllv_epi32(self.states[half], counts[half]), bits);
        }
    }

    /// Adds symbols, whose codings are packed.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn push_symbols(&mut self, codings: [__m256i; 2]) {
        for half in [1, 0] {
            let frequency = _mm256_srli_epi32::<16>(codings[half]);
            let first = _mm256_and_si256(codings[half], _mm256_set1_epi32(0xffff));
            self.emit(half, _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32::<20>(self.states[half])));
            let state = self.states[half];
            // See `rans::encode::avx2`; the inverse is a little less than 1 / frequency, rounded once.
            let one = _mm256_set1_ps(1.0 - 1.0 / (1 << 22) as f32);
            let inverse = _mm256_div_ps(one, _mm256_cvtepi32_ps(frequency));
            let wrapped = _mm256_castsi256_ps(_mm256_srai_epi32::<31>(state));
            let wrapped = _mm256_and_ps(wrapped, _mm256_set1_ps(4_294_967_296.0));
            let float = _mm256_add_ps(_mm256_cvtepi32_ps(state), wrapped);
            let estimate = _mm256_cvttps_epi32(_mm256_mul_ps(float, inverse));
            let remainder = _mm256_sub_epi32(state, _mm256_mullo_epi32(estimate, frequency));
            // Zero where the estimate is one too small, else minus one.
            let enough = _mm256_cmpgt_epi32(frequency, remainder);
            let high = _mm256_add_epi32(_mm256_add_epi32(estimate, _mm256_set1_epi32(1)), enough);
            let rank = _mm256_sub_epi32(remainder, _mm256_andnot_si256(enough, frequency));
            self.states[half] = _mm256_or_si256(_mm256_slli_epi32::<12>(high), _mm256_add_epi32(first, rank));
        }
    }
}

/// See [`super::push_runs`].
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn push_runs(
    coder: &DeltaCoder,
    measured: &Measured,
    codes: &[u8],
    places: &[u16],
    pushed: &mut Pushed<'_>,
) {
    let keys = measured.keys.as_chunks::<LANES>().0;
    let extras = measured.extras.as_chunks::<LANES>().0;
    let places = places.as_chunks::<LANES>().0;
    let (one, zero) = (_mm256_set1_epi32(1), _mm256_setzero_si256());
    let most = _mm256_set1_epi32(coder.packed.len() as i32 - 1);
    for (run, _) in codes.iter().enumerate().rev().filter(|(_, code)| **code > 0) {
        for group in (0..GROUPS).rev() {
            let at = run * GROUPS + group;
            let (lanes, words, begin) = pushed.stream(group);
            let (mut states, mut extra, mut codings) = ([zero; 2], [zero; 2], [zero; 2]);
            let (mut low, mut high) = ([zero; 2], [zero; 2]);
            for half in 0..2 {
                // SAFETY: each has 8 of what is read; places are cut to where there are codings.
                unsafe {
                    let from = half * HALF;
                    states[half] = _mm256_loadu_si256(lanes.as_ptr().add(from).cast());
                    extra[half] = _mm256_loadu_si256(extras[at].as_ptr().add(from).cast());
                    let keys = _mm256_cvtepu8_epi32(_mm_loadl_epi64(keys[at].as_ptr().add(from).cast()));
                    let counts = _mm256_sub_epi32(_mm256_max_epi32(_mm256_srli_epi32::<2>(keys), one), one);
                    low[half] = _mm256_min_epi32(counts, _mm256_set1_epi32(16));
                    high[half] = _mm256_sub_epi32(counts, low[half]);
                    let places = _mm256_cvtepu16_epi32(_mm_loadu_si128(places[at].as_ptr().add(from).cast()));
                    let places = _mm256_min_epu32(places, most);
                    codings[half] = _mm256_i32gather_epi32::<4>(coder.packed.as_ptr().cast(), places);
                }
            }
            let mut stream = Stream { states, words, begin: *begin };
            if coder.kind.width == 32 {
                let any = _mm256_or_si256(high[0], high[1]);
                if _mm256_testz_si256(any, any) == 0 {
                    stream.push_bits([_mm256_srli_epi32::<16>(extra[0]), _mm256_srli_epi32::<16>(extra[1])], high);
                }
            }
            stream.push_bits(extra, low);
            stream.push_symbols(codings);
            *begin = stream.begin;
            for half in 0..2 {
                // SAFETY: there are 16 lanes.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().add(half * HALF).cast(), stream.states[half]) };
            }
        }
    }
}
