//! What the benches measure, one layer at a time. Not for anyone else: it changes without notice.

use std::ops::Range;
use std::sync::Arc;

use crate::checksum::checksum;
use crate::chunk::block::{Buffers, Scratch};
use crate::chunk::delta::convert::convert;
use crate::chunk::delta::plan::DeltaPlan;
use crate::chunk::delta::{Against, Delta, Kind, decode as delta_decode, encode as delta_encode};
use crate::chunk::plan::{ReadyPlan, Shared};
use crate::chunk::{self, Codec};
use crate::container::{self, Mode, WINDOW};
use crate::error::Result;
use crate::hashes::lanes::{LANES, States};
use crate::layout::{Layout, SegmentLayout};
use crate::original::{ChunkIndex, Original};
use crate::patch::{Matching, Model};
use crate::simd::Level;
use crate::split::Element;
use crate::wire::{Put, Reader};
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

/// The floats of a model beside those of its base, coded as differences: all segments that have a base and changed, whatever is smallest.
#[derive(Debug)]
pub struct Differences {
    segments: Vec<Differing>,
}

#[derive(Debug)]
struct Differing {
    element: Element,
    plan: DeltaPlan,
    delta: Delta,
    base: Vec<u8>,
    tuned: Vec<u8>,
    /// Where chunks lie in both, and how they are stored.
    chunks: Vec<(Range<usize>, Vec<u8>)>,
}

impl Differences {
    /// Plans and encodes `tuned` against `base`, files with chunks of the default size.
    ///
    /// # Errors
    /// When their headers cannot be read.
    pub fn of(tuned: &Memory, base: &Memory) -> Result<Differences> {
        let mut model = Model::new("base");
        model.add("base", Arc::new(Memory::new(base.bytes().to_vec())))?;
        let matching = Matching::of(tuned, Layout::of(tuned)?, &model)?;
        let used: Vec<u8> = matching
            .used
            .iter()
            .flat_map(|&(at, order)| {
                assert!(order.is_none(), "rows of the bench's bases are not moved");
                &base.bytes()[range_of(&model, at)]
            })
            .copied()
            .collect();
        let mut segments = Vec::new();
        for (segment, from) in matching.layout.segments.iter().zip(&matching.bases) {
            let (Some(from), Some(kind)) = (from, Kind::of(segment.element)) else { continue };
            let tuned = tuned.bytes()[segment.range.start as usize..segment.range.end as usize].to_vec();
            if from.element != segment.element {
                continue;
            }
            let base = used[from.offset as usize..][..tuned.len()].to_vec();
            let Some(plan) = DeltaPlan::of(kind, &tuned, &base, Mode::Balanced) else { continue };
            let (thresholds, tables) = (plan.thresholds.clone(), 0..plan.tables.len());
            let delta = Delta { offset: 0, element: segment.element, origin: plan.origin, thresholds, tables };
            segments.push(Differing { element: segment.element, plan, delta, base, tuned, chunks: Vec::new() });
        }
        let mut differences = Differences { segments };
        differences.encode(Level::Scalar.name());
        Ok(differences)
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.tuned.len()).sum()
    }

    /// The elements, one segment after the other.
    pub fn tuned(&self) -> Vec<u8> {
        self.segments.iter().flat_map(|segment| &segment.tuned).copied().collect()
    }

    /// Encodes all chunks with the implementation of that name; gives the bytes of all.
    ///
    /// # Panics
    /// When the processor has no such implementation.
    pub fn encode(&mut self, implementation: &str) -> usize {
        let mut buffers = delta_encode::Buffers::new(level(implementation));
        let mut stored_len = 0;
        for Differing { plan, base, tuned, chunks, .. } in &mut self.segments {
            chunks.clear();
            let chunk_size = Options::default().chunk_size as usize;
            for start in (0..tuned.len()).step_by(chunk_size) {
                let range = start..tuned.len().min(start + chunk_size);
                let (bytes, base) = (&tuned[range.clone()], &base[range.clone()]);
                let mut stored = Vec::new();
                stored.put_u64(checksum(base));
                let is_coded = delta_encode::encode(&plan.coder, bytes, base, &mut buffers, &mut stored);
                assert!(is_coded, "the bench's models are like their bases");
                stored_len += stored.len();
                chunks.push((range, stored));
            }
        }
        stored_len
    }

    /// Decodes all chunks into `out` with the implementation of that name, over a base that is in memory.
    ///
    /// # Errors
    /// When a chunk is damaged.
    ///
    /// # Panics
    /// When the processor has no such implementation, or `out` is shorter than the elements.
    pub fn decode(&self, implementation: &str, mut out: &mut [u8]) -> Result<()> {
        let (level, mut scratch) = (level(implementation), delta_decode::Scratch::default());
        for Differing { element, plan, delta, base, chunks, .. } in &self.segments {
            for (range, stored) in chunks {
                let (this, further) = out.split_at_mut(range.len());
                let against = Against { delta, tables: &plan.tables, base: &base[range.clone()] };
                let reader = &mut Reader::new(stored);
                chunk::delta::decode(reader, true, *element, &against, this, (level, &mut scratch))?;
                out = further;
            }
        }
        Ok(())
    }
}

fn range_of(model: &Model, tensor: usize) -> Range<usize> {
    let range = &model.tensors()[tensor].range;
    range.start as usize..range.end as usize
}

/// A file like this whose floats of 16 and 32 bits have moved by noise of so much, about normal and always the same: what training does to them, roughly.
///
/// # Errors
/// When its header cannot be read.
pub fn moved(file: &Memory, noise: f32) -> Result<Vec<u8>> {
    let mut bytes = file.bytes().to_vec();
    let mut state = 1u64;
    let mut normal = || {
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        // Three of variance 1/3.
        (0..3).map(|_| uniform()).sum::<f32>()
    };
    for tensor in Layout::of(file)?.tensors {
        let element = tensor.element;
        if !matches!(element, Element::Bf16 | Element::F16 | Element::F32) {
            continue;
        }
        let range = tensor.range.start as usize..tensor.range.end as usize;
        let (mut wide, mut narrow) = (Vec::new(), Vec::new());
        convert(element, Element::F32, &bytes[range.clone()], &mut wide);
        for value in wide.as_chunks_mut::<4>().0 {
            *value = (f32::from_le_bytes(*value) + noise * normal()).to_le_bytes();
        }
        convert(Element::F32, element, &wide, &mut narrow);
        bytes[range].copy_from_slice(&narrow);
    }
    Ok(bytes)
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

/// The weights that the Python package gives symbols which occur so often.
///
/// # Errors
/// When there are none for such counts.
pub fn upstream_weights(counts: &[u32]) -> Result<Vec<u32>> {
    crate::upstream::weights(counts)
}
