//! A read-only FUSE filesystem that shows containers as the files they were made from.
//!
//! [`view`] says which names are shown and what stands behind them, [`bases`] finds what patches are patches of, [`cache`] keeps decoded
//! chunks for a while, the private module `ahead` has a GPU decode what comes next, [`session`] mounts, [`mounts`] lists and unmounts, [`stats`] counts. Only the private module `fuse` knows the FUSE library.

mod ahead;
pub mod bases;
pub mod cache;
pub mod containers;
mod fuse;
mod lock;
pub mod models;
pub mod mounts;
mod nodes;
pub mod session;
pub mod stats;
pub mod view;
mod ways;
mod xattr;
