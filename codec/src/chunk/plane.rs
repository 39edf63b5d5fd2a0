//! A plane: bytes that belong together, and how they are stored.
//!
//! One byte position of all elements of a chunk is a plane, or all its bytes; the mask of a sparse chunk, the indices of a
//! palette. How each
//! is stored is planned with its segment; a plane that turns out unlike its plan is stored as it is.

use super::block::{self, Buffers, Coder, Scratch};
use super::plan::FAST_LEVEL;
use super::repetition::may_repeat;
use super::statistics::{PATCH_BITS, count_bytes};
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::split::Split;
use crate::wire::{Put, Reader};

/// The way a plane is stored.
mod mode {
    pub(super) const RAW: u8 = 0;
    pub(super) const CONSTANT: u8 = 1;
    pub(super) const CODED: u8 = 2;
    pub(super) const ZSTD: u8 = 3;
    pub(super) const NIBBLES: u8 = 4;
}

/// What a block costs beyond its symbols and raw bits: the header, the states, the rounding up of planes.
pub(super) const BLOCK_OVERHEAD_BITS: f64 = 8.0 * 180.0;

/// Bytes of the probe that Zstandard is tried on.
const PROBE: usize = 64 << 10;

/// How a plane is to be stored: `T` is a [`Table`], or a [`Coder`] once it is ready.
#[derive(Clone, Debug)]
pub(crate) enum PlanePlan<T> {
    /// As it is.
    Raw,
    /// With Zstandard at this level.
    Zstd {
        /// The compression level, 1 to 22.
        level: i32,
    },
    /// Each byte with a table.
    Coded {
        /// The low bits that are stored raw.
        shift: u8,
        /// The number of the table within the segment.
        table: u16,
        /// The table.
        coder: T,
    },
    /// Each half of a byte with a table.
    Nibbles {
        /// The number of the table within the segment.
        table: u16,
        /// The table.
        coder: T,
    },
}

/// The bits that a table takes in the index.
pub(in crate::chunk) fn table_bits(table: &Table) -> f64 {
    let mut wire = Vec::new();
    table.write(&mut wire);
    wire.len() as f64 * 8.0
}

/// How often each key of bytes cut at bit `shift` occurs, where each byte occurs so often.
fn keys_of_bytes(counts: &[u64; 256], shift: u8) -> Vec<u64> {
    counts.chunks_exact(1 << shift).map(|counts| counts.iter().sum()).collect()
}

/// How often each half of a byte occurs, where each byte occurs so often.
fn halves_of_bytes(counts: &[u64; 256]) -> [u64; 16] {
    let mut halves = [0; 16];
    for (byte, count) in counts.iter().enumerate() {
        halves[byte & 15] += count;
        halves[byte >> 4] += count;
    }
    halves
}

impl PlanePlan<Table> {
    /// How best to store planes of which `sample` is one or a part of one, and the bits that the sample then takes. A
    /// table is paid for by `scale` times as much as there is of the sample; `level` is Zstandard's.
    pub(super) fn of(sample: &[u8], scale: f64, level: i32) -> (PlanePlan<Table>, f64) {
        let (mut best, mut best_bits) = PlanePlan::of_counts(&count_bytes(sample), scale);
        let probe = middle(sample, PROBE);
        if may_repeat(probe, 1) {
            let probed = zstd::bulk::compress(probe, level.min(FAST_LEVEL)).expect("Zstandard compresses any bytes");
            let bits = probed.len() as f64 * 8.0 * sample.len() as f64 / probe.len() as f64;
            if bits < best_bits {
                (best, best_bits) = (PlanePlan::Zstd { level }, bits);
            }
        }
        (best, best_bits)
    }

    /// The same for planes in which each byte occurs so often and nothing repeats.
    pub(super) fn of_counts(counts: &[u64; 256], scale: f64) -> (PlanePlan<Table>, f64) {
        let bytes: u64 = counts.iter().sum();
        let (mut best, mut best_bits) = (PlanePlan::Raw, bytes as f64 * 8.0);
        let mut consider = |keys: &[u64], raw_bits: f64, plan: fn(u8, Table) -> PlanePlan<Table>, shift| {
            let Some(table) = Table::fit(keys) else { return };
            let (symbol_bits, outside) = table.cost(keys);
            let coded = symbol_bits + raw_bits + outside as f64 * PATCH_BITS;
            let bits = coded + table_bits(&table) / scale + BLOCK_OVERHEAD_BITS;
            if bits < best_bits {
                (best, best_bits) = (plan(shift, table), bits);
            }
        };
        for shift in 0..4u8 {
            let keys = keys_of_bytes(counts, shift);
            let coded = |shift, coder| PlanePlan::Coded { shift, table: 0, coder };
            consider(&keys, bytes as f64 * f64::from(shift), coded, shift);
        }
        consider(&halves_of_bytes(counts), 0.0, |_, coder| PlanePlan::Nibbles { table: 0, coder }, 0);
        (best, best_bits)
    }

    /// The bits that planes take in which each byte occurs so often, without the table.
    pub(super) fn bits(&self, counts: &[u64; 256]) -> f64 {
        let bytes = counts.iter().sum::<u64>() as f64;
        let coded = |coder: &Table, keys: &[u64], raw: f64| {
            let (bits, outside) = coder.cost(keys);
            bits + raw + outside as f64 * PATCH_BITS + BLOCK_OVERHEAD_BITS
        };
        match self {
            PlanePlan::Raw | PlanePlan::Zstd { .. } => bytes * 8.0,
            PlanePlan::Coded { shift, coder, .. } => {
                coded(coder, &keys_of_bytes(counts, *shift), bytes * f64::from(*shift))
            }
            PlanePlan::Nibbles { coder, .. } => coded(coder, &halves_of_bytes(counts), 0.0),
        }
    }

    /// The bits that its table takes in the index.
    pub(super) fn table_bits(&self) -> f64 {
        match self {
            PlanePlan::Raw | PlanePlan::Zstd { .. } => 0.0,
            PlanePlan::Coded { coder, .. } | PlanePlan::Nibbles { coder, .. } => table_bits(coder),
        }
    }

    /// The plan ready to run. Its table is appended to those of the segment.
    pub(super) fn ready(self, tables: &mut Vec<Table>) -> PlanePlan<Coder> {
        let number = tables.len() as u16;
        match self {
            PlanePlan::Raw => PlanePlan::Raw,
            PlanePlan::Zstd { level } => PlanePlan::Zstd { level },
            PlanePlan::Coded { shift, coder, .. } => {
                let ready = Coder::new(&coder, Split::of_bytes(shift));
                tables.push(coder);
                PlanePlan::Coded { shift, table: number, coder: ready }
            }
            PlanePlan::Nibbles { coder, .. } => {
                let ready = Coder::new(&coder, Split::of_bytes(0));
                tables.push(coder);
                PlanePlan::Nibbles { table: number, coder: ready }
            }
        }
    }
}

/// So many bytes from the middle of `bytes`, or all there are.
pub(super) fn middle(bytes: &[u8], len: usize) -> &[u8] {
    let len = bytes.len().min(len);
    &bytes[bytes.len() / 2 - len / 2..][..len]
}

impl PlanePlan<Coder> {
    /// Appends a plane: how it is stored, then that.
    pub(super) fn encode(&self, plane: &[u8], buffers: &mut Buffers, stored: &mut Vec<u8>) {
        if let [first, rest @ ..] = plane
            && rest == &plane[..rest.len()]
        {
            stored.push(mode::CONSTANT);
            stored.push(*first);
            return;
        }
        let start = stored.len();
        let coded = match self {
            PlanePlan::Raw => false,
            PlanePlan::Zstd { level } => {
                let frame = zstd::bulk::compress(plane, *level).expect("Zstandard compresses any bytes");
                stored.push(mode::ZSTD);
                stored.put_bytes(&frame);
                true
            }
            PlanePlan::Coded { shift, table, coder } => {
                stored.push(mode::CODED);
                block::encode(plane, Split::of_bytes(*shift), coder, *table, buffers, stored)
            }
            PlanePlan::Nibbles { table, coder } => {
                stored.push(mode::NIBBLES);
                let mut nibbles = std::mem::take(&mut buffers.nibbles);
                nibbles.resize(2 * plane.len(), 0);
                for (nibbles, &byte) in nibbles.as_chunks_mut().0.iter_mut().zip(plane) {
                    *nibbles = [byte & 15, byte >> 4];
                }
                let coded = block::encode(&nibbles, Split::of_bytes(0), coder, *table, buffers, stored);
                buffers.nibbles = nibbles;
                coded
            }
        };
        if !coded || stored.len() - start > plane.len() {
            stored.truncate(start);
            stored.push(mode::RAW);
            stored.extend_from_slice(plane);
        }
    }
}

/// Decodes a plane, which is as long as `out`.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not one that an encoder writes.
pub(super) fn decode(reader: &mut Reader<'_>, tables: &[Table], out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
    match reader.u8()? {
        mode::RAW => out.copy_from_slice(reader.take(out.len())?),
        mode::CONSTANT => out.fill(reader.u8()?),
        mode::CODED => block::decode(reader, Split::of_bytes(0), tables, out, scratch)?,
        mode::ZSTD => decode_zstd(reader.bytes()?, out)?,
        mode::NIBBLES => {
            let mut nibbles = std::mem::take(&mut scratch.nibbles);
            nibbles.resize(2 * out.len(), 0);
            let decoded = block::decode(reader, Split::of_bytes(0), tables, &mut nibbles, scratch);
            join_nibbles(&nibbles, out);
            scratch.nibbles = nibbles;
            decoded?;
        }
        mode => return Err(Error::corrupt(format!("a plane is stored in the unknown way {mode}"))),
    }
    Ok(())
}

/// Makes each byte of `out` of the low halves of two bytes, the first in the low half.
fn join_nibbles(nibbles: &[u8], out: &mut [u8]) {
    // Four at a time in one word, which is many times as fast as one by one.
    let (words, rest) = nibbles.as_chunks();
    let (fours, last) = out.as_chunks_mut();
    for (four, word) in fours.iter_mut().zip(words) {
        let word = u64::from_le_bytes(*word) & 0x0f0f_0f0f_0f0f_0f0f;
        let word = (word | word >> 4) & 0x00ff_00ff_00ff_00ff;
        let word = (word | word >> 8) & 0x0000_ffff_0000_ffff;
        *four = ((word | word >> 16) as u32).to_le_bytes();
    }
    for (byte, &[low, high]) in last.iter_mut().zip(rest.as_chunks().0) {
        *byte = low & 15 | high << 4;
    }
}

/// Decodes a Zstandard frame of exactly as many bytes as `out` takes.
pub(super) fn decode_zstd(frame: &[u8], out: &mut [u8]) -> Result<()> {
    let len = zstd::bulk::decompress_to_buffer(frame, out)
        .map_err(|e| Error::corrupt(format!("Zstandard refuses a chunk: {e}")))?;
    if len != out.len() {
        return Err(super::wrong_length(len, out.len()));
    }
    Ok(())
}
