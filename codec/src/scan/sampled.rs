//! Some units of a segment, coded as they would be in each mode.

use std::time::Duration;

use rayon::prelude::*;

use super::estimate::{Estimate, variance_of_mean};
use super::low_bits::LowBits;
use super::{Extent, MODES, PerMode, Values, options, processor_time};
use crate::Progress;
use crate::chunk;
use crate::chunk::block::Buffers;
use crate::chunk::plan::ReadyPlan;
use crate::container::{self, SharedTables, WINDOW};
use crate::error::Result;
use crate::layout::{Content, Layout, SegmentLayout};
use crate::original::Original;
use crate::rans::Table;
use crate::stream::cancelled;
use crate::wire::Put;

/// Bytes of a unit: those of a chunk in the mode with the longest, or of a long chunk.
const UNIT: u64 = 1 << 20;

/// Of so many units one is coded in all modes, the others in the first only. What two modes take of the same unit differs by
/// a factor that hardly varies.
const IN_ALL_MODES: usize = 4;

/// Bytes of a chunk's entry in the index.
pub(super) const CHUNK_ENTRY: f64 = 12.0;

/// What is needed to sample segments.
pub(super) struct Scanner<'a> {
    source: &'a dyn Original,
    layout: &'a Layout,
    shared: &'a SharedTables,
    extent: Extent,
    /// The part of each segment that is coded.
    density: f64,
    progress: &'a dyn Progress,
}

/// A segment of which some units were coded.
pub(super) struct Sampled {
    /// Bytes of the segment.
    pub(super) len: u64,
    /// Units that there are.
    of: usize,
    units: Vec<Unit>,
    /// The low bits that are zero in all units, if not all were coded.
    low_bits: Option<LowBits>,
    plans: PerMode<Duration>,
    chunk_sizes: PerMode<u64>,
    /// What is known of the values, unless it is known from elsewhere.
    pub(super) values: Option<Values>,
    /// What it adds to the index in the first mode.
    tables: Vec<Table>,
    columns: Vec<u8>,
}

/// A unit.
struct Unit {
    /// Which one of all.
    number: usize,
    len: u64,
    /// Bytes that are stored and the time it took; `None` in a mode in which it was not coded.
    coded: PerMode<Option<(u64, Duration)>>,
}

impl<'a> Scanner<'a> {
    /// A scanner that looks into the `chosen` segments.
    pub(super) fn new(
        source: &'a dyn Original,
        layout: &'a Layout,
        shared: &'a SharedTables,
        extent: Extent,
        chosen: &[usize],
        progress: &'a dyn Progress,
    ) -> Scanner<'a> {
        let ranges = chosen.iter().map(|&segment| &layout.segments[segment].range);
        let len = ranges.map(|range| range.end - range.start).sum::<u64>();
        let density = match extent {
            Extent::Everything => 1.0,
            Extent::Sample(bytes) => (bytes as f64 / len.max(1) as f64).min(1.0),
        };
        Scanner { source, layout, shared, extent, density, progress }
    }

    /// Codes some units of a segment.
    pub(super) fn sample(&self, number: usize) -> Result<Sampled> {
        let segment = &self.layout.segments[number];
        let len = segment.range.end - segment.range.start;
        let mut beginning = vec![0; len.min(WINDOW) as usize];
        self.source.read_at(segment.range.start, &mut beginning)?;
        let mut plans = Vec::with_capacity(MODES.len());
        let mut took = [Duration::ZERO; MODES.len()];
        let (mut tables, mut columns) = (Vec::new(), Vec::new());
        for (mode, took) in MODES.into_iter().zip(&mut took) {
            let start = processor_time();
            let shared = self.shared.of(segment.element);
            let plan = container::plan(self.source, segment, &self.layout.tensors, &beginning, &options(mode), shared)?;
            let (plan, of_plan) = plan.ready(segment.element);
            *took = processor_time().saturating_sub(start);
            if plans.is_empty() {
                tables = of_plan;
                columns =
                    plan.scale().map_or(Vec::new(), |scale| scale.columns.iter().map(|&code| code as u8).collect());
            }
            plans.push(plan);
        }
        drop(beginning);
        let chunk_sizes = std::array::from_fn(|mode| {
            u64::from(container::chunk_size(&plans[mode], segment.element, &options(MODES[mode])))
        });
        // Whole chunks of the first mode, so that every unit begins with an element.
        let unit = chunk_sizes.into_iter().fold(UNIT, u64::max).next_multiple_of(chunk_sizes[0]);
        let of = len.div_ceil(unit) as usize;
        let coded = ((of as f64 * self.density).ceil() as usize).clamp(of.min(2), of);
        let places = (0..coded).into_par_iter().map(|place| spread(place, coded, of));
        let tensor = self.layout.tensor_of(number).map(|tensor| &self.layout.tensors[tensor]);
        let wants_values = self.extent != Extent::Everything && segment.content == Content::Tensor;
        let units =
            places.enumerate().map_init(Default::default, |spare: &mut (Buffers, Vec<u8>, Vec<u8>), (count, at)| {
                if self.progress.cancelled() {
                    return Err(cancelled());
                }
                let (buffers, bytes, stored) = spare;
                let start = at as u64 * unit;
                bytes.resize(unit.min(len - start) as usize, 0);
                self.source.read_at(segment.range.start + start, bytes)?;
                let values = tensor.filter(|_| wants_values).map(|tensor| {
                    let mut values = Values::of(tensor);
                    values.add(bytes);
                    values
                });
                let coded = std::array::from_fn(|mode| {
                    let is_coded = mode == 0 || count % IN_ALL_MODES == 0;
                    is_coded.then(|| encode(&plans[mode], segment, start, chunk_sizes[mode], bytes, buffers, stored))
                });
                self.progress.advance(bytes.len() as u64);
                Ok((Unit { number: at, len: bytes.len() as u64, coded }, values))
            });
        let (units, values): (Vec<Unit>, Vec<Option<Values>>) = units.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let values = values.into_iter().flatten().reduce(Values::and);
        let low_bits = (coded < of && matches!(segment.element.size(), 1 | 2 | 4 | 8))
            .then(|| LowBits::of(self.source, &segment.range, unit, segment.element.size()))
            .transpose()?;
        Ok(Sampled { len, of, units, low_bits, plans: took, chunk_sizes, values, tables, columns })
    }
}

/// Number `place` of `some` that are spread evenly over `of`: each in the middle of those that it stands for.
pub(super) fn spread(place: usize, some: usize, of: usize) -> usize {
    (2 * place + 1) * of / (2 * some)
}

/// Codes `bytes`, which begin at byte `start` of the segment; returns how many bytes that makes and how long it takes.
fn encode(
    plan: &ReadyPlan,
    segment: &SegmentLayout,
    start: u64,
    chunk_size: u64,
    bytes: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> (u64, Duration) {
    let begun = processor_time();
    let size = segment.element.size() as u64;
    let stored = bytes.chunks(chunk_size as usize).enumerate().map(|(number, bytes)| {
        let first = (start + number as u64 * chunk_size) / size;
        chunk::encode(plan, segment.element, first, bytes, buffers, stored);
        stored.len() as u64
    });
    let stored = stored.sum();
    (stored, processor_time().saturating_sub(begun))
}

impl Sampled {
    /// Bytes that were coded in a mode.
    pub(super) fn coded(&self, mode: usize) -> u64 {
        self.units.iter().filter(|unit| unit.coded[mode].is_some()).map(|unit| unit.len).sum()
    }

    /// What all units take in a mode.
    pub(super) fn stored(&self, mode: usize) -> Estimate {
        let len = self.len as f64;
        let of_first = |unit: &Unit| unit.coded[0].map_or(0, |(stored, _)| stored) as f64;
        let low_bits = |unit: &Unit| self.low_bits.as_ref().map_or(0.0, |low_bits| low_bits.of_unit(unit.number));
        // What a unit would take had it no zero low bits: in that units differ less, and of those bits all units are known.
        let ratios: Vec<f64> =
            self.units.iter().map(|unit| of_first(unit) / unit.len as f64 + low_bits(unit)).collect();
        let of_sampled = self.units.iter().map(|unit| low_bits(unit) * unit.len as f64).sum::<f64>();
        let (of_all, of_places) =
            self.low_bits.as_ref().map_or((0.0, 0.0), |low_bits| (low_bits.mean, low_bits.variance));
        let coded = self.coded(0) as f64;
        let ratio = (self.units.iter().map(of_first).sum::<f64>() + of_sampled) / coded - of_all;
        let variance = variance_of_mean(&ratios, self.of) + of_places;
        let mut estimate = Estimate::new(ratio.max(0.0) * len, variance * len * len);
        if mode > 0 {
            let both: Vec<(f64, f64, f64)> = self
                .units
                .iter()
                .filter_map(|unit| Some((unit.len as f64, of_first(unit), unit.coded[mode]?.0 as f64)))
                .collect();
            let (first, this) = both.iter().fold((0.0, 0.0), |(a, b), (_, first, this)| (a + first, b + this));
            let factor = if first > 0.0 { this / first } else { 1.0 };
            let rest: Vec<f64> = both.iter().map(|(len, first, this)| (this - factor * first) / len).collect();
            let variance = variance_of_mean(&rest, self.of) * len * len;
            estimate = estimate.times(factor) + Estimate::new(0.0, variance);
        }
        estimate
    }

    /// The processor time that the segment takes in a mode.
    pub(super) fn time(&self, mode: usize) -> Duration {
        let coded = self.units.iter().filter_map(|unit| Some((unit.len, unit.coded[mode]?.1)));
        let (len, time) = coded.fold((0, Duration::ZERO), |(len, time), unit| (len + unit.0, time + unit.1));
        self.plans[mode] + time.mul_f64(self.len as f64 / len as f64)
    }

    /// The chunks of the segment in a mode.
    pub(super) fn chunks(&self, mode: usize) -> u64 {
        self.len.div_ceil(self.chunk_sizes[mode])
    }
}

/// What the index takes but for the entries of chunks; of its segments so many have twins.
pub(super) fn index_without_chunks(layout: &Layout, sampled: &[Sampled], twins: usize) -> Estimate {
    /// Preamble, directory, footer, what is said of the original as a whole.
    const FRAME: f64 = 400.0;
    /// What is said of a segment besides, compressed.
    const SEGMENT: f64 = 5.0;
    const LEVEL: i32 = 9;
    let compressed =
        |bytes: &[u8]| zstd::bulk::compress(bytes, LEVEL).expect("Zstandard compresses any bytes").len() as f64;
    let mut tensors = Vec::new();
    for tensor in &layout.tensors {
        tensors.put_bytes(tensor.name.as_bytes());
        tensors.put_bytes(tensor.dtype.as_bytes());
        tensor.shape.iter().for_each(|&dim| tensors.put_varint(dim));
        tensors.put_varint(tensor.range.start);
        tensors.put_varint(tensor.range.end - tensor.range.start);
    }
    let md5s = layout.tensors.len() as f64 * 16.0;
    let (mut tables, mut columns) = (Vec::new(), Vec::new());
    // One that is shared is stored once.
    let mut known = std::collections::HashSet::new();
    for sampled in sampled {
        sampled.tables.iter().filter(|&table| known.insert(table)).for_each(|table| table.write(&mut tables));
        columns.extend_from_slice(&sampled.columns);
    }
    let unlike = (layout.segments.len() - twins) as f64;
    let factor = if sampled.is_empty() { 0.0 } else { unlike / sampled.len() as f64 };
    let of_plans = (compressed(&tables) + compressed(&columns)) * factor;
    let rest = FRAME + SEGMENT * layout.segments.len() as f64 + compressed(&tensors) + md5s;
    // Segments that were not planned have tables of other sizes, within reason.
    let variance = if factor > 1.0 { (of_plans / 8.0).powi(2) } else { (of_plans / 50.0).powi(2) };
    Estimate::new(rest + of_plans, variance)
}
