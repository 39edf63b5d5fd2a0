//! What each tensor of a container takes in it.

use std::collections::BTreeMap;

use super::reader::{CodecUsage, Container};
use crate::original::{ChunkIndex, Original};

/// How a tensor of a container is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorUsage {
    /// What each codec stores of it. Of a chunk that holds several tiny tensors each has its part, by their lengths in the
    /// original; chunks that an earlier tensor has too take nothing.
    pub codecs: Vec<CodecUsage>,
    /// The earlier tensor whose chunks it shares, by its position among all: one with the same bytes.
    pub twin: Option<usize>,
}

impl Container {
    /// How each of the [tensors](Container::tensors) is stored, in their order.
    pub fn tensor_usage(&self) -> Vec<TensorUsage> {
        let index = self.index();
        // For each stored chunk the chunk of the original that has it first.
        let mut first_with: Vec<Option<ChunkIndex>> = vec![None; index.chunks.len()];
        let usage_of = |range: &std::ops::Range<u64>| {
            let (mut codecs, mut twin) = (BTreeMap::new(), None);
            for chunk in self.grid().chunks_of(range.clone()) {
                let (segment, number) = self.grid().locate(chunk);
                let position = (index.segments[segment].first_chunk + number) as usize;
                let stored = &index.chunks[position];
                let whole = self.grid().range(chunk);
                let (start, end) = (range.start.max(whole.start), range.end.min(whole.end));
                let usage = codecs.entry(stored.codec).or_insert(CodecUsage {
                    codec: stored.codec,
                    chunks: 0,
                    original_len: 0,
                    stored_len: 0,
                });
                usage.chunks += 1;
                usage.original_len += end - start;
                let first = *first_with[position].get_or_insert(chunk);
                if first == chunk {
                    // So much is stored up to here: what all tensors of a chunk have of it adds up to all of it.
                    let up_to = |at: u64| u64::from(stored.len) * (at - whole.start) / (whole.end - whole.start);
                    usage.stored_len += up_to(end) - up_to(start);
                } else {
                    let shared = self.grid().range(first).start + (start - whole.start);
                    twin = twin.or(Some(self.tensor_at(shared)));
                }
            }
            TensorUsage { codecs: codecs.into_values().collect(), twin }
        };
        self.tensors().iter().map(|tensor| &tensor.range).map(usage_of).collect()
    }

    /// The position of the last tensor that begins at or before byte `offset` of the original.
    fn tensor_at(&self, offset: u64) -> usize {
        self.tensors().partition_point(|tensor| tensor.range.start <= offset).saturating_sub(1)
    }
}
