//! Normalising the elements of a segment before they are coded: what [`Scale`] says, the other way round.
//!
//! [`planner`] decides on a sample how a segment is normalised. The code of a run is found in the chunk that it is in: it
//! is how much larger its elements are than those of the sample, what their columns are larger by taken out.

mod magnitudes;
mod planner;

use super::block::{self, Coder};
use super::scale::{Columns, QUAD, QuadScale, Scale, write_runs};
use crate::simd::Level;
use crate::split::Element;
use magnitudes::{BLOCK, Clamp, block_sums, take_offsets, upper_magnitudes};

pub(crate) use planner::{Piece, Shape, index_bits, plan};

/// Memory that is used again from chunk to chunk.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    magnitudes: Vec<u16>,
    sums: Vec<u32>,
    codes: Vec<i32>,
    quads: Vec<QuadScale>,
    /// The elements, normalised.
    elements: Vec<u8>,
}

/// How a segment is normalised, with what it takes to find the codes of its runs.
#[derive(Clone, Debug)]
pub(crate) struct Normaliser {
    element: Element,
    pub(crate) scale: Scale,
    clamp: Clamp,
    /// The mean of all magnitudes, clamped, in steps above the clamp's lower end.
    mean: f64,
    /// How much of what a run differs by is worth believing: 0 if runs are not told apart.
    trust: f64,
    columns: Columns,
    /// The sum of the offsets of so many first columns, in steps.
    column_sums: Vec<i64>,
}

impl Normaliser {
    fn new(element: Element, scale: Scale, clamp: Clamp, mean: f64, trust: f64) -> Normaliser {
        let mut columns = Columns::default();
        columns.prepare(&scale, element);
        let offsets = columns.offsets()[..columns.period()].iter();
        let mut sum = 0;
        let sums = offsets.map(|&offset| {
            sum += i64::from(offset as i16);
            sum
        });
        let column_sums = std::iter::once(0).chain(sums).collect();
        Normaliser { element, scale, clamp, mean, trust, columns, column_sums }
    }

    /// The same with another scale, for tests.
    #[cfg(test)]
    pub(crate) fn with_scale(&self, scale: Scale) -> Normaliser {
        Normaliser::new(self.element, scale, self.clamp, self.mean, self.trust.max(0.5))
    }

    /// Normalises `bytes`, whose first element is number `first` of the segment, into `buffers`: elements, codes and quads.
    /// What is stored of the codes is appended to `stored`.
    fn normalise(&self, bytes: &[u8], first: u64, level: Level, buffers: &mut Buffers, stored: &mut Vec<u8>) {
        let Buffers { magnitudes, sums, codes, quads, elements } = buffers;
        let count = bytes.len() / self.element.size();
        codes.clear();
        if self.trust > 0.0 {
            upper_magnitudes(self.element, bytes, level, magnitudes);
            block_sums(magnitudes, self.clamp, level, sums);
            self.find_codes(first, count, sums, codes);
        } else {
            codes.resize(self.scale.runs(first, count), 0);
        }
        write_runs(codes, stored);
        self.scale.quads_of(Scale::octave(self.element), first, count, codes, quads);
        let column = (first % self.columns.period() as u64) as usize;
        take_offsets(self.element, bytes, quads, &self.columns, column, level, elements);
    }

    /// The codes of the runs of `count` elements from number `first` on, given the sums of their blocks.
    fn find_codes(&self, first: u64, count: usize, sums: &[u32], codes: &mut Vec<i32>) {
        let run = self.scale.run.saturating_mul(QUAD as u64);
        let phases_per_step = f64::from(self.scale.phases) / f64::from(Scale::octave(self.element));
        let end = first + count as u64;
        let mut start = first;
        while start < end {
            let stop = (start / run + 1).saturating_mul(run).min(end);
            let blocks = (start - first) as usize / BLOCK..((stop - first) as usize).div_ceil(BLOCK);
            let sum: u64 = sums[blocks].iter().map(|&sum| u64::from(sum)).sum();
            let len = (stop - start) as f64;
            let excess = sum as f64 / len - self.mean - self.columns_between(start, stop) / len;
            codes.push((excess * self.trust * phases_per_step).round() as i32);
            start = stop;
        }
    }

    /// The sum of the offsets of the columns of the elements `start..stop`, in steps.
    fn columns_between(&self, start: u64, stop: u64) -> f64 {
        let period = self.columns.period() as u64;
        let all = self.column_sums[period as usize];
        let upto = |at: u64| (at / period) as f64 * all as f64 + self.column_sums[(at % period) as usize] as f64;
        upto(stop) - upto(start)
    }

    /// Appends `bytes`, whose first element is number `first` of the segment, to `stored`: the codes of their runs, then
    /// their block. Returns `false` when there are more patches than a block can have.
    pub(crate) fn encode(
        &self,
        coders: &[Coder],
        bytes: &[u8],
        first: u64,
        buffers: &mut block::Buffers,
        stored: &mut Vec<u8>,
    ) -> bool {
        let mut normal = std::mem::take(&mut buffers.normal);
        self.normalise(bytes, first, buffers.level(), &mut normal, stored);
        let split = self.element.float_split().expect("only floats are normalised");
        let elements = bytes.len() / self.element.size();
        let mut spans: Vec<(&Coder, usize)> = Vec::new();
        for quads in normal.quads.chunk_by(|a, b| a.phase == b.phase) {
            spans.push((&coders[usize::from(quads[0].phase)], quads.len() * QUAD));
        }
        if let Some((_, len)) = spans.last_mut() {
            *len -= normal.quads.len() * QUAD - elements;
        }
        let done = block::encode_spans(&normal.elements, split, &spans, 0, buffers, stored);
        buffers.normal = normal;
        done
    }
}
