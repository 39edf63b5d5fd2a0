//! Where the parts of a chunk of differences lie, for decoders that run elsewhere.

use super::decode::{check_base, check_keys, checked_kind, read_counts};
use super::step::Kind;
use super::{Against, LANES, OUTSIDER_GAP_BYTES};
use crate::error::{Error, Result};
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
    pub(crate) outsiders: usize,
    pub(crate) list: usize,
}

impl Anatomy {
    /// The parts of the chunk `stored`, which is one of `len` bytes of such elements.
    ///
    /// # Errors
    /// Those of decoding it that show before the first key is decoded; that the list of outsiders is beyond the end does not.
    pub(crate) fn of(stored: &[u8], element: Element, against: &Against<'_>, len: usize) -> Result<Anatomy> {
        let mut reader = Reader::new(stored);
        check_base(&mut reader, element, against, len)?;
        let kind = checked_kind(element, against)?;
        check_keys(kind, against.tables)?;
        let (streams, outsiders) = read_counts(&mut reader)?;
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
        reader.take(outsiders * (OUTSIDER_GAP_BYTES + kind.size()))?;
        reader.finish()?;
        Ok(Anatomy { kind, streams, states, words, outsiders, list })
    }
}
