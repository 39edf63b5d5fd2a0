//! A step of the decoder with AVX-512 and its extensions VBMI and VBMI2, for two streams at once.
//!
//! A look-up of a byte in a table of 64 is one `vpermb`, for all 64 bytes of a vector, where one of 16 bits takes three
//! times as long for half as many. The lanes of two streams are therefore worked on *in pairs*: where a byte a lane is
//! enough (buckets, offsets, symbols), a vector has those of the first stream in its even bytes and those of the second in
//! its odd ones. Numbers of 16 bits are looked up in two halves.
//!
//! The upper two bits of a bucket or a symbol may hold anything: `vpermb` does not look at them.

use std::arch::x86_64::*;

use super::avx512::{Lanes, One};
use crate::rans::Table;
use crate::rans::table::MAX_SYMBOLS;

/// A look-up table of 64 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bytes([u8; MAX_SYMBOLS]);

impl Bytes {
    /// The lower and the upper bytes of numbers.
    fn halves(numbers: [u16; MAX_SYMBOLS]) -> [Bytes; 2] {
        [Bytes(numbers.map(|number| number as u8)), Bytes(numbers.map(|number| (number >> 8) as u8))]
    }

    /// # Safety
    /// The processor has what the module is named after.
    #[inline(always)]
    unsafe fn load(&self) -> __m512i {
        // SAFETY: the caller's promise; `self.0` is 64 bytes, aligned as `Bytes` is.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// A [`Table`] of at least two symbols, made ready to decode.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// By bucket: the lower byte of the first slot that is its alias's.
    threshold: Bytes,
    alias: Bytes,
    /// By bucket.
    adjust: [Bytes; 2],
    /// By symbol, times 16.
    frequency: [Bytes; 2],
    /// By symbol: what its key is in the upper 16 bits of an element (or in its 8).
    key: [Bytes; 2],
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
        // All slots of a bucket that belongs to one symbol are below its threshold, 64. Its alias is itself and its
        // adjustment 0, so that 0 does as well, and stays within the bucket.
        let first_of_alias = |bucket: usize| (bucket % 4 * 64) as u8 + (alias.threshold[bucket] % 64) as u8;
        Tables {
            threshold: Bytes(std::array::from_fn(first_of_alias)),
            alias: Bytes(alias.other),
            adjust: Bytes::halves(alias.adjust),
            frequency: Bytes::halves(frequency),
            key: Bytes::halves(key),
        }
    }
}

/// The odd bytes of a vector, those of the second stream.
const ODD: __mmask64 = 0xaaaa_aaaa_aaaa_aaaa;

/// The even bytes of two vectors, those of the second in the odd ones.
///
/// # Safety
/// The processor has what the module is named after.
#[inline(always)]
pub(crate) unsafe fn joined(first: __m512i, second: __m512i) -> __m512i {
    // SAFETY: the caller's promise. Where the first vector has a bit that of the second, else that of the third.
    unsafe { _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), first, _mm512_slli_epi16(second, 8), 0xca) }
}

/// The lanes of 16 bits of the first and of the second of a pair, from their upper bytes and their lower ones, the
/// latter [`exchanged`].
///
/// # Safety
/// The processor has what the module is named after.
#[inline(always)]
unsafe fn parted(upper: __m512i, lower_exchanged: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            _mm512_shldi_epi16(upper, lower_exchanged, 8),
            _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), lower_exchanged, upper, 0xca),
        ]
    }
}

/// Both bytes of each lane of 16 bits, exchanged.
///
/// # Safety
/// The processor has what the module is named after.
#[inline(always)]
unsafe fn exchanged(pair: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_shldi_epi16(pair, pair, 8) }
}

/// The symbols of a pair of groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbols {
    /// A byte each, those of the first group in the even bytes.
    bytes: __m512i,
    /// The other way round.
    exchanged: __m512i,
}

impl Symbols {
    /// Their keys, a byte each, shifted as the tables have them.
    ///
    /// # Safety
    /// The processor has what the module is named after.
    #[inline(always)]
    pub(crate) unsafe fn key_bytes(self, tables: &Tables) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_permutexvar_epi8(self.bytes, tables.key[0].load()) }
    }

    /// The keys of both groups, in lanes of 16 bits, shifted as the tables have them.
    ///
    /// # Safety
    /// The processor has what the module is named after.
    #[inline(always)]
    pub(crate) unsafe fn keys(self, tables: &Tables) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe { self.look_up(&tables.key) }
    }

    /// # Safety
    /// The processor has what the module is named after.
    #[inline(always)]
    unsafe fn look_up(self, table: &[Bytes; 2]) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            parted(
                _mm512_permutexvar_epi8(self.bytes, table[1].load()),
                _mm512_permutexvar_epi8(self.exchanged, table[0].load()),
            )
        }
    }
}

/// Takes two streams from one group to the next. Gives the symbols; `words` advance by what is taken.
///
/// # Safety
/// The processor has what the module is named after. [`GROUP_WORDS_BYTES`](super::GROUP_WORDS_BYTES) bytes can be read at
/// both of `words`.
#[inline(always)]
pub(crate) unsafe fn step(
    tables: &Tables,
    [first, second]: [&mut Lanes; 2],
    [first_words, second_words]: [&mut *const u8; 2],
    one: One,
) -> Symbols {
    // SAFETY: the caller's promises.
    unsafe {
        // For each byte the first of the eight bits, within 64, that it becomes: those of its lane from bit 6 on.
        let from_six = _mm512_set1_epi64(0x3636_2626_1616_0606);
        let first_buckets = _mm512_multishift_epi64_epi8(from_six, first.low);
        let buckets = _mm512_mask_multishift_epi64_epi8(first_buckets, ODD, from_six, second.low);
        let slots = joined(first.low, second.low);
        let other = _mm512_cmpge_epu8_mask(slots, _mm512_permutexvar_epi8(buckets, tables.threshold.load()));
        let bytes = _mm512_mask_permutexvar_epi8(buckets, other, buckets, tables.alias.load());
        let symbols = Symbols { bytes, exchanged: exchanged(bytes) };
        let [lower, upper] =
            tables.adjust.each_ref().map(|half| _mm512_maskz_permutexvar_epi8(other, buckets, half.load()));
        let adjust = parted(upper, exchanged(lower));
        let frequency = symbols.look_up(&tables.frequency);
        first.advance::<true>(frequency[0], adjust[0], first_words, one);
        second.advance::<true>(frequency[1], adjust[1], second_words, one);
        symbols
    }
}
