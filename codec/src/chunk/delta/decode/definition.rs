//! The definition: one lane after the other.

use super::{Ready, Run, Streams};
use crate::chunk::delta::step::{Kind, Step, context, extra_bits};
use crate::chunk::delta::{GROUPS, LANES, RUN};
use crate::error::Result;
use crate::rans::{FREQUENCY_BITS, STATE_MIN, TOTAL};

/// Reads a word of the stream if the state of its lane is too small.
#[inline(always)]
fn refill(state: &mut u32, words: &[u8], next: &mut usize) {
    if *state < STATE_MIN {
        *state = *state << 16 | u32::from(u16::from_le_bytes([words[*next], words[*next + 1]]));
        *next += 2;
    }
}

/// Takes a symbol out of a state: its key. `slots` are those of its table.
#[inline(always)]
fn pop_symbol(state: &mut u32, slots: &[u32], words: &[u8], next: &mut usize) -> u8 {
    let slot = slots[(*state % TOTAL) as usize];
    *state = (slot >> 19) * (*state >> FREQUENCY_BITS) + (slot >> 7 & (TOTAL - 1));
    refill(state, words, next);
    (slot & 127) as u8
}

/// Takes so many bits, at most 16, out of a state.
#[inline(always)]
fn pop_bits(state: &mut u32, count: u32, words: &[u8], next: &mut usize) -> u32 {
    let bits = *state & ((1 << count) - 1);
    *state >>= count;
    refill(state, words, next);
    bits
}

/// Decodes the codes of so many runs.
pub(super) fn codes(ready: &Ready, streams: &mut Streams<'_>, runs: usize, codes: &mut Vec<u8>) -> Result<()> {
    let slots = &ready.codes;
    codes.clear();
    codes.resize(runs.next_multiple_of(LANES), 0);
    for (group, codes) in codes.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let stream = group % streams.count;
        let (states, next) = (&mut streams.states[stream], &mut streams.next[stream]);
        for (code, state) in codes.iter_mut().zip(states) {
            *code = pop_symbol(state, slots, streams.words, next);
        }
        streams.check()?;
    }
    codes.truncate(runs);
    Ok(())
}

/// Decodes a run of which something changed.
pub(super) fn run(kind: Kind, ready: &Ready, streams: &mut Streams<'_>, run: Run<'_>) {
    let mut base = [0; RUN];
    kind.load(run.base, &mut base);
    let mut steps = [Step { key: 0, extra: 0 }; RUN];
    for group in 0..GROUPS {
        let stream = group % streams.count;
        let (states, next, words) = (&mut streams.states[stream], &mut streams.next[stream], streams.words);
        let range = group * LANES..(group + 1) * LANES;
        let (base, steps) = (&base[range.clone()], &mut steps[range]);
        for ((state, base), step) in states.iter_mut().zip(base).zip(&mut *steps) {
            let begin = usize::from(ready.begins[context(run.place, kind.exponent(*base))]);
            step.key = pop_symbol(state, &ready.slots()[begin..begin + TOTAL as usize], words, next);
        }
        for (state, step) in states.iter_mut().zip(&mut *steps) {
            step.extra = pop_bits(state, extra_bits(step.key).min(16), words, next);
        }
        for (state, step) in states.iter_mut().zip(&mut *steps) {
            step.extra |= pop_bits(state, extra_bits(step.key).saturating_sub(16), words, next) << 16;
        }
    }
    for (base, step) in base.iter_mut().zip(steps) {
        *base = kind.moved(*base, step.difference());
    }
    kind.store(&base, run.out);
}
