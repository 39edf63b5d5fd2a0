//! Decoding keys with AVX2, a quad at a time. Raw bits are added afterwards.

use std::arch::x86_64::*;

use super::prepared::Prepared;
use super::{Kernel, Layout, Scaled, upper_shift};
use crate::chunk::scale::QUAD;
use crate::error::Result;
use crate::rans::decode::avx2::{Lanes, Tables};
use crate::rans::decode::{Block, GROUP_WORDS_BYTES, stream_error};
use crate::rans::{LANES, MAX_STREAMS, Table};
use crate::split::Split;

/// Groups of a quad.
const GROUPS: usize = QUAD / LANES;

/// What the keys of a block are decoded with.
#[derive(Debug)]
pub(super) struct Avx2 {
    tables: Prepared<Tables>,
    split: Split,
}

impl Avx2 {
    /// # Safety
    /// The processor has AVX2, BMI2 and POPCNT.
    pub(super) unsafe fn new() -> Avx2 {
        Avx2 { tables: Prepared::default(), split: Split::of_bytes(0) }
    }
}

impl Kernel for Avx2 {
    const MERGES: bool = false;

    fn prepare(&mut self, split: Split, tables: &[Table]) {
        self.split = split;
        self.tables.prepare(tables, Tables::new);
    }

    fn quads(
        &self,
        block: &mut Block<'_>,
        first: usize,
        planes: Option<(&[u8], &Layout)>,
        scaled: Option<Scaled<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        debug_assert!(planes.is_none());
        let (tables, split) = (self.tables.current(), self.split);
        // SAFETY: who made `self` promised that the processor has what it takes.
        unsafe {
            match split.size() {
                1 => quads::<1>(tables, split, block, first, scaled, out),
                2 => quads::<2>(tables, split, block, first, scaled, out),
                _ => quads::<4>(tables, split, block, first, scaled, out),
            }
        }
    }
}

/// [`Kernel::quads`] for elements of `SIZE` bytes.
#[target_feature(enable = "avx2,popcnt,bmi1,bmi2")]
fn quads<const SIZE: usize>(
    tables: &[Tables],
    split: Split,
    block: &mut Block<'_>,
    first: usize,
    scaled: Option<Scaled<'_>>,
    out: &mut [u8],
) -> Result<()> {
    let shift = _mm_cvtsi64_si128(i64::from(upper_shift(split)));
    // Bytes without a sign need no mask: nothing is added to them.
    let magnitude = _mm256_set1_epi16(if SIZE == 1 { 0x7f } else { 0x7fff });
    let load = |stream: usize| Lanes::load(&block.states[stream]);
    let mut lanes: [Lanes; MAX_STREAMS] = [load(0), load(1), load(2), load(3)];
    let columns = scaled.and_then(|scaled| scaled.columns);
    let mut column =
        scaled.zip(columns).map_or(0, |(scaled, columns)| (scaled.column + first * QUAD) % columns.period());
    for (quad, out) in (first..).zip(out.chunks_exact_mut(QUAD * SIZE)) {
        let (mut phase, mut offset) = (0, _mm256_setzero_si256());
        if let Some(scaled) = &scaled {
            let quad = scaled.quads[quad];
            (phase, offset) = (usize::from(quad.phase), _mm256_set1_epi16(quad.offset as i16));
        }
        for (group, out) in out.chunks_exact_mut(LANES * SIZE).enumerate() {
            let stream = group % GROUPS % block.streams;
            let next = block.next[stream];
            let mut window = [0; GROUP_WORDS_BYTES];
            let words = match block.words[next..].first_chunk() {
                Some(words) => words,
                None => {
                    // Not enough words to read without care: a copy of them with zeros behind.
                    window[..block.words.len() - next].copy_from_slice(&block.words[next..]);
                    &window
                }
            };
            let mut end = words.as_ptr();
            // SAFETY: `words` are as many as a step reads.
            let keys = unsafe { lanes[stream].step(&tables[phase], &mut end) };
            block.next[stream] += end.addr() - words.as_ptr().addr();
            if block.next[stream] > block.words.len() {
                return Err(stream_error());
            }
            let mut uppers = keys.map(|keys| _mm256_sll_epi16(keys, shift));
            if let Some(columns) = columns {
                let offsets: &[u16; LANES] = columns.offsets()[column..].first_chunk().expect("there are as many more");
                for (upper, of_columns) in uppers.iter_mut().zip(offsets.as_chunks::<16>().0) {
                    // SAFETY: they are as long as a vector.
                    let of_columns = unsafe { _mm256_loadu_si256(of_columns.as_ptr().cast()) };
                    let sum = _mm256_add_epi16(_mm256_add_epi16(*upper, offset), of_columns);
                    *upper = _mm256_and_si256(sum, magnitude);
                }
                column += LANES;
                if column >= columns.period() {
                    column %= columns.period();
                }
            }
            // SAFETY: `out` has as many bytes as a group has: 32, 64 or 128.
            unsafe { store::<SIZE>(uppers, out.as_mut_ptr()) };
        }
    }
    for (lanes, states) in lanes.into_iter().zip(&mut block.states) {
        lanes.store(states);
    }
    Ok(())
}

/// Writes the elements of a group, of which these are the upper 16 bits, or the 8 they have; the lower ones are zero.
///
/// # Safety
/// `LANES * SIZE` bytes can be written at `out`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<const SIZE: usize>(uppers: [__m256i; 2], out: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let store = |at: usize, vector| _mm256_storeu_si256(out.add(at * 32).cast(), vector);
        match SIZE {
            1 => store(0, _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(uppers[0], uppers[1]))),
            2 => {
                store(0, uppers[0]);
                store(1, uppers[1]);
            }
            _ => {
                for (half, uppers) in uppers.into_iter().enumerate() {
                    let zero = _mm256_setzero_si256();
                    let (even, odd) = (_mm256_unpacklo_epi16(zero, uppers), _mm256_unpackhi_epi16(zero, uppers));
                    store(2 * half, _mm256_permute2x128_si256::<0x20>(even, odd));
                    store(2 * half + 1, _mm256_permute2x128_si256::<0x31>(even, odd));
                }
            }
        }
    }
}
