//! The rANS decoder: [`scalar`] is the definition, the others do the same to all lanes of a stream at once.
//!
//! A vectorised decoder is a *step*: it takes the lanes of a stream, or of two, from one group to the next and gives the
//! symbols. It does not loop, for whoever decodes wants the symbols in registers, to make elements of them there.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512vbmi2;
pub(crate) mod scalar;
pub(crate) mod slots;

use super::{CARRIED_PER_STREAM, LANES, MAX_STREAMS, STATE_MIN};
use crate::error::{Error, Result};
use crate::wire::Reader;

/// The coded symbols of a block, of which some may have been decoded already.
#[derive(Clone, Debug)]
pub(crate) struct Block<'a> {
    /// How many streams there are.
    pub(crate) streams: usize,
    /// The state of each lane of each stream.
    pub(crate) states: [[u32; LANES]; MAX_STREAMS],
    /// The words of all streams, two bytes each, little-endian, and whatever follows them.
    ///
    /// A decoder of a damaged stream may take words that are not the stream's, as long as they are in here:
    /// [`finish`](Block::finish) finds that out.
    pub(crate) words: &'a [u8],
    /// Where in `words` the next word of each stream is.
    pub(crate) next: [usize; MAX_STREAMS],
    /// Where in `words` those of each stream end.
    pub(crate) ends: [usize; MAX_STREAMS],
}

/// Bytes that the words of all lanes of a group take, the most that a stream reads for one.
pub(crate) const GROUP_WORDS_BYTES: usize = LANES * 2;

/// The bytes that the starting states of the encoder carried, [`CARRIED_PER_STREAM`] for each stream.
pub(crate) type Carried = [u8; CARRIED_PER_STREAM * MAX_STREAMS];

impl<'a> Block<'a> {
    /// Takes a block of `streams` streams off the front of `reader`.
    pub(crate) fn read(reader: &mut Reader<'a>, streams: usize) -> Result<Block<'a>> {
        if !(1..=MAX_STREAMS).contains(&streams) {
            return Err(Error::corrupt(format!("a block has {streams} streams, not 1 to {MAX_STREAMS}")));
        }
        let mut counts = [0; MAX_STREAMS];
        for count in &mut counts[..streams] {
            *count = reader.u32()? as usize;
        }
        let mut states = [[STATE_MIN; LANES]; MAX_STREAMS];
        let wire = reader.take(streams * LANES * size_of::<u32>())?;
        for (state, bytes) in states.as_flattened_mut().iter_mut().zip(wire.as_chunks().0) {
            *state = u32::from_le_bytes(*bytes);
        }
        if states.as_flattened().iter().any(|&state| state < STATE_MIN) {
            return Err(Error::corrupt("a lane starts below the least state"));
        }
        let words = reader.clone().take(reader.remaining())?;
        let (mut next, mut ends, mut end) = ([0; MAX_STREAMS], [0; MAX_STREAMS], 0);
        for stream in 0..streams {
            next[stream] = end;
            let bytes = counts[stream].checked_mul(2).ok_or_else(|| Error::corrupt("a stream has too many words"))?;
            end += reader.take(bytes)?.len();
            ends[stream] = end;
        }
        Ok(Block { streams, states, words, next, ends })
    }

    /// What the states carried, now that all symbols are decoded.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a state is not one that an encoder starts in, or a stream
    /// has words left or took another's.
    pub(crate) fn finish(&self) -> Result<Carried> {
        let states = self.states[..self.streams].as_flattened();
        if states.iter().any(|&state| state >> 16 != STATE_MIN >> 16) || self.next != self.ends {
            return Err(stream_error());
        }
        let mut carried = [0; CARRIED_PER_STREAM * MAX_STREAMS];
        for (bytes, &state) in carried.as_chunks_mut().0.iter_mut().zip(states) {
            *bytes = (state as u16).to_le_bytes();
        }
        Ok(carried)
    }
}

/// What every decoder says when the words of a stream end before its symbols do, or the other way round.
pub(crate) fn stream_error() -> Error {
    Error::corrupt("an entropy-coded stream does not end where it should")
}
