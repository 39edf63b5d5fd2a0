//! Decoding and merging with AVX-512 VBMI2.
//!
//! Groups are merged *in pairs*, as [`step`] decodes them: a vector has one byte of each element of the first group in
//! its even bytes and of the second in its odd ones. Each of the bytes of an element is put together on its own from
//! the key's share of it, looked up by symbol, and from the pieces of raw bits that belong there, each with one
//! `vpmultishiftqb`, which brings any eight adjacent bits to each byte, and one mask.

use std::arch::x86_64::*;
use std::ops::Range;

use super::pieces::{self, for_each_piece};
use super::prepared::Prepared;
use super::{Kernel, Layout, PAIR};
use crate::error::Result;
use crate::rans::decode::avx512vbmi2::{self as step, Bytes, Decoder, Lanes, ODD, Tables};
use crate::rans::decode::{Block, GROUP_WORDS_BYTES, stream_error};
use crate::rans::{LANES, MAX_STREAMS, Symbol, Table};
use crate::split::Split;
use crate::split::planes::VECTOR_BYTES;

/// The longest element in bytes.
const MAX_SIZE: usize = 4;

/// A piece of raw bits in a byte of the elements of a pair.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Which plane it comes from.
    field: usize,
    /// So many pairs share a vector of the plane, as a power of two; 0 too when each group has a vector of its own.
    log_pairs: u32,
    /// When each group has a vector of its own: the bytes of the second group.
    second: Option<__mmask64>,
    /// From which bit of its 64 each byte takes eight, for each of the pairs that share a vector.
    from: [Bytes; 8],
    /// Which bits of a byte belong to the piece.
    mask: Bytes,
}

/// How the lower 16 bits of an element of 32 come about.
mod low_half {
    /// They are zero.
    pub(super) const ZERO: u8 = 0;
    /// They are a plane.
    pub(super) const PLANE: u8 = 1;
    /// Byte by byte, as the upper ones do.
    pub(super) const BYTES: u8 = 2;
}

/// What elements of a certain split are put together from.
#[derive(Debug)]
struct Merge {
    /// The share of the key in each byte of an element, by symbol.
    keys: [Bytes; MAX_SIZE],
    /// The pieces of all bytes.
    pieces: Vec<Piece>,
    /// Those of each byte.
    of_byte: [Range<usize>; MAX_SIZE],
    /// One of [`low_half`].
    low_half: u8,
}

impl Merge {
    /// Whether `byte` of an element of `size` bytes is held with the second group in the even bytes, as
    /// [`step::parted`] wants lower bytes.
    fn exchanged(byte: usize, size: usize) -> bool {
        size > 1 && byte.is_multiple_of(2)
    }

    fn prepare(&mut self, split: Split, table: &Table) {
        let size = usize::from(split.width / 8);
        for (byte, keys) in self.keys.iter_mut().enumerate() {
            for (share, &key) in keys.0.iter_mut().zip(table.keys()) {
                *share = (u64::from(key) << split.shift >> (8 * byte)) as u8;
            }
        }
        self.low_half = low_half::BYTES;
        if size == 4 && split.shift >= 16 {
            // The key is in the upper half.
            let (mut whole, mut none) = (false, true);
            for_each_piece(split, 16, |piece| {
                whole |= (piece.to, piece.bits) == (0, 16);
                none &= piece.to >= 16;
            });
            if none {
                self.low_half = low_half::ZERO;
            } else if whole {
                self.low_half = low_half::PLANE;
            }
        }
        self.pieces.clear();
        // Smaller elements lack the upper bytes that those before may have had.
        self.of_byte = std::array::from_fn(|_| 0..0);
        for byte in 0..size {
            let start = self.pieces.len();
            for_each_piece(split, 8, |piece| {
                if piece.to / 8 == byte {
                    self.pieces.push(Piece::new(piece, Merge::exchanged(byte, size)));
                }
            });
            self.of_byte[byte] = start..self.pieces.len();
        }
    }
}

impl Piece {
    fn new(piece: pieces::Piece, exchanged: bool) -> Piece {
        let bit = piece.to % 8;
        let own_vectors = piece.width == 16;
        let log_pairs = if own_vectors { 0 } else { (8 / piece.width).ilog2() };
        let mut from = [Bytes([0; 64]); 8];
        for (pair, from) in from.iter_mut().enumerate().take(1 << log_pairs) {
            let group = |second| if own_vectors { 0 } else { (2 * pair + usize::from(second)) * piece.width };
            // Eight bits around those that it is about, which come to be where they belong; of 64, the first of which
            // follows the last.
            let start = |lane, byte| 64 + 16 * lane + group((byte == 1) != exchanged) + piece.from - bit;
            let of_lanes: [u8; 8] = std::array::from_fn(|at| (start(at / 2, at % 2) % 64) as u8);
            from.0.as_chunks_mut().0.fill(of_lanes);
        }
        let mask = ((1u16 << piece.bits) - 1) << bit;
        Piece {
            field: piece.field,
            log_pairs,
            second: own_vectors.then_some(if exchanged { !ODD } else { ODD }),
            from,
            mask: Bytes([mask as u8; 64]),
        }
    }
}

/// The planes, without their length.
#[derive(Clone, Copy, Debug)]
struct Planes<'a> {
    start: *const u8,
    layout: &'a Layout,
}

/// [`Merge`] with what fits in registers.
#[derive(Clone, Copy, Debug)]
struct Merger<'a> {
    keys: [__m512i; MAX_SIZE],
    pieces: [&'a [Piece]; MAX_SIZE],
}

impl<'a> Merger<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(merge: &'a Merge) -> Merger<'a> {
        let keys = [merge.keys[0].load(), merge.keys[1].load(), merge.keys[2].load(), merge.keys[3].load()];
        Merger { keys, pieces: merge.of_byte.clone().map(|range| &merge.pieces[range]) }
    }

    /// Makes the elements of a pair.
    ///
    /// # Safety
    /// `planes` hold the vectors of `pair` at the places that the layout says, and `PAIR * SIZE` bytes can be written at
    /// `out`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
    unsafe fn pair<const SIZE: usize, const LOW_HALF: u8>(
        &self,
        symbols: __m512i,
        planes: Planes<'_>,
        pair: usize,
        out: *mut u8,
    ) {
        // SAFETY: the caller's promise; each store is one of a pair's `PAIR * SIZE` bytes.
        unsafe {
            let store = |at: usize, vector| _mm512_storeu_si512(out.add(at * 64).cast(), vector);
            if SIZE == 1 {
                let elements = self.byte(0, symbols, planes, pair);
                store(0, _mm512_permutexvar_epi8(one_after_the_other(), elements));
                return;
            }
            let exchanged = step::exchanged(symbols);
            let upper =
                step::parted(self.byte(SIZE - 1, symbols, planes, pair), self.byte(SIZE - 2, exchanged, planes, pair));
            if SIZE == 2 {
                store(0, upper[0]);
                store(1, upper[1]);
                return;
            }
            let lower = match LOW_HALF {
                low_half::ZERO => [_mm512_setzero_si512(); 2],
                low_half::PLANE => {
                    // A plane of 16 bits is always the first.
                    let vectors = planes.start.add(pair * 2 * VECTOR_BYTES);
                    [_mm512_loadu_si512(vectors.cast()), _mm512_loadu_si512(vectors.add(VECTOR_BYTES).cast())]
                }
                _ => step::parted(self.byte(1, symbols, planes, pair), self.byte(0, exchanged, planes, pair)),
            };
            for group in 0..2 {
                let [first, second] = interleaved(lower[group], upper[group]);
                store(2 * group, first);
                store(2 * group + 1, second);
            }
        }
    }

    /// A byte of the elements of a pair.
    ///
    /// # Safety
    /// As [`pair`](Merger::pair).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
    unsafe fn byte(&self, byte: usize, symbols: __m512i, planes: Planes<'_>, pair: usize) -> __m512i {
        let mut bytes = _mm512_permutexvar_epi8(symbols, self.keys[byte]);
        for piece in self.pieces[byte] {
            // SAFETY: the vectors of the pair are where the layout says.
            let bits = unsafe {
                let plane = planes.start.add(planes.layout.offsets[piece.field]);
                let from = piece.from[pair & ((1 << piece.log_pairs) - 1)].load();
                if let Some(second) = piece.second {
                    let vectors = plane.add(2 * pair * VECTOR_BYTES);
                    let first = _mm512_multishift_epi64_epi8(from, _mm512_loadu_si512(vectors.cast()));
                    let vector = _mm512_loadu_si512(vectors.add(VECTOR_BYTES).cast());
                    _mm512_mask_multishift_epi64_epi8(first, second, from, vector)
                } else {
                    let vector = _mm512_loadu_si512(plane.add((pair >> piece.log_pairs) * VECTOR_BYTES).cast());
                    _mm512_multishift_epi64_epi8(from, vector)
                }
            };
            // bytes | bits & mask
            bytes = _mm512_ternarylogic_epi32(bytes, bits, piece.mask.load(), 0xf8);
        }
        bytes
    }
}

/// The permutation that puts the even bytes before the odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn one_after_the_other() -> __m512i {
    const ORDER: Bytes = {
        let mut order = [0; 64];
        let mut at = 0;
        while at < 64 {
            order[at] = (at % 32 * 2 + at / 32) as u8;
            at += 1;
        }
        Bytes(order)
    };
    ORDER.load()
}

/// The permutation that undoes [`one_after_the_other`].
#[inline]
#[target_feature(enable = "avx512f")]
fn in_turn() -> __m512i {
    const ORDER: Bytes = {
        let mut order = [0; 64];
        let mut at = 0;
        while at < 64 {
            order[at] = (at / 2 + at % 2 * 32) as u8;
            at += 1;
        }
        Bytes(order)
    };
    ORDER.load()
}

/// The 32 elements of 32 bits with these halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleaved(lower: __m512i, upper: __m512i) -> [__m512i; 2] {
    // Four elements in each 128 bits: 0 to 3, 8 to 11, ... and 4 to 7, 12 to 15, ...
    let (even, odd) = (_mm512_unpacklo_epi16(lower, upper), _mm512_unpackhi_epi16(lower, upper));
    [
        _mm512_permutex2var_epi64(even, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), odd),
        _mm512_permutex2var_epi64(even, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), odd),
    ]
}

/// What the elements of a block are decoded with.
#[derive(Debug)]
pub(super) struct Vbmi2 {
    tables: Prepared<Option<Tables>>,
    merge: Merge,
}

impl Vbmi2 {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL, VBMI and VBMI2.
    pub(super) unsafe fn new() -> Vbmi2 {
        let merge = Merge {
            keys: [Bytes([0; 64]); MAX_SIZE],
            pieces: Vec::new(),
            of_byte: std::array::from_fn(|_| 0..0),
            low_half: low_half::BYTES,
        };
        Vbmi2 { tables: Prepared::default(), merge }
    }
}

impl Kernel for Vbmi2 {
    fn prepare(&mut self, split: Split, table: &Table) -> bool {
        self.merge.prepare(split, table);
        self.tables.prepare(table, Tables::new).is_some()
    }

    fn elements(
        &self,
        split: Split,
        block: &mut Block<'_>,
        planes: &[u8],
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<()> {
        let tables = self.tables.current().as_ref().expect("it was said that there are no symbols to decode");
        let go = match (split.width, self.merge.low_half, block.streams) {
            (8, _, 1) => elements::<1, { low_half::BYTES }, 1>,
            (8, _, 2) => elements::<1, { low_half::BYTES }, 2>,
            (8, _, 4) => elements::<1, { low_half::BYTES }, 4>,
            (16, _, 1) => elements::<2, { low_half::BYTES }, 1>,
            (16, _, 2) => elements::<2, { low_half::BYTES }, 2>,
            (16, _, 4) => elements::<2, { low_half::BYTES }, 4>,
            (32, low_half::ZERO, 1) => elements::<4, { low_half::ZERO }, 1>,
            (32, low_half::ZERO, 2) => elements::<4, { low_half::ZERO }, 2>,
            (32, low_half::ZERO, 4) => elements::<4, { low_half::ZERO }, 4>,
            (32, low_half::PLANE, 1) => elements::<4, { low_half::PLANE }, 1>,
            (32, low_half::PLANE, 2) => elements::<4, { low_half::PLANE }, 2>,
            (32, low_half::PLANE, 4) => elements::<4, { low_half::PLANE }, 4>,
            (32, low_half::BYTES, 1) => elements::<4, { low_half::BYTES }, 1>,
            (32, low_half::BYTES, 2) => elements::<4, { low_half::BYTES }, 2>,
            (32, low_half::BYTES, 4) => elements::<4, { low_half::BYTES }, 4>,
            (width, _, streams) => unreachable!("{streams} streams of elements of {width} bits"),
        };
        // SAFETY: who made `self` promised that the processor has what it takes.
        unsafe { go(tables, &self.merge, block, planes, layout, out) }
    }

    fn symbols(&self, block: &mut Block<'_>, symbols: &mut [Symbol]) -> Result<()> {
        match self.tables.current() {
            // SAFETY: who made `self` promised that the processor has what it takes.
            Some(tables) => unsafe { decode_symbols(tables, block, symbols) },
            None => {
                symbols.fill(0);
                Ok(())
            }
        }
    }

    fn merge(&self, split: Split, symbols: &[Symbol], pair: usize, planes: &[u8], layout: &Layout, out: &mut [u8]) {
        let go = match (split.width, self.merge.low_half) {
            (8, _) => merge::<1, { low_half::BYTES }>,
            (16, _) => merge::<2, { low_half::BYTES }>,
            (_, low_half::ZERO) => merge::<4, { low_half::ZERO }>,
            (_, low_half::PLANE) => merge::<4, { low_half::PLANE }>,
            (..) => merge::<4, { low_half::BYTES }>,
        };
        // SAFETY: who made `self` promised that the processor has what it takes.
        unsafe { go(&self.merge, symbols, pair, planes, layout, out) }
    }
}

/// [`Kernel::elements`] for `STREAMS` streams of elements of `SIZE` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn elements<const SIZE: usize, const LOW_HALF: u8, const STREAMS: usize>(
    tables: &Tables,
    merge: &Merge,
    block: &mut Block<'_>,
    planes: &[u8],
    layout: &Layout,
    out: &mut [u8],
) -> Result<()> {
    // The pairs that are decoded together, and the bytes of words that each stream takes for them at most.
    let at_once = STREAMS.div_ceil(2);
    let most = 2 * at_once / STREAMS * GROUP_WORDS_BYTES;

    let pairs = out.len() / (PAIR * SIZE);
    assert!(out.len().is_multiple_of(at_once * PAIR * SIZE) && layout.groups_within(planes.len()) >= 2 * pairs);
    let planes = Planes { start: planes.as_ptr(), layout };
    let out = out.as_mut_ptr();
    let decoder = Decoder::load(tables);
    let merger = Merger::load(merge);
    let mut lanes = [Lanes::load(&block.states[0]); STREAMS];
    for (lanes, states) in lanes.iter_mut().zip(&block.states) {
        *lanes = Lanes::load(states);
    }
    let mut next: [usize; STREAMS] = block.next[..STREAMS].try_into().expect("there are so many streams");

    let mut pair = 0;
    while pair < pairs {
        let left = next.iter().map(|next| block.words.len() - next).min().expect("there is a stream");
        let safe = (left / most * at_once).min(pairs - pair);
        for pair in (pair..pair + safe).step_by(at_once) {
            let words = next.map(|next| block.words.as_ptr().wrapping_add(next));
            // SAFETY: `most` bytes are left for each stream, after all those that the pairs before can have taken. The
            // planes and the output are long enough for all pairs, as asserted above.
            let taken = unsafe {
                let out = out.add(pair * PAIR * SIZE);
                advance::<SIZE, LOW_HALF, STREAMS>(&decoder, &merger, &mut lanes, words, planes, pair, out)
            };
            next.iter_mut().zip(taken).for_each(|(next, taken)| *next += taken);
        }
        pair += safe;
        if safe == 0 {
            // Not enough words to do without care: a copy of them with zeros behind.
            let windows = next.map(|next| window(block.words, next));
            let words = windows.each_ref().map(|window| window.as_ptr());
            // SAFETY: a window has `most` bytes, or more; planes and output as above.
            let taken = unsafe {
                let out = out.add(pair * PAIR * SIZE);
                advance::<SIZE, LOW_HALF, STREAMS>(&decoder, &merger, &mut lanes, words, planes, pair, out)
            };
            for (next, taken) in next.iter_mut().zip(taken) {
                *next += taken;
                if *next > block.words.len() {
                    return Err(stream_error());
                }
            }
            pair += at_once;
        }
    }

    block.next[..STREAMS].copy_from_slice(&next);
    for (lanes, states) in lanes.iter().zip(&mut block.states) {
        lanes.store(states);
    }
    Ok(())
}

/// Twice the words that a group can take, from `next` on; zeros behind the last.
fn window(words: &[u8], next: usize) -> [u8; 2 * GROUP_WORDS_BYTES] {
    let mut window = [0; 2 * GROUP_WORDS_BYTES];
    let rest = &words[next..];
    let len = rest.len().min(window.len());
    window[..len].copy_from_slice(&rest[..len]);
    window
}

/// Decodes and merges the groups from `pair` on: one of each stream, or two of a lone one. Gives the bytes of words that
/// each stream took.
///
/// # Safety
/// [`GROUP_WORDS_BYTES`] bytes can be read at each of `words`, or twice as many where there is one stream; for `planes`
/// and `out` as [`Merger::pair`], for all pairs that are decoded.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn advance<const SIZE: usize, const LOW_HALF: u8, const STREAMS: usize>(
    decoder: &Decoder,
    merger: &Merger<'_>,
    lanes: &mut [Lanes; STREAMS],
    words: [*const u8; STREAMS],
    planes: Planes<'_>,
    pair: usize,
    out: *mut u8,
) -> [usize; STREAMS] {
    let mut taken = [0; STREAMS];
    // SAFETY: the caller's promises. The second group of a lone stream takes its words behind those of the first, which
    // are no more than `GROUP_WORDS_BYTES`.
    unsafe {
        if let [lanes] = &mut lanes[..] {
            let (first, taken_first) = decoder.one(lanes, words[0]);
            let (second, taken_second) = decoder.one(lanes, words[0].add(taken_first));
            taken[0] = taken_first + taken_second;
            merger.pair::<SIZE, LOW_HALF>(step::joined(first, second), planes, pair, out);
        } else {
            let (lanes, _) = lanes.as_chunks_mut();
            let (words, _) = words.as_chunks();
            let (taken, _) = taken.as_chunks_mut();
            for (at, (([first, second], words), taken)) in lanes.iter_mut().zip(words).zip(taken).enumerate() {
                let symbols;
                (symbols, *taken) = decoder.pair(first, second, *words);
                merger.pair::<SIZE, LOW_HALF>(symbols, planes, pair + at, out.add(at * PAIR * SIZE));
            }
        }
    }
    taken
}

/// [`Kernel::symbols`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn decode_symbols(tables: &Tables, block: &mut Block<'_>, symbols: &mut [Symbol]) -> Result<()> {
    let decoder = Decoder::load(tables);
    let mut lanes = [Lanes::load(&block.states[0]); MAX_STREAMS];
    for (lanes, states) in lanes.iter_mut().zip(&block.states) {
        *lanes = Lanes::load(states);
    }
    for (group, symbols) in symbols.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let stream = group % block.streams;
        let next = block.next[stream];
        let window;
        let words = match block.words.get(next..next + GROUP_WORDS_BYTES) {
            Some(words) => words.as_ptr(),
            None => {
                window = self::window(block.words, next);
                window.as_ptr()
            }
        };
        // SAFETY: both are long enough.
        let (decoded, taken) = unsafe { decoder.one(&mut lanes[stream], words) };
        block.next[stream] += taken;
        if block.next[stream] > block.words.len() {
            return Err(stream_error());
        }
        let decoded = _mm512_cvtepi16_epi8(_mm512_and_si512(decoded, _mm512_set1_epi16(0x3f)));
        // SAFETY: `symbols` has 32 bytes.
        unsafe { _mm256_storeu_si256(symbols.as_mut_ptr().cast(), decoded) };
    }
    for (lanes, states) in lanes.iter().zip(&mut block.states).take(block.streams) {
        lanes.store(states);
    }
    Ok(())
}

/// [`Kernel::merge`] for elements of `SIZE` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
fn merge<const SIZE: usize, const LOW_HALF: u8>(
    merge: &Merge,
    symbols: &[Symbol],
    first: usize,
    planes: &[u8],
    layout: &Layout,
    out: &mut [u8],
) {
    let (symbols, rest) = symbols.as_chunks::<PAIR>();
    assert!(rest.is_empty() && out.len() == symbols.len() * PAIR * SIZE);
    assert!(layout.groups_within(planes.len()) / 2 >= first + symbols.len());
    let planes = Planes { start: planes.as_ptr(), layout };
    let merger = Merger::load(merge);
    for ((pair, symbols), out) in (first..).zip(symbols).zip(out.chunks_exact_mut(PAIR * SIZE)) {
        // SAFETY: `symbols` has 64 bytes; planes and output are long enough for all pairs, as asserted above.
        unsafe {
            let symbols = _mm512_loadu_si512(symbols.as_ptr().cast());
            merger.pair::<SIZE, LOW_HALF>(_mm512_permutexvar_epi8(in_turn(), symbols), planes, pair, out.as_mut_ptr());
        }
    }
}
