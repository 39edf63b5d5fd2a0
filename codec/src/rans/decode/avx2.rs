//! A step of the decoder with AVX2: all tables of the alias method as bytes, four `pshufb` a look-up.
//!
//! A look-up gives one byte for each of the 32 lanes of a stream, so that numbers of 16 bits take two. Gathers from a table
//! of all slots would be fewer instructions, but take twice as long where they were measured.
//!
//! Lanes of 16 bits are in two vectors, the first and the second 16 of them; bytes are in the order in which packing the
//! two leaves them (lanes 0 to 7, 16 to 23, 8 to 15, 24 to 31), and unpacking brings them back.

use std::arch::x86_64::*;

use super::GROUP_WORDS_BYTES;
use crate::rans::table::MAX_SYMBOLS;
use crate::rans::{LANES, Table};

/// A look-up table of 64 bytes.
type Bytes = [u8; MAX_SYMBOLS];

/// A [`Table`] made ready to decode.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// By bucket.
    threshold: Bytes,
    alias: Bytes,
    /// The lower and the upper bytes.
    adjust: [Bytes; 2],
    /// By symbol.
    frequency: [Bytes; 2],
    key: [Bytes; 2],
}

impl Tables {
    pub(crate) fn new(table: &Table) -> Tables {
        let alias = table.alias();
        let padded = |values: &[u16]| -> [u16; MAX_SYMBOLS] {
            let mut all = [0; MAX_SYMBOLS];
            all[..values.len()].copy_from_slice(values);
            all
        };
        let halves = |values: [u16; MAX_SYMBOLS]| [values.map(|v| v as u8), values.map(|v| (v >> 8) as u8)];
        Tables {
            threshold: alias.threshold.map(|threshold| threshold as u8),
            alias: alias.other,
            adjust: halves(alias.adjust),
            frequency: halves(padded(table.frequencies())),
            key: halves(padded(table.keys())),
        }
    }
}

/// The states of the lanes of a stream: the lower and the upper 16 bits, in two vectors each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    low: [__m256i; 2],
    high: [__m256i; 2],
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    pub(crate) fn load(states: &[u32; LANES]) -> Lanes {
        let mut halves = [[0u16; LANES]; 2];
        for (lane, state) in states.iter().enumerate() {
            halves[0][lane] = *state as u16;
            halves[1][lane] = (*state >> 16) as u16;
        }
        // SAFETY: a half is 64 bytes.
        let load = |half: &[u16; LANES]| unsafe {
            [_mm256_loadu_si256(half.as_ptr().cast()), _mm256_loadu_si256(half[LANES / 2..].as_ptr().cast())]
        };
        Lanes { low: load(&halves[0]), high: load(&halves[1]) }
    }

    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    pub(crate) fn store(self, states: &mut [u32; LANES]) {
        let mut halves = [[0u16; LANES]; 2];
        // SAFETY: a half is 64 bytes.
        let store = |half: &mut [u16; LANES], vectors: [__m256i; 2]| unsafe {
            _mm256_storeu_si256(half.as_mut_ptr().cast(), vectors[0]);
            _mm256_storeu_si256(half[LANES / 2..].as_mut_ptr().cast(), vectors[1]);
        };
        store(&mut halves[0], self.low);
        store(&mut halves[1], self.high);
        for (lane, state) in states.iter_mut().enumerate() {
            *state = u32::from(halves[0][lane]) | u32::from(halves[1][lane]) << 16;
        }
    }

    /// Takes the stream from one group to the next. Gives the keys, and advances `words` by what is taken.
    ///
    /// # Safety
    /// [`GROUP_WORDS_BYTES`] bytes can be read at `words`.
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    pub(crate) unsafe fn step(&mut self, tables: &Tables, words: &mut *const u8) -> [__m256i; 2] {
        const { assert!(GROUP_WORDS_BYTES == 4 * size_of::<__m128i>()) };
        // SAFETY: the caller's promises. Each quarter of the lanes reads 8 words, after no more than 8 for each before it.
        unsafe {
            let six_bits = _mm256_set1_epi16(63);
            let [low, high] = [self.low, self.high];
            let offset = [_mm256_and_si256(low[0], six_bits), _mm256_and_si256(low[1], six_bits)];
            let of_bucket = |low| _mm256_and_si256(_mm256_srli_epi16::<6>(low), six_bits);
            let bucket = Index::new(_mm256_packus_epi16(of_bucket(low[0]), of_bucket(low[1])));
            let own = _mm256_cmpgt_epi8(bucket.look_up(&tables.threshold), _mm256_packus_epi16(offset[0], offset[1]));
            let symbol = Index::new(_mm256_blendv_epi8(bucket.look_up(&tables.alias), bucket.at, own));
            let adjust = tables.adjust.each_ref().map(|half| _mm256_andnot_si256(own, bucket.look_up(half)));
            let adjust = unpacked(adjust);
            let frequency = symbol.look_up_numbers(&tables.frequency);
            let (mut next_low, mut next_high) = (low, high);
            let mut takes = low;
            for half in 0..2 {
                let rank = _mm256_add_epi16(offset[half], adjust[half]);
                // frequency * (state >> 12) + rank, of which the state above its slot has 16 bits and 4 more.
                let above = _mm256_or_si256(_mm256_slli_epi16::<4>(high[half]), _mm256_srli_epi16::<12>(low[half]));
                let sum = _mm256_add_epi16(_mm256_mullo_epi16(frequency[half], above), rank);
                let no_carry = _mm256_cmpeq_epi16(_mm256_max_epu16(sum, rank), sum);
                let from_high = _mm256_mullo_epi16(frequency[half], _mm256_srli_epi16::<12>(high[half]));
                let carried = _mm256_add_epi16(_mm256_mulhi_epu16(frequency[half], above), from_high);
                next_low[half] = sum;
                next_high[half] = _mm256_add_epi16(_mm256_add_epi16(carried, _mm256_set1_epi16(1)), no_carry);
                takes[half] = _mm256_cmpeq_epi16(next_high[half], _mm256_setzero_si256());
            }
            // States below 2^16 move up and take a word.
            let set = _mm256_movemask_epi8(_mm256_packs_epi16(takes[0], takes[1])) as u32;
            let quarters = [set & 0xff, set >> 16 & 0xff, set >> 8 & 0xff, set >> 24];
            let mut expanded = [_mm_setzero_si128(); 4];
            for (expanded, set) in expanded.iter_mut().zip(quarters) {
                let order = _mm_loadu_si128(EXPANSIONS[set as usize].as_ptr().cast());
                *expanded = _mm_shuffle_epi8(_mm_loadu_si128((*words).cast()), order);
                *words = words.add(set.count_ones() as usize * 2);
            }
            for half in 0..2 {
                let word = _mm256_set_m128i(expanded[2 * half + 1], expanded[2 * half]);
                self.high[half] = _mm256_blendv_epi8(next_high[half], next_low[half], takes[half]);
                self.low[half] = _mm256_blendv_epi8(next_low[half], word, takes[half]);
            }
            symbol.look_up_numbers(&tables.key)
        }
    }
}

/// Where to look, a byte a lane, each below 64.
#[derive(Clone, Copy)]
pub(crate) struct Index {
    at: __m256i,
    /// For each row of 16 bytes of a table where in it to look; the top bit is set where it is the wrong row.
    in_row: [__m256i; 4],
}

impl Index {
    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    pub(crate) fn new(at: __m256i) -> Index {
        let in_row =
            |row: i8| _mm256_adds_epu8(_mm256_xor_si256(at, _mm256_set1_epi8(row << 4)), _mm256_set1_epi8(0x70));
        Index { at, in_row: [in_row(0), in_row(1), in_row(2), in_row(3)] }
    }

    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    pub(crate) fn look_up(self, table: &Bytes) -> __m256i {
        let rows = table.as_chunks::<16>().0;
        let row = |row: usize| {
            // SAFETY: a row is as long as a vector of 128 bits.
            let bytes = unsafe { _mm_loadu_si128(rows[row].as_ptr().cast()) };
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), self.in_row[row])
        };
        _mm256_or_si256(_mm256_or_si256(row(0), row(1)), _mm256_or_si256(row(2), row(3)))
    }

    #[inline]
    #[target_feature(enable = "avx2,popcnt")]
    fn look_up_numbers(self, tables: &[Bytes; 2]) -> [__m256i; 2] {
        unpacked([self.look_up(&tables[0]), self.look_up(&tables[1])])
    }
}

/// Numbers of 16 bits from their lower and their upper bytes.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn unpacked(halves: [__m256i; 2]) -> [__m256i; 2] {
    [_mm256_unpacklo_epi8(halves[0], halves[1]), _mm256_unpackhi_epi8(halves[0], halves[1])]
}

/// For each set of eight lanes the order in which `pshufb` brings them the next words, in turn.
pub(crate) static EXPANSIONS: [[u8; 16]; 256] = {
    let mut orders = [[0x80; 16]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut word) = (0, 0);
        while lane < 8 {
            if set >> lane & 1 == 1 {
                orders[set][2 * lane] = 2 * word;
                orders[set][2 * lane + 1] = 2 * word + 1;
                word += 1;
            }
            lane += 1;
        }
        set += 1;
    }
    orders
};
