//! What to expect of an original before it is compressed: how large its container will be in each mode, and what its tensors
//! are like.
//!
//! Nothing is guessed from a model of the coder: segments are planned by the planner, and chunks are coded by the encoder, as
//! [`compress`](crate::container::compress) does. Only not all of them. Segments that are alike (the same layer of another
//! depth) form a *stratum*, of which some are planned; of each of those some *units* are coded, whole chunks in all modes, spread
//! evenly. What the units have in common tells what the others will take, and how far they differ tells how far off that
//! may be. With no limit everything is coded, and the result is exact but for the index.

mod estimate;
mod look;
mod low_bits;
mod sampled;
mod strata;
mod values;

use std::ops::Range;
use std::time::Duration;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

pub use estimate::Estimate;
pub use strata::pattern;
pub use values::Values;

use crate::Progress;
use crate::container::{Mode, Options, SharedTables};
use crate::error::Result;
use crate::layout::{Content, Layout, SegmentLayout, TensorLayout};
use crate::original::Original;
use look::look;
use sampled::{Sampled, Scanner};

/// The modes that are told of, the one first that most is coded in.
pub const MODES: [Mode; 3] = [Mode::Balanced, Mode::Storage, Mode::Inference];

/// One of each for each of the [`MODES`].
pub type PerMode<T> = [T; MODES.len()];

/// How much of an original is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// About so many bytes, and some of every stratum.
    Sample(u64),
    /// All.
    Everything,
}

/// Bytes of a place at which a tensor is looked at of which not all is coded.
const PLACE: u64 = 4 << 10;

/// How far off what is concluded of the rest may be as part of it, however alike all is that was coded.
const UNSEEN: f64 = 2e-4;

/// What is expected of an original.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Bytes of the original.
    pub len: u64,
    /// Its tensors, by the position of their bytes.
    pub tensors: Vec<ScannedTensor>,
    /// What its container takes in each of the [`MODES`].
    pub containers: PerMode<Estimate>,
    /// Processor time that compressing it takes in each of the [`MODES`], about, on this machine; of all threads together.
    pub times: PerMode<Duration>,
    /// Bytes that were coded.
    pub coded: u64,
}

/// What is expected of a tensor.
#[derive(Clone, Debug)]
pub struct ScannedTensor {
    /// Its name.
    pub name: String,
    /// Its dtype, as the header spells it.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the original.
    pub range: Range<u64>,
    /// What its chunks take in each of the [`MODES`]: nothing if it has a twin.
    pub stored: PerMode<Estimate>,
    /// Processor time that coding it takes in each of the [`MODES`], about.
    pub times: PerMode<Duration>,
    /// What its values are like, or those that were looked at.
    pub values: Values,
    /// An earlier tensor that has the same bytes, by its position among all. In a sample: wherever it was looked.
    pub twin: Option<usize>,
    /// What tensors of other files have in common with it that are equal; `None` for tiny ones.
    pub print: Option<u64>,
}

/// Scans `source`, on the threads of the current rayon pool. Progress counts the bytes that are coded.
///
/// # Errors
/// Those of reading `source`, and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
pub fn scan(source: &dyn Original, extent: Extent, progress: &dyn Progress) -> Result<Scan> {
    // What is not larger than the sample is coded as a whole.
    let extent = match extent {
        Extent::Sample(bytes) if bytes >= source.len() => Extent::Everything,
        extent => extent,
    };
    let layout = Layout::of(source)?;
    let place = (extent != Extent::Everything).then_some(PLACE);
    let looks = layout.tensors.par_iter().map(|tensor| look(source, tensor, place, &Uncounted(progress)));
    let mut looks = looks.collect::<Result<Vec<_>>>()?;
    let twins = look::twins(&layout.tensors, &looks);
    let twin_segments: Vec<Option<usize>> = (0..layout.segments.len())
        .map(|segment| segment_of(&layout.segments, &layout.tensors[twins[layout.tensor_of(segment)?]?].range))
        .collect();
    let shared = SharedTables::fit(source, &layout.segments, &twin_segments)?;
    let mut strata = strata::of(&layout, &twin_segments, extent);
    let chosen: Vec<usize> = strata.iter().flat_map(|stratum| stratum.chosen.iter().copied()).collect();
    let scanner = Scanner::new(source, &layout, &shared, extent, &chosen, progress);
    let mut sampled = chosen.par_iter().map(|&segment| scanner.sample(segment)).collect::<Result<Vec<Sampled>>>()?;

    for (&segment, sampled) in chosen.iter().zip(&mut sampled) {
        if let (Some(tensor), Some(values)) = (layout.tensor_of(segment), sampled.values.take()) {
            looks[tensor].values = values;
        }
    }
    let mut rest = &sampled[..];
    for stratum in &mut strata {
        let (of_this, further) = rest.split_at(stratum.chosen.len());
        stratum.estimate(of_this);
        rest = further;
    }
    let coded = sampled.iter().map(|sampled| sampled.coded(0)).sum::<u64>();
    let uncoded = if extent == Extent::Everything { 0 } else { source.len().saturating_sub(coded) };
    let hashing = hashing_time(source)?;
    let times =
        std::array::from_fn(|mode| hashing + strata.iter().map(|stratum| stratum.times[mode]).sum::<Duration>());
    let index_rest = sampled::index_without_chunks(&layout, &sampled, twin_segments.iter().flatten().count());
    let containers = std::array::from_fn(|mode| {
        let stored = strata.iter().fold(Estimate::default(), |sum, stratum| sum + stratum.stored[mode]);
        let in_first_mode_only = coded - sampled.iter().map(|sampled| sampled.coded(mode)).sum::<u64>();
        let unseen = UNSEEN * (uncoded + in_first_mode_only) as f64;
        stored
            + index_rest
            + Estimate::new(0.0, unseen * unseen)
            + Estimate::sure(strata.iter().map(|stratum| stratum.index_of_chunks(mode)).sum::<f64>())
    });

    let mut tensors: Vec<ScannedTensor> = layout
        .tensors
        .iter()
        .zip(looks)
        .zip(&twins)
        .map(|((tensor, look), &twin)| ScannedTensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype.clone(),
            shape: tensor.shape.clone(),
            range: tensor.range.clone(),
            stored: std::array::from_fn(|_| Estimate::default()),
            times: std::array::from_fn(|_| Duration::ZERO),
            values: look.values,
            twin,
            print: look.print,
        })
        .collect();
    for stratum in &strata {
        for segment in stratum.segments.iter().map(|&segment| &layout.segments[segment].range) {
            let first = tensors.partition_point(|tensor| tensor.range.end <= segment.start);
            for tensor in tensors[first..].iter_mut().take_while(|tensor| tensor.range.start < segment.end) {
                (tensor.stored, tensor.times) = stratum.share(tensor.range.end - tensor.range.start);
            }
        }
    }
    Ok(Scan { len: source.len(), tensors, containers, times, coded })
}

/// What the values of the tensors of `source` are like, by the position of their bytes, by looking at not much more than `most` bytes of
/// each. Progress counts those.
///
/// # Errors
/// Those of reading `source`, and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
pub fn values(source: &dyn Original, most: u64, progress: &dyn Progress) -> Result<Vec<Values>> {
    let layout = Layout::of(source)?;
    let place = Some((most / look::PLACES).max(1).next_multiple_of(8));
    layout.tensors.par_iter().map(|tensor| Ok(look(source, tensor, place, progress)?.values)).collect()
}

/// Asks for cancellation and counts nothing.
struct Uncounted<'a>(&'a dyn Progress);

impl Progress for Uncounted<'_> {
    fn advance(&self, _: u64) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// A tensor of an original, as its header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalTensor {
    /// Its name.
    pub name: String,
    /// Its dtype, as the header spells it.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the original.
    pub range: Range<u64>,
}

/// The tensors of `source`, by the position of their bytes; none if it is of no kind that is known.
///
/// # Errors
/// Those of reading `source`.
pub fn tensors(source: &dyn Original) -> Result<Vec<OriginalTensor>> {
    let tensor = |TensorLayout { name, dtype, shape, range, .. }| OriginalTensor { name, dtype, shape, range };
    Ok(Layout::of(source)?.tensors.into_iter().map(tensor).collect())
}

impl Layout {
    /// The tensor that makes up a segment.
    fn tensor_of(&self, segment: usize) -> Option<usize> {
        let SegmentLayout { range, content, .. } = &self.segments[segment];
        let first = self.tensors.partition_point(|tensor| tensor.range.end <= range.start);
        (*content == Content::Tensor && self.tensors.get(first)?.range == *range).then_some(first)
    }
}

/// The segment that is made up by the tensor in this range.
fn segment_of(segments: &[SegmentLayout], tensor: &Range<u64>) -> Option<usize> {
    segments.binary_search_by_key(&tensor.start, |segment| segment.range.start).ok()
}

/// The options that a mode has unless others are asked for.
fn options(mode: Mode) -> Options {
    Options { mode, chunk_size: mode.chunk_size() }
}

/// How long it takes to hash all of `source`, by its first bytes: the SHA-256 of the whole, and the MD5s of its tensors, which take
/// less than half as long.
fn hashing_time(source: &dyn Original) -> Result<Duration> {
    let mut bytes = vec![0; source.len().min(1 << 20) as usize];
    source.read_at(0, &mut bytes)?;
    let start = processor_time();
    std::hint::black_box(Sha256::digest(&bytes));
    let took = processor_time().saturating_sub(start);
    Ok(took.mul_f64(1.4 * source.len() as f64 / bytes.len().max(1) as f64))
}

/// The processor time that this thread has taken: unlike that of a clock, it does not count what others do.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests;
