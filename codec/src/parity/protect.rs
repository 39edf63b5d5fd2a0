//! Writing a sidecar.

use rayon::prelude::*;
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateEncoder, RateEncoder};

use super::geometry::{Geometry, Share};
use super::sidecar::{HEADER_LEN, Header, table, table_checksum};
use crate::Progress;
use crate::checksum::checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::original::Original;
use crate::output::NewFile;
use crate::stream::cancelled;

/// Bytes of the file that are read before they are coded. Each thread takes about 1.2 stripes beside.
const BATCH: u64 = 64 << 20;

/// Writes the sidecar of `file` to `out`, on the threads of the current rayon pool, in bounded memory (about 64 MiB, the
/// table, and 20 MiB for each thread).
///
/// # Errors
/// Those of reading the file and writing the sidecar; [`ErrorKind::Cancelled`]; [`ErrorKind::SourceChanged`].
pub fn protect(file: &dyn Original, share: Share, out: &NewFile, progress: &dyn Progress) -> Result<Geometry> {
    let geometry = Geometry::choose(file.len(), share);
    protect_as(file, geometry, out, progress)?;
    Ok(geometry)
}

/// As [`protect`], with a geometry that is given, such as that of a sidecar that is to be renewed.
///
/// # Errors
/// As [`protect`], and [`ErrorKind::InvalidArgument`] when the geometry is that of a file of another length.
pub fn protect_as(file: &dyn Original, geometry: Geometry, out: &NewFile, progress: &dyn Progress) -> Result<()> {
    if file.len() != geometry.file_len {
        return Err(Error::invalid(format!("a file of {} bytes is not one of {}", file.len(), geometry.file_len)));
    }
    out.reserve(geometry.sidecar_len())?;
    let mut entries = vec![0; (geometry.data_blocks() + geometry.parity_blocks()) as usize];
    let (data_entries, parity_entries) = entries.split_at_mut(geometry.data_blocks() as usize);
    let together = (BATCH / (geometry.data * geometry.block)).clamp(1, geometry.stripes);
    let mut batch = vec![0; (together * geometry.data * geometry.block) as usize];
    for first in (0..geometry.stripes).step_by(together as usize) {
        let stripes = first..geometry.stripes.min(first + together);
        let run_len = ((stripes.end - stripes.start) * geometry.block) as usize;
        let runs = &mut batch[..run_len * geometry.data as usize];
        // A run is the same shard of some stripes in a row: one read.
        let checksums: Vec<Vec<u64>> = runs
            .par_chunks_mut(run_len)
            .enumerate()
            .map(|(shard, run)| {
                if progress.cancelled() {
                    return Err(cancelled());
                }
                let start = (shard as u64 * geometry.stripes + stripes.start) * geometry.block;
                let len = (run_len as u64).min(geometry.file_len.saturating_sub(start)) as usize;
                let (data, beyond) = run.split_at_mut(len);
                beyond.fill(0);
                file.read_at(start.min(geometry.file_len), data)?;
                progress.advance(len as u64);
                Ok(match len {
                    0 if geometry.file_len == 0 && shard == 0 => vec![checksum(&[])],
                    _ => data.chunks(geometry.block as usize).map(checksum).collect(),
                })
            })
            .collect::<Result<_>>()?;
        for (shard, checksums) in checksums.iter().enumerate() {
            let start = (shard as u64 * geometry.stripes + stripes.start) as usize;
            if !checksums.is_empty() {
                data_entries[start..start + checksums.len()].copy_from_slice(checksums);
            }
        }
        let runs = &*runs;
        let parity: Vec<Vec<u64>> = stripes
            .clone()
            .into_par_iter()
            .map_init(
                || None,
                |encoder, stripe| {
                    let offset = ((stripe - stripes.start) * geometry.block) as usize;
                    let shards = runs.chunks(run_len).map(|run| &run[offset..offset + geometry.block as usize]);
                    encode(encoder, &geometry, stripe, shards, out)
                },
            )
            .collect::<Result<_>>()?;
        for (stripe, checksums) in stripes.zip(parity) {
            for (block, checksum) in geometry.parity_of(stripe).zip(checksums) {
                parity_entries[block as usize] = checksum;
            }
        }
    }
    file.check_unchanged()?;
    let (table, header) = (table(&entries), Header { geometry, table_checksum: table_checksum(&entries) }.write());
    out.write_at(0, &header)?;
    out.write_at(HEADER_LEN as u64, &table)?;
    out.write_at(geometry.second_table(), &table)?;
    out.write_at(geometry.sidecar_len() - HEADER_LEN as u64, &header)
}

/// Writes the parity of one stripe, and gives the checksums of its blocks.
fn encode<'a>(
    encoder: &mut Option<HighRateEncoder<DefaultEngine>>,
    geometry: &Geometry,
    stripe: u64,
    shards: impl Iterator<Item = &'a [u8]>,
    out: &NewFile,
) -> Result<Vec<u64>> {
    let (data, parity, block) = (geometry.data as usize, geometry.parity as usize, geometry.block as usize);
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => encoder
            .insert(HighRateEncoder::new(data, parity, block, DefaultEngine::new(), None).map_err(|e| coder(&e))?),
    };
    for shard in shards {
        encoder.add_original_shard(shard).map_err(|e| coder(&e))?;
    }
    // What this gives resets the encoder when it is dropped.
    let encoded = encoder.encode().map_err(|e| coder(&e))?;
    geometry
        .parity_of(stripe)
        .zip(encoded.recovery_iter())
        .map(|(number, shard)| {
            out.write_at(geometry.parity_offset(number), shard)?;
            Ok(checksum(shard))
        })
        .collect()
}

/// The error of the coder, which is given only what its documentation asks for.
pub(super) fn coder(error: &reed_solomon_simd::Error) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the Reed-Solomon coder refuses: {error}"))
}
