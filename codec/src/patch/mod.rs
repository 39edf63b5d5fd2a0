//! Patches: containers whose chunks are coded against another original, their base.
//!
//! A patch is a [`Container`](crate::Container) with a [`BaseRecord`], which says what it needs: tensors with their MD5s,
//! wherever they lie. It can be opened, and asked what it is, without its base. To decode it, make a [`Model`] of the files
//! that the base consists of, take the [`Base`] of the patch out of it, which is where the base is compared with what is
//! recorded, and attach that with [`Container::with_base`](crate::Container::with_base).
//!
//! The base's bytes are read through [`Original::read_at`](crate::Original::read_at), so that a base can be anything that is an
//! original: a plain file, a container, a patch with a base of its own, or one that is served from a cache.

mod base;
mod matching;
mod model;
mod order;
pub(crate) mod partners;
mod record;

pub use base::Base;
pub(crate) use matching::{Matching, SegmentBase};
pub use model::{Check, Model, ModelTensor};
pub use order::RowOrder;
pub use partners::plain;
pub use record::{BaseRecord, BaseTensor, Fingerprint};
