//! A chunk as what changed against a base: the patch codec.
//!
//! Training moves most weights a little or not at all. What it did to an element is the *difference* of two integers, those that
//! the element and the base's element are when floats are numbered in their order, the base's sign taken as positive
//! ([`step`]). A difference is coded as a logarithmic bucket, and for large ones as many bits as the bucket is wide.
//!
//! How large differences are follows from two things: how far weights of the neighbourhood moved, and how much a unit in the last
//! place of the base's element is. The first is a *code* for each *run* of [`RUN`] elements, in octaves; the second is the
//! exponent of the base's element, which costs nothing. Their difference is the *context* of the element, and chooses one
//! of up to [`MAX_TABLES`] tables. Code 0 says that a whole run is as in the base.
//!
//! Codes, buckets and the bits in them go through the same rANS states ([`rans`](crate::rans) has the literature), 16
//! lanes a stream; bits are symbols that are equally frequent. So there is one sequence of words for each stream and nothing
//! beside it.

#[cfg(feature = "cuda")]
pub(crate) mod anatomy;
pub(crate) mod convert;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod plan;
mod push;
mod step;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::rans::Table;
use crate::split::Element;

pub(crate) use decode::decode;
#[cfg(feature = "cuda")]
pub(crate) use decode::elements_of_base;
pub(crate) use step::Kind;

/// Elements that share a code.
pub(crate) const RUN: usize = 128;

/// Lanes of a stream, and elements of a group.
pub(crate) const LANES: usize = 16;

/// Groups of a run.
const GROUPS: usize = RUN / LANES;

/// The largest number of streams of a chunk; all numbers of streams are powers of two.
pub(crate) const MAX_STREAMS: usize = GROUPS;

/// The most tables for differences that a segment may have.
pub(crate) const MAX_TABLES: usize = 16;

/// How many contexts there are.
pub(crate) const CONTEXTS: usize = 64;

/// Keys of differences and codes of runs are below this.
pub(crate) const KEYS: usize = 128;

/// Bytes of an entry of the list of elements whose key their table lacks, but for the element.
const OUTSIDER_GAP_BYTES: usize = 2;

/// Where in the base the elements of a segment are, and how they are coded against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    /// Where the base of its first element begins, counted in bytes over all tensors of the base that the patch uses.
    pub(crate) offset: u64,
    /// What the base's elements are.
    pub(crate) element: Element,
    /// What is added to the code of a run.
    pub(crate) origin: i16,
    /// The contexts at which the next table begins to be used, ascending.
    pub(crate) thresholds: Vec<u8>,
    /// The positions of its tables: that of the codes, then those for differences. None at all if only chunks like the base
    /// name it.
    pub(crate) tables: Range<usize>,
}

impl Delta {
    /// The bytes of the base for the elements `first..first + count` of the segment.
    pub(crate) fn base_range(&self, first: u64, count: u64) -> Range<u64> {
        let size = self.element.size() as u64;
        self.offset + first * size..self.offset + (first + count) * size
    }

    /// Fails unless a segment of such elements can be coded so.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt).
    pub(crate) fn check(&self, element: Element) -> Result<()> {
        if self.element != element && !convert::is_possible(self.element, element) {
            return Err(Error::corrupt("elements of the base cannot be made elements of the segment"));
        }
        let ascending = self.thresholds.is_sorted_by(|a, b| a < b);
        let above = self.thresholds.last().is_some_and(|&last| usize::from(last) >= CONTEXTS);
        if !ascending || above || self.thresholds.first() == Some(&0) {
            return Err(Error::corrupt("the contexts of a segment are not in order"));
        }
        if !self.tables.is_empty() && element.float_split().is_none() {
            return Err(Error::corrupt("a segment of integers is coded as differences of floats"));
        }
        Ok(())
    }
}

/// What a chunk is decoded against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Against<'a> {
    pub(crate) delta: &'a Delta,
    /// The table of codes and those for differences.
    pub(crate) tables: &'a [Table],
    /// The bytes of the base, as they are there.
    pub(crate) base: &'a [u8],
}

/// The table for each context.
pub(crate) fn tables_of_contexts(thresholds: &[u8]) -> [u8; CONTEXTS] {
    std::array::from_fn(|context| thresholds.partition_point(|&threshold| usize::from(threshold) <= context) as u8)
}

/// How many runs so many elements are in.
fn runs(elements: usize) -> usize {
    elements.div_ceil(RUN)
}
