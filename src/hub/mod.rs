//! The Hugging Face Hub: its API, what it stores, and the cache that its tools share.
//!
//! Plain HTTP and nothing else. Files come from `resolve`, which redirects to wherever the Hub keeps them, in ranges, so that
//! a cut connection costs nothing that has arrived; they go there by the Git LFS protocol. Every byte that comes is hashed and
//! compared with what the Hub lists; see `docs/hub.md` for why this is our own and not the Hub's client library.

pub mod api;
pub mod cache;
pub mod card;
pub mod checkpoint;
pub mod client;
pub mod digest;
pub mod download;
pub mod error;
pub mod place;
pub mod remote;
pub mod repo;
pub mod settings;
pub mod upload;
pub mod workers;

pub use client::Hub;
pub use error::{Error, ErrorKind, Result};
pub use repo::{RepoId, RepoPath, Source};
