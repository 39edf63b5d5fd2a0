//! The rANS decoder: [`scalar`] is the definition.

pub(crate) mod scalar;

use super::{CARRIED_PER_STREAM, LANES, MAX_STREAMS, STATE_MIN};
use crate::error::{Error, Result};
use crate::wire::Reader;

/// The coded symbols of a block, taken apart but not yet decoded.
#[derive(Clone, Debug)]
pub(crate) struct Block<'a> {
    /// How many streams there are.
    pub(crate) streams: usize,
    /// The state of each lane of each stream.
    pub(crate) states: [[u32; LANES]; MAX_STREAMS],
    /// The words of each stream, two bytes each, little-endian.
    pub(crate) words: [&'a [u8]; MAX_STREAMS],
}

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
        for state in states[..streams].as_flattened_mut() {
            *state = reader.u32()?;
            if *state < STATE_MIN {
                return Err(Error::corrupt("a lane starts below the least state"));
            }
        }
        let mut words: [&[u8]; MAX_STREAMS] = [&[]; MAX_STREAMS];
        for (words, count) in words.iter_mut().zip(counts).take(streams) {
            let bytes = count.checked_mul(2).ok_or_else(|| Error::corrupt("a stream has too many words"))?;
            *words = reader.take(bytes)?;
        }
        Ok(Block { streams, states, words })
    }
}

/// The bytes that the starting states of the encoder carried, [`CARRIED_PER_STREAM`] for each stream.
pub(crate) type Carried = [u8; CARRIED_PER_STREAM * MAX_STREAMS];

/// What the states carried, now that all symbols are decoded and `words` are what is left of each stream.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a state is not one that an encoder starts in, or words are
/// left.
pub(crate) fn finish(
    streams: usize,
    states: &[[u32; LANES]; MAX_STREAMS],
    words: &[&[u8]; MAX_STREAMS],
) -> Result<Carried> {
    let states = states[..streams].as_flattened();
    if states.iter().any(|&state| state >> 16 != STATE_MIN >> 16) || words.iter().any(|words| !words.is_empty()) {
        return Err(stream_error());
    }
    let mut carried = [0; CARRIED_PER_STREAM * MAX_STREAMS];
    for (bytes, &state) in carried.as_chunks_mut().0.iter_mut().zip(states) {
        *bytes = (state as u16).to_le_bytes();
    }
    Ok(carried)
}

/// What every decoder says when the words of a stream end before its symbols do, or the other way round.
pub(crate) fn stream_error() -> Error {
    Error::corrupt("an entropy-coded stream does not end where it should")
}
