//! A protected file as it was before it was damaged.

use std::collections::HashMap;
use std::sync::Mutex;

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, RateDecoder};

use super::protect::coder;
use super::sidecar::Sidecar;
use crate::error::{Error, Result};
use crate::original::{ChunkIndex, DEFAULT_CHUNK_SIZE, Grid, Original};

/// Bytes of rebuilt blocks that are kept: who reads through a burst needs many blocks of the same stripes.
const KEPT: usize = 64 << 20;

/// A protected file as it was: each block is compared with its checksum, and what is damaged is taken from another copy
/// of the file or rebuilt from the parity.
///
/// A stripe is read as a whole to rebuild a block of it, so reading through large damage is slow;
/// [`repair`](super::repair) rebuilds each stripe once.
pub struct Mended {
    sidecar: Sidecar,
    /// The file, then other copies of it, each perhaps damaged, cut short or too long.
    copies: Vec<Box<dyn Original>>,
    grid: Grid,
    rebuilt: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Mended {
    /// The file that `sidecar` protects, of which `copies` are left.
    ///
    /// # Errors
    /// When the file is longer than files can be.
    pub fn new(sidecar: Sidecar, copies: Vec<Box<dyn Original>>) -> Result<Mended> {
        let grid = Grid::uniform(sidecar.geometry().file_len, DEFAULT_CHUNK_SIZE)?;
        Ok(Mended { sidecar, copies, grid, rebuilt: Mutex::default() })
    }

    /// The sidecar.
    pub fn sidecar(&self) -> &Sidecar {
        &self.sidecar
    }

    /// Reads data block `number` into `block`, which is as long as it. Gives the first copy in which it is sound.
    pub(super) fn read_block(&self, number: u64, block: &mut [u8]) -> Option<usize> {
        let start = self.sidecar.geometry().data_range(number).start;
        // A block that cannot be read, because its disk fails or the file is cut short, is as lost as a wrong one.
        self.copies.iter().position(|copy| copy.read_at(start, block).is_ok() && self.sidecar.is_data(number, block))
    }

    /// Reads data block `number` from the file, sound or not; what cannot be read is zeros.
    pub(super) fn read_as_it_is(&self, number: u64, block: &mut [u8]) {
        let start = self.sidecar.geometry().data_range(number).start;
        if self.copies.first().is_none_or(|file| file.read_at(start, block).is_err()) {
            block.fill(0);
        }
    }

    /// The data blocks of `stripe` that are lost, rebuilt.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when there are more of them than sound parity blocks.
    pub(super) fn rebuild(&self, stripe: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        let geometry = *self.sidecar.geometry();
        let (data, parity, block) = (geometry.data as usize, geometry.parity as usize, geometry.block as usize);
        let mut decoder =
            HighRateDecoder::new(data, parity, block, DefaultEngine::new(), None).map_err(|e| coder(&e))?;
        let (mut buffer, mut lost) = (vec![0; block], Vec::new());
        let mut shards = 0;
        for (shard, number) in geometry.data_of(stripe).enumerate() {
            let range = geometry.data_range(number);
            let len = (range.end - range.start) as usize;
            buffer[len..].fill(0);
            match self.read_block(number, &mut buffer[..len]) {
                Some(_) => decoder.add_original_shard(shard, &buffer).map_err(|e| coder(&e))?,
                None => lost.push((shard, number, len)),
            }
            shards += 1;
        }
        buffer.fill(0);
        for shard in shards..data {
            decoder.add_original_shard(shard, &buffer).map_err(|e| coder(&e))?;
        }
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = 0;
        for (shard, number) in geometry.parity_of(stripe).enumerate() {
            if found < lost.len() && self.sidecar.read_parity(number, &mut buffer) {
                decoder.add_recovery_shard(shard, &buffer).map_err(|e| coder(&e))?;
                found += 1;
            }
        }
        if found < lost.len() {
            return Err(Error::corrupt(format!(
                "{} blocks of stripe {stripe} are lost, and {found} of its parity blocks are sound: too few",
                lost.len()
            )));
        }
        let decoded = decoder.decode().map_err(|e| coder(&e))?;
        let mut rebuilt = Vec::with_capacity(lost.len());
        for (shard, number, len) in lost {
            let bytes = decoded.restored_original(shard).map(|bytes| bytes[..len].to_vec());
            let bytes = bytes.filter(|bytes| !self.sidecar.knows(number) || self.sidecar.is_data(number, bytes));
            let bytes = bytes.ok_or_else(|| Error::corrupt("a rebuilt block fails its checksum"))?;
            rebuilt.push((number, bytes));
        }
        Ok(rebuilt)
    }

    /// Rebuilds data block `number` into `block`.
    fn restore_block(&self, number: u64, block: &mut [u8]) -> Result<()> {
        let kept = |rebuilt: &HashMap<u64, Vec<u8>>, block: &mut [u8]| match rebuilt.get(&number) {
            Some(bytes) => {
                block.copy_from_slice(bytes);
                true
            }
            None => false,
        };
        let lock = || self.rebuilt.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept(&lock(), block) {
            return Ok(());
        }
        let geometry = self.sidecar.geometry();
        // Not under the lock: others may be after blocks that are there.
        let blocks = self.rebuild(geometry.stripe_of(number))?;
        let mut rebuilt = lock();
        if (rebuilt.len() + blocks.len()) * geometry.block as usize > KEPT {
            rebuilt.clear();
        }
        rebuilt.extend(blocks);
        // It is there unless the file has just become sound.
        if kept(&rebuilt, block) || self.read_block(number, block).is_some() {
            return Ok(());
        }
        Err(Error::corrupt("a lost block changes while it is read"))
    }
}

impl Original for Mended {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.read_at(self.grid.range(chunk).start, out)
    }

    fn stamp(&self) -> Result<Vec<u8>> {
        self.copies.first().map_or(Ok(Vec::new()), |file| file.stamp())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let geometry = *self.sidecar.geometry();
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= geometry.file_len);
        let Some(end) = end else {
            return Err(Error::invalid(format!("a read of {} bytes at {offset} reaches beyond the end", buf.len())));
        };
        if buf.is_empty() {
            return Ok(());
        }
        let mut block = vec![0; geometry.block as usize];
        for number in offset / geometry.block..end.div_ceil(geometry.block) {
            let have = geometry.data_range(number);
            let block = &mut block[..(have.end - have.start) as usize];
            if self.read_block(number, block).is_none() {
                self.restore_block(number, block)?;
            }
            let (from, to) = (have.start.max(offset), have.end.min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&block[(from - have.start) as usize..(to - have.start) as usize]);
        }
        Ok(())
    }
}
