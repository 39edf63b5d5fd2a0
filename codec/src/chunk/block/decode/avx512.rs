//! Decoding and merging with AVX-512, a quad at a time: its four groups belong to four streams, or to fewer in turn.
//!
//! Keys come out of the entropy decoder in lanes of 16 bits, as the upper 16 bits of an element have them. Raw bits are
//! shifted and masked into the same lanes, field by field; elements of 32 bits have a second vector for their lower
//! halves. All arithmetic of normalisation is in the upper 16 bits. Where there is VBMI2, elements of 8 bits are worked on
//! two groups at once, those of the first in the even bytes of a vector.

use std::arch::x86_64::*;

use super::prepared::Prepared;
use super::{Kernel, Layout, Scaled, upper_shift};
use crate::chunk::scale::QUAD;
use crate::error::Result;
use crate::rans::decode::avx512::{self as lanes, Lanes, One};
use crate::rans::decode::avx512vbmi2::{self as pairs, joined};
use crate::rans::decode::{Block, GROUP_WORDS_BYTES, stream_error};
use crate::rans::{LANES, Table};
use crate::split::Split;
use crate::split::planes::{MAX_FIELDS, VECTOR_BYTES};

/// The widths of fields, each at its place in the arrays below.
const WIDTHS: [usize; MAX_FIELDS] = [16, 8, 4, 2, 1];

/// Groups of a quad.
const GROUPS: usize = QUAD / LANES;

/// How far ahead of what is worked on memory is fetched, in bytes: of the output, which is written fastest, and of the rest.
/// What chunks lie in is rarely in a cache, and processors do not look ahead beyond a page of it by themselves.
const OUT_AHEAD: usize = 2048;
const STORED_AHEAD: usize = 1024;

/// A table made ready.
#[derive(Debug)]
struct Ready {
    lanes: lanes::Tables,
    pairs: pairs::Tables,
}

/// Whether a table can be made ready: that of a single symbol cannot, since its frequency does not fit in 16 bits here.
pub(super) fn can_decode(table: &Table) -> bool {
    table.keys().len() > 1
}

/// How keys are decoded.
trait Keys {
    /// Whether the processor has VBMI2.
    const VBMI2: bool;

    /// Takes the streams of these numbers from one group to the next, the second after the first if they are the same. Gives
    /// the keys, shifted as the tables have them; `words` advance by what is taken.
    ///
    /// # Safety
    /// The processor has what the module is named after, and VBMI2 if [`VBMI2`](Keys::VBMI2) says so.
    /// [`GROUP_WORDS_BYTES`] bytes can be read at `words` for each group.
    unsafe fn pair<const STREAMS: usize>(
        tables: &Ready,
        streams: [usize; 2],
        lanes: &mut [Lanes; STREAMS],
        words: &mut [*const u8; STREAMS],
        one: One,
    ) -> [__m512i; 2];

    /// The same for keys of a byte, those of the first group in the even bytes.
    ///
    /// # Safety
    /// As [`pair`](Keys::pair); the processor has VBMI2.
    #[inline(always)]
    unsafe fn bytes<const STREAMS: usize>(
        tables: &Ready,
        streams: [usize; 2],
        lanes: &mut [Lanes; STREAMS],
        words: &mut [*const u8; STREAMS],
        one: One,
    ) -> __m512i {
        // SAFETY: the caller's promises.
        unsafe {
            let [first, second] = Self::pair(tables, streams, lanes, words, one);
            joined(first, second)
        }
    }
}

/// One stream after the other.
struct OneByOne<const VBMI2: bool>;

impl<const VBMI2: bool> Keys for OneByOne<VBMI2> {
    const VBMI2: bool = VBMI2;

    #[inline(always)]
    unsafe fn pair<const STREAMS: usize>(
        tables: &Ready,
        [first, second]: [usize; 2],
        lanes: &mut [Lanes; STREAMS],
        words: &mut [*const u8; STREAMS],
        one: One,
    ) -> [__m512i; 2] {
        // SAFETY: the caller's promises.
        unsafe {
            let first = lanes::step::<VBMI2>(&tables.lanes, &mut lanes[first], &mut words[first], one);
            [first, lanes::step::<VBMI2>(&tables.lanes, &mut lanes[second], &mut words[second], one)]
        }
    }
}

/// Two streams at once.
struct Paired;

impl Paired {
    /// # Safety
    /// As [`Keys::pair`]; the streams are different.
    #[inline(always)]
    unsafe fn step<const STREAMS: usize>(
        tables: &Ready,
        [first, second]: [usize; 2],
        lanes: &mut [Lanes; STREAMS],
        words: &mut [*const u8; STREAMS],
        one: One,
    ) -> pairs::Symbols {
        // Copies that are not reached by way of a reference, to stay in registers.
        let (mut one_lanes, mut other_lanes) = (lanes[first], lanes[second]);
        let (mut one_words, mut other_words) = (words[first], words[second]);
        // SAFETY: the caller's promises.
        let symbols = unsafe {
            let (lanes, words) = ([&mut one_lanes, &mut other_lanes], [&mut one_words, &mut other_words]);
            pairs::step(&tables.pairs, lanes, words, one)
        };
        (lanes[first], lanes[second]) = (one_lanes, other_lanes);
        (words[first], words[second]) = (one_words, other_words);
        symbols
    }
}

impl Keys for Paired {
    const VBMI2: bool = true;

    #[inline(always)]
    unsafe fn pair<const STREAMS: usize>(
        tables: &Ready,
        streams: [usize; 2],
        lanes: &mut [Lanes; STREAMS],
        words: &mut [*const u8; STREAMS],
        one: One,
    ) -> [__m512i; 2] {
        // SAFETY: the caller's promises.
        unsafe { Paired::step(tables, streams, lanes, words, one).keys(&tables.pairs) }
    }

    #[inline(always)]
    unsafe fn bytes<const STREAMS: usize>(
        tables: &Ready,
        streams: [usize; 2],
        lanes: &mut [Lanes; STREAMS],
        words: &mut [*const u8; STREAMS],
        one: One,
    ) -> __m512i {
        // SAFETY: the caller's promises.
        unsafe { Paired::step(tables, streams, lanes, words, one).key_bytes(&tables.pairs) }
    }
}

/// What the elements of a block are decoded with.
#[derive(Debug)]
pub(super) struct Avx512 {
    /// Whether the processor has VBMI2 too.
    vbmi2: bool,
    /// For each position that keys are shifted to, since tables hold shifted ones.
    tables: [Prepared<Ready>; 16],
    split: Split,
}

impl Avx512 {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL, and VBMI2 if `vbmi2` says so.
    pub(super) unsafe fn new(vbmi2: bool) -> Avx512 {
        Avx512 { vbmi2, tables: Default::default(), split: Split::of_bytes(0) }
    }
}

impl Kernel for Avx512 {
    const MERGES: bool = true;

    fn prepare(&mut self, split: Split, tables: &[Table]) {
        self.split = split;
        let shift = upper_shift(split);
        self.tables[shift as usize].prepare(tables, |table| Ready {
            lanes: lanes::Tables::new(table, shift),
            pairs: pairs::Tables::new(table, shift),
        });
    }

    fn quads(
        &self,
        block: &mut Block<'_>,
        first: usize,
        planes: Option<(&[u8], &Layout)>,
        scaled: Option<Scaled<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        let tables = self.tables[upper_shift(self.split) as usize].current();
        let job = Job { tables, first, planes, scaled };
        match (self.vbmi2, block.streams) {
            (true, 1) => choose::<OneByOne<true>, 1>(&job, self.split, block, out),
            (true, 2) => choose::<Paired, 2>(&job, self.split, block, out),
            (true, 4) => choose::<Paired, 4>(&job, self.split, block, out),
            (false, 1) => choose::<OneByOne<false>, 1>(&job, self.split, block, out),
            (false, 2) => choose::<OneByOne<false>, 2>(&job, self.split, block, out),
            (false, 4) => choose::<OneByOne<false>, 4>(&job, self.split, block, out),
            (_, streams) => unreachable!("{streams} streams are for the definition"),
        }
    }
}

/// What is to be done.
struct Job<'a> {
    tables: &'a [Ready],
    first: usize,
    planes: Option<(&'a [u8], &'a Layout)>,
    scaled: Option<Scaled<'a>>,
}

impl Job<'_> {
    /// The plane of the field of [`WIDTHS`] that has this number, if there is one.
    fn plane(&self, number: usize) -> *const u8 {
        let Some((bytes, layout)) = self.planes else { return std::ptr::null() };
        let plane = layout.planes().find(|(field, _)| field.width == WIDTHS[number]);
        plane.map_or(std::ptr::null(), |(_, offset)| bytes[offset..].as_ptr())
    }
}

/// What elements look like: a [`Split`] in as few numbers as merging needs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Bytes of an element.
    size: usize,
    /// Bits below the key that are not stored.
    zeros: usize,
    /// Raw bits, the sign included; none where there are no planes.
    raw: usize,
    signed: bool,
}

/// Common ones, for each of which there is a path: BF16; F16; F32, with 7 zero bits, with those of BF16; F8_E4M3 and bytes of
/// Q8_0; F8_E5M2; bytes that are keys and nothing else.
const COMMON: [Shape; 8] = {
    const fn float(size: usize, zeros: usize, raw: usize) -> Shape {
        Shape { size, zeros, raw, signed: true }
    }
    [
        float(2, 0, 6),
        float(2, 0, 9),
        float(4, 0, 22),
        float(4, 7, 15),
        float(4, 16, 6),
        float(1, 0, 2),
        float(1, 0, 1),
        Shape { size: 1, zeros: 0, raw: 0, signed: false },
    ]
};

/// How the quads of a block differ: not at all, in their tables alone, or in these and in what was taken from their elements.
mod quads_differ {
    pub(super) const NOT: usize = 0;
    pub(super) const IN_TABLES: usize = 1;
    pub(super) const IN_SCALE: usize = 2;
}

/// A path: [`Kernel::quads`] for a certain shape.
type Path = unsafe fn(&Job<'_>, Shape, &mut Block<'_>, &mut [u8]) -> Result<()>;

/// Chooses the path for the elements, [`COMMON`] ones or any.
fn choose<K: Keys, const STREAMS: usize>(
    job: &Job<'_>,
    split: Split,
    block: &mut Block<'_>,
    out: &mut [u8],
) -> Result<()> {
    let raw = if job.planes.is_some() { usize::from(split.raw_bits()) } else { 0 };
    let shape = Shape { size: split.size(), zeros: usize::from(split.zeros), raw, signed: split.signed };
    // Small chunks have one stream: no need to make paths for them.
    let common = COMMON.iter().position(|&common| common == shape).filter(|_| STREAMS > 1);
    macro_rules! paths {
        ($quads:ident: $($path:literal)*; in tables: $($of_tables:literal)*) => {
            match (common, job.scaled.map(|scaled| scaled.columns.is_some())) {
                $((Some($path), None) => $quads::<K, STREAMS, { quads_differ::NOT }, $path> as Path,
                (Some($path), Some(true)) => $quads::<K, STREAMS, { quads_differ::IN_SCALE }, $path>,)*
                $((Some($of_tables), Some(false)) => $quads::<K, STREAMS, { quads_differ::IN_TABLES }, $of_tables>,)*
                (_, None) => $quads::<K, STREAMS, { quads_differ::NOT }, { COMMON.len() }>,
                (_, Some(true)) => $quads::<K, STREAMS, { quads_differ::IN_SCALE }, { COMMON.len() }>,
                (_, Some(false)) => $quads::<K, STREAMS, { quads_differ::IN_TABLES }, { COMMON.len() }>,
            }
        };
    }
    let path = if K::VBMI2 {
        paths!(quads_vbmi2: 0 1 2 3 4 5 6 7; in tables: 5 7)
    } else {
        paths!(quads_avx512: 0 1 2 3 4 5 6 7; in tables: 5 7)
    };
    // SAFETY: jobs are made where the processor has what it takes.
    unsafe { path(job, shape, block, out) }
}

/// The planes of a block and the shape of its elements. (Passed by value: what is reached by way of a reference does not
/// stay in registers.)
#[derive(Clone, Copy)]
struct Merger {
    /// The plane of each of [`WIDTHS`] that there is.
    planes: [*const u8; MAX_FIELDS],
    shape: Shape,
}

/// The vectors of planes that hold the raw bits of a quad, for each of [`WIDTHS`] that there is: the one of its first group,
/// shifted so that this has the lowest bits.
type Vectors = [__m512i; MAX_FIELDS];

impl Merger {
    #[inline(always)]
    fn new(job: &Job<'_>, shape: Shape) -> Merger {
        // Not a loop: an index that is not constant would keep it all in memory.
        Merger { planes: [job.plane(0), job.plane(1), job.plane(2), job.plane(3), job.plane(4)], shape }
    }

    /// Loads what of the raw bits of quad number `quad` lies in one vector for all of it.
    ///
    /// # Safety
    /// The processor has what the module is named after; the planes have vectors for the quad.
    #[inline(always)]
    unsafe fn load(self, quad: usize) -> Vectors {
        // SAFETY: the caller's promises.
        unsafe {
            let vector = |field: usize, at: usize| _mm512_loadu_si512(self.planes[field].add(at * VECTOR_BYTES).cast());
            let shifted = |vector, bits: usize| _mm512_srl_epi16(vector, _mm_cvtsi64_si128(bits as i64));
            let zero = _mm512_setzero_si512();
            let has = |field: usize| self.shape.raw & WIDTHS[field] != 0;
            [
                zero,
                zero,
                if has(2) { vector(2, quad) } else { zero },
                if has(3) { shifted(vector(3, quad / 2), quad % 2 * 8) } else { zero },
                if has(4) { shifted(vector(4, quad / 4), quad % 4 * 4) } else { zero },
            ]
        }
    }

    /// Puts the raw bits of a group of the quad that [`load`](Merger::load) was asked for into the 16 bits of its elements
    /// that begin at bit `half`; `lanes` are what is there, and the second vector given has nothing but the sign, in the top
    /// bit.
    ///
    /// # Safety
    /// As [`load`](Merger::load).
    #[inline(always)]
    unsafe fn put<K: Keys>(
        self,
        lanes: __m512i,
        vectors: Vectors,
        place: (usize, usize),
        half: usize,
    ) -> (__m512i, __m512i) {
        // SAFETY: the caller's promises.
        unsafe {
            // Not a loop, which the compiler would keep, with everything in memory.
            let lanes = (lanes, _mm512_setzero_si512());
            let lanes = self.put_field::<K, 0>(lanes, vectors, place, half);
            let lanes = self.put_field::<K, 1>(lanes, vectors, place, half);
            let lanes = self.put_field::<K, 2>(lanes, vectors, place, half);
            let lanes = self.put_field::<K, 3>(lanes, vectors, place, half);
            self.put_field::<K, 4>(lanes, vectors, place, half)
        }
    }

    /// The same for one of [`WIDTHS`], if there is such a field.
    ///
    /// # Safety
    /// As [`load`](Merger::load).
    #[inline(always)]
    unsafe fn put_field<K: Keys, const FIELD: usize>(
        self,
        (mut lanes, mut sign): (__m512i, __m512i),
        vectors: Vectors,
        (quad, group): (usize, usize),
        half: usize,
    ) -> (__m512i, __m512i) {
        let Shape { size, zeros, raw, signed } = self.shape;
        let width = WIDTHS[FIELD];
        if raw & width == 0 {
            return (lanes, sign);
        }
        // Wider fields are below it in the raw bits, narrower ones above.
        let (at, is_last) = (raw & !(2 * width - 1), raw & (width - 1) == 0);
        // SAFETY: the caller's promises.
        unsafe {
            // The vector, and where in its lanes the field is.
            let (vector, from) = match width {
                16 => {
                    let vector = self.planes[FIELD].add((quad * GROUPS + group) * VECTOR_BYTES);
                    (_mm512_loadu_si512(vector.cast()), 0)
                }
                8 => {
                    let vector = self.planes[FIELD].add((quad * GROUPS + group) / 2 * VECTOR_BYTES);
                    (_mm512_loadu_si512(vector.cast()), group % 2 * 8)
                }
                width => (vectors[FIELD], group * width),
            };
            let bits = if is_last && signed { width - 1 } else { width };
            let mask = ((1u32 << bits) - 1) << (at + zeros) >> half & 0xffff;
            if K::VBMI2 && is_last && signed && size > 1 && half == 8 * (size - 2) && mask != 0 && mask <= 0xff {
                // The sign goes to the upper byte and the other bits to the lower one, in one instruction.
                let to = (at + zeros) as isize - half as isize;
                let moved = eight_bits(vector, [(from, to), (from + width - 1, 7)]);
                lanes = _mm512_ternarylogic_epi32(lanes, moved, _mm512_set1_epi16(mask as i16), 0xf8);
                return (lanes, moved);
            }
            if mask != 0 {
                let moved = shifted(vector, (at + zeros) as isize - (half + from) as isize);
                // lanes | moved & mask
                lanes = _mm512_ternarylogic_epi32(lanes, moved, _mm512_set1_epi16(mask as i16), 0xf8);
            }
            if is_last && signed {
                let top = if size == 1 { 7 } else { 15 };
                sign = shifted(vector, top - (from + width - 1) as isize);
            }
            (lanes, sign)
        }
    }
}

impl Merger {
    /// Makes the elements of a group from their keys, what was taken from them (if `DIFFER` says so) and their raw bits, and writes
    /// them to `out`.
    ///
    /// # Safety
    /// As [`load`](Merger::load); a group can be written at `out`.
    #[inline(always)]
    unsafe fn store<K: Keys, const DIFFER: usize>(
        self,
        keys: __m512i,
        taken: __m512i,
        vectors: Vectors,
        place: (usize, usize),
        out: *mut u8,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            let Shape { size, signed, .. } = self.shape;
            let half = if size == 4 { 16 } else { 0 };
            let (mut upper, sign) = self.put::<K>(keys, vectors, place, half);
            if DIFFER == quads_differ::IN_SCALE {
                upper = _mm512_add_epi16(upper, taken);
            }
            if signed {
                let magnitude = _mm512_set1_epi16(if size == 1 { 0x7f } else { 0x7fff });
                // The bits of `upper` where `magnitude` has any, else those of `sign`.
                upper = _mm512_ternarylogic_epi32(magnitude, upper, sign, 0xca);
            }
            match size {
                1 => _mm256_storeu_si256(out.cast(), _mm512_cvtepi16_epi8(upper)),
                2 => _mm512_storeu_si512(out.cast(), upper),
                _ => {
                    let (lower, _) = self.put::<K>(_mm512_setzero_si512(), vectors, place, 0);
                    let [first, second] = interleaved(lower, upper);
                    _mm512_storeu_si512(out.cast(), first);
                    _mm512_storeu_si512(out.add(64).cast(), second);
                }
            }
        }
    }
}

impl Merger {
    /// Makes the elements of a pair of groups, of a byte each, from their keys, what was taken from them (if `DIFFER` says so) and
    /// their raw bits, and writes them to `out`. Those of the first group are in the even bytes.
    ///
    /// # Safety
    /// As [`load`](Merger::load); the processor has VBMI2; a pair can be written at `out`.
    #[inline(always)]
    unsafe fn store_bytes<const DIFFER: usize>(
        self,
        keys: __m512i,
        taken: __m512i,
        vectors: Vectors,
        place: (usize, usize),
        out: *mut u8,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            let bytes = (keys, _mm512_setzero_si512());
            let bytes = self.put_bytes::<1>(bytes, vectors, place);
            let bytes = self.put_bytes::<2>(bytes, vectors, place);
            let bytes = self.put_bytes::<3>(bytes, vectors, place);
            let (mut bytes, sign) = self.put_bytes::<4>(bytes, vectors, place);
            if DIFFER == quads_differ::IN_SCALE {
                bytes = _mm512_add_epi8(bytes, taken);
            }
            if self.shape.signed {
                // The bits of `bytes` where the first has any, else those of `sign`.
                bytes = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x7f), bytes, sign, 0xca);
            }
            _mm512_storeu_si512(out.cast(), _mm512_permutexvar_epi8(one_after_the_other(), bytes));
        }
    }

    /// [`put_field`](Merger::put_field) for a pair of groups of elements of a byte. (None of them has a field of 16 bits.)
    ///
    /// # Safety
    /// As [`load`](Merger::load); the processor has VBMI2.
    #[inline(always)]
    unsafe fn put_bytes<const FIELD: usize>(
        self,
        (mut bytes, mut sign): (__m512i, __m512i),
        vectors: Vectors,
        (quad, pair): (usize, usize),
    ) -> (__m512i, __m512i) {
        let Shape { zeros, raw, signed, .. } = self.shape;
        let width = WIDTHS[FIELD];
        if raw & width == 0 {
            return (bytes, sign);
        }
        let (to, is_last) = ((raw & !(2 * width - 1)) + zeros, raw & (width - 1) == 0);
        // SAFETY: the caller's promises.
        unsafe {
            // The vector, and where in its lanes the fields of both groups are.
            let (vector, from) = match width {
                8 => {
                    let vector = self.planes[FIELD].add((quad * GROUPS / 2 + pair) * VECTOR_BYTES);
                    (_mm512_loadu_si512(vector.cast()), 0)
                }
                width => (vectors[FIELD], 2 * pair * width),
            };
            let bits = if is_last && signed { width - 1 } else { width };
            if bits > 0 {
                let moved = eight_bits(vector, [(from, to as isize), (from + width, to as isize)]);
                let mask = _mm512_set1_epi8((((1u32 << bits) - 1) << to) as i8);
                bytes = _mm512_ternarylogic_epi32(bytes, moved, mask, 0xf8);
            }
            if is_last && signed {
                let from = from + width - 1;
                sign = eight_bits(vector, [(from, 7), (from + width, 7)]);
            }
            (bytes, sign)
        }
    }

    /// Fetches the planes and the output some quads ahead.
    #[inline(always)]
    fn fetch(self, quad: usize, out: *mut u8) {
        let Shape { size, raw, .. } = self.shape;
        // Not a loop, as above.
        macro_rules! plane {
            ($field:literal) => {{
                let bytes = GROUPS * WIDTHS[$field] * VECTOR_BYTES / 16;
                if raw & WIDTHS[$field] != 0 {
                    let plane = self.planes[$field].wrapping_add(quad * bytes + STORED_AHEAD);
                    (0..bytes).step_by(VECTOR_BYTES).for_each(|at| fetch(plane.wrapping_add(at)));
                }
            }};
        }
        plane!(0);
        plane!(1);
        plane!(2);
        plane!(3);
        plane!(4);
        for at in (0..QUAD * size).step_by(VECTOR_BYTES) {
            // SAFETY: fetching does nothing that one could see, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(out.wrapping_add(OUT_AHEAD + at).cast()) };
        }
    }
}

/// Fetches what is there, if there is anything, into the caches.
#[inline(always)]
fn fetch(address: *const u8) {
    // SAFETY: fetching does nothing that one could see, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// Moves bits of each lane of 16 bits into its two bytes: for each of these the position in the lane of a bit, and that in
/// the byte (or below it) where it comes to be, with those around it.
///
/// # Safety
/// The processor has what the module is named after, and VBMI2.
#[inline(always)]
unsafe fn eight_bits(lanes: __m512i, bytes: [(usize, isize); 2]) -> __m512i {
    // For each byte the first of its eight bits, of the 64 around it, which are taken as a circle.
    let [even, odd] = bytes.map(|(from, to)| 64 + from as isize - to);
    let first = [even, odd, even + 16, odd + 16, even + 32, odd + 32, even + 48, odd + 48];
    let first = i64::from_le_bytes(first.map(|first| (first % 64) as u8));
    // SAFETY: the caller's promise.
    unsafe { _mm512_multishift_epi64_epi8(_mm512_set1_epi64(first), lanes) }
}

/// The permutation that puts the even bytes before the odd ones.
///
/// # Safety
/// The processor has what the module is named after.
#[inline(always)]
unsafe fn one_after_the_other() -> __m512i {
    #[repr(align(64))]
    struct Order([u8; 64]);
    static ORDER: Order = {
        let mut order = [0; 64];
        let mut at = 0;
        while at < 64 {
            order[at] = (at % 32 * 2 + at / 32) as u8;
            at += 1;
        }
        Order(order)
    };
    // SAFETY: the caller's promise; it is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(ORDER.0.as_ptr().cast()) }
}

/// Lanes of 16 bits moved up by so many bits, or down if that is negative.
///
/// # Safety
/// The processor has what the module is named after.
#[inline(always)]
unsafe fn shifted(lanes: __m512i, up: isize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let count = _mm_cvtsi64_si128(up.unsigned_abs() as i64);
        if up < 0 { _mm512_srl_epi16(lanes, count) } else { _mm512_sll_epi16(lanes, count) }
    }
}

/// [`quads`] with VBMI2.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,popcnt,bmi1,bmi2")]
fn quads_vbmi2<K: Keys, const STREAMS: usize, const DIFFER: usize, const COMMON_SHAPE: usize>(
    job: &Job<'_>,
    shape: Shape,
    block: &mut Block<'_>,
    out: &mut [u8],
) -> Result<()> {
    // SAFETY: the features are enabled here.
    unsafe { quads::<K, STREAMS, DIFFER, COMMON_SHAPE>(job, shape, block, out) }
}

/// [`quads`] without.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt,bmi1,bmi2")]
fn quads_avx512<K: Keys, const STREAMS: usize, const DIFFER: usize, const COMMON_SHAPE: usize>(
    job: &Job<'_>,
    shape: Shape,
    block: &mut Block<'_>,
    out: &mut [u8],
) -> Result<()> {
    // SAFETY: as above.
    unsafe { quads::<K, STREAMS, DIFFER, COMMON_SHAPE>(job, shape, block, out) }
}

/// [`Kernel::quads`] for so many streams and for elements of the [`COMMON`] shape of that number; beyond those for any.
///
/// # Safety
/// The processor has what the module is named after, and VBMI2 if `K` says so.
#[inline(always)]
unsafe fn quads<K: Keys, const STREAMS: usize, const DIFFER: usize, const COMMON_SHAPE: usize>(
    job: &Job<'_>,
    shape: Shape,
    block: &mut Block<'_>,
    out: &mut [u8],
) -> Result<()> {
    let shape = if COMMON_SHAPE < COMMON.len() { COMMON[COMMON_SHAPE] } else { shape };
    let quad_bytes = QUAD * shape.size;
    let count = out.len() / quad_bytes;
    assert!(out.len().is_multiple_of(quad_bytes) && (DIFFER != quads_differ::NOT || job.tables.len() == 1));
    if let Some((planes, layout)) = job.planes {
        assert!(layout.groups_within(planes.len()) >= (job.first + count) * GROUPS);
    }
    // The bytes of words that a stream takes for a quad at most.
    let most = GROUPS / STREAMS * GROUP_WORDS_BYTES;
    let merger = Merger::new(job, shape);
    // SAFETY: the caller's promise.
    let (mut lanes, one): ([Lanes; STREAMS], _) =
        unsafe { (std::array::from_fn(|stream| Lanes::load(&block.states[stream])), One::new()) };
    let mut tables = &job.tables[0];
    let quads_of = |scaled: Scaled<'_>| {
        let quads = &scaled.quads[job.first..job.first + count];
        // Not `all`, which would look at one after the other.
        assert!(quads.iter().map(|quad| usize::from(quad.phase)).max() < Some(job.tables.len()));
        quads.as_ptr()
    };
    let differing = job.scaled.filter(|_| DIFFER != quads_differ::NOT).map(quads_of);
    let scaled = job.scaled.filter(|_| DIFFER == quads_differ::IN_SCALE);
    let mut columns = scaled.and_then(|scaled| Some((scaled, scaled.columns?))).map(|(scaled, columns)| OfColumns {
        offsets: columns.offsets().as_ptr(),
        period: columns.period(),
        column: (scaled.column + job.first * QUAD) % columns.period(),
    });

    let mut done = 0;
    while done < count {
        let next: [usize; STREAMS] = std::array::from_fn(|stream| block.next[stream]);
        let left = next.iter().map(|next| block.words.len() - next).min().expect("there is a stream");
        // As many as there are words for in any case, or one, with zeros behind the words.
        let mut windows = [[0; GROUPS * GROUP_WORDS_BYTES]; STREAMS];
        let (starts, end) = if left >= most {
            (next.map(|next| block.words[next..].as_ptr()), count.min(done + left / most))
        } else {
            for (window, next) in windows.iter_mut().zip(next) {
                let rest = &block.words[next..];
                let len = rest.len().min(window.len());
                window[..len].copy_from_slice(&rest[..len]);
            }
            (windows.each_ref().map(|window| window.as_ptr()), done + 1)
        };
        // Copies that are not reached by way of a reference, to stay in registers.
        let (mut running, mut words) = (lanes, starts);
        while done < end {
            // SAFETY: `words` have `most` bytes for each quad that can be decoded from them. Planes and output are long enough
            // for all quads, as asserted above, and there are as many of `differing`.
            unsafe {
                let quad = job.first + done;
                let out = out.as_mut_ptr().add(done * quad_bytes);
                let mut offset = _mm512_setzero_si512();
                if let Some(quads) = differing {
                    let scale = *quads.add(done);
                    offset = _mm512_set1_epi16(scale.offset as i16);
                    tables = job.tables.get_unchecked(usize::from(scale.phase));
                }
                merger.fetch(quad, out);
                words.iter().for_each(|words| fetch(words.wrapping_add(STORED_AHEAD)));
                let vectors = merger.load(quad);
                // Not a loop, which the compiler might keep, with the states in memory.
                macro_rules! pair {
                    ($pair:literal) => {{
                        let groups = [2 * $pair, 2 * $pair + 1];
                        let streams = groups.map(|group| group % STREAMS);
                        let mut taken = || match &mut columns {
                            Some(columns) => _mm512_add_epi16(offset, columns.next()),
                            None => _mm512_setzero_si512(),
                        };
                        let out = out.add(groups[0] * LANES * shape.size);
                        if K::VBMI2 && shape.size == 1 {
                            let keys = K::bytes(tables, streams, &mut running, &mut words, one);
                            let taken = joined(taken(), taken());
                            merger.store_bytes::<DIFFER>(keys, taken, vectors, (quad, $pair), out);
                        } else {
                            let keys = K::pair(tables, streams, &mut running, &mut words, one);
                            merger.store::<K, DIFFER>(keys[0], taken(), vectors, (quad, groups[0]), out);
                            let out = out.add(LANES * shape.size);
                            merger.store::<K, DIFFER>(keys[1], taken(), vectors, (quad, groups[1]), out);
                        }
                    }};
                }
                pair!(0);
                pair!(1);
            }
            done += 1;
        }
        lanes = running;
        for ((next, words), start) in block.next.iter_mut().zip(words).zip(starts) {
            *next += words.addr() - start.addr();
            if *next > block.words.len() {
                return Err(stream_error());
            }
        }
    }
    for (lanes, states) in lanes.iter().zip(&mut block.states) {
        // SAFETY: the caller's promise.
        unsafe { lanes.store(states) };
    }
    Ok(())
}

/// What was taken from the columns, with what a loop needs at hand.
struct OfColumns {
    offsets: *const u16,
    period: usize,
    /// The column of the next element, below `period`.
    column: usize,
}

impl OfColumns {
    /// The offsets of the columns of the next group.
    ///
    /// # Safety
    /// The processor has what the module is named after; there are [`LANES`] more columns than the period is long.
    #[inline(always)]
    unsafe fn next(&mut self) -> __m512i {
        // SAFETY: the caller's promise.
        let offsets = unsafe { _mm512_loadu_si512(self.offsets.add(self.column).cast()) };
        self.column += LANES;
        if self.column >= self.period {
            // Of a short period several may have passed.
            self.column -= self.period;
            if self.column >= self.period {
                self.column %= self.period;
            }
        }
        offsets
    }
}

/// The 32 elements of 32 bits with these halves.
///
/// # Safety
/// The processor has what the module is named after.
#[inline(always)]
unsafe fn interleaved(lower: __m512i, upper: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        // Four elements in each 128 bits: 0 to 3, 8 to 11, ... and 4 to 7, 12 to 15, ...
        let (even, odd) = (_mm512_unpacklo_epi16(lower, upper), _mm512_unpackhi_epi16(lower, upper));
        [
            _mm512_permutex2var_epi64(even, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), odd),
            _mm512_permutex2var_epi64(even, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), odd),
        ]
    }
}
