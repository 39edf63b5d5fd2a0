//! The definition of rANS encoding, one lane after the other.

use super::{Encoder, States};
use crate::rans::table::MAX_SYMBOLS;
use crate::rans::{FREQUENCY_BITS, LANES, MAX_STREAMS, Symbol, TOTAL};

/// What coding a symbol takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coding {
    /// See [`reciprocal`].
    reciprocal: u64,
    frequency: u32,
    /// Where its slots begin.
    first: u32,
}

/// A state is divided by a frequency `f` as it is multiplied by ⌈2^44 / f⌉ (after R. Alverson, "Integer division using
/// reciprocals", 1991) and shifted by this.
///
/// That is exact for the states `x < f * 2^20` that symbols of this frequency are added to: the product exceeds
/// `2^44 * x / f` by less than `x`, which moves the quotient by less than `x / 2^44 < f / 2^24 <= 1 / f`, too little to
/// reach the next integer. And it fits in 64 bits: `x * (2^44 / f + 1) < 2^64 + f * 2^20 - 2^44 / f <= 2^64`.
const RECIPROCAL_SHIFT: u32 = 44;

fn reciprocal(frequency: u16) -> u64 {
    (1u64 << RECIPROCAL_SHIFT).div_ceil(u64::from(frequency))
}

impl Coding {
    pub(crate) fn new(frequency: u16, first: u16) -> Coding {
        let reciprocal = if frequency > 0 { reciprocal(frequency) } else { 0 };
        Coding { reciprocal, frequency: u32::from(frequency), first: u32::from(first) }
    }

    /// Where its slots begin, in the lower 16 bits, and its frequency in the upper ones.
    pub(crate) fn packed(self) -> u32 {
        self.first | self.frequency << 16
    }

    /// Whether the symbol is in the table.
    #[inline(always)]
    pub(crate) fn is_possible(self) -> bool {
        self.frequency > 0
    }

    /// Whether a state is so large that a word must be taken from it before the symbol is added.
    #[inline(always)]
    pub(crate) fn emits(self, state: u32) -> bool {
        state >> (32 - FREQUENCY_BITS) >= self.frequency
    }

    /// What is above the slot in the next state, and the number of the slot, counted over all symbols in their order.
    #[inline(always)]
    pub(crate) fn add(self, state: u32) -> (u32, u32) {
        let high = ((u64::from(state) * self.reciprocal) >> RECIPROCAL_SHIFT) as u32;
        (high << FREQUENCY_BITS, self.first + (state - high * self.frequency))
    }
}

/// Codes `symbols`, whole groups, the last first, since rANS is last in, first out. The words of stream `s` are written
/// to the `s`-th of `streams` equal parts of `words`, to its front from where it begins; `begins` says where that is.
pub(super) fn encode(
    encoder: &Encoder,
    symbols: &[Symbol],
    streams: usize,
    states: &mut States,
    words: &mut [u16],
    begins: &mut [usize; MAX_STREAMS],
) {
    let part = words.len() / streams;
    for (group, symbols) in symbols.chunks_exact(LANES).enumerate().rev() {
        let stream = group % streams;
        let words = &mut words[stream * part..][..part];
        let (states, begin) = (&mut states[stream], &mut begins[stream]);
        for (state, &symbol) in states.iter_mut().zip(symbols).rev() {
            let coding = encoder.codings[usize::from(symbol) % MAX_SYMBOLS];
            // Above this the next state would not fit in 32 bits. Whether it is so is close to a coin's toss: a word
            // that is written and not kept costs less than a branch.
            let emits = coding.emits(*state);
            words[*begin - 1] = *state as u16;
            *begin -= usize::from(emits);
            *state >>= if emits { 16 } else { 0 };
            let (high, number) = coding.add(*state);
            *state = high | u32::from(encoder.slots[(number % TOTAL) as usize]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocal_divides_exactly() {
        for frequency in 1..=TOTAL as u16 {
            let f = u64::from(frequency);
            let limit = (f << (32 - FREQUENCY_BITS)).min(1 << 32);
            let mut random = f;
            let sample = (0..1000).map(|_| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 32) % limit
            });
            // Just below and at a multiple is where a quotient goes wrong first.
            for x in sample.flat_map(|x| [x, x / f * f, (x / f * f).saturating_sub(1)]).chain([0, limit - 1]) {
                let product = u64::checked_mul(x, reciprocal(frequency)).expect("it fits");
                assert_eq!(product >> RECIPROCAL_SHIFT, x / f, "{x} / {f}");
            }
        }
    }
}
