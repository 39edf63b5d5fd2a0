//! Where the parts of a block lie, for decoders that run elsewhere.

use super::{PATCH_BYTES, Parts};
use crate::chunk::block::Scaled;
use crate::error::Result;
use crate::rans::{LANES, MAX_STREAMS, Table};
use crate::split::Split;
use crate::wire::Reader;

/// The parts of a block. Positions are bytes from its beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Anatomy {
    /// The number of its first table within the segment.
    pub(crate) table: u16,
    /// Where elements are cut, and the width of the sparse field.
    pub(crate) shift: u8,
    pub(crate) zeros: u8,
    pub(crate) sparse: u8,
    /// Groups with a sparse field.
    pub(crate) sparse_groups: usize,
    pub(crate) patches: u16,
    pub(crate) streams: usize,
    pub(crate) states: usize,
    /// Where the words of each stream begin, and how many there are.
    pub(crate) words: [usize; MAX_STREAMS],
    pub(crate) word_counts: [usize; MAX_STREAMS],
    /// Where the stored part of the tail begins, its length, and that of the whole tail.
    pub(crate) tail: usize,
    pub(crate) stored_tail_len: usize,
    pub(crate) tail_len: usize,
    /// Bytes of the planes, with which the tail begins.
    pub(crate) planes_len: usize,
}

impl Anatomy {
    /// The parts of `block`, nothing behind it, which is one of `len` bytes of elements; if it is normalised, in so many phases.
    ///
    /// # Errors
    /// Those of decoding it that show before the first key is decoded.
    pub(crate) fn of(
        block: &[u8],
        split: Split,
        tables: &[Table],
        phases: Option<usize>,
        len: usize,
    ) -> Result<Anatomy> {
        let scaled = phases.map(|phases| Scaled { quads: &[], columns: None, column: 0, phases });
        let mut reader = Reader::new(block);
        let parts = Parts::read(&mut reader, split, tables, scaled, len)?;
        reader.finish()?;
        let mut header = Reader::new(block);
        let [_, shift, zeros, sparse] = header.array()?;
        let (table, patches) = (header.u16()?, header.u16()?);
        if sparse > 0 {
            header.u32()?;
        }
        let streams = parts.block.streams;
        let states = block.len() - header.remaining() + streams * size_of::<u32>();
        let first_word = states + streams * LANES * size_of::<u32>();
        let mut anatomy = Anatomy {
            table,
            shift,
            zeros,
            sparse,
            sparse_groups: parts.sparse_field.groups,
            patches,
            streams,
            states,
            tail: block.len() - parts.stored_tail.len(),
            stored_tail_len: parts.stored_tail.len(),
            tail_len: parts.tail_len,
            planes_len: parts.planes_len,
            ..Anatomy::default()
        };
        for stream in 0..streams {
            anatomy.words[stream] = first_word + parts.block.next[stream];
            anatomy.word_counts[stream] = (parts.block.ends[stream] - parts.block.next[stream]) / 2;
        }
        debug_assert_eq!(
            anatomy.tail_len,
            anatomy.planes_len + parts.sparse_field.len(parts.groups) + usize::from(patches) * PATCH_BYTES
        );
        Ok(anatomy)
    }
}
