//! What the kernel is told: `kernels/job.cuh` declares the same.

use super::shared::SegmentTables;
use crate::chunk::block::decode::anatomy::Anatomy;
use crate::chunk::delta::anatomy::Anatomy as DeltaAnatomy;
use crate::chunk::scale::{PackedRuns, QUAD, Scale};
use crate::chunk::{Codec, Place};
use crate::error::{Error, Result};
use crate::rans::MAX_STREAMS;
use crate::wire::Reader;

/// Threads of a block, which decodes one chunk.
pub(super) const THREADS: u32 = 128;

/// The status of a chunk that is decoded. Any other is that of a chunk that was refused.
pub(super) const DECODED: u32 = 0;

/// How a chunk becomes its bytes.
mod kind {
    pub(super) const COPY: u32 = 0;
    pub(super) const REPEAT: u32 = 1;
    pub(super) const BLOCK: u32 = 2;
    pub(super) const DELTA: u32 = 3;
}

/// One chunk to decode. Positions are bytes of the input of its launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Job {
    pub(crate) out: u64,
    pub(crate) len: u32,
    kind: u32,
    stored: u32,
    stored_len: u32,
    size: u32,
    has_sign: u32,
    shift: u32,
    zeros: u32,
    sparse: u32,
    sparse_groups: u32,
    patches: u32,
    table: u32,
    streams: u32,
    states: u32,
    words: [u32; MAX_STREAMS],
    word_counts: [u32; MAX_STREAMS],
    tail: u32,
    stored_tail_len: u32,
    tail_len: u32,
    planes_len: u32,
    phase_bits: u32,
    run: u32,
    first_run: u32,
    codes: u32,
    code_bits: u32,
    code_base: i32,
    octave: u32,
    step_shift: u32,
    columns: u32,
    period: u32,
    column: u32,
    tables: u32,
    base: u32,
    origin: i32,
}

/// What all jobs of a launch share. Addresses are those of the device.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Batch {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) jobs: u64,
    pub(crate) tables: u64,
    pub(crate) columns: u64,
    pub(crate) statuses: u64,
    pub(crate) output_len: u64,
    pub(crate) input_len: u32,
    pub(crate) table_count: u32,
    pub(crate) column_count: u32,
    pub(crate) padding: u32,
}

/// Whether the kernel decodes chunks of this codec.
pub(super) fn is_decoded(codec: Codec) -> bool {
    matches!(codec, Codec::Raw | Codec::Constant | Codec::Float | Codec::Scaled | Codec::Delta)
}

impl Job {
    /// The job of the chunk whose stored bytes are `stored`, at position `at` of the input, and whose `len` bytes are to be at
    /// `out` of the output. If it is coded against a base, the base's elements, made those of the segment, are at `base` of the input.
    /// All that can be checked before its keys are decoded is checked.
    ///
    /// # Errors
    /// Those of decoding it, or that the kernel does not know its codec.
    pub(super) fn new(
        codec: Codec,
        place: Place<'_>,
        tables: SegmentTables,
        (at, stored): (u32, &[u8]),
        base: u32,
        (out, len): (u64, u32),
    ) -> Result<Job> {
        let mut job = Job { out, len, stored: at, stored_len: stored.len() as u32, ..Job::default() };
        match codec {
            Codec::Raw if stored.len() == len as usize => job.kind = kind::COPY,
            Codec::Constant if !stored.is_empty() && len.is_multiple_of(job.stored_len) => job.kind = kind::REPEAT,
            Codec::Float => job.block(place, tables, (at, stored), None)?,
            Codec::Scaled => {
                let scale = place.scale.ok_or_else(|| Error::corrupt("a chunk is normalised, its segment is not"))?;
                let mut reader = Reader::new(stored);
                let elements = len as usize / place.element.size();
                let runs = scale.read_packed_runs(&mut reader, place.first, elements)?;
                let codes = at + (stored.len() - reader.remaining() - runs.codes.len()) as u32;
                let block = reader.take(reader.remaining())?;
                let block_at = at + (stored.len() - block.len()) as u32;
                job.block(place, tables, (block_at, block), Some(scale))?;
                job.normalise(place, scale, tables, codes, runs);
            }
            Codec::Delta => job.delta(place, tables, (at, stored), base)?,
            _ => return Err(Error::corrupt("the kernel does not decode such a chunk")),
        }
        Ok(job)
    }

    /// Makes it the job of decoding a block.
    fn block(
        &mut self,
        place: Place<'_>,
        tables: SegmentTables,
        (at, block): (u32, &[u8]),
        scale: Option<&Scale>,
    ) -> Result<()> {
        let split = place.element.float_split();
        let split = split.ok_or_else(|| Error::corrupt("a chunk of integers is coded as floats"))?;
        let phases = scale.map(|scale| usize::from(scale.phases));
        let anatomy = Anatomy::of(block, split, place.tables, phases, self.len as usize)?;
        let positions = anatomy.words.map(|words| at + words as u32);
        *self = Job {
            kind: kind::BLOCK,
            size: split.size() as u32,
            has_sign: u32::from(split.signed),
            shift: anatomy.shift.into(),
            zeros: anatomy.zeros.into(),
            sparse: anatomy.sparse.into(),
            sparse_groups: anatomy.sparse_groups as u32,
            patches: anatomy.patches.into(),
            table: tables.first_table + u32::from(anatomy.table),
            streams: anatomy.streams as u32,
            states: at + anatomy.states as u32,
            words: positions,
            word_counts: anatomy.word_counts.map(|count| count as u32),
            tail: at + anatomy.tail as u32,
            stored_tail_len: anatomy.stored_tail_len as u32,
            tail_len: anatomy.tail_len as u32,
            planes_len: anatomy.planes_len as u32,
            // One run, without an offset, and one column that has none.
            run: u32::MAX,
            first_run: u32::MAX,
            period: 1,
            ..*self
        };
        Ok(())
    }

    /// Makes it the job of decoding differences.
    fn delta(&mut self, place: Place<'_>, tables: SegmentTables, (at, stored): (u32, &[u8]), base: u32) -> Result<()> {
        let without_base = || Error::corrupt("a chunk is coded against a base, its segment is not");
        let (against, contexts) = place.against.zip(tables.contexts).ok_or_else(without_base)?;
        let anatomy = DeltaAnatomy::of(stored, place.element, &against, self.len as usize)?;
        *self = Job {
            kind: kind::DELTA,
            size: place.element.size() as u32,
            shift: anatomy.kind.mantissa,
            patches: anatomy.outsiders as u32,
            table: against.delta.tables.start as u32,
            streams: anatomy.streams as u32,
            states: at + anatomy.states as u32,
            words: [at + anatomy.words as u32, 0, 0, 0],
            tail: at + anatomy.list as u32,
            columns: contexts,
            tables: against.tables.len() as u32,
            base,
            origin: against.delta.origin.into(),
            ..*self
        };
        Ok(())
    }

    /// Undoes normalisation too.
    fn normalise(&mut self, place: Place<'_>, scale: &Scale, tables: SegmentTables, codes: u32, runs: PackedRuns<'_>) {
        let first_quad = place.first / QUAD as u64;
        // A chunk has fewer quads than any run that does not fit in 32 bits.
        let clamped = |quads: u64| u32::try_from(quads).unwrap_or(u32::MAX);
        let period = u64::from(tables.period);
        *self = Job {
            phase_bits: scale.phases.trailing_zeros(),
            run: clamped(scale.run),
            first_run: clamped(scale.run - first_quad % scale.run),
            codes,
            code_bits: runs.bits.into(),
            code_base: runs.base,
            octave: Scale::octave(place.element).into(),
            step_shift: (self.size * 8).saturating_sub(16),
            columns: tables.first_column,
            period: tables.period,
            column: (place.first % period) as u32,
            ..*self
        };
    }
}
