//! The checksum of everything stored: XXH3 with 64 bits and seed 0.
//!
//! It is not cryptographic. It finds damage, at memory speed; the SHA-256 of the original and the MD5 of each tensor
//! are recorded beside it for who wants to compare with the outside world.

/// The XXH3-64 of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_xxh3_with_seed_zero() {
        // Reference values of the XXH3 specification's own test suite.
        assert_eq!(super::checksum(b""), 0x2d06800538d394c2);
        assert_eq!(super::checksum(b"a"), 0xe6c632b61e964e1f);
    }
}
