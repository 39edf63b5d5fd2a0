//! The container: how an original is stored in a `.bs` file. `docs/format.md` is normative.

mod duplicates;
mod fallback;
mod frame;
mod graft;
mod index;
mod journal;
mod name;
mod reader;
mod resume;
mod usage;
mod writer;

pub use crate::chunk::Codec;
pub use crate::quantised::BlockType;
pub use crate::split::Element;
pub use frame::{VERSION, Version};
pub(crate) use frame::{first_bytes, is_container};
pub use graft::{Grafted, graft};
pub use index::Tensor;
#[cfg(feature = "cuda")]
pub(crate) use index::{Segment, StoredChunk};
pub use name::{EXTENSION, shown_name};
pub use reader::{CodecUsage, Container};
pub use resume::{compress_file, finished};
pub use usage::TensorUsage;
pub use writer::{Mode, Options, Summary, compress, compress_patch, version_for};
pub(crate) use writer::{SharedTables, WINDOW, chunk_size, plan};

#[cfg(test)]
mod tests;
