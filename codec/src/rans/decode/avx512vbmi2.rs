//! A step of the decoder with AVX-512 and its extensions VBMI and VBMI2.
//!
//! All tables of the alias method live in registers: one look-up of a byte in a table of 64 is one `vpermb`, for all 64
//! bytes of a vector. The lanes of two streams are therefore worked on *in pairs*: where a byte a lane is enough
//! (buckets, offsets, symbols), a vector has those of the first stream in its even bytes and those of the second in its
//! odd ones. Values of 16 bits are looked up in two halves. A state of 32 bits is two lanes of 16, its upper and its
//! lower half in two vectors.
//!
//! The upper two bits of a bucket or a symbol may hold anything: `vpermb` does not look at them.

use std::arch::x86_64::*;

use super::GROUP_WORDS_BYTES;
use crate::rans::table::MAX_SYMBOLS;
use crate::rans::{LANES, Table};

/// A look-up table of 64 bytes, to be loaded into a register.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Bytes(pub(crate) [u8; MAX_SYMBOLS]);

impl Bytes {
    /// It in a register.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn load(&self) -> __m512i {
        // SAFETY: `self.0` is 64 bytes, aligned as `Bytes` is.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// A [`Table`] of at least two symbols, made ready to decode.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// Four times the threshold of each bucket.
    threshold: Bytes,
    alias: Bytes,
    /// The adjustment of each bucket, its lower and its upper byte.
    adjust: [Bytes; 2],
    /// Sixteen times the frequency of each symbol, its lower and its upper byte.
    frequency: [Bytes; 2],
}

impl Tables {
    /// `None` when `table` has but one symbol: its frequency does not fit here, and nothing is stored for it.
    pub(crate) fn new(table: &Table) -> Option<Tables> {
        if table.keys().len() == 1 {
            return None;
        }
        let alias = table.alias();
        let mut frequency = [0; MAX_SYMBOLS];
        frequency.iter_mut().zip(table.frequencies()).for_each(|(scaled, frequency)| *scaled = frequency << 4);
        let halves =
            |values: [u16; MAX_SYMBOLS]| [Bytes(values.map(|v| v as u8)), Bytes(values.map(|v| (v >> 8) as u8))];
        Some(Tables {
            // A bucket that belongs to one symbol alone has 64 as its threshold, which does not fit, and itself as its
            // alias: 0 does as well.
            threshold: Bytes(alias.threshold.map(|threshold| (threshold << 2) as u8)),
            alias: Bytes(alias.other),
            adjust: halves(alias.adjust),
            frequency: halves(frequency),
        })
    }
}

/// The states of the lanes of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    low: __m512i,
    high: __m512i,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn load(states: &[u32; LANES]) -> Lanes {
        // SAFETY: the two halves of `states` are 64 bytes each.
        let halves = unsafe {
            [_mm512_loadu_si512(states.as_ptr().cast()), _mm512_loadu_si512(states[LANES / 2..].as_ptr().cast())]
        };
        let join = |a, b| _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
        Lanes {
            low: join(_mm512_cvtepi32_epi16(halves[0]), _mm512_cvtepi32_epi16(halves[1])),
            high: join(
                _mm512_cvtepi32_epi16(_mm512_srli_epi32(halves[0], 16)),
                _mm512_cvtepi32_epi16(_mm512_srli_epi32(halves[1], 16)),
            ),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn store(self, states: &mut [u32; LANES]) {
        let widen =
            |low, high| _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
        let first = widen(_mm512_castsi512_si256(self.low), _mm512_castsi512_si256(self.high));
        let second = widen(_mm512_extracti64x4_epi64(self.low, 1), _mm512_extracti64x4_epi64(self.high, 1));
        // SAFETY: the two halves of `states` are 64 bytes each.
        unsafe {
            _mm512_storeu_si512(states.as_mut_ptr().cast(), first);
            _mm512_storeu_si512(states[LANES / 2..].as_mut_ptr().cast(), second);
        }
    }
}

/// [`Tables`] in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder {
    threshold: __m512i,
    alias: __m512i,
    adjust: [__m512i; 2],
    frequency: [__m512i; 2],
}

/// The odd bytes of a vector, those of the second stream.
pub(crate) const ODD: __mmask64 = 0xaaaa_aaaa_aaaa_aaaa;

/// Both bytes of each lane of 16 bits, exchanged.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi2")]
pub(crate) fn exchanged(pair: __m512i) -> __m512i {
    _mm512_shldi_epi16(pair, pair, 8)
}

/// The even bytes of two vectors, those of the second in the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn joined(first: __m512i, second: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), first, _mm512_slli_epi16(second, 8), 0xca)
}

/// The lanes of 16 bits of the first and of the second of a pair, from their upper bytes and their lower ones, the
/// latter [`exchanged`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
pub(crate) fn parted(upper: __m512i, lower_exchanged: __m512i) -> [__m512i; 2] {
    let lower_bytes = _mm512_set1_epi16(0x00ff);
    [
        _mm512_shldi_epi16(upper, lower_exchanged, 8),
        // Where a bit of `lower_bytes` is set that of the second, else that of the third.
        _mm512_ternarylogic_epi32(lower_bytes, lower_exchanged, upper, 0xca),
    ]
}

impl Decoder {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn load(tables: &Tables) -> Decoder {
        Decoder {
            threshold: tables.threshold.load(),
            alias: tables.alias.load(),
            adjust: [tables.adjust[0].load(), tables.adjust[1].load()],
            frequency: [tables.frequency[0].load(), tables.frequency[1].load()],
        }
    }

    /// Takes two streams from one group to the next. Gives the symbols, those of the first stream in the even bytes,
    /// and the bytes of words that each took.
    ///
    /// # Safety
    /// [`GROUP_WORDS_BYTES`] bytes can be read at both of `words`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
    pub(crate) unsafe fn pair(
        &self,
        first: &mut Lanes,
        second: &mut Lanes,
        words: [*const u8; 2],
    ) -> (__m512i, [usize; 2]) {
        let lower_bytes = _mm512_set1_epi16(0x00ff);
        let buckets = _mm512_ternarylogic_epi32(
            lower_bytes,
            _mm512_srli_epi16(first.low, 6),
            _mm512_slli_epi16(second.low, 2),
            0xca,
        );
        // Each byte eight bits from two below its lane on: the offset, above two bits that mean nothing.
        let two_below = _mm512_set1_epi64(0x2e2e_1e1e_0e0e_3e3e);
        let offsets = _mm512_mask_multishift_epi64_epi8(
            _mm512_multishift_epi64_epi8(two_below, first.low),
            ODD,
            two_below,
            second.low,
        );
        let other = _mm512_cmpge_epu8_mask(offsets, _mm512_permutexvar_epi8(buckets, self.threshold));
        let symbols = _mm512_mask_permutexvar_epi8(buckets, other, buckets, self.alias);
        let adjust = parted(
            _mm512_maskz_permutexvar_epi8(other, buckets, self.adjust[1]),
            exchanged(_mm512_maskz_permutexvar_epi8(other, buckets, self.adjust[0])),
        );
        let frequency = parted(
            _mm512_permutexvar_epi8(symbols, self.frequency[1]),
            _mm512_permutexvar_epi8(exchanged(symbols), self.frequency[0]),
        );
        // SAFETY: the caller's promise.
        let taken = unsafe {
            [first.advance(frequency[0], adjust[0], words[0]), second.advance(frequency[1], adjust[1], words[1])]
        };
        (symbols, taken)
    }

    /// The same for one stream, whose symbols are in the even bytes; the odd ones mean nothing.
    ///
    /// # Safety
    /// [`GROUP_WORDS_BYTES`] bytes can be read at `words`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
    pub(crate) unsafe fn one(&self, lanes: &mut Lanes, words: *const u8) -> (__m512i, usize) {
        let buckets = _mm512_srli_epi16(lanes.low, 6);
        let offsets = _mm512_slli_epi16(lanes.low, 2);
        let other = _mm512_cmpge_epu8_mask(offsets, _mm512_permutexvar_epi8(buckets, self.threshold));
        let symbols = _mm512_mask_permutexvar_epi8(buckets, other, buckets, self.alias);
        let adjust = parted(
            _mm512_maskz_permutexvar_epi8(other, buckets, self.adjust[1]),
            exchanged(_mm512_maskz_permutexvar_epi8(other, buckets, self.adjust[0])),
        );
        let frequency = parted(
            _mm512_permutexvar_epi8(symbols, self.frequency[1]),
            _mm512_permutexvar_epi8(exchanged(symbols), self.frequency[0]),
        );
        // SAFETY: the caller's promise.
        let taken = unsafe { lanes.advance(frequency[0], adjust[0], words) };
        (symbols, taken)
    }
}

impl Lanes {
    /// The next states, after symbols of the given frequencies (times 16) and with ranks that are the offsets plus
    /// `adjust`; gives the bytes of words that it took.
    ///
    /// # Safety
    /// [`GROUP_WORDS_BYTES`] bytes can be read at `words`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    unsafe fn advance(&mut self, frequency: __m512i, adjust: __m512i, words: *const u8) -> usize {
        const { assert!(GROUP_WORDS_BYTES == size_of::<__m512i>()) };
        // frequency * (state >> 12) + rank is, with the state in halves, frequency * 16 * high + frequency * (low >> 12)
        // + rank, where the last two add up to less than frequency * 16 and so to 16 bits.
        let rank = _mm512_add_epi16(_mm512_and_si512(self.low, _mm512_set1_epi16(0x003f)), adjust);
        let from_low = _mm512_mulhi_epu16(frequency, _mm512_and_si512(self.low, _mm512_set1_epi16(0xf000u16 as i16)));
        let from_low = _mm512_add_epi16(from_low, rank);
        let low = _mm512_add_epi16(_mm512_mullo_epi16(frequency, self.high), from_low);
        let carry = _mm512_cmplt_epu16_mask(low, from_low);
        let high = _mm512_mulhi_epu16(frequency, self.high);
        let high = _mm512_mask_sub_epi16(high, carry, high, _mm512_set1_epi16(-1));
        // States below 2^16 move up and take a word.
        let take = _mm512_testn_epi16_mask(high, high);
        self.high = _mm512_mask_mov_epi16(high, take, low);
        // SAFETY: no more than the 32 words that the caller promises are read.
        self.low = unsafe { _mm512_mask_expandloadu_epi16(low, take, words.cast()) };
        take.count_ones() as usize * 2
    }
}
