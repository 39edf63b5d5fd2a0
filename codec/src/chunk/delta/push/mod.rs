//! The entropy coder of differences: codes, keys and bits become states and words. The definition, and the same in vectors.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::encode::{DeltaCoder, Measured};
use super::step::{Kind, extra_bits};
use super::{GROUPS, KEYS, LANES, MAX_STREAMS, RUN};
use crate::rans::STATE_MIN;
use crate::rans::encode::Coding;
use crate::simd::Level;

/// States, and words in front of which the next ones go: rANS is last in, first out.
pub(super) struct Pushed<'a> {
    /// Those that decoding begins with.
    pub(super) states: [[u32; LANES]; MAX_STREAMS],
    words: &'a mut [u16],
    /// The words that there is room for in each stream, and where in its part they begin.
    most: usize,
    begins: [usize; MAX_STREAMS],
    streams: usize,
}

impl<'a> Pushed<'a> {
    /// Nothing so far, in so many streams, with room for so many elements, in whole runs, and a code for each run.
    pub(super) fn new(streams: usize, elements: usize, kind: Kind, words: &'a mut Vec<u16>) -> Pushed<'a> {
        // A key, and bits of which no more than 16 are pushed at a time; and a group of codes that was filled up.
        let pushes = if kind.width == 32 { 3 } else { 2 };
        let most = elements / streams * pushes + (elements / RUN).next_multiple_of(LANES) + LANES;
        if words.len() < most * streams {
            words.resize(most * streams, 0);
        }
        let states = [[STATE_MIN; LANES]; MAX_STREAMS];
        Pushed { states, words: &mut words[..most * streams], most, begins: [most; MAX_STREAMS], streams }
    }

    /// The words of a stream, in the order in which they are read.
    pub(super) fn words_of(&self, stream: usize) -> &[u16] {
        &self.words[stream * self.most + self.begins[stream]..(stream + 1) * self.most]
    }

    /// The lanes of the stream of a group, its part of the words, and where those begin.
    #[inline(always)]
    fn stream(&mut self, group: usize) -> (&mut [u32; LANES], &mut [u16], &mut usize) {
        let stream = group % self.streams;
        let words = &mut self.words[stream * self.most..(stream + 1) * self.most];
        (&mut self.states[stream], words, &mut self.begins[stream])
    }
}

/// Takes a word from a state if `emits`. Whether it does is close to a coin's toss: a word that is written and not kept costs less than a
/// branch.
#[inline(always)]
fn emit(state: &mut u32, emits: bool, words: &mut [u16], begin: &mut usize) {
    words[*begin - 1] = *state as u16;
    *begin -= usize::from(emits);
    *state >>= if emits { 16 } else { 0 };
}

/// Adds a symbol to a state.
#[inline(always)]
fn push_symbol(state: &mut u32, coding: Coding, words: &mut [u16], begin: &mut usize) {
    emit(state, coding.emits(*state), words, begin);
    let (high, slot) = coding.add(*state);
    *state = high | slot;
}

/// Adds the low `count` bits, at most 16, to a state.
#[inline(always)]
fn push_bits(state: &mut u32, bits: u32, count: u32, words: &mut [u16], begin: &mut usize) {
    emit(state, u64::from(*state) << count > u64::from(u32::MAX), words, begin);
    *state = *state << count | bits & ((1 << count) - 1);
}

/// Codes everything, the last first.
pub(super) fn push_all(
    coder: &DeltaCoder,
    measured: &Measured,
    codes: &[u8],
    places: &[u16],
    pushed: &mut Pushed<'_>,
    level: Level,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only given where the processor has what it stands for.
        Level::Avx512 | Level::Avx512Vbmi2 => unsafe { avx512::push_runs(coder, measured, codes, places, pushed) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { avx2::push_runs(coder, measured, codes, places, pushed) },
        _ => push_runs(coder, measured, codes, places, pushed),
    }
    for (group, codes) in codes.chunks(LANES).enumerate().rev() {
        let (states, words, begin) = pushed.stream(group);
        for lane in (0..LANES).rev() {
            let code = codes.get(lane).copied().unwrap_or(coder.codes.stand_in);
            push_symbol(&mut states[lane], coder.codes.codings[usize::from(code) % KEYS], words, begin);
        }
    }
}

/// Codes all runs of which something changed.
fn push_runs(coder: &DeltaCoder, measured: &Measured, codes: &[u8], places: &[u16], pushed: &mut Pushed<'_>) {
    let keys = measured.keys.as_chunks::<LANES>().0;
    let extras = measured.extras.as_chunks::<LANES>().0;
    let places = places.as_chunks::<LANES>().0;
    for (run, _) in codes.iter().enumerate().rev().filter(|(_, code)| **code > 0) {
        for group in (0..GROUPS).rev() {
            let (states, words, begin) = pushed.stream(group);
            let at = run * GROUPS + group;
            let (keys, extras, places) = (&keys[at], &extras[at], &places[at]);
            if coder.kind.width == 32 {
                for lane in (0..LANES).rev() {
                    let count = extra_bits(keys[lane]).saturating_sub(16);
                    push_bits(&mut states[lane], extras[lane] >> 16, count, words, begin);
                }
            }
            for lane in (0..LANES).rev() {
                push_bits(&mut states[lane], extras[lane], extra_bits(keys[lane]).min(16), words, begin);
            }
            for lane in (0..LANES).rev() {
                push_symbol(&mut states[lane], coder.coding(places[lane]), words, begin);
            }
        }
    }
}
