//! The bigsmall container and its codecs: neural-network weights stored losslessly about a third smaller, with random
//! access to every byte.
//!
//! Bytes in, bytes out: this crate knows no terminal, no FUSE and no network. Start at [`original::Original`], the one
//! abstraction; [`container::Container`] reads a container as one, [`container::compress`] writes one.

#[doc(hidden)]
pub mod bench;
mod checksum;
mod chunk;
pub mod container;
#[cfg(feature = "cuda")]
pub mod cuda;
mod decompress;
mod device;
pub mod diff;
pub mod error;
mod gguf;
mod hashes;
mod layout;
pub mod original;
pub mod output;
pub mod parity;
pub mod patch;
mod quantised;
mod rans;
mod room;
mod safetensors;
pub mod salvage;
pub mod scan;
pub mod self_test;
mod simd;
pub mod sketch;
mod split;
mod stored;
mod stream;
pub mod upstream;
pub mod verify;
mod wire;

pub use container::{Container, Mode, Options};
pub use decompress::{decompress, decompress_and_hash};
pub use device::Device;
pub use error::{Error, ErrorKind, Result};
pub use original::{ChunkIndex, Grid, Memory, Original, PlainFile};
pub use room::make_room;
pub use simd::implementation;
pub use stored::{Stored, StoredTensor, StoredTensorUsage, StoredUsage};

/// What a long operation tells its caller, and asks: called from many threads, some hundred times a second.
pub trait Progress: Sync {
    /// `bytes` more bytes of the original are done.
    fn advance(&self, bytes: u64);

    /// Whether to give up. The operation then ends with [`ErrorKind::Cancelled`] and leaves nothing behind.
    fn cancelled(&self) -> bool {
        false
    }
}

/// No progress shown, never cancelled.
impl Progress for () {
    fn advance(&self, _: u64) {}
}
