//! A block: one sequence of elements of 8, 16 or 32 bits, their keys entropy coded, their raw bits in planes, and a list
//! of patches for keys that the table lacks.
//!
//! Planes and patches are the block's *tail*. As many of its last bytes as the states of the entropy coder can carry are
//! stored there, the rest behind the coder's words.

pub(crate) mod decode;
pub(crate) mod encode;

use crate::rans::CARRIED_PER_STREAM;

pub(crate) use decode::{Scratch, decode};
pub(crate) use encode::{Buffers, Coder, encode};

/// Bytes of a patch: the distance to the one before, and how far the key moves.
const PATCH_BYTES: usize = 4;

/// How many of the last bytes of a tail the states of so many streams carry.
fn carried_len(tail: usize, streams: usize) -> usize {
    tail.min(streams * CARRIED_PER_STREAM)
}
