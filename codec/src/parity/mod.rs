//! Parity: a sidecar beside a file from which damage to it can be repaired.
//!
//! The file is cut into blocks, mostly of 4 KiB, and the blocks are dealt out to stripes like cards: neighbours go to
//! different stripes, so that a burst is shared by all of them. Each stripe is a Reed-Solomon codeword over GF(2^16). The
//! sidecar holds the parity blocks, dealt out likewise, and the checksum of every block. Checksums tell which blocks are
//! damaged; the code then only has to fill known gaps, and fills as many of a stripe as it has parity blocks. Header and
//! checksums are stored twice, so that the sidecar bears damage as the file does.
//!
//! `docs/format.md` defines the sidecar, `docs/reliability.md` says why it is like this.

mod geometry;
mod mended;
mod protect;
mod repair;
mod sidecar;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use geometry::{Geometry, Share};
pub use mended::Mended;
pub use protect::{protect, protect_as};
pub use repair::{Damage, examine, repair};
pub use sidecar::{Sidecar, SidecarDamage};

/// The extension of sidecars, after the whole name of the file: `model.bs.ecc`.
pub const EXTENSION: &str = "ecc";

/// Where the sidecar of the file at `path` is, if it has one.
pub fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(EXTENSION);
    name.into()
}
