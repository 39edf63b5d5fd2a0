//! The coder of everything called `_ac`: a range over a queue of 32-bit words, which is read from its beginning.

use super::quantise::PRECISION;
use super::{Counts, Model, Stream, words};
use crate::error::{Error, Result};

/// The range is at least this between symbols.
const LOWEST: u64 = 1 << 32;

/// Words that an honest stream may be read beyond its end: the decoder begins two words ahead.
const MOST_BEYOND: usize = 2;

/// A stream that is being decoded.
#[derive(Clone)]
pub(in crate::upstream) struct RangeStream<'a> {
    words: &'a [[u8; 4]],
    /// The next word to be read; beyond the end there are zeros.
    position: usize,
    /// How far the coded point lies above the lower end of the range.
    point: u64,
    range: u64,
    /// Whether the point was outside of the range.
    broken: bool,
}

impl RangeStream<'_> {
    #[inline(always)]
    fn word(&mut self) -> u64 {
        let word = self.words.get(self.position).map_or(0, |word| u32::from_le_bytes(*word));
        self.position += 1;
        u64::from(word)
    }
}

impl<'a> Stream<'a> for RangeStream<'a> {
    type Table = Model;

    fn table(counts: &Counts, symbols: usize, _: u32) -> Result<Box<Model>> {
        counts.check_total(symbols)?;
        Model::new(counts)
    }

    fn new(code: &'a [u8]) -> Result<RangeStream<'a>> {
        let words = words(code)?;
        let mut stream = RangeStream { words, position: 0, point: 0, range: u64::MAX, broken: false };
        stream.point = stream.word() << 32 | stream.word();
        Ok(stream)
    }

    #[inline(always)]
    fn next(&mut self, model: &Model) -> u16 {
        let scale = self.range >> PRECISION;
        let mut number = self.point / scale;
        if number >= 1 << PRECISION {
            (self.broken, number) = (true, 0);
        }
        let slice = model.find(number as u32);
        self.point -= scale * u64::from(slice.start);
        self.range = scale * u64::from(slice.weight);
        if self.range < LOWEST {
            self.range <<= 32;
            self.point = self.point << 32 | self.word();
        }
        slice.symbol
    }

    fn finish(self) -> Result<()> {
        if self.broken {
            return Err(Error::corrupt("a coded stream holds a number that stands for no symbol"));
        }
        match self.position.saturating_sub(self.words.len()) {
            ..=MOST_BEYOND => Ok(()),
            _ => Err(Error::corrupt("a coded stream ends before its last symbol")),
        }
    }
}
