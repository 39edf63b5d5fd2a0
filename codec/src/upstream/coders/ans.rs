//! The coder of `bf16_se_rans`: a 64-bit state over a stack of 32-bit words, which is read from its end.

use super::quantise::PRECISION;
use super::{Counts, Model, Stream, words};
use crate::error::{Error, Result};

/// The state is at least this while words are left.
const LOWEST: u64 = 1 << 32;

/// A stream that is being decoded.
#[derive(Clone)]
pub(in crate::upstream) struct AnsStream<'a> {
    /// The words that have not been read; the next one is the last.
    words: &'a [[u8; 4]],
    state: u64,
}

impl AnsStream<'_> {
    #[inline(always)]
    fn refill(&mut self) {
        if self.state < LOWEST
            && let Some((word, rest)) = self.words.split_last()
        {
            self.state = self.state << 32 | u64::from(u32::from_le_bytes(*word));
            self.words = rest;
        }
    }
}

impl<'a> Stream<'a> for AnsStream<'a> {
    type Table = Model;

    fn table(counts: &Counts, symbols: usize, _: u32) -> Result<Box<Model>> {
        counts.check_total(symbols)?;
        Model::new(counts)
    }

    /// An empty stream is one of state 0.
    fn new(code: &'a [u8]) -> Result<AnsStream<'a>> {
        let words = words(code)?;
        if words.last() == Some(&[0; 4]) {
            return Err(Error::corrupt("a coded stream ends with an empty word"));
        }
        let mut stream = AnsStream { words, state: 0 };
        stream.refill();
        stream.refill();
        Ok(stream)
    }

    #[inline(always)]
    fn next(&mut self, model: &Model) -> u16 {
        let number = (self.state & ((1 << PRECISION) - 1)) as u32;
        let slice = model.find(number);
        self.state = (self.state >> PRECISION) * u64::from(slice.weight) + u64::from(number - slice.start);
        self.refill();
        slice.symbol
    }

    fn finish(self) -> Result<()> {
        match self.words {
            [] => Ok(()),
            _ => Err(Error::corrupt("a coded stream is longer than its symbols need")),
        }
    }
}
