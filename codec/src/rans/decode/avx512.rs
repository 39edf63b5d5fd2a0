//! A step of the decoder with AVX-512, in lanes of 16 bits.
//!
//! All tables of the alias method are vectors: a look-up in a table of 64 numbers of 16 bits is one `vpermi2w`, for
//! the 32 lanes of a stream at once. A state of 32 bits is two lanes of 16, its upper and its lower half in two vectors.
//!
//! The upper ten bits of a bucket or a symbol may hold anything: `vpermi2w` does not look at them.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::GROUP_WORDS_BYTES;
use crate::rans::table::MAX_SYMBOLS;
use crate::rans::{LANES, Table};

/// A look-up table of 64 numbers, to be loaded into two registers.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Numbers([u16; MAX_SYMBOLS]);

/// A [`Table`] of at least two symbols, made ready to decode.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// By bucket: the threshold in the upper byte, the alias in the lower one.
    bucket: Numbers,
    /// By bucket.
    adjust: Numbers,
    /// By symbol, times 16.
    frequency: Numbers,
    /// By symbol: what its key is in the upper 16 bits of an element (or in its 8).
    key: Numbers,
}

impl Tables {
    /// `shift` is how far a key is shifted in the upper 16 bits of an element.
    ///
    /// # Panics
    /// When `table` has but one symbol, whose frequency does not fit.
    pub(crate) fn new(table: &Table, shift: u32) -> Tables {
        assert!(table.keys().len() > 1);
        let alias = table.alias();
        let (mut frequency, mut key) = ([0; MAX_SYMBOLS], [0; MAX_SYMBOLS]);
        frequency.iter_mut().zip(table.frequencies()).for_each(|(scaled, frequency)| *scaled = frequency << 4);
        key.iter_mut().zip(table.keys()).for_each(|(shifted, key)| *shifted = key << shift);
        let bucket = |bucket: usize| alias.threshold[bucket] << 8 | u16::from(alias.other[bucket]);
        Tables {
            bucket: Numbers(std::array::from_fn(bucket)),
            adjust: Numbers(alias.adjust),
            frequency: Numbers(frequency),
            key: Numbers(key),
        }
    }
}

/// The states of the lanes of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    pub(super) low: __m512i,
    pub(super) high: __m512i,
}

impl Lanes {
    /// # Safety
    /// The processor has what the module is named after.
    #[inline(always)]
    pub(crate) unsafe fn load(states: &[u32; LANES]) -> Lanes {
        // SAFETY: the caller's promise; the two halves of `states` are 64 bytes each.
        unsafe {
            let first = _mm512_loadu_si512(states.as_ptr().cast());
            let second = _mm512_loadu_si512(states[LANES / 2..].as_ptr().cast());
            let join = |a, b| _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
            Lanes {
                low: join(_mm512_cvtepi32_epi16(first), _mm512_cvtepi32_epi16(second)),
                high: join(
                    _mm512_cvtepi32_epi16(_mm512_srli_epi32(first, 16)),
                    _mm512_cvtepi32_epi16(_mm512_srli_epi32(second, 16)),
                ),
            }
        }
    }

    /// # Safety
    /// The processor has what the module is named after.
    #[inline(always)]
    pub(crate) unsafe fn store(self, states: &mut [u32; LANES]) {
        // SAFETY: the caller's promise; the two halves of `states` are 64 bytes each.
        unsafe {
            let widen = |low, high| {
                _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16))
            };
            let first = widen(_mm512_castsi512_si256(self.low), _mm512_castsi512_si256(self.high));
            let second = widen(_mm512_extracti64x4_epi64(self.low, 1), _mm512_extracti64x4_epi64(self.high, 1));
            _mm512_storeu_si512(states.as_mut_ptr().cast(), first);
            _mm512_storeu_si512(states[LANES / 2..].as_mut_ptr().cast(), second);
        }
    }
}

impl Lanes {
    /// The next states, after symbols with these frequencies, times 16, and with ranks that are the offsets within the
    /// buckets plus `adjust`; `words` advance by what is taken.
    ///
    /// # Safety
    /// As [`step`].
    #[inline(always)]
    pub(super) unsafe fn advance<const VBMI2: bool>(
        &mut self,
        frequency: __m512i,
        adjust: __m512i,
        words: &mut *const u8,
        one: One,
    ) {
        const { assert!(GROUP_WORDS_BYTES == size_of::<__m512i>()) };
        // SAFETY: the caller's promises; no more than 32 words are read.
        unsafe {
            let Lanes { low, high } = *self;
            // frequency * (state >> 12) + rank is, with the state in halves, frequency * 16 * high + frequency * (low >> 12)
            // + rank, of which the last two add up to less than frequency * 16 and so to 16 bits.
            let rank = _mm512_add_epi16(_mm512_and_si512(low, _mm512_set1_epi16(63)), adjust);
            let above_slot = _mm512_and_si512(low, _mm512_set1_epi16(0xf000_u16 as i16));
            let from_low = _mm512_add_epi16(_mm512_mulhi_epu16(frequency, above_slot), rank);
            let next_low = _mm512_add_epi16(_mm512_mullo_epi16(frequency, high), from_low);
            let carry = _mm512_cmplt_epu16_mask(next_low, from_low);
            let next_high = _mm512_mulhi_epu16(frequency, high);
            let next_high = _mm512_mask_add_epi16(next_high, carry, next_high, one.0);
            // States below 2^16 move up and take a word.
            let take = _mm512_testn_epi16_mask(next_high, next_high);
            self.high = _mm512_mask_mov_epi16(next_high, take, next_low);
            self.low = if VBMI2 {
                _mm512_mask_expand_epi16(next_low, take, _mm512_loadu_si512((*words).cast()))
            } else {
                _mm512_mask_mov_epi16(next_low, take, expand_words(take, *words))
            };
            *words = words.add(take.count_ones() as usize * 2);
        }
    }
}

/// A 1 in each lane, of which the compiler does not know that it is: it would make the addition of a carry two
/// instructions that need not be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct One(__m512i);

impl One {
    /// # Safety
    /// The processor has what the module is named after.
    #[inline(always)]
    pub(crate) unsafe fn new() -> One {
        // SAFETY: the caller's promise.
        One(unsafe { _mm512_set1_epi16(black_box(1)) })
    }
}

/// Takes a stream from one group to the next. Gives the keys, shifted as the tables have them; `words` advance by what is
/// taken.
///
/// # Safety
/// The processor has what the module is named after, and VBMI2 if `VBMI2` says so. [`GROUP_WORDS_BYTES`] bytes can be read at
/// `words`.
#[inline(always)]
pub(crate) unsafe fn step<const VBMI2: bool>(
    tables: &Tables,
    lanes: &mut Lanes,
    words: &mut *const u8,
    one: One,
) -> __m512i {
    // SAFETY: the caller's promises; `Numbers` are 128 bytes, aligned to 64.
    unsafe {
        let load = |numbers: &Numbers| {
            let start: *const __m512i = numbers.0.as_ptr().cast();
            [_mm512_load_si512(start), _mm512_load_si512(start.add(1))]
        };
        let look_up = |table: [__m512i; 2], at| _mm512_permutex2var_epi16(table[0], at, table[1]);
        let offset = _mm512_and_si512(lanes.low, _mm512_set1_epi16(63));
        let bucket = _mm512_srli_epi16(lanes.low, 6);
        let shared = look_up(load(&tables.bucket), bucket);
        let other = _mm512_cmpge_epu16_mask(offset, _mm512_srli_epi16(shared, 8));
        let symbol = _mm512_mask_mov_epi16(bucket, other, shared);
        let [adjust, adjust_above] = load(&tables.adjust);
        let adjust = _mm512_maskz_permutex2var_epi16(other, adjust, bucket, adjust_above);
        lanes.advance::<VBMI2>(look_up(load(&tables.frequency), symbol), adjust, words, one);
        look_up(load(&tables.key), symbol)
    }
}

/// What `vpexpandw` does: words, in turn, in the lanes that are in `take`, zeros in the others. Each half goes by way of
/// lanes of 32 bits.
///
/// # Safety
/// The processor has what the module is named after. [`GROUP_WORDS_BYTES`] bytes can be read at `words`.
#[inline(always)]
unsafe fn expand_words(take: __mmask32, words: *const u8) -> __m512i {
    // SAFETY: the caller's promises: the second half begins after no more than 16 words.
    unsafe {
        let half = |take: __mmask16, words: *const u8| {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(words.cast()));
            _mm512_cvtepi32_epi16(_mm512_maskz_expand_epi32(take, words))
        };
        let first = take as __mmask16;
        let low = half(first, words);
        let high = half((take >> 16) as __mmask16, words.add(first.count_ones() as usize * 2));
        _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)
    }
}
