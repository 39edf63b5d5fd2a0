//! What the benches measure, one layer at a time. Not for anyone else: it changes without notice.

use crate::chunk::block::{Buffers, Scratch};
use crate::chunk::plan::{ReadyPlan, Shared};
use crate::chunk::{self, Codec};
use crate::container::{self, WINDOW};
use crate::error::Result;
use crate::hashes::lanes::{LANES, States};
use crate::layout::{Layout, SegmentLayout};
use crate::original::{ChunkIndex, Original};
use crate::simd::Level;
use crate::{Container, Memory, Options};

/// The names of the implementations that this processor can run, the slowest first.
pub fn implementations() -> impl Iterator<Item = &'static str> {
    Level::available().map(Level::name)
}

/// The level of an implementation.
///
/// # Panics
/// When the processor has no such implementation.
fn level(implementation: &str) -> Level {
    let level = Level::available().find(|level| level.name() == implementation);
    level.expect("the implementation is one of this processor's")
}

/// The chunks of a container, in memory.
#[derive(Debug)]
pub struct Chunks {
    container: Container,
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    codec: Codec,
    index: ChunkIndex,
    stored: Vec<u8>,
    len: usize,
}

impl Chunks {
    /// Those of the container whose bytes are given.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn of(container: Vec<u8>) -> Result<Chunks> {
        let container = Container::from_store(Box::new(Memory::new(container)))?;
        let chunks = (0..container.grid().chunks()).map(ChunkIndex).map(|index| {
            let range = container.grid().range(index);
            let (codec, _, stored) = container.stored_chunk(index)?;
            Ok(Chunk { codec, index, stored, len: (range.end - range.start) as usize })
        });
        let chunks = chunks.collect::<Result<_>>()?;
        Ok(Chunks { container, chunks })
    }

    /// The container.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Decodes all of them into `out`, with the implementation of that name and without a look at their checksums.
    ///
    /// # Errors
    /// When a chunk is damaged.
    ///
    /// # Panics
    /// When the processor has no such implementation, or `out` is not as long as the original.
    pub fn decode(&self, implementation: &str, mut out: &mut [u8]) -> Result<()> {
        let mut scratch = Scratch::new(level(implementation));
        for chunk in &self.chunks {
            let (this, further) = out.split_at_mut(chunk.len);
            let place = self.container.place(chunk.index);
            chunk::decode(chunk.codec, place, &chunk.stored, this, &mut scratch)?;
            out = further;
        }
        assert!(out.is_empty(), "there is room for more than the original");
        Ok(())
    }
}

/// Encodes an original in memory as [`compress`](crate::container::compress) does, but hashes and writes nothing, and on
/// the calling thread alone.
#[derive(Debug)]
pub struct Encode<'a> {
    source: &'a Memory,
    options: Options,
    layout: Layout,
    plans: Vec<ReadyPlan>,
    buffers: Buffers,
    stored: Vec<u8>,
}

impl<'a> Encode<'a> {
    /// Plans all segments of the file, to encode them with the implementation of that name.
    ///
    /// # Errors
    /// When the options are impossible.
    ///
    /// # Panics
    /// When the processor has no such implementation.
    pub fn new(implementation: &str, source: &'a Memory, options: Options) -> Result<Encode<'a>> {
        let layout = Layout::of(source)?;
        let buffers = Buffers::new(level(implementation));
        let mut encode = Encode { source, options, layout, plans: Vec::new(), buffers, stored: Vec::new() };
        for segment in &encode.layout.segments {
            encode.plans.push(encode.plan(segment)?);
        }
        Ok(encode)
    }

    fn bytes(&self, segment: &SegmentLayout) -> &'a [u8] {
        &self.source.bytes()[segment.range.start as usize..segment.range.end as usize]
    }

    /// The plan of a segment, and its tables made ready.
    fn plan(&self, segment: &SegmentLayout) -> Result<ReadyPlan> {
        let bytes = self.bytes(segment);
        let beginning = &bytes[..bytes.len().min(WINDOW as usize)];
        let plan = container::plan(self.source, segment, &self.layout.tensors, beginning, &self.options, Shared::None)?;
        Ok(plan.ready(segment.element).0)
    }

    fn encode_segment(&mut self, segment: usize, plan: &ReadyPlan) -> usize {
        let SegmentLayout { element, .. } = self.layout.segments[segment];
        let bytes = self.bytes(&self.layout.segments[segment]);
        let chunk_size = container::chunk_size(plan, element, &self.options) as usize;
        let encode = |(number, bytes)| {
            let first = (number * chunk_size / element.size()) as u64;
            chunk::encode(plan, element, first, bytes, &mut self.buffers, &mut self.stored);
            self.stored.len()
        };
        bytes.chunks(chunk_size).enumerate().map(encode).sum()
    }

    /// Encodes all segments as they were planned; returns how many bytes that makes.
    pub fn encode(&mut self) -> usize {
        let plans = std::mem::take(&mut self.plans);
        let len = plans.iter().enumerate().map(|(segment, plan)| self.encode_segment(segment, plan)).sum();
        self.plans = plans;
        len
    }

    /// Plans each segment and encodes it then; returns how many bytes that makes.
    ///
    /// # Errors
    /// When the options are impossible.
    pub fn plan_and_encode(&mut self) -> Result<usize> {
        let mut len = 0;
        for segment in 0..self.layout.segments.len() {
            let plan = self.plan(&self.layout.segments[segment])?;
            len += self.encode_segment(segment, &plan);
        }
        Ok(len)
    }
}

/// Takes the MD5s of as many messages as there are lanes, whole blocks and equally long, with the implementation of that
/// name; returns the first word of each. Padding is left out.
///
/// # Panics
/// When the processor has no such implementation.
pub fn md5_lanes(implementation: &str, messages: [&[u8]; LANES]) -> [u32; LANES] {
    let mut states = States::new();
    states.update(messages, level(implementation));
    std::array::from_fn(|lane| states.lane(lane)[0])
}
