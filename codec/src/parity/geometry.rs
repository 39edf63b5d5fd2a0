//! How a protected file is cut into blocks and stripes, and where everything lies in its sidecar.

use std::ops::Range;

use super::sidecar::HEADER_LEN;
use crate::error::{Error, Result};

/// The smallest and the largest block that is chosen while a file has few enough blocks. The upper one is the unit in
/// which disks fail.
const SMALLEST_BLOCK: u64 = 512;
const USUAL_BLOCK: u64 = 4096;

/// A small file is cut into at least so many blocks if that does not make them too small.
const WANTED_BLOCKS: u64 = 1024;

/// A file is cut into at most so many blocks: their checksums are in memory (64 MiB) while it is repaired.
const MOST_BLOCKS: u64 = 1 << 23;

/// Data blocks of a stripe. The more there are, the better damage that is scattered at random spreads over the stripes;
/// beyond this, coding leaves the cache: measured with 4 KiB blocks, 2.4 GB/s a core at 4096 and 1.4 at 32768.
const STRIPE_BLOCKS: u64 = 4096;

/// The most bytes of data that are chosen for a stripe, which is what coding has to hold in memory.
const STRIPE_LEN: u64 = 64 << 20;

/// What a reader accepts of any writer.
const LARGEST_BLOCK: u64 = 1 << 26;
const MOST_SHARDS: u64 = 1 << 15;
const LARGEST_STRIPE: u64 = 1 << 28;

/// The most bytes of a file and its parity, so that no sum overflows.
const LONGEST: u64 = 1 << 62;

/// Entries of a page of the table; behind them is their checksum, so that a page has 4 KiB.
pub(super) const PAGE_ENTRIES: usize = 511;

/// How much parity a file gets, in per cent of its size: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// What is taken when nobody says anything: a burst of a tenth of the file can be lost.
    pub const DEFAULT: Share = Share(10);

    /// So many per cent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) unless it is from 1 to 100.
    pub fn percent(percent: u32) -> Result<Share> {
        match percent {
            1..=100 => Ok(Share(percent)),
            _ => Err(Error::invalid(format!("{percent} per cent of parity is not from 1 to 100"))),
        }
    }
}

/// The blocks of a protected file and of its parity.
///
/// Data block `b` is bytes `b * block` to `(b + 1) * block` of the file, the last one shorter. Block `b` belongs to
/// stripe `b mod stripes`, as its shard `b div stripes`; so neighbours are in different stripes, and a burst is shared by
/// all of them. Parity blocks are numbered in the same way, shard `j` of stripe `s` being block `j * stripes + s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the protected file.
    pub file_len: u64,
    /// Bytes of a block.
    pub block: u64,
    /// Codewords.
    pub stripes: u64,
    /// Data shards of a stripe.
    pub data: u64,
    /// Parity shards of a stripe.
    pub parity: u64,
}

impl Geometry {
    /// The geometry that is chosen for a file of `file_len` bytes.
    pub fn choose(file_len: u64, share: Share) -> Geometry {
        let mut block = (file_len / WANTED_BLOCKS).next_power_of_two().clamp(SMALLEST_BLOCK, USUAL_BLOCK);
        while file_len.div_ceil(block) > MOST_BLOCKS {
            block *= 2;
        }
        let most = STRIPE_BLOCKS.min(STRIPE_LEN / block).max(1);
        let blocks = file_len.div_ceil(block).max(1);
        let stripes = blocks.div_ceil(most);
        let data = blocks.div_ceil(stripes);
        // One more than the share: a burst that does not begin with a block touches one more.
        Geometry { file_len, block, stripes, data, parity: (data * u64::from(share.0)).div_ceil(100) + 1 }
    }

    /// The same geometry if it is one that a sidecar may have.
    pub(super) fn checked(self) -> Result<Geometry> {
        let Geometry { file_len, block, stripes, data, parity } = self;
        let shards = |count| (1..=MOST_SHARDS).contains(&count);
        let fits = (64..=LARGEST_BLOCK).contains(&block)
            && block % 64 == 0
            && shards(data)
            && shards(parity)
            && (data + parity) * block <= LARGEST_STRIPE.max(2 * block)
            && stripes >= 1
            && stripes <= LONGEST / ((data + parity) * block)
            && file_len.div_ceil(block).max(1).div_ceil(stripes) == data;
        if fits { Ok(self) } else { Err(Error::corrupt("the geometry in its header is impossible")) }
    }

    /// Data blocks of the file; an empty file has one, of no bytes.
    pub fn data_blocks(&self) -> u64 {
        self.file_len.div_ceil(self.block).max(1)
    }

    /// Parity blocks.
    pub fn parity_blocks(&self) -> u64 {
        self.parity * self.stripes
    }

    /// The bytes of the file that data block `number` is.
    pub fn data_range(&self, number: u64) -> Range<u64> {
        let start = number * self.block;
        start..self.file_len.min(start + self.block)
    }

    /// The stripe that data block `number` belongs to.
    pub fn stripe_of(&self, number: u64) -> u64 {
        number % self.stripes
    }

    /// The data blocks of a stripe, in the order of its shards. The last shard may be missing: it counts as zeros.
    pub fn data_of(&self, stripe: u64) -> impl Iterator<Item = u64> + use<> {
        (stripe..self.data_blocks()).step_by(self.stripes as usize)
    }

    /// The parity blocks of a stripe, in the order of its shards.
    pub fn parity_of(&self, stripe: u64) -> impl Iterator<Item = u64> + use<> {
        (stripe..self.parity_blocks()).step_by(self.stripes as usize)
    }

    /// Entries of the table: a checksum for each data block, then for each parity block.
    pub(super) fn entries(&self) -> u64 {
        self.data_blocks() + self.parity_blocks()
    }

    /// Bytes of a copy of the table.
    pub(super) fn table_len(&self) -> u64 {
        (self.entries() + self.entries().div_ceil(PAGE_ENTRIES as u64)) * 8
    }

    /// Where parity block `number` lies in the sidecar.
    pub(super) fn parity_offset(&self, number: u64) -> u64 {
        HEADER_LEN as u64 + self.table_len() + number * self.block
    }

    /// Where the second copy of the table lies in the sidecar.
    pub(super) fn second_table(&self) -> u64 {
        self.parity_offset(self.parity_blocks())
    }

    /// Bytes of the sidecar.
    pub fn sidecar_len(&self) -> u64 {
        self.second_table() + self.table_len() + HEADER_LEN as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_is_accepted_and_costs_what_was_asked_for() {
        let lens = (0..49).flat_map(|bits| [1u64 << bits, (1 << bits) + 1, (1 << bits) * 3 / 2]);
        for len in lens.chain([0, 100_000, 15_200_000_000]) {
            for percent in [1, 10, 37, 100] {
                let geometry = Geometry::choose(len, Share::percent(percent).unwrap());
                assert_eq!(geometry.checked().unwrap(), geometry, "{len} bytes, {percent} %");
                assert!(geometry.data_blocks() <= geometry.data * geometry.stripes);
                assert_eq!(geometry.data_range(geometry.data_blocks() - 1).end, len);
                assert!(geometry.data * geometry.block <= STRIPE_LEN.max(geometry.block));
                let overhead = geometry.sidecar_len() as f64 / len.max(1) as f64 * 100.0;
                // Beside the parity there are two checksums for each block, one for the data and one for the parity.
                let most =
                    if (1 << 24..1 << 40).contains(&len) { f64::from(percent) * 1.01 + 0.9 } else { f64::INFINITY };
                assert!(overhead <= most, "{len} bytes, {percent} %: {overhead:.2} %");
            }
        }
        assert!(Share::percent(0).is_err() && Share::percent(101).is_err());
    }

    #[test]
    fn every_block_is_in_one_stripe() {
        let geometry =
            Geometry { file_len: 64 * 1000 + 1, block: 64, stripes: 7, data: 143, parity: 3 }.checked().unwrap();
        let mut seen = vec![0; geometry.data_blocks() as usize];
        for stripe in 0..geometry.stripes {
            for block in geometry.data_of(stripe) {
                assert_eq!(geometry.stripe_of(block), stripe);
                seen[block as usize] += 1;
            }
            assert_eq!(geometry.parity_of(stripe).count() as u64, geometry.parity);
        }
        assert!(seen.iter().all(|&count| count == 1));
    }

    #[test]
    fn impossible_geometries_are_refused() {
        let sound = Geometry { file_len: 6400, block: 64, stripes: 10, data: 10, parity: 1 };
        sound.checked().unwrap();
        for forged in [
            Geometry { block: 0, ..sound },
            Geometry { block: 63, ..sound },
            Geometry { block: 1 << 40, ..sound },
            Geometry { stripes: 0, ..sound },
            Geometry { stripes: u64::MAX, ..sound },
            Geometry { data: 11, ..sound },
            Geometry { data: 0, ..sound },
            Geometry { parity: 0, ..sound },
            Geometry { parity: 1 << 20, ..sound },
            Geometry { file_len: u64::MAX, ..sound },
        ] {
            assert!(forged.checked().is_err(), "{forged:?}");
        }
    }
}
