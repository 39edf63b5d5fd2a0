//! What the benches measure, one layer at a time. Not for anyone else: it changes without notice.

use crate::chunk::block::Scratch;
use crate::chunk::{self, Codec};
use crate::error::Result;
use crate::original::{ChunkIndex, Original};
use crate::rans::Table;
use crate::simd::Level;
use crate::split::Element;
use crate::{Container, Memory};

/// The names of the implementations that this processor can run, the slowest first.
pub fn implementations() -> impl Iterator<Item = &'static str> {
    Level::available().map(Level::name)
}

/// The chunks of a container that hold coded floats or integers, in memory.
#[derive(Debug)]
pub struct Chunks {
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    codec: Codec,
    element: Element,
    tables: Vec<Table>,
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
            let (codec, element, tables, stored) = container.stored_chunk(chunk)?;
            if matches!(codec, Codec::Float | Codec::Bytes) {
                let len = (range.end - range.start) as usize;
                chunks.push(Chunk { codec, element, tables: tables.to_vec(), stored, len });
            }
        }
        Ok(Chunks { chunks })
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
        let level = Level::available().find(|level| level.name() == implementation);
        let mut scratch = Scratch::new(level.expect("the implementation is one of this processor's"));
        for chunk in &self.chunks {
            let (this, further) = out.split_at_mut(chunk.len);
            chunk::decode(chunk.codec, chunk.element, &chunk.tables, &chunk.stored, this, &mut scratch)?;
            out = further;
        }
        Ok(())
    }
}
