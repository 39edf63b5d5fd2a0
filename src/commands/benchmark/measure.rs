//! Runs that are timed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bigsmall_codec::container::{self, Options};
use bigsmall_codec::original::DEFAULT_CHUNK_SIZE;
use bigsmall_codec::scan::{Extent, pattern, scan};
use bigsmall_codec::{ChunkIndex, Container, Device, Memory, Original, Stored};
use rayon::prelude::*;
use serde::Serialize;

use super::interrupted;
use crate::failure::Failure;
use crate::interrupt;

/// A run is repeated until so many have been timed, or so much time has gone by.
const RUNS: usize = 5;
const LONG_ENOUGH: Duration = Duration::from_millis(1500);

/// How fast something encodes and decodes, in bytes of the original per second.
#[derive(Serialize)]
pub struct Speed {
    pub name: String,
    /// What it makes as part of the original.
    pub ratio: f64,
    /// Null if there is nothing to encode.
    pub encode: Option<f64>,
    pub decode: f64,
}

/// How fast layers of one kind are encoded and decoded on one thread.
#[derive(Serialize)]
pub struct LayerSpeed {
    pub tensors: String,
    pub dtype: String,
    pub original_bytes: u64,
    pub ratio: f64,
    pub encode: f64,
    pub decode: f64,
}

/// A signal ends what goes on for long.
struct Watch;

impl bigsmall_codec::Progress for Watch {
    fn advance(&self, _: u64) {}

    fn cancelled(&self) -> bool {
        interrupt::caught().is_some()
    }
}

/// The last result of several runs, and bytes per second in the fastest.
fn best<T>(bytes: usize, mut run: impl FnMut() -> Result<T, Failure>) -> Result<(T, f64), Failure> {
    let begun = Instant::now();
    let (mut fastest, mut runs) = (Duration::MAX, 0);
    loop {
        interrupted()?;
        let start = Instant::now();
        let result = run()?;
        fastest = fastest.min(start.elapsed());
        runs += 1;
        if runs == RUNS || begun.elapsed() >= LONG_ENOUGH {
            return Ok((result, bytes as f64 / fastest.as_secs_f64().max(1e-9)));
        }
    }
}

/// Copying, in chunks and on all threads.
pub fn memcpy(source: &[u8], out: &mut [u8]) -> Result<Speed, Failure> {
    let chunk = DEFAULT_CHUNK_SIZE as usize;
    let ((), decode) = best(source.len(), || {
        out.par_chunks_mut(chunk).zip(source.par_chunks(chunk)).for_each(|(out, source)| out.copy_from_slice(source));
        Ok(())
    })?;
    Ok(Speed { name: "memcpy".to_owned(), ratio: 1.0, encode: None, decode })
}

/// Zstandard, in chunks as ours are, so that any of them can be decoded by itself.
pub fn zstd(level: i32, source: &[u8], out: &mut [u8]) -> Result<Speed, Failure> {
    let name = format!("zstd -{level}");
    let failed = |e: std::io::Error| Failure::new(format!("{name}: {e}"));
    let chunk = DEFAULT_CHUNK_SIZE as usize;
    let (coded, encode) = best(source.len(), || {
        let coded = source.par_chunks(chunk).map(|bytes| zstd::bulk::compress(bytes, level));
        coded.collect::<Result<Vec<Vec<u8>>, _>>().map_err(failed)
    })?;
    let ((), decode) = best(source.len(), || {
        out.par_chunks_mut(chunk)
            .zip(&coded)
            .try_for_each(|(out, coded)| zstd::bulk::decompress_to_buffer(coded, out).map(|_| ()))
            .map_err(failed)
    })?;
    check(&name, source, out)?;
    let stored: usize = coded.iter().map(Vec::len).sum();
    Ok(Speed { name, ratio: part(stored, source.len()), encode: Some(encode), decode })
}

/// All of `compress` and of decoding, but for the disk. Gives the container as well.
pub fn mode(name: &str, options: &Options, source: &Memory, out: &mut [u8]) -> Result<(Speed, Memory), Failure> {
    let len = source.bytes().len();
    let (coded, encode) = best(len, || {
        let mut coded = Vec::with_capacity(len);
        container::compress(source, "model.safetensors", options, &mut coded, &Watch)?;
        Ok(coded)
    })?;
    let coded = Memory::new(coded);
    let container = Container::from_store(Box::new(coded.clone()))?;
    let ((), decode) = best(len, || {
        let mut rest = &mut *out;
        let chunks = (0..container.grid().chunks()).map(ChunkIndex).map(|chunk| {
            let range = container.grid().range(chunk);
            let (this, further) = std::mem::take(&mut rest).split_at_mut((range.end - range.start) as usize);
            rest = further;
            (chunk, this)
        });
        let chunks: Vec<(ChunkIndex, &mut [u8])> = chunks.collect();
        chunks.into_par_iter().try_for_each(|(chunk, out)| container.decode_chunk(chunk, out))?;
        Ok(())
    })?;
    check(name, source.bytes(), out)?;
    let ratio = part(coded.bytes().len(), len);
    Ok((Speed { name: name.to_owned(), ratio, encode: Some(encode), decode }, coded))
}

/// Decoding a container by the GPU of that number, to memory of the host.
pub fn gpu(number: usize, source: &Memory, container: &Memory) -> Result<Speed, Failure> {
    let device = Device::gpu(number)?;
    let stored = Stored::Container(Container::from_store(Box::new(container.clone()))?.into());
    let name = format!("GPU {number}");
    let len = source.bytes().len();
    let ((), decode) = best(len, || {
        let going_on = &mut |_, _: &[u8]| interrupt::caught().is_none();
        Ok(device.decode_ahead(&stored, ChunkIndex(0), going_on)?)
    })?;
    // Once more, to be compared.
    let mut out = Vec::with_capacity(len);
    device.decode_ahead(&stored, ChunkIndex(0), &mut |_, bytes| {
        out.extend_from_slice(bytes);
        true
    })?;
    check(&name, source.bytes(), &out)?;
    Ok(Speed { name, ratio: part(container.bytes().len(), len), encode: None, decode })
}

fn check(name: &str, source: &[u8], out: &[u8]) -> Result<(), Failure> {
    match source == out {
        true => Ok(()),
        false => {
            Err(Failure::new(format!("{name}: what was decoded is not what was encoded: this should never happen")))
        }
    }
}

fn part(stored: usize, original: usize) -> f64 {
    stored as f64 / original.max(1) as f64
}

/// Each kind of layer by itself, in the first of the modes of a scan, of which `container` holds the result.
pub fn layers(source: &Memory, container: &Memory) -> Result<Vec<LayerSpeed>, Failure> {
    let scan = scan(source, Extent::Everything, &Watch)?;
    let container = Container::from_store(Box::new(container.clone()))?;
    let mut layers: Vec<(LayerSpeed, Duration, Duration)> = Vec::new();
    let mut places = HashMap::new();
    // Equal tensors are encoded once.
    for tensor in scan.tensors.iter().filter(|tensor| tensor.twin.is_none()) {
        let key = (pattern(&tensor.name), tensor.dtype.clone());
        let place = *places.entry(key.clone()).or_insert(layers.len());
        if place == layers.len() {
            let (tensors, dtype) = key;
            let speed = LayerSpeed { tensors, dtype, original_bytes: 0, ratio: 0.0, encode: 0.0, decode: 0.0 };
            layers.push((speed, Duration::ZERO, Duration::ZERO));
        }
        let (layer, encode, decode) = &mut layers[place];
        layer.original_bytes += tensor.range.end - tensor.range.start;
        layer.ratio += tensor.stored[0].bytes;
        *encode += tensor.times[0];
        *decode += decode_time(&container, &tensor.range)?;
    }
    layers.retain(|(layer, _, _)| layer.original_bytes > 0);
    for (layer, encode, decode) in &mut layers {
        let bytes = layer.original_bytes as f64;
        layer.ratio /= bytes;
        layer.encode = bytes / encode.as_secs_f64().max(1e-9);
        layer.decode = bytes / decode.as_secs_f64().max(1e-9);
    }
    Ok(layers.into_iter().map(|(layer, _, _)| layer).collect())
}

/// The time that it takes to decode the bytes in `range`, the faster of two runs; of chunks that hold others too, their part.
fn decode_time(container: &Container, range: &std::ops::Range<u64>) -> Result<Duration, Failure> {
    let mut out = Vec::new();
    let mut time = Duration::ZERO;
    for chunk in container.grid().chunks_of(range.clone()) {
        interrupted()?;
        let whole = container.grid().range(chunk);
        out.resize((whole.end - whole.start) as usize, 0);
        let mut fastest = Duration::MAX;
        for _ in 0..2 {
            let start = Instant::now();
            container.decode_chunk(chunk, &mut out)?;
            fastest = fastest.min(start.elapsed());
        }
        let part = range.end.min(whole.end) - range.start.max(whole.start);
        time += fastest.mul_f64(part as f64 / (whole.end - whole.start) as f64);
    }
    Ok(time)
}

/// `verify` of the container at `path`, in bytes of the original per second.
pub fn verify(path: &Path) -> Result<f64, Failure> {
    let stored = Stored::open(path, &Arc::default())?;
    let (sound, speed) = best(stored.len() as usize, || Ok(stored.verify(&Watch)?.damage.is_empty()))?;
    match sound {
        true => Ok(speed),
        false => {
            Err(Failure::new(format!("{}: damaged as soon as it was written: is the disk sound?", path.display())))
        }
    }
}
