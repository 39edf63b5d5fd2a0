//! Real mounts, held to what `docs/semantics.md` promises; each promise names its test.
//!
//! They need /dev/fuse and the right to mount. Where that is missing they fail and say so; none is passed over. Each
//! mount has a directory of its own and is unmounted on every path out.

#[path = "../cli/support.rs"]
mod support;

mod disk;
#[cfg(feature = "cuda")]
#[path = "../cli/driver.rs"]
mod driver;
mod faults;
#[cfg(feature = "cuda")]
mod gpu;
mod hub;
mod life;
mod mounted;
mod names;
mod neighbours;
mod patches;
mod promises;
mod random;
mod upstream;
