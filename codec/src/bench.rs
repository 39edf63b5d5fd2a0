//! What the benches measure, one layer at a time. Not for anyone else: it changes without notice.

use crate::chunk::block::{Buffers, Scratch};
use crate::chunk::plan::{Plan, ReadyPlan, Sample};
use crate::chunk::{self, Codec};
use crate::container::Mode;
use crate::error::Result;
use crate::hashes::lanes::{LANES, States};
use crate::original::{ChunkIndex, DEFAULT_CHUNK_SIZE, Original};
use crate::simd::Level;
use crate::split::Element;
use crate::{Container, Memory};

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

/// The chunks of a container that hold coded floats or integers, in memory.
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
        let mut chunks = Vec::new();
        for chunk in (0..container.grid().chunks()).map(ChunkIndex) {
            let range = container.grid().range(chunk);
            let (codec, _, stored) = container.stored_chunk(chunk)?;
            if !matches!(codec, Codec::Raw | Codec::Constant | Codec::Zstd) {
                let len = (range.end - range.start) as usize;
                chunks.push(Chunk { codec, index: chunk, stored, len });
            }
        }
        Ok(Chunks { container, chunks })
    }

    /// Bytes of the original in them.
    pub fn original_len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len).sum()
    }

    /// Decodes all of them, one behind the other, into `out`, with the implementation of that name.
    ///
    /// # Errors
    /// When a chunk is damaged.
    ///
    /// # Panics
    /// When the processor has no such implementation, or `out` is not as long as they are.
    pub fn decode(&self, implementation: &str, mut out: &mut [u8]) -> Result<()> {
        let mut scratch = Scratch::new(level(implementation));
        for chunk in &self.chunks {
            let (this, further) = out.split_at_mut(chunk.len);
            let place = self.container.place(chunk.index);
            chunk::decode(chunk.codec, place, &chunk.stored, this, &mut scratch)?;
            out = further;
        }
        Ok(())
    }
}

/// What encodes elements in chunks of the usual size.
#[derive(Debug)]
pub struct Encode {
    element: Element,
    plan: ReadyPlan,
    buffers: Buffers,
    stored: Vec<u8>,
}

impl Encode {
    /// Fits it to `bytes`, with the implementation of that name.
    ///
    /// # Panics
    /// When the processor has no such implementation.
    pub fn fit(implementation: &str, element: Element, bytes: &[u8]) -> Encode {
        let sample = Sample { element, bytes, len: bytes.len() as u64, chunk_size: DEFAULT_CHUNK_SIZE, shape: None };
        let (plan, _) = Plan::of(&sample, Mode::Balanced, None).ready(element);
        Encode { element, plan, buffers: Buffers::new(level(implementation)), stored: Vec::new() }
    }

    /// Encodes `bytes` chunk by chunk; returns how many bytes that makes.
    pub fn encode(&mut self, bytes: &[u8]) -> usize {
        let encode = |bytes| {
            chunk::encode(&self.plan, self.element, 0, bytes, &mut self.buffers, &mut self.stored);
            self.stored.len()
        };
        bytes.chunks(DEFAULT_CHUNK_SIZE as usize).map(encode).sum()
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
