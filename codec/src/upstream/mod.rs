//! The `.bs` files of the Python package `bigsmall`: other files than our containers, with other codecs, that hold the same
//! kind of thing. `docs/upstream.md` says what is read and what comes out.
//!
//! [`UpstreamFile`] is one more [`Original`](crate::Original): the safetensors file that its tensors make.
//!
//! A tensor is stored in one piece, without checksums but its MD5, so it is the unit of decoding: it is decoded as a whole,
//! compared with its MD5, and kept in a [`TensorCache`] while its chunks are asked for.

mod cache;
mod codecs;
mod coders;
mod dtype;
mod file;
mod header;
mod hub;
mod parity;
mod rebuilt;

pub(crate) use coders::quantise::weights;

pub use cache::{DEFAULT_CAPACITY, TensorCache};
pub use file::{UpstreamFile, UpstreamTensor};
pub use hub::{HUB_INDEX, HUB_INDEX_BINARY, HubIndex, LOADER_INDEX};
pub use parity::{PackageDamage, PackageParity};

/// What the original of such a file is taken to have been called. The package does not record it.
pub const ORIGINAL_NAME: &str = "model.safetensors";

/// Whether a file that starts with these bytes is one of the Python package, if perhaps not one that can be read.
pub fn is_upstream(start: &[u8]) -> bool {
    start.starts_with(header::MAGIC) || start.starts_with(header::DUAL_MAGIC)
}
