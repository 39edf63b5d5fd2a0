//! Range asymmetric numeral systems (rANS) over an alphabet of at most 64 symbols.
//!
//! J. Duda, "Asymmetric numeral systems" (2013); interleaved after F. Giesen, "Interleaved entropy coders" (2014).
//! [`table`] holds only the distribution, and the encoder and the decoder are both built from it, so they cannot
//! disagree.
//!
//! Symbols are coded in *groups* of [`LANES`] consecutive symbols, one a lane, each lane with a state of its own.
//! Group `g` belongs to stream `g % streams`; the streams are independent of one another, which lets a processor work
//! on all of them at once, and each has its own words. All lanes of a stream share its words: after each group the
//! lanes whose state became too small read one word each, in the order of their lanes.
//!
//! An encoder must start its lanes in some state, and any below 2^17 costs the same. Its low 16 bits are therefore used
//! to carry other bytes of the block for free (the idea of "bits back"): they are what the decoder's states end in.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod table;

pub(crate) use table::Table;

/// The symbols of a group, one a lane.
pub(crate) const LANES: usize = 32;

/// The largest number of streams of a block.
pub(crate) const MAX_STREAMS: usize = 4;

/// A state of a lane lies in `STATE_MIN..=u32::MAX` between symbols.
pub(crate) const STATE_MIN: u32 = 1 << 16;

/// Bytes that the starting states of one stream carry.
pub(crate) const CARRIED_PER_STREAM: usize = LANES * 2;

/// Frequencies add up to `1 << FREQUENCY_BITS`.
pub(crate) const FREQUENCY_BITS: u32 = 12;

/// What frequencies add up to.
pub(crate) const TOTAL: u32 = 1 << FREQUENCY_BITS;

/// The position of a symbol in its [`Table`].
pub(crate) type Symbol = u8;

/// Elements per stream from which one more doubling of the streams costs less in states than it brings in speed.
const ELEMENTS_PER_STREAM: usize = 16 << 10;

/// How many streams a chunk of so many elements gets.
pub(crate) fn streams_for(elements: usize) -> usize {
    match elements / ELEMENTS_PER_STREAM {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}
