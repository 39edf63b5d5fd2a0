//! Finding out how much of a protected file and its sidecar is damaged, and writing the file as it was.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::mended::Mended;
use super::sidecar::SidecarDamage;
use crate::Progress;
use crate::error::{ErrorKind, Result};
use crate::output::NewFile;
use crate::stream::cancelled;

/// Blocks that a thread looks at before it asks whether to give up.
const STEP: u64 = 256;

/// How much of a protected file and of its sidecar is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Data blocks that are damaged in every copy of the file, by position.
    pub blocks: Vec<u64>,
    /// Data blocks that are damaged in the file and sound in another copy.
    pub borrowed: u64,
    /// Parity blocks that are damaged.
    pub parity_blocks: u64,
    /// Stripes with more damaged data blocks than sound parity blocks.
    pub lost_stripes: u64,
    /// Whether the file is longer or shorter than it was.
    pub wrong_length: bool,
    /// What is wrong with the sidecar's header and table.
    pub sidecar: SidecarDamage,
    /// Bytes of a block; the last one of the file may have fewer.
    pub block_len: u64,
}

impl Damage {
    /// Whether the file is as it was.
    pub fn file_is_sound(&self) -> bool {
        self.blocks.is_empty() && self.borrowed == 0 && !self.wrong_length
    }

    /// Whether the sidecar is as it was.
    pub fn sidecar_is_sound(&self) -> bool {
        self.parity_blocks == 0 && self.sidecar.is_none()
    }

    /// Whether all that is damaged in the file can be rebuilt.
    pub fn is_repairable(&self) -> bool {
        self.lost_stripes == 0
    }
}

/// Compares each block of the file (of `file_len` bytes as it is) and of its parity with its checksum.
///
/// # Errors
/// Only [`ErrorKind::Cancelled`].
pub fn examine(mended: &Mended, file_len: u64, progress: &dyn Progress) -> Result<Damage> {
    let (sidecar, geometry) = (mended.sidecar(), *mended.sidecar().geometry());
    let steps = |blocks: u64| {
        (0..blocks.div_ceil(STEP)).into_par_iter().map(move |step| step * STEP..blocks.min((step + 1) * STEP))
    };
    let found = steps(geometry.data_blocks()).map(|numbers| {
        if progress.cancelled() {
            return Err(cancelled());
        }
        let (mut buffer, mut lost, mut borrowed) = (vec![0; geometry.block as usize], Vec::new(), 0);
        for number in numbers {
            let range = geometry.data_range(number);
            let len = range.end - range.start;
            match mended.read_block(number, &mut buffer[..len as usize]) {
                Some(0) => {}
                Some(_) => borrowed += 1,
                None => lost.push(number),
            }
            progress.advance(len);
        }
        Ok((lost, borrowed))
    });
    let found: Vec<(Vec<u64>, u64)> = found.collect::<Result<_>>()?;
    let damaged_parity = steps(geometry.parity_blocks()).map(|numbers| {
        if progress.cancelled() {
            return Err(cancelled());
        }
        let mut buffer = vec![0; geometry.block as usize];
        Ok(numbers.filter(|&number| !sidecar.read_parity(number, &mut buffer)).collect())
    });
    let damaged_parity: Vec<u64> = damaged_parity.collect::<Result<Vec<Vec<u64>>>>()?.concat();
    let borrowed = found.iter().map(|(_, borrowed)| borrowed).sum();
    let blocks: Vec<u64> = found.into_iter().flat_map(|(lost, _)| lost).collect();
    let mut missing = std::collections::HashMap::<u64, u64>::new();
    for &number in blocks.iter().chain(&damaged_parity) {
        *missing.entry(geometry.stripe_of(number)).or_default() += 1;
    }
    let stripes: BTreeSet<u64> = blocks.iter().map(|&number| geometry.stripe_of(number)).collect();
    let lost_stripes = stripes.iter().filter(|stripe| missing[stripe] > geometry.parity).count() as u64;
    Ok(Damage {
        blocks,
        borrowed,
        parity_blocks: damaged_parity.len() as u64,
        lost_stripes,
        wrong_length: file_len != geometry.file_len,
        sidecar: sidecar.damage(),
        block_len: geometry.block,
    })
}

/// Writes the file to `out` with all that can be repaired repaired; what cannot be is as it is in the file. Gives the number of blocks
/// that were rebuilt from parity. `damage` is what [`examine`] found.
///
/// # Errors
/// Those of `out`; [`ErrorKind::Cancelled`].
pub fn repair(mended: &Mended, damage: &Damage, out: &NewFile, progress: &dyn Progress) -> Result<u64> {
    let geometry = *mended.sidecar().geometry();
    out.reserve(geometry.file_len)?;
    let lost: BTreeSet<u64> = damage.blocks.iter().copied().collect();
    let steps = geometry.data_blocks().div_ceil(STEP);
    (0..steps).into_par_iter().try_for_each_init(Vec::new, |buffer: &mut Vec<u8>, step| {
        if progress.cancelled() {
            return Err(cancelled());
        }
        let numbers = step * STEP..geometry.data_blocks().min((step + 1) * STEP);
        let range = geometry.data_range(numbers.start).start..geometry.data_range(numbers.end - 1).end;
        buffer.clear();
        buffer.resize((range.end - range.start) as usize, 0);
        for number in numbers {
            let block = geometry.data_range(number);
            let part = &mut buffer[(block.start - range.start) as usize..(block.end - range.start) as usize];
            if lost.contains(&number) || mended.read_block(number, part).is_none() {
                mended.read_as_it_is(number, part);
            }
            progress.advance(block.end - block.start);
        }
        out.write_at(range.start, buffer)
    })?;
    let stripes: BTreeSet<u64> = lost.iter().map(|&number| geometry.stripe_of(number)).collect();
    let rebuilt = stripes.into_par_iter().map(|stripe| {
        if progress.cancelled() {
            return Err(cancelled());
        }
        let blocks = match mended.rebuild(stripe) {
            Ok(blocks) => blocks,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(0),
            Err(error) => return Err(error),
        };
        for (number, bytes) in &blocks {
            out.write_at(geometry.data_range(*number).start, bytes)?;
        }
        Ok(blocks.len() as u64)
    });
    rebuilt.collect::<Result<Vec<u64>>>().map(|counts| counts.iter().sum())
}
