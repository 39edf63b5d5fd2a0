//! Halves of blocks, their signs in the lowest bit: the upper bits are coded, the lower ones stored as they are.

use crate::chunk::block::{self, Buffers, Coder, Scratch};
use crate::chunk::plane::{BLOCK_OVERHEAD_BITS, table_bits};
use crate::chunk::statistics::PATCH_BITS;
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::split::Split;
use crate::wire::Reader;

/// How halves are stored.
mod mode {
    pub(super) const RAW: u8 = 0;
    pub(super) const CODED: u8 = 2;
}

/// The fewest low bits that are not coded, and the most.
const LEAST_SHIFT: u8 = 5;
const MOST_SHIFT: u8 = 12;

/// How halves are cut.
fn split(shift: u8) -> Split {
    Split { width: 16, signed: false, shift, zeros: 0 }
}

/// How often each half occurs, but for its low bits.
#[derive(Clone, Debug)]
pub(super) struct HalfStatistics {
    counts: Vec<u64>,
    any: u16,
}

impl Default for HalfStatistics {
    fn default() -> Self {
        HalfStatistics { counts: vec![0; 1 << (16 - LEAST_SHIFT)], any: 0 }
    }
}

impl HalfStatistics {
    pub(super) fn add(&mut self, halves: &[u16]) {
        for &half in halves {
            self.counts[usize::from(half >> LEAST_SHIFT)] += 1;
            self.any |= half;
        }
    }

    fn counts(&self, shift: u8) -> Vec<u64> {
        self.counts.chunks_exact(1 << (shift - LEAST_SHIFT)).map(|counts| counts.iter().sum()).collect()
    }

    fn bits_with(&self, table: &Table, shift: u8) -> f64 {
        let counts = self.counts(shift);
        let (bits, outside) = table.cost(&counts);
        let raw = f64::from(split(shift).without_zeros(self.any.into()).raw_bits());
        bits + outside as f64 * PATCH_BITS + raw * counts.iter().sum::<u64>() as f64 + BLOCK_OVERHEAD_BITS
    }

    /// The plan that takes the fewest bits, where a table is paid for by `scale` times as much.
    pub(super) fn fit(&self, scale: f64) -> HalfPlan<Table> {
        let mut best = (HalfPlan::Raw, self.counts.iter().sum::<u64>() as f64 * 16.0);
        for shift in LEAST_SHIFT..=MOST_SHIFT {
            let Some(coder) = Table::fit(&self.counts(shift)) else { continue };
            let bits = self.bits_with(&coder, shift) + table_bits(&coder) / scale;
            if bits < best.1 {
                best = (HalfPlan::Coded { shift, table: 0, coder }, bits);
            }
        }
        best.0
    }

    /// The bits that they take as planned, without the table.
    pub(super) fn bits(&self, plan: &HalfPlan<Table>) -> f64 {
        match plan {
            HalfPlan::Raw => self.counts.iter().sum::<u64>() as f64 * 16.0,
            HalfPlan::Coded { shift, coder, .. } => self.bits_with(coder, *shift),
        }
    }
}

/// How halves are coded: `T` is a [`Table`], or a [`Coder`] once it is ready.
#[derive(Clone, Debug)]
pub(super) enum HalfPlan<T> {
    /// As they are.
    Raw,
    /// Each with a table.
    Coded {
        /// The low bits that are stored raw.
        shift: u8,
        /// The number of the table within the segment.
        table: u16,
        /// The table.
        coder: T,
    },
}

impl HalfPlan<Table> {
    /// The bits that its table takes in the index.
    pub(super) fn table_bits(&self) -> f64 {
        match self {
            HalfPlan::Raw => 0.0,
            HalfPlan::Coded { coder, .. } => table_bits(coder),
        }
    }

    /// The plan ready to run. Its table is appended to those of the segment.
    pub(super) fn ready(self, tables: &mut Vec<Table>) -> HalfPlan<Coder> {
        match self {
            HalfPlan::Raw => HalfPlan::Raw,
            HalfPlan::Coded { shift, coder, .. } => {
                let ready = Coder::new(&coder, split(shift));
                tables.push(coder);
                HalfPlan::Coded { shift, table: (tables.len() - 1) as u16, coder: ready }
            }
        }
    }
}

impl HalfPlan<Coder> {
    /// Appends halves: how they are stored, then that.
    pub(super) fn encode(&self, halves: &[u16], buffers: &mut Buffers, stored: &mut Vec<u8>) {
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        let start = stored.len();
        let coded = match self {
            HalfPlan::Raw => false,
            HalfPlan::Coded { shift, table, coder } => {
                stored.push(mode::CODED);
                block::encode(&bytes, split(*shift), coder, *table, buffers, stored)
            }
        };
        if !coded || stored.len() - start > bytes.len() {
            stored.truncate(start);
            stored.push(mode::RAW);
            stored.extend_from_slice(&bytes);
        }
    }
}

/// Decodes so many halves; `bytes` is memory to work in.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when they are not what an encoder writes.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    tables: &[Table],
    count: usize,
    halves: &mut Vec<u16>,
    bytes: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<()> {
    bytes.resize(2 * count, 0);
    match reader.u8()? {
        mode::RAW => bytes.copy_from_slice(reader.take(2 * count)?),
        mode::CODED => block::decode(reader, split(0), tables, bytes, scratch)?,
        mode => return Err(Error::corrupt(format!("scales are stored in the unknown way {mode}"))),
    }
    halves.clear();
    halves.extend(bytes.as_chunks().0.iter().map(|half| u16::from_le_bytes(*half)));
    Ok(())
}
