//! Decoding runs with AVX-512: the 16 lanes of a stream are one vector of 32 bits each.
//!
//! Elements of 8 and 16 bits are worked on two groups at once in lanes of 16 bits, but for the states.

use std::arch::x86_64::*;

use super::{Ready, Run, Streams};
use crate::chunk::delta::step::Kind;
use crate::chunk::delta::{GROUPS, LANES, RUN};

/// What decoding a group needs besides its stream.
#[derive(Clone, Copy)]
struct Slots {
    slots: *const u32,
    /// Where the tables of contexts begin: those of the first 32, and of the others.
    begins: [__m512i; 2],
    place: __m512i,
}

/// A stream's lanes and where its next word is.
#[derive(Clone, Copy)]
struct Stream {
    states: __m512i,
    words: *const u8,
}

impl Stream {
    /// Gives each lane below 2^16 the next word.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL; 32 bytes can be read at the words.
    #[inline(always)]
    unsafe fn refill(&mut self) {
        // SAFETY: the caller's promises.
        unsafe {
            let small = _mm512_cmplt_epu32_mask(self.states, _mm512_set1_epi32(1 << 16));
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(self.words.cast()));
            let next = _mm512_maskz_expand_epi32(small, words);
            let moved = _mm512_or_si512(_mm512_slli_epi32::<16>(self.states), next);
            self.states = _mm512_mask_mov_epi32(self.states, small, moved);
            self.words = self.words.add(2 * small.count_ones() as usize);
        }
    }

    /// Takes a symbol out of each lane; `begins` are where the slots of their tables begin. Gives the keys.
    ///
    /// # Safety
    /// As [`refill`](Stream::refill); there are 4096 slots from each beginning on.
    #[inline(always)]
    unsafe fn pop_symbols(&mut self, slots: *const u32, begins: __m512i) -> __m512i {
        // SAFETY: the caller's promises.
        unsafe {
            let slot_bits = _mm512_set1_epi32(4095);
            let at = _mm512_or_si512(_mm512_and_si512(self.states, slot_bits), begins);
            let slots = _mm512_i32gather_epi32::<4>(at, slots.cast());
            let rank = _mm512_and_si512(_mm512_srli_epi32::<7>(slots), slot_bits);
            let high = _mm512_srli_epi32::<12>(self.states);
            self.states = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32::<19>(slots), high), rank);
            self.refill();
            _mm512_and_si512(slots, _mm512_set1_epi32(127))
        }
    }

    /// Takes so many bits, at most 16, out of each lane.
    ///
    /// # Safety
    /// As [`refill`](Stream::refill).
    #[inline(always)]
    unsafe fn pop_bits(&mut self, count: __m512i) -> __m512i {
        // SAFETY: the caller's promises.
        unsafe {
            let rest = _mm512_srlv_epi32(self.states, count);
            let bits = _mm512_sub_epi32(self.states, _mm512_sllv_epi32(rest, count));
            self.states = rest;
            self.refill();
            bits
        }
    }
}

/// Decodes a whole run of which something changed.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn run(kind: Kind, ready: &Ready, streams: &mut Streams<'_>, run: Run<'_>) {
    let bytes = RUN * kind.size();
    assert!(run.base.len() == bytes && run.out.len() == bytes);
    // No stream reads more of the words than the padding behind them has, as long as it began where it may.
    assert!(streams.next.iter().all(|&next| next + super::PADDING <= streams.words.len()));
    let begins = ready.begins.as_ptr();
    // SAFETY: there are 64 contexts. Nothing else is read or written but what was asserted, and states, of which there are
    // as many as lanes; all beginnings are those of whole tables.
    unsafe {
        let slots = Slots {
            slots: ready.slots().as_ptr(),
            begins: [_mm512_loadu_si512(begins.cast()), _mm512_loadu_si512(begins.add(32).cast())],
            place: _mm512_set1_epi32(run.place),
        };
        let (base, out) = (run.base.as_ptr(), run.out.as_mut_ptr());
        if kind.width == 32 {
            for group in 0..GROUPS {
                let number = group % streams.count;
                let mut stream = load(streams, number);
                words_of(kind, &slots, &mut stream, base.add(group * 64), out.add(group * 64));
                store(streams, number, stream);
            }
        } else {
            let shift = _mm_cvtsi32_si128(kind.mantissa as i32);
            let step = 2 * LANES * kind.size();
            for pair in 0..GROUPS / 2 {
                let (base, out) = (base.add(pair * step), out.add(pair * step));
                let elements = if kind.width == 16 {
                    _mm512_loadu_si512(base.cast())
                } else {
                    _mm512_cvtepu8_epi16(_mm256_loadu_si256(base.cast()))
                };
                let moved = halves_of(kind.width, shift, &slots, streams, 2 * pair, elements);
                if kind.width == 16 {
                    _mm512_storeu_si512(out.cast(), moved);
                } else {
                    _mm256_storeu_si256(out.cast(), _mm512_cvtepi16_epi8(moved));
                }
            }
        }
    }
}

/// The lanes of a stream.
///
/// # Safety
/// The processor has AVX-512 F; there is such a stream, and it begins inside the words.
#[inline(always)]
unsafe fn load(streams: &Streams<'_>, number: usize) -> Stream {
    // SAFETY: the caller's promises.
    unsafe {
        let states = _mm512_loadu_si512(streams.states.get_unchecked(number).as_ptr().cast());
        Stream { states, words: streams.words.as_ptr().add(*streams.next.get_unchecked(number)) }
    }
}

/// Puts the lanes of a stream back.
///
/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store(streams: &mut Streams<'_>, number: usize, stream: Stream) {
    // SAFETY: the caller's promises.
    unsafe {
        _mm512_storeu_si512(streams.states.get_unchecked_mut(number).as_mut_ptr().cast(), stream.states);
        *streams.next.get_unchecked_mut(number) = stream.words.addr() - streams.words.as_ptr().addr();
    }
}

/// Decodes two groups of elements of 8 or 16 bits, the first of which has this number, in lanes of 16 bits.
///
/// # Safety
/// As [`run`], whose words are long enough.
#[inline(always)]
unsafe fn halves_of(
    width: u32,
    mantissa: __m128i,
    slots: &Slots,
    streams: &mut Streams<'_>,
    group: usize,
    base: __m512i,
) -> __m512i {
    // SAFETY: the caller's promises.
    unsafe {
        let sign = _mm512_set1_epi16((1u16 << (width - 1)) as i16);
        let magnitude = _mm512_andnot_si512(sign, base);
        let exponent = _mm512_srl_epi16(magnitude, mantissa);
        // With an exponent of 8 bits at most, nothing beyond matters.
        let place = _mm512_cvtsepi32_epi16(slots.place);
        let place = _mm512_broadcastw_epi16(_mm256_castsi256_si128(place));
        let context = _mm512_subs_epi16(place, exponent);
        let context = _mm512_max_epi16(_mm512_min_epi16(context, _mm512_set1_epi16(63)), _mm512_setzero_si512());
        let begins = _mm512_permutex2var_epi16(slots.begins[0], context, slots.begins[1]);
        let lower = |vector| _mm512_cvtepu16_epi32(_mm512_castsi512_si256(vector));
        let upper = |vector| _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(vector));
        let joined = |low, high| {
            let low = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(low));
            _mm512_inserti64x4::<1>(low, _mm512_cvtepi32_epi16(high))
        };
        let one = _mm512_set1_epi16(1);
        let numbers = [group % streams.count, (group + 1) % streams.count];

        let mut stream = load(streams, numbers[0]);
        let first_keys = stream.pop_symbols(slots.slots, lower(begins));
        let bits_of = |keys| _mm512_subs_epu16(_mm512_srli_epi32::<2>(keys), _mm512_set1_epi32(1));
        let bits = bits_of(first_keys);
        let mut first_extra = _mm512_setzero_si512();
        if _mm512_test_epi32_mask(bits, bits) != 0 {
            first_extra = stream.pop_bits(bits);
        }
        store(streams, numbers[0], stream);

        let mut stream = load(streams, numbers[1]);
        let second_keys = stream.pop_symbols(slots.slots, upper(begins));
        let bits = bits_of(second_keys);
        let mut second_extra = _mm512_setzero_si512();
        if _mm512_test_epi32_mask(bits, bits) != 0 {
            second_extra = stream.pop_bits(bits);
        }
        store(streams, numbers[1], stream);

        let keys = joined(first_keys, second_keys);
        let bucket = _mm512_srli_epi16::<1>(keys);
        let bits = _mm512_subs_epu16(_mm512_srli_epi16::<2>(keys), one);
        let lead = _mm512_or_si512(_mm512_and_si512(bucket, one), _mm512_set1_epi16(2));
        let least = _mm512_sllv_epi16(lead, bits);
        let least = _mm512_mask_mov_epi16(least, _mm512_cmplt_epu16_mask(bucket, _mm512_set1_epi16(2)), bucket);
        let size = _mm512_add_epi16(least, joined(first_extra, second_extra));
        let negative = _mm512_test_epi16_mask(keys, one);
        let difference = _mm512_mask_sub_epi16(size, negative, _mm512_setzero_si512(), size);
        let unused = _mm_cvtsi32_si128(16 - width as i32);
        let place = _mm512_sll_epi16(_mm512_add_epi16(magnitude, difference), unused);
        let place = _mm512_sra_epi16(place, unused);
        let fold = _mm512_andnot_si512(sign, _mm512_srai_epi16::<15>(place));
        _mm512_xor_si512(_mm512_xor_si512(place, fold), _mm512_and_si512(base, sign))
    }
}

/// Decodes a group of elements of 32 bits.
///
/// # Safety
/// As [`run`], whose words are long enough; 64 bytes can be read at `base` and written at `out`.
#[inline(always)]
unsafe fn words_of(kind: Kind, slots: &Slots, stream: &mut Stream, base: *const u8, out: *mut u8) {
    // SAFETY: the caller's promises.
    unsafe {
        let (zero, one) = (_mm512_setzero_si512(), _mm512_set1_epi32(1));
        let base = _mm512_loadu_si512(base.cast());
        let sign = _mm512_set1_epi32(i32::MIN);
        let magnitude = _mm512_andnot_si512(sign, base);
        let exponent = _mm512_srl_epi32(magnitude, _mm_cvtsi32_si128(kind.mantissa as i32));
        let context = _mm512_sub_epi32(slots.place, exponent);
        let context = _mm512_max_epi32(_mm512_min_epi32(context, _mm512_set1_epi32(63)), zero);
        let begins = _mm512_permutex2var_epi16(slots.begins[0], context, slots.begins[1]);
        // What is looked up for the upper halves of lanes means nothing.
        let begins = _mm512_and_si512(begins, _mm512_set1_epi32(0xffff));
        let keys = stream.pop_symbols(slots.slots, begins);
        let bucket = _mm512_srli_epi32::<1>(keys);
        let bits = _mm512_sub_epi32(_mm512_max_epi32(_mm512_srli_epi32::<2>(keys), one), one);
        let low = _mm512_min_epi32(bits, _mm512_set1_epi32(16));
        let mut extra = zero;
        if _mm512_test_epi32_mask(bits, bits) != 0 {
            extra = stream.pop_bits(low);
            let high = _mm512_sub_epi32(bits, low);
            if _mm512_test_epi32_mask(high, high) != 0 {
                extra = _mm512_or_si512(extra, _mm512_slli_epi32::<16>(stream.pop_bits(high)));
            }
        }
        let lead = _mm512_or_si512(_mm512_and_si512(bucket, one), _mm512_set1_epi32(2));
        let least = _mm512_sllv_epi32(lead, bits);
        let least = _mm512_mask_mov_epi32(least, _mm512_cmplt_epu32_mask(bucket, _mm512_set1_epi32(2)), bucket);
        let size = _mm512_add_epi32(least, extra);
        let difference = _mm512_mask_sub_epi32(size, _mm512_test_epi32_mask(keys, one), zero, size);
        let place = _mm512_add_epi32(magnitude, difference);
        let fold = _mm512_andnot_si512(sign, _mm512_srai_epi32::<31>(place));
        let moved = _mm512_xor_si512(_mm512_xor_si512(place, fold), _mm512_and_si512(base, sign));
        _mm512_storeu_si512(out.cast(), moved);
    }
}
