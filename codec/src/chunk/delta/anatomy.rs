//! Where the parts of a chunk of differences lie, for decoders that run elsewhere.

use super::step::Kind;
use super::{Against, KEYS, LANES, MAX_STREAMS, OUTSIDER_GAP_BYTES};
use crate::checksum::checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::rans::STATE_MIN;
use crate::split::Element;
use crate::wire::Reader;

/// The parts of a chunk of differences. Positions are bytes from its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anatomy {
    /// What its elements are.
    pub(crate) kind: Kind,
    pub(crate) streams: usize,
    /// Where the states of all lanes begin; the number of words of each stream is before them.
    pub(crate) states: usize,
    /// Where the words of the first stream begin, with those of the others behind.
    pub(crate) words: usize,
    /// The elements that no table has, and where their list begins.
    pub(crate) outsiders: u16,
    pub(crate) list: usize,
}

impl Anatomy {
    /// The parts of the chunk `stored`, which is one of `len` bytes of such elements.
    ///
    /// # Errors
    /// Those of decoding it that show before the first key is decoded; that the list of outsiders is beyond the end does not.
    pub(crate) fn of(stored: &[u8], element: Element, against: &Against<'_>, len: usize) -> Result<Anatomy> {
        let Against { delta, tables, base } = *against;
        let kind = Kind::of(element).ok_or_else(|| Error::corrupt("integers are coded as differences of floats"))?;
        if !len.is_multiple_of(kind.size()) || len / kind.size() != base.len() / delta.element.size() {
            return Err(Error::corrupt(format!("{} bytes of a base are no match for {len}", base.len())));
        }
        if tables.len() < 2 || tables.len() != delta.thresholds.len() + 2 {
            return Err(Error::corrupt("a chunk is coded as differences, and its segment has no tables for them"));
        }
        let keys = std::iter::once(KEYS).chain(std::iter::repeat(kind.keys().into()));
        if tables.iter().zip(keys).any(|(table, keys)| table.keys().iter().any(|&key| usize::from(key) >= keys)) {
            return Err(Error::corrupt("a table has a key that is that of nothing"));
        }
        let mut reader = Reader::new(stored);
        if reader.u64()? != checksum(base) {
            return Err(Error::new(ErrorKind::WrongBase, "the base does not hold what this was coded against"));
        }
        let (streams, outsiders) = (usize::from(reader.u8()?), reader.u16()?);
        if !streams.is_power_of_two() || streams > MAX_STREAMS {
            return Err(Error::corrupt(format!("a chunk of differences has {streams} streams")));
        }
        // Each is below 2^33, so that the sum cannot overflow.
        let words_len = (0..streams).try_fold(0, |sum, _| Ok::<_, Error>(sum + reader.u32()? as usize * 2))?;
        let states = stored.len() - reader.remaining();
        for _ in 0..streams * LANES {
            if reader.u32()? < STATE_MIN {
                return Err(Error::corrupt("a state of the entropy coder is too small"));
            }
        }
        let words = stored.len() - reader.remaining();
        reader.take(words_len)?;
        let list = stored.len() - reader.remaining();
        reader.take(usize::from(outsiders) * (OUTSIDER_GAP_BYTES + kind.size()))?;
        reader.finish()?;
        Ok(Anatomy { kind, streams, states, words, outsiders, list })
    }
}
