//! What the Hub knows the contents of a file by: the SHA-256 of a large one, the id of a Git blob of another.

use std::fmt;
use std::io::{self, Read};

use bigsmall_codec::{Error, ErrorKind, Original, Progress};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::ui::hex;

/// Bytes that are hashed at a time.
const STEP: usize = 1 << 20;

/// The id of some contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentId {
    /// A file that is stored by Git LFS or Xet.
    Sha256([u8; 32]),
    /// A file that is in the Git repository itself: the SHA-1 of `blob LENGTH\0` and the contents.
    GitBlob([u8; 20]),
}

impl ContentId {
    /// The id, of the same kind as `like`, of all bytes of an original.
    ///
    /// # Errors
    /// Those of reading it, and when it is cancelled.
    pub fn of(original: &dyn Original, like: &ContentId, progress: &dyn Progress) -> bigsmall_codec::Result<ContentId> {
        let mut hasher = Hasher::like(like, original.len());
        let mut buffer = vec![0; STEP];
        let mut offset = 0;
        while offset < original.len() {
            if progress.cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
            }
            let len = buffer.len().min((original.len() - offset) as usize);
            original.read_at(offset, &mut buffer[..len])?;
            hasher.update(&buffer[..len]);
            progress.advance(len as u64);
            offset += len as u64;
        }
        Ok(hasher.finish())
    }

    /// Reads the 64 digits of a SHA-256 or the 40 of a Git blob.
    pub fn parse(text: &str) -> Option<ContentId> {
        match text.len() {
            64 => digits(text).map(ContentId::Sha256),
            40 => digits(text).map(ContentId::GitBlob),
            _ => None,
        }
    }
}

/// As the Hub and the file names in its cache spell it.
impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            ContentId::Sha256(bytes) => hex(bytes),
            ContentId::GitBlob(bytes) => hex(bytes),
        })
    }
}

fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// Hashes contents as they go by, to compare them with an id.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    /// A hasher for contents of `len` bytes that should have the id `expected`.
    pub fn like(expected: &ContentId, len: u64) -> Hasher {
        match expected {
            ContentId::Sha256(_) => Hasher::Sha256(Sha256::new()),
            ContentId::GitBlob(_) => Hasher::GitBlob(Sha1::new_with_prefix(format!("blob {len}\0"))),
        }
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(sha256) => sha256.update(bytes),
            Hasher::GitBlob(sha1) => sha1.update(bytes),
        }
    }

    /// All of what `reader` gives; `step` is told how much and can end it.
    ///
    /// # Errors
    /// Those of `reader` and `step`.
    pub fn read(&mut self, reader: &mut dyn Read, mut step: impl FnMut(u64) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; STEP];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(()),
                len => {
                    self.update(&buffer[..len]);
                    step(len as u64)?;
                }
            }
        }
    }

    /// The id of what went by.
    pub fn finish(self) -> ContentId {
        match self {
            Hasher::Sha256(sha256) => ContentId::Sha256(sha256.finalize().into()),
            Hasher::GitBlob(sha1) => ContentId::GitBlob(sha1.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_git_gives() {
        // printf 'hello' | git hash-object --stdin; printf 'hello' | sha256sum
        for text in [
            "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        ] {
            let expected = ContentId::parse(text).unwrap();
            let mut hasher = Hasher::like(&expected, 5);
            hasher.read(&mut &b"hello"[..], |_| Ok(())).unwrap();
            assert_eq!(hasher.finish(), expected);
            assert_eq!(expected.to_string(), text);
        }
        for text in ["", "b6", &"+1".repeat(20), &"g".repeat(64), &"ä".repeat(20)] {
            assert_eq!(ContentId::parse(text), None);
        }
    }
}
