//! The entropy coder of differences with AVX-512: the 16 lanes of a stream are one vector.

use std::arch::x86_64::*;

use super::Pushed;
use crate::chunk::delta::encode::{DeltaCoder, Measured};
use crate::chunk::delta::{GROUPS, LANES};

/// A stream's lanes, and its words with where they begin.
struct Stream<'a> {
    states: __m512i,
    words: &'a mut [u16],
    begin: usize,
}

impl Stream<'_> {
    /// Takes a word from each lane of `emits`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
    fn emit(&mut self, emits: __mmask16) {
        let count = emits.count_ones() as usize;
        let emitted = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(emits, self.states));
        let target = &mut self.words[self.begin - count..self.begin];
        self.begin -= count;
        // SAFETY: `target` has `count` words, and as many are written.
        unsafe {
            _mm256_mask_storeu_epi16(target.as_mut_ptr().cast(), _bzhi_u32(0xffff, count as u32) as u16, emitted);
        }
        self.states = _mm512_mask_srli_epi32::<16>(self.states, emits, self.states);
    }

    /// Adds the low bits, as many of each lane as `counts` says, at most 16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
    fn push_bits(&mut self, bits: __m512i, counts: __m512i) {
        let above = _mm512_srlv_epi32(self.states, _mm512_sub_epi32(_mm512_set1_epi32(32), counts));
        self.emit(_mm512_test_epi32_mask(above, above));
        let others = _mm512_sllv_epi32(_mm512_set1_epi32(-1), counts);
        let bits = _mm512_andnot_si512(others, bits);
        self.states = _mm512_or_si512(_mm512_sllv_epi32(self.states, counts), bits);
    }

    /// Adds symbols, whose codings are packed.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
    fn push_symbols(&mut self, codings: __m512i) {
        let frequency = _mm512_srli_epi32::<16>(codings);
        let first = _mm512_and_si512(codings, _mm512_set1_epi32(0xffff));
        self.emit(_mm512_cmpge_epu32_mask(_mm512_srli_epi32::<20>(self.states), frequency));
        // A little less than 1 / frequency, rounded once, as in `rans::encode::inverse`, which has the proof that the quotient is one too small
        // at most.
        let one = _mm512_set1_ps(1.0 - 1.0 / (1 << 22) as f32);
        let inverse = _mm512_div_ps(one, _mm512_cvtepi32_ps(frequency));
        let estimate = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepu32_ps(self.states), inverse));
        let remainder = _mm512_sub_epi32(self.states, _mm512_mullo_epi32(estimate, frequency));
        let short = _mm512_cmpge_epu32_mask(remainder, frequency);
        let high = _mm512_mask_add_epi32(estimate, short, estimate, _mm512_set1_epi32(1));
        let rank = _mm512_mask_sub_epi32(remainder, short, remainder, frequency);
        self.states = _mm512_or_si512(_mm512_slli_epi32::<12>(high), _mm512_add_epi32(first, rank));
    }
}

/// See [`super::push_runs`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi2")]
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
    let (one, zero) = (_mm512_set1_epi32(1), _mm512_setzero_si512());
    let most = _mm512_set1_epi32(coder.packed.len() as i32 - 1);
    for (run, _) in codes.iter().enumerate().rev().filter(|(_, code)| **code > 0) {
        for group in (0..GROUPS).rev() {
            let at = run * GROUPS + group;
            let (lanes, words, begin) = pushed.stream(group);
            // SAFETY: each has 16 of what is read; places are cut to where there are codings.
            let (states, keys, extras, codings) = unsafe {
                let places = _mm512_cvtepu16_epi32(_mm256_loadu_si256(places[at].as_ptr().cast()));
                let places = _mm512_min_epu32(places, most);
                (
                    _mm512_loadu_si512(lanes.as_ptr().cast()),
                    _mm512_cvtepu8_epi32(_mm_loadu_si128(keys[at].as_ptr().cast())),
                    _mm512_loadu_si512(extras[at].as_ptr().cast()),
                    _mm512_i32gather_epi32::<4>(places, coder.packed.as_ptr().cast()),
                )
            };
            let mut stream = Stream { states, words, begin: *begin };
            let counts = _mm512_sub_epi32(_mm512_max_epi32(_mm512_srli_epi32::<2>(keys), one), one);
            let low = _mm512_min_epi32(counts, _mm512_set1_epi32(16));
            if coder.kind.width == 32 {
                let high = _mm512_sub_epi32(counts, low);
                if _mm512_cmpneq_epi32_mask(high, zero) != 0 {
                    stream.push_bits(_mm512_srli_epi32::<16>(extras), high);
                }
            }
            stream.push_bits(extras, low);
            stream.push_symbols(codings);
            *begin = stream.begin;
            // SAFETY: there are 16 lanes.
            unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), stream.states) };
        }
    }
}
