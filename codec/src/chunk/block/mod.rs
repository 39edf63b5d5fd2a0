//! A block: one sequence of elements of 8, 16 or 32 bits, their keys entropy coded, their raw bits in planes, and a list
//! of patches for keys that the table lacks.
//!
//! Planes, the sparse field and patches are the block's *tail*. As many of its last bytes as the states of the entropy
//! coder can carry are stored there, the rest behind the coder's words.

pub(crate) mod decode;
pub(crate) mod encode;
mod sparse_field;

use crate::chunk::scale::{Columns, QuadScale};
use crate::rans::CARRIED_PER_STREAM;

pub(crate) use decode::{Scratch, decode, decode_quads, decode_scaled};
pub(crate) use encode::{Buffers, Coder, encode, encode_spans};

/// Bytes of a patch: the distance to the one before, and how far the key moves.
const PATCH_BYTES: usize = 4;

/// How many of the last bytes of a tail the states of so many streams carry.
fn carried_len(tail: usize, streams: usize) -> usize {
    tail.min(streams * CARRIED_PER_STREAM)
}

/// How the quads of a block differ: in their tables, and in how their elements are normalised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaled<'a> {
    /// One for each quad; the last one may be for fewer elements.
    pub(crate) quads: &'a [QuadScale],
    /// What was taken from columns; `None` when nothing was taken from anything.
    pub(crate) columns: Option<&'a Columns>,
    /// The column of the first element.
    pub(crate) column: usize,
    /// How many tables there are.
    pub(crate) phases: usize,
}

impl Scaled<'_> {
    /// What was taken from the magnitude of element number `position`, in steps modulo 2^16.
    fn offset(&self, position: usize) -> u16 {
        let Some(columns) = self.columns else { return 0 };
        let column = columns.offsets()[(self.column + position) % columns.period()];
        self.quads[position / super::scale::QUAD].offset.wrapping_add(column)
    }
}
