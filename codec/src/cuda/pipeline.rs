//! A whole container through a device: chunks are read and checked on the host's threads, sent, decoded and sent back,
//! several batches at a time.
//!
//! A batch is a row of chunks of about [`Sizes::output`] bytes. It has a *lane*: a stream, pinned memory and memory of the device. While
//! one lane is filled from the file, another's copies and kernel run, and what came back in a third is consumed. Chunks that the
//! kernel does not know, and those that fail a check anywhere, are decoded on the host as without a GPU; so the two agree about what is damaged.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::driver::{DeviceMemory, Driver, Pinned, Stream, bytes_of};
use super::job::{Batch, DECODED, Job, is_decoded};
use super::shared::SharedTables;
use crate::Progress;
use crate::chunk::delta::elements_of_base;
use crate::chunk::{Codec, Place};
use crate::container::{Container, StoredChunk};
use crate::error::{Error, ErrorKind, Result};
use crate::original::{ChunkIndex, MAX_CHUNK_SIZE, Original};
use crate::stream::{Consume, LostChunk, Window, cancelled, groups};

/// Batches on their way at a time.
const LANES: usize = 3;

/// Bytes of the original in a batch, if there is memory for that.
const BATCH: usize = 32 << 20;

/// The part of the device's free memory that is used at most.
const PART_OF_MEMORY: u64 = 4;

/// Stored bytes of a chunk begin at multiples of this in the input.
const ALIGNMENT: usize = 16;

/// How large the memory of a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes of the original.
    pub(super) output: usize,
    pub(super) jobs: usize,
}

impl Sizes {
    /// Those for a device with so many bytes of free memory.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] when that is too little.
    pub(super) fn for_memory(free: u64) -> Result<Sizes> {
        let lane = usize::try_from(free / PART_OF_MEMORY).unwrap_or(usize::MAX) / LANES;
        // Stored bytes, those of a base and the output are about equally long; jobs are few.
        let output = BATCH.min(lane / 4) / ALIGNMENT * ALIGNMENT;
        if output < MAX_CHUNK_SIZE as usize {
            return Err(Error::new(
                ErrorKind::Device,
                format!(
                    "the GPU has {free} bytes of memory free, which is too little; decode on the processor instead"
                ),
            ));
        }
        Ok(Sizes { output, jobs: output / 1024 })
    }

    /// Bytes of the input: each chunk is stored in no more than its length, begins at a multiple of [`ALIGNMENT`], and may have
    /// `bases` with it, as long as itself.
    fn input(self, bases: bool) -> usize {
        (self.output + (self.jobs + 1) * ALIGNMENT) * if bases { 2 } else { 1 }
    }
}

/// What a batch needs, and what it waits for.
#[derive(Debug)]
struct Lane {
    // The first to be dropped, which waits for it.
    stream: Stream,
    input: Pinned,
    jobs: Pinned,
    statuses: Pinned,
    output: Pinned,
    device_input: DeviceMemory,
    device_jobs: DeviceMemory,
    device_statuses: DeviceMemory,
    device_output: DeviceMemory,
}

impl Lane {
    /// For batches of these sizes, with `bases` or without.
    fn new(driver: &Arc<dyn Driver>, sizes: Sizes, bases: bool) -> Result<Lane> {
        let input = sizes.input(bases);
        let (jobs, statuses) = (sizes.jobs * size_of::<Job>(), sizes.jobs * size_of::<u32>());
        // Room to give the batch the alignment that it has in the original.
        let output = sizes.output + ALIGNMENT;
        Ok(Lane {
            stream: Stream::new(driver)?,
            input: Pinned::new(driver, input)?,
            jobs: Pinned::new(driver, jobs)?,
            statuses: Pinned::new(driver, statuses)?,
            output: Pinned::new(driver, output)?,
            device_input: DeviceMemory::new(driver, input)?,
            device_jobs: DeviceMemory::new(driver, jobs)?,
            device_statuses: DeviceMemory::new(driver, statuses)?,
            device_output: DeviceMemory::new(driver, output)?,
        })
    }
}

/// A batch whose lane is filled.
#[derive(Debug)]
struct Filled {
    chunks: Range<u64>,
    /// Where they lie in the original.
    range: Range<u64>,
    /// The numbers of those that the device decodes, in the order of their jobs.
    jobs: Vec<u64>,
    /// Bytes of the input.
    input_len: usize,
    /// Bytes in front of the output.
    skew: usize,
}

/// A chunk that the device is to decode.
struct Candidate<'a> {
    chunk: ChunkIndex,
    segment: usize,
    stored: &'a StoredChunk,
    /// Where its stored bytes are in the input, and the elements of its base, if it needs them.
    at: usize,
    base: Option<usize>,
    /// Where its bytes are to be in the output, and how many there are.
    out: u64,
    len: u32,
}

/// Where the original is to be.
pub(super) enum Target<'a> {
    /// In memory of the host, given to this batch by batch.
    Host(Consume<'a>),
    /// In memory of the device, from there on.
    Device(u64),
}

/// A container on its way through a device.
pub(super) struct Pipeline<'a> {
    driver: &'a Arc<dyn Driver>,
    container: &'a Container,
    shared: SharedTables,
    tables: DeviceMemory,
    columns: DeviceMemory,
    sizes: Sizes,
}

impl<'a> Pipeline<'a> {
    /// Gives the device what all chunks of the container share.
    ///
    /// # Errors
    /// [`ErrorKind::Device`].
    pub(super) fn new(driver: &'a Arc<dyn Driver>, container: &'a Container, sizes: Sizes) -> Result<Pipeline<'a>> {
        let index = container.index();
        let shared = SharedTables::new(&index.tables, &index.segments)?;
        let stream = Stream::new(driver)?;
        let send = |bytes: &[u8]| {
            let memory = DeviceMemory::new(driver, bytes.len())?;
            // SAFETY: the memory is as long as `bytes`.
            unsafe { send(driver, &stream, memory.address, bytes) }.map(|()| memory)
        };
        let (tables, columns) = (send(bytes_of(&shared.tables))?, send(bytes_of(&shared.columns))?);
        Ok(Pipeline { driver, container, shared, tables, columns, sizes })
    }

    /// Decodes the original from chunk `first` on, and gives it to `consume` as [`Windows::windows`](crate::stream::Windows::windows) does.
    pub(super) fn run_from(&self, first: ChunkIndex, progress: &dyn Progress, consume: Consume<'_>) -> Result<()> {
        let groups = self.groups(first.0..self.container.grid().chunks());
        self.run_groups(groups, progress, &mut Target::Host(consume))
    }

    /// Decodes `range` of the original to memory of the device.
    ///
    /// # Errors
    /// The first chunk's that cannot be decoded, and those of the driver.
    ///
    /// # Safety
    /// `address` is that of memory of this device's context that is as long as `range`, and nobody uses it until this returns.
    pub(super) unsafe fn run_to_device(&self, range: Range<u64>, address: u64, progress: &dyn Progress) -> Result<()> {
        let grid = self.container.grid();
        let touched: Vec<ChunkIndex> = grid.chunks_of(range.clone()).collect();
        let is_whole = |chunk: &&ChunkIndex| {
            let here = grid.range(**chunk);
            range.start <= here.start && here.end <= range.end
        };
        // Only the first and the last may be cut.
        let (stream, mut part) = (Stream::new(self.driver)?, Vec::new());
        for chunk in touched.iter().filter(|chunk| !is_whole(chunk)) {
            let here = grid.range(*chunk);
            let (from, to) = (here.start.max(range.start), here.end.min(range.end));
            part.resize((to - from) as usize, 0);
            self.container.read_at(from, &mut part)?;
            // SAFETY: the part lies in `range`.
            unsafe { send(self.driver, &stream, address + (from - range.start), &part)? };
        }
        let whole: Vec<ChunkIndex> = touched.iter().filter(is_whole).copied().collect();
        let (Some(first), Some(last)) = (whole.first(), whole.last()) else { return Ok(()) };
        let start = grid.range(*first).start;
        let groups = self.groups(first.0..last.0 + 1);
        self.run_groups(
            groups,
            progress,
            &mut Target::Device(address.wrapping_add(start - range.start).wrapping_sub(start)),
        )
    }

    fn run_groups(
        &self,
        mut groups: impl Iterator<Item = Range<u64>>,
        progress: &dyn Progress,
        target: &mut Target<'_>,
    ) -> Result<()> {
        let on_device = match target {
            Target::Host(_) => None,
            Target::Device(address) => Some(*address),
        };
        let bases = self.container.base().is_some();
        let mut idle = (0..LANES).map(|_| Lane::new(self.driver, self.sizes, bases)).collect::<Result<Vec<Lane>>>()?;
        let mut flying: VecDeque<(Lane, Filled)> = VecDeque::new();
        let mut next = groups.next();
        while next.is_some() || !flying.is_empty() {
            let oldest = if next.is_none() || idle.len() < 2 { flying.pop_front() } else { None };
            let filling = next.take().map(|chunks| (idle.pop().expect("two lanes at most are flying"), chunks));
            let (filled, emptied) = rayon::join(
                || {
                    filling
                        .map(|(mut lane, chunks)| (self.fill(&mut lane, chunks, on_device.is_some(), progress), lane))
                },
                || oldest.map(|(mut lane, filled)| (self.finish(&mut lane, &filled, progress, target), lane)),
            );
            if let Some((finished, lane)) = emptied {
                finished?;
                idle.push(lane);
            }
            if let Some((filled, mut lane)) = filled {
                let filled = filled?;
                self.submit(&mut lane, &filled, on_device)?;
                flying.push_back((lane, filled));
                next = groups.next();
            }
        }
        Ok(())
    }

    /// These chunks in batches.
    fn groups(&self, chunks: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let most = self.sizes.jobs as u64;
        groups(self.container, chunks, self.sizes.output as u64).flat_map(move |group| {
            group.clone().step_by(most as usize).map(move |from| from..group.end.min(from + most))
        })
    }

    /// Reads the stored bytes of `chunks` into the input of `lane`, checks them, and makes a job of each that the device can decode.
    fn fill(&self, lane: &mut Lane, chunks: Range<u64>, on_device: bool, progress: &dyn Progress) -> Result<Filled> {
        let grid = self.container.grid();
        let range = grid.range(ChunkIndex(chunks.start)).start..grid.range(ChunkIndex(chunks.end - 1)).end;
        let skew = if on_device { 0 } else { (range.start % ALIGNMENT as u64) as usize };
        let mut candidates = Vec::new();
        let mut input_len = 0;
        for chunk in chunks.clone().map(ChunkIndex) {
            let (segment, stored) = self.stored(chunk);
            let here = grid.range(chunk);
            let len = (here.end - here.start) as u32;
            // What is stored in more bytes than it has was not written by an encoder.
            let needs_base = stored.codec == Codec::Delta;
            if !is_decoded(stored.codec) || stored.len > len || (needs_base && self.container.base().is_none()) {
                continue;
            }
            let out = here.start - range.start + skew as u64;
            // Copies are fast where both ends are aligned alike.
            let at = input_len + if stored.codec == Codec::Raw { out as usize % ALIGNMENT } else { 0 };
            input_len = (at + stored.len as usize).next_multiple_of(ALIGNMENT);
            let base = needs_base.then_some(input_len);
            if needs_base {
                input_len = (input_len + len as usize).next_multiple_of(ALIGNMENT);
            }
            candidates.push(Candidate { chunk, segment, stored, at, base, out, len });
        }
        let mut parts = Vec::with_capacity(candidates.len());
        let (mut rest, mut end) = (lane.input.bytes_mut(), 0);
        for candidate in candidates {
            let until = candidate
                .base
                .map_or(candidate.at + candidate.stored.len as usize, |base| base + candidate.len as usize);
            let (part, behind) = rest[candidate.at - end..].split_at_mut(until - candidate.at);
            end = until;
            parts.push((candidate, part));
            rest = behind;
        }
        let jobs = parts.into_par_iter().map_init(Vec::new, |buffer, (candidate, part)| match progress.cancelled() {
            true => Err(cancelled()),
            false => Ok(self.job(&candidate, part, buffer).map(|job| (candidate.chunk.0, job))),
        });
        let jobs: Vec<(u64, Job)> = jobs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let (numbers, jobs): (Vec<u64>, Vec<Job>) = jobs.into_iter().unzip();
        let bytes = bytes_of(&jobs);
        lane.jobs.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(Filled { chunks, range, jobs: numbers, input_len, skew })
    }

    /// The segment of a chunk, and how it is stored.
    fn stored(&self, chunk: ChunkIndex) -> (usize, &StoredChunk) {
        let (segment, number) = self.container.grid().locate(chunk);
        let index = self.container.index();
        (segment, &index.chunks[(index.segments[segment].first_chunk + number) as usize])
    }

    /// Reads a chunk into its part of the input, and its base behind it; its job, unless something is wrong with it, which the host says
    /// later.
    fn job(&self, candidate: &Candidate<'_>, part: &mut [u8], buffer: &mut Vec<u8>) -> Option<Job> {
        let Candidate { chunk, segment, stored, at, base, out, len } = *candidate;
        let (bytes, behind) = part.split_at_mut(stored.len as usize);
        self.container.store().read_at(stored.offset, bytes).ok()?;
        if !stored.is(bytes) {
            return None;
        }
        let tables = self.shared.of_segment(segment);
        let place = self.container.place(chunk);
        let job = |place| {
            let base = base.unwrap_or_default() as u32;
            Job::new(stored.codec, place, tables, (at as u32, bytes), base, (out, len)).ok()
        };
        let Some(base) = base else { return job(place) };
        let against = self.container.against(chunk, buffer).ok()??;
        let job = job(Place { against: Some(against), ..place })?;
        let mut converted = Vec::new();
        let elements = elements_of_base(place.element, &against, &mut converted);
        behind[base - at - bytes.len()..].copy_from_slice(elements);
        Some(job)
    }

    /// Gives the device all of a batch.
    /// The original begins `on_device` at that address, if it stays there.
    fn submit(&self, lane: &mut Lane, filled: &Filled, on_device: Option<u64>) -> Result<()> {
        let jobs = filled.jobs.len();
        if jobs == 0 {
            return Ok(());
        }
        let output_len = filled.skew + (filled.range.end - filled.range.start) as usize;
        let batch = Batch {
            input: lane.device_input.address,
            output: on_device.map_or(lane.device_output.address, |start| start.wrapping_add(filled.range.start)),
            jobs: lane.device_jobs.address,
            tables: self.tables.address,
            columns: self.columns.address,
            statuses: lane.device_statuses.address,
            output_len: output_len as u64,
            input_len: filled.input_len as u32,
            table_count: self.shared.tables.len() as u32,
            column_count: self.shared.columns.len() as u32,
            padding: 0,
        };
        let (driver, stream) = (&**self.driver, lane.stream.handle);
        let (job_bytes, status_bytes) = (jobs * size_of::<Job>(), jobs * size_of::<u32>());
        // SAFETY: a lane's memory is long enough for a batch of `sizes`, which this is; it is neither touched before the stream was waited for,
        // in `finish`, nor freed before, since the stream is dropped first.
        unsafe {
            driver.upload(stream, batch.input, lane.input.as_ptr(), filled.input_len)?;
            driver.upload(stream, batch.jobs, lane.jobs.as_ptr(), job_bytes)?;
            driver.launch(stream, &batch, jobs as u32)?;
            driver.download(stream, lane.statuses.as_mut_ptr(), batch.statuses, status_bytes)?;
            match on_device {
                None => driver.download(stream, lane.output.as_mut_ptr(), batch.output, output_len),
                Some(_) => Ok(()),
            }
        }
    }

    /// Waits for a batch, decodes what the device did not, and has it consumed.
    fn finish(&self, lane: &mut Lane, filled: &Filled, progress: &dyn Progress, target: &mut Target<'_>) -> Result<()> {
        self.driver.synchronise(lane.stream.handle)?;
        let mut done = vec![false; (filled.chunks.end - filled.chunks.start) as usize];
        for (chunk, status) in filled.jobs.iter().zip(lane.statuses.bytes().as_chunks().0) {
            done[(chunk - filled.chunks.start) as usize] = u32::from_le_bytes(*status) == DECODED;
        }
        let len = (filled.range.end - filled.range.start) as usize;
        let output = &mut lane.output.bytes_mut()[filled.skew..filled.skew + len];
        let (mut parts, mut of_host) = (Vec::new(), Vec::new());
        let mut rest = &mut *output;
        for (chunk, done) in filled.chunks.clone().map(ChunkIndex).zip(done) {
            let range = self.container.grid().range(chunk);
            let (part, behind) = rest.split_at_mut((range.end - range.start) as usize);
            match done {
                true => progress.advance(part.len() as u64),
                false => {
                    parts.push((chunk, part));
                    of_host.push(range);
                }
            }
            rest = behind;
        }
        let lost = parts.into_par_iter().filter_map(|(chunk, part)| {
            if progress.cancelled() {
                return Some(Err(cancelled()));
            }
            let decoded = self.container.decode_chunk(chunk, part);
            progress.advance(part.len() as u64);
            let error = decoded.err()?;
            part.fill(0);
            Some(Ok(LostChunk { chunk, error }))
        });
        let lost: Vec<LostChunk> = lost.collect::<Result<_>>()?;
        match target {
            Target::Host(consume) => consume(Window { range: filled.range.clone(), bytes: output, lost }),
            Target::Device(start) => {
                if let Some(lost) = lost.into_iter().next() {
                    return Err(lost.error);
                }
                for range in of_host {
                    let bytes =
                        &output[(range.start - filled.range.start) as usize..(range.end - filled.range.start) as usize];
                    // SAFETY: who gave the address promised that it is that of the whole original, as far as it is wanted.
                    unsafe { send(self.driver, &lane.stream, start.wrapping_add(range.start), bytes)? };
                }
                Ok(())
            }
        }
    }
}

/// Copies bytes of any number to memory of the device, a batch at a time.
///
/// # Errors
/// [`ErrorKind::Device`].
///
/// # Safety
/// As many bytes from `to` on are memory of the driver's context, which nobody uses until this returns.
pub(super) unsafe fn copy_to(driver: &Arc<dyn Driver>, to: u64, bytes: &[u8]) -> Result<()> {
    let stream = Stream::new(driver)?;
    bytes.chunks(BATCH).zip((to..).step_by(BATCH)).try_for_each(|(part, to)| {
        // SAFETY: the caller's.
        unsafe { send(driver, &stream, to, part) }
    })
}

/// Copies bytes to memory of the device and waits until they are there.
///
/// # Safety
/// As many bytes from `to` on are memory of the driver's context.
unsafe fn send(driver: &Arc<dyn Driver>, stream: &Stream, to: u64, bytes: &[u8]) -> Result<()> {
    let mut pinned = Pinned::new(driver, bytes.len())?;
    pinned.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: the caller's, and `pinned` lives until the stream was waited for.
    let sent = unsafe { driver.upload(stream.handle, to, pinned.as_ptr(), bytes.len()) };
    sent.and(driver.synchronise(stream.handle))
}
