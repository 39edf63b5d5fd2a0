//! Decoding elements of 8 and 16 bits with AVX-512, 32 at a time in lanes of 16 bits: one group of each of two streams.
//!
//! Keys are [searched for](super::search) in registers. The states of two streams are two vectors, of their lower and of their upper
//! halves, and those of all streams stay in registers from the first run to the last, so that the chain from state to state, which is
//! what takes the time, is as short as it can be, and two of them go on at once.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::Streams;
use super::search::{MAX_QUADS, Numbers, Search};
use crate::chunk::delta::step::Kind;
use crate::chunk::delta::{GROUPS, LANES, RUN};

/// Elements that are worked on at once.
const WIDE: usize = 2 * LANES;

/// A register of the numbers, the first or a later one.
///
/// # Safety
/// The processor has AVX-512 F; there are as many.
#[inline(always)]
unsafe fn register<const COUNT: usize>(numbers: &Numbers<COUNT>, number: usize) -> __m512i {
    // SAFETY: the caller's promises; numbers are aligned as registers are.
    unsafe { _mm512_load_si512(numbers.0.as_ptr().add(32 * number).cast()) }
}

/// The same reference, of which the compiler does not know that it is.
#[inline(always)]
fn hidden(search: &Search) -> &Search {
    let mut address: *const Search = search;
    // SAFETY: this does nothing.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) address, options(readonly, nostack, preserves_flags)) };
    // SAFETY: it is what it was.
    unsafe { &*address }
}

/// Looks up 64 numbers.
///
/// # Safety
/// The processor has AVX-512 BW.
#[inline(always)]
unsafe fn look_up(numbers: &Numbers<64>, at: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_permutex2var_epi16(register(numbers, 0), at, register(numbers, 1)) }
}

/// Looks up what is known of quads: 64 of them, or all if they are `WIDE`, where `upper` says which of the indices are 64 or more.
///
/// # Safety
/// The processor has AVX-512 BW.
#[inline(always)]
unsafe fn look_up_quads<const ALL: bool>(numbers: &Numbers<MAX_QUADS>, at: __m512i, upper: __mmask32) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_permutex2var_epi16(register(numbers, 0), at, register(numbers, 1));
        if !ALL {
            return low;
        }
        let high = _mm512_permutex2var_epi16(register(numbers, 2), at, register(numbers, 3));
        _mm512_mask_mov_epi16(low, upper, high)
    }
}

/// The states of two streams and where their next words are.
#[derive(Clone, Copy)]
struct Pair {
    low: __m512i,
    high: __m512i,
    words: [*const u8; 2],
}

impl Pair {
    /// Gives each lane of `take` the next word of its stream.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL, and VBMI2 if `VBMI2` says so; 32 bytes can be read at the words of both.
    #[inline(always)]
    unsafe fn refill<const VBMI2: bool>(&mut self, low: __m512i, high: __m512i) {
        // SAFETY: the caller's promises.
        unsafe {
            let take = _mm512_testn_epi16_mask(high, high);
            let halves = [take as u16, (take >> 16) as u16];
            let mut expanded = [_mm256_setzero_si256(); 2];
            for stream in 0..2 {
                let words = _mm256_loadu_si256(self.words[stream].cast());
                expanded[stream] = if VBMI2 {
                    _mm256_maskz_expand_epi16(halves[stream], words)
                } else {
                    let words = _mm512_maskz_expand_epi32(halves[stream], _mm512_cvtepu16_epi32(words));
                    _mm512_cvtepi32_epi16(words)
                };
                self.words[stream] = self.words[stream].add(2 * halves[stream].count_ones() as usize);
            }
            let words = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(expanded[0]), expanded[1]);
            self.high = _mm512_mask_mov_epi16(high, take, low);
            self.low = _mm512_mask_mov_epi16(low, take, words);
        }
    }
}

/// What all elements have in common.
#[derive(Clone, Copy)]
struct Format {
    sign: __m512i,
    mantissa: __m128i,
    unused: __m128i,
    /// A 1 in each lane, of which the compiler does not know that it is: it would make additions in some lanes two instructions.
    one: __m512i,
}

/// Decodes the whole runs that have these codes, of elements of 8 or 16 bits in 2 or 4 streams. Stops early when a stream has come to
/// its end too soon, which its position tells then.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and VBMI2 if `vbmi2` says so.
pub(super) unsafe fn runs(
    kind: Kind,
    search: &Search,
    streams: &mut Streams<'_>,
    origin: i16,
    (codes, base, out): (&[u8], &[u8], &mut [u8]),
    vbmi2: bool,
) {
    macro_rules! with {
        ($name:ident, $feature:literal, $vbmi2:literal) => {{
            #[target_feature(enable = $feature)]
            unsafe fn $name<const PAIRS: usize, const ALL: bool>(
                kind: Kind,
                search: &Search,
                streams: &mut Streams<'_>,
                origin: i16,
                runs: (&[u8], &[u8], &mut [u8]),
            ) {
                // SAFETY: the caller's promises.
                unsafe { runs_of::<PAIRS, ALL, $vbmi2>(kind, search, streams, origin, runs) }
            }
            let runs = (codes, base, out);
            // SAFETY: the caller's promises.
            unsafe {
                match (streams.count, search.is_wide) {
                    (2, false) => $name::<1, false>(kind, search, streams, origin, runs),
                    (2, true) => $name::<1, true>(kind, search, streams, origin, runs),
                    (4, false) => $name::<2, false>(kind, search, streams, origin, runs),
                    (4, true) => $name::<2, true>(kind, search, streams, origin, runs),
                    _ => unreachable!("only 2 and 4 streams are decoded so"),
                }
            }
        }};
    }
    if vbmi2 {
        with!(with_vbmi2, "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2", true)
    } else {
        with!(without_vbmi2, "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi1,bmi2", false)
    }
}

/// The same for so many pairs of streams.
///
/// # Safety
/// As [`runs`].
#[inline(always)]
unsafe fn runs_of<const PAIRS: usize, const ALL: bool, const VBMI2: bool>(
    kind: Kind,
    search: &Search,
    streams: &mut Streams<'_>,
    origin: i16,
    (codes, base, out): (&[u8], &[u8], &mut [u8]),
) {
    let run_bytes = RUN * kind.size();
    assert!(base.len() == codes.len() * run_bytes && out.len() == base.len() && kind.width <= 16);
    // No stream reads more of the words in a run than the padding behind them has, as long as it began where it may.
    assert!(streams.ends.iter().all(|&end| end + super::PADDING <= streams.words.len()));
    // SAFETY: runs are inside of `base` and `out`; each begins only if no stream is beyond its end, and is then followed by the
    // padding; indices of registers are cut to what there is by the processor.
    unsafe {
        let format = Format {
            sign: _mm512_set1_epi16((1u16 << (kind.width - 1)) as i16),
            mantissa: _mm_cvtsi32_si128(kind.mantissa as i32),
            unused: _mm_cvtsi32_si128(16 - kind.width as i32),
            one: _mm512_set1_epi16(black_box(1)),
        };
        let first_word = streams.words.as_ptr();
        let mut pairs = [load(streams, 0); PAIRS];
        for (number, pair) in pairs.iter_mut().enumerate() {
            *pair = load(streams, number);
        }
        let mut ends = [[first_word; 2]; PAIRS];
        for (number, ends) in ends.iter_mut().enumerate() {
            *ends = [first_word.add(streams.ends[2 * number]), first_word.add(streams.ends[2 * number + 1])];
        }
        let mut at = 0;
        while at < codes.len() {
            let (base, out) = (base.as_ptr().add(at * run_bytes), out.as_mut_ptr().add(at * run_bytes));
            if codes[at] == 0 {
                let same = codes[at..].iter().take_while(|&&code| code == 0).count();
                std::ptr::copy_nonoverlapping(base, out, same * run_bytes);
                at += same;
                continue;
            }
            let place = _mm512_set1_epi16(origin.saturating_add(codes[at].into()));
            for round in 0..GROUPS / (2 * PAIRS) {
                let first = round * PAIRS * WIDE * kind.size();
                round_of::<PAIRS, ALL, VBMI2>(kind, format, search, &mut pairs, place, base.add(first), out.add(first));
            }
            let mut is_over = false;
            for (pair, ends) in pairs.iter().zip(&ends) {
                is_over |= pair.words[0] > ends[0] || pair.words[1] > ends[1];
            }
            if is_over {
                break;
            }
            at += 1;
        }
        for (number, pair) in pairs.into_iter().enumerate() {
            store(streams, number, pair);
        }
    }
}

/// Decodes a group of each stream.
///
/// # Safety
/// As [`runs_of`].
#[inline(always)]
unsafe fn round_of<const PAIRS: usize, const ALL: bool, const VBMI2: bool>(
    kind: Kind,
    format: Format,
    search: &Search,
    pairs: &mut [Pair; PAIRS],
    place: __m512i,
    base: *const u8,
    out: *mut u8,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let at = |number: usize| number * WIDE * kind.size();
        // The two are taken step by step, since what waits for a step of one would keep the other out of the processor's sight. There are no
        // loops, which the compiler would keep, with the states in memory; and it would load all tables into registers, of which there are
        // not as many, and from there onto the stack.
        let mut first = Elements::new(kind, format, search, pairs[0], place, base);
        let mut second = first;
        if PAIRS > 1 {
            second = Elements::new(kind, format, search, pairs[1], place, base.add(at(1)));
        }
        first.find_node(hidden(search));
        if PAIRS > 1 {
            second.find_node(hidden(search));
        }
        first.find_quad(hidden(search), format);
        if PAIRS > 1 {
            second.find_quad(hidden(search), format);
        }
        let first_bounds = first.find_key::<ALL>(hidden(search));
        let mut second_bounds = first_bounds;
        if PAIRS > 1 {
            second_bounds = second.find_key::<ALL>(hidden(search));
        }
        first.advance::<VBMI2>(format, &mut pairs[0], first_bounds);
        let mut any = first.bits;
        if PAIRS > 1 {
            second.advance::<VBMI2>(format, &mut pairs[1], second_bounds);
            any = _mm512_or_si512(any, second.bits);
        }
        if _mm512_test_epi16_mask(any, any) != 0 {
            first.take_bits::<VBMI2>(&mut pairs[0]);
            if PAIRS > 1 {
                second.take_bits::<VBMI2>(&mut pairs[1]);
            }
        }
        first.store(kind, format, out);
        if PAIRS > 1 {
            second.store(kind, format, out.add(at(1)));
        }
    }
}

/// Elements on their way, 32 of two streams.
#[derive(Clone, Copy)]
struct Elements {
    /// Those of the base.
    base: __m512i,
    /// The slots, as bounds are.
    slot: __m512i,
    /// What is known of where their keys are: their tables, nodes, quads, and the keys themselves at last.
    at: __m512i,
    /// How many bits belong to each key, and these.
    bits: __m512i,
    extra: __m512i,
}

impl Elements {
    /// The elements of the base and the tables that theirs are in.
    ///
    /// # Safety
    /// As [`runs_of`].
    #[inline(always)]
    unsafe fn new(
        kind: Kind,
        format: Format,
        search: &Search,
        pair: Pair,
        place: __m512i,
        base: *const u8,
    ) -> Elements {
        // SAFETY: the caller's promises.
        unsafe {
            let base = if kind.width == 16 {
                _mm512_loadu_si512(base.cast())
            } else {
                _mm512_cvtepu8_epi16(_mm256_loadu_si256(base.cast()))
            };
            let exponent = _mm512_srl_epi16(_mm512_andnot_si512(format.sign, base), format.mantissa);
            let context = _mm512_subs_epi16(place, exponent);
            let zero = _mm512_setzero_si512();
            let context = _mm512_max_epi16(_mm512_min_epi16(context, _mm512_set1_epi16(63)), zero);
            Elements {
                base,
                slot: _mm512_slli_epi16::<4>(pair.low),
                at: look_up(&search.tables, context),
                bits: zero,
                extra: zero,
            }
        }
    }

    /// Finds the nodes.
    ///
    /// # Safety
    /// As [`runs_of`].
    #[inline(always)]
    unsafe fn find_node(&mut self, search: &Search) {
        // SAFETY: the caller's promises.
        unsafe {
            let table = self.at;
            for node in &search.nodes {
                let above = _mm512_cmplt_epu16_mask(_mm512_permutexvar_epi16(table, register(node, 0)), self.slot);
                self.at = _mm512_mask_add_epi16(self.at, above, self.at, _mm512_set1_epi16(16));
            }
        }
    }

    /// Finds the quads.
    ///
    /// # Safety
    /// As [`runs_of`].
    #[inline(always)]
    unsafe fn find_quad(&mut self, search: &Search, format: Format) {
        // SAFETY: the caller's promises.
        unsafe {
            let at = self.at;
            let mut quad = look_up(&search.first_quad, at);
            for bounds in &search.quads {
                let above = _mm512_cmplt_epu16_mask(look_up(bounds, at), self.slot);
                quad = _mm512_mask_add_epi16(quad, above, quad, format.one);
            }
            self.at = quad;
        }
    }

    /// Finds the keys. Gives the bounds that the slots lie between.
    ///
    /// # Safety
    /// As [`runs_of`].
    #[inline(always)]
    unsafe fn find_key<const ALL: bool>(&mut self, search: &Search) -> [__m512i; 2] {
        // SAFETY: the caller's promises.
        unsafe {
            let (quad, slot) = (self.at, self.slot);
            let upper = if ALL { _mm512_test_epi16_mask(quad, _mm512_set1_epi16(64)) } else { 0 };
            let [first, second, third, fourth, end] = &search.keys;
            let second = look_up_quads::<ALL>(second, quad, upper);
            let third = look_up_quads::<ALL>(third, quad, upper);
            let fourth = look_up_quads::<ALL>(fourth, quad, upper);
            let begin = look_up_quads::<ALL>(first, quad, upper);
            let end = look_up_quads::<ALL>(end, quad, upper);
            let is_second = _mm512_cmplt_epu16_mask(second, slot);
            let is_third = _mm512_cmplt_epu16_mask(third, slot);
            let is_fourth = _mm512_cmplt_epu16_mask(fourth, slot);
            let begin = _mm512_mask_mov_epi16(begin, is_second, second);
            let begin = _mm512_mask_mov_epi16(begin, is_third, third);
            let begin = _mm512_mask_mov_epi16(begin, is_fourth, fourth);
            let end = _mm512_mask_mov_epi16(fourth, is_fourth, end);
            let end = _mm512_mask_mov_epi16(third, is_third, end);
            let end = _mm512_mask_mov_epi16(second, is_second, end);
            let first_key = look_up_quads::<ALL>(&search.first_key, quad, upper);
            let key = _mm512_add_epi16(first_key, _mm512_and_si512(begin, _mm512_set1_epi16(15)));
            self.at = key;
            self.bits = _mm512_subs_epu16(_mm512_srli_epi16::<2>(key), _mm512_set1_epi16(1));
            [begin, end]
        }
    }

    /// Takes the keys out of the lanes.
    ///
    /// # Safety
    /// As [`runs_of`].
    #[inline(always)]
    unsafe fn advance<const VBMI2: bool>(self, format: Format, pair: &mut Pair, [begin, end]: [__m512i; 2]) {
        // SAFETY: the caller's promises.
        unsafe {
            let Pair { low, high, .. } = *pair;
            // The next state is frequency * (state >> 12) + rank: see `rans::decode::avx512`. The frequency is 16 times what it is.
            let above_key = _mm512_set1_epi16(!15);
            let begin = _mm512_and_si512(begin, above_key);
            let frequency = _mm512_and_si512(_mm512_sub_epi16(end, begin), above_key);
            let rank =
                _mm512_srli_epi16::<4>(_mm512_add_epi16(self.slot, _mm512_xor_si512(begin, _mm512_set1_epi16(-1))));
            let above_slot = _mm512_and_si512(low, _mm512_set1_epi16(0xf000_u16 as i16));
            let from_low = _mm512_add_epi16(_mm512_mulhi_epu16(frequency, above_slot), rank);
            let next_low = _mm512_add_epi16(_mm512_mullo_epi16(frequency, high), from_low);
            let carry = _mm512_cmplt_epu16_mask(next_low, from_low);
            let next_high = _mm512_mulhi_epu16(frequency, high);
            let next_high = _mm512_mask_add_epi16(next_high, carry, next_high, format.one);
            // Where a table has but one key, its frequency is 2^16 here, which is 0, and the state stays what it is.
            let single = _mm512_testn_epi16_mask(frequency, frequency);
            let next_low = _mm512_mask_mov_epi16(next_low, single, low);
            let next_high = _mm512_mask_mov_epi16(next_high, single, high);
            pair.refill::<VBMI2>(next_low, next_high);
        }
    }

    /// Takes the bits.
    ///
    /// # Safety
    /// As [`runs_of`].
    #[inline(always)]
    unsafe fn take_bits<const VBMI2: bool>(&mut self, pair: &mut Pair) {
        // SAFETY: the caller's promises.
        unsafe {
            let Pair { low, high, .. } = *pair;
            let mask = _mm512_sllv_epi16(_mm512_set1_epi16(-1), self.bits);
            self.extra = _mm512_andnot_si512(mask, low);
            let shifted = if VBMI2 {
                _mm512_shrdv_epi16(low, high, self.bits)
            } else {
                // Shifts by 16 give 0.
                let from_high = _mm512_sllv_epi16(high, _mm512_sub_epi16(_mm512_set1_epi16(16), self.bits));
                _mm512_or_si512(_mm512_srlv_epi16(low, self.bits), from_high)
            };
            pair.refill::<VBMI2>(shifted, _mm512_srlv_epi16(high, self.bits));
        }
    }

    /// Stores the elements that are so far from those of the base.
    ///
    /// # Safety
    /// As [`runs_of`].
    #[inline(always)]
    unsafe fn store(self, kind: Kind, format: Format, out: *mut u8) {
        // SAFETY: the caller's promises.
        unsafe {
            let moved = moved(format, self.base, self.at, self.bits, self.extra);
            if kind.width == 16 {
                _mm512_storeu_si512(out.cast(), moved);
            } else {
                _mm256_storeu_si256(out.cast(), _mm512_cvtepi16_epi8(moved));
            }
        }
    }
}

/// The elements that are so far from those of the base.
///
/// # Safety
/// The processor has AVX-512 BW.
#[inline(always)]
unsafe fn moved(format: Format, base: __m512i, keys: __m512i, bits: __m512i, extra: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let (one, two) = (_mm512_set1_epi16(1), _mm512_set1_epi16(2));
        let bucket = _mm512_srli_epi16::<1>(keys);
        let lead = _mm512_or_si512(_mm512_and_si512(bucket, one), two);
        let least = _mm512_sllv_epi16(lead, bits);
        let least = _mm512_mask_mov_epi16(least, _mm512_cmplt_epu16_mask(bucket, two), bucket);
        let size = _mm512_add_epi16(least, extra);
        let difference = _mm512_mask_sub_epi16(size, _mm512_test_epi16_mask(keys, one), _mm512_setzero_si512(), size);
        let magnitude = _mm512_andnot_si512(format.sign, base);
        let place = _mm512_sll_epi16(_mm512_add_epi16(magnitude, difference), format.unused);
        let place = _mm512_sra_epi16(place, format.unused);
        let fold = _mm512_andnot_si512(format.sign, _mm512_srai_epi16::<15>(place));
        _mm512_xor_si512(_mm512_xor_si512(place, fold), _mm512_and_si512(base, format.sign))
    }
}

/// The lanes of two streams.
///
/// # Safety
/// The processor has AVX-512 BW; there are such streams.
#[inline(always)]
unsafe fn load(streams: &Streams<'_>, pair: usize) -> Pair {
    // SAFETY: the caller's promises.
    unsafe {
        let states: [__m512i; 2] = [
            _mm512_loadu_si512(streams.states[2 * pair].as_ptr().cast()),
            _mm512_loadu_si512(streams.states[2 * pair + 1].as_ptr().cast()),
        ];
        let joined = |first, second| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
        let word = |stream: usize| streams.words.as_ptr().add(streams.next[2 * pair + stream]);
        Pair {
            low: joined(_mm512_cvtepi32_epi16(states[0]), _mm512_cvtepi32_epi16(states[1])),
            high: joined(
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(states[0])),
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(states[1])),
            ),
            words: [word(0), word(1)],
        }
    }
}

/// Puts the lanes of two streams back.
///
/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store(streams: &mut Streams<'_>, pair: usize, from: Pair) {
    // SAFETY: the caller's promises.
    unsafe {
        let (mut low, mut high) = ([0u16; WIDE], [0u16; WIDE]);
        _mm512_storeu_si512(low.as_mut_ptr().cast(), from.low);
        _mm512_storeu_si512(high.as_mut_ptr().cast(), from.high);
        for lane in 0..WIDE {
            let state = u32::from(low[lane]) | u32::from(high[lane]) << 16;
            streams.states[2 * pair + lane / LANES][lane % LANES] = state;
        }
        for stream in 0..2 {
            streams.next[2 * pair + stream] = from.words[stream].addr() - streams.words.as_ptr().addr();
        }
    }
}
