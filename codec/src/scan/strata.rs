//! Segments that are alike, of which some stand for the others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::estimate::{Estimate, variance_of_mean};
use super::sampled::{CHUNK_ENTRY, Sampled, spread};
use super::{Extent, MODES, PerMode};
use crate::layout::{Content, Layout};

/// So many segments of a stratum are looked into, or more if they have fewer bytes than that.
const CHOSEN: usize = 8;
const CHOSEN_BYTES: u64 = 1 << 20;

/// Segments that are alike: tensors of one kind and length whose names differ in numbers only, such as those of the layers of a
/// model.
#[derive(Debug)]
pub(super) struct Stratum {
    /// In order.
    pub(super) segments: Vec<usize>,
    /// Those that are looked into.
    pub(super) chosen: Vec<usize>,
    /// Bytes of all segments.
    len: u64,
    /// What all chunks of all segments take.
    pub(super) stored: PerMode<Estimate>,
    /// Processor time for all segments.
    pub(super) times: PerMode<Duration>,
    chunks: PerMode<f64>,
}

/// The strata of an original, without the segments that have twins.
pub(super) fn of(layout: &Layout, twins: &[Option<usize>], extent: Extent) -> Vec<Stratum> {
    let mut alike = BTreeMap::<_, Vec<usize>>::new();
    for (number, segment) in layout.segments.iter().enumerate().filter(|&(number, _)| twins[number].is_none()) {
        let len = segment.range.end - segment.range.start;
        let name = match (segment.content, layout.tensor_of(number)) {
            (Content::Tensor, Some(tensor)) => pattern(&layout.tensors[tensor].name),
            (Content::TinyTensors, _) => "tiny".to_owned(),
            // Of what is no tensor nothing is like the other.
            _ => format!("other {number}"),
        };
        let len_of_alike = if segment.content == Content::TinyTensors { 0 } else { len };
        alike.entry((name, segment.element.code(), len_of_alike)).or_default().push(number);
    }
    let stratum = |segments: Vec<usize>| {
        let ranges = segments.iter().map(|&segment| &layout.segments[segment].range);
        let len = ranges.map(|range| range.end - range.start).sum::<u64>();
        let most = match extent {
            Extent::Everything => segments.len(),
            Extent::Sample(_) => CHOSEN.max((CHOSEN_BYTES * segments.len() as u64 / len) as usize).min(segments.len()),
        };
        Stratum {
            len,
            chosen: (0..most).map(|place| segments[spread(place, most, segments.len())]).collect(),
            segments,
            stored: Default::default(),
            times: Default::default(),
            chunks: Default::default(),
        }
    };
    alike.into_values().map(stratum).collect()
}

impl Stratum {
    /// Concludes from the sampled segments, which are the chosen ones, what all take.
    pub(super) fn estimate(&mut self, sampled: &[Sampled]) {
        let sampled_len = sampled.iter().map(|sampled| sampled.len).sum::<u64>() as f64;
        let (all, factor) = (self.len as f64, self.len as f64 / sampled_len);
        for mode in 0..MODES.len() {
            let each: Vec<Estimate> = sampled.iter().map(|sampled| sampled.stored(mode)).collect();
            let ratios: Vec<f64> =
                each.iter().zip(sampled).map(|(stored, sampled)| stored.bytes / sampled.len as f64).collect();
            let between = variance_of_mean(&ratios, self.segments.len()) * all * all;
            let sum = each.into_iter().fold(Estimate::default(), |sum, stored| sum + stored);
            self.stored[mode] = sum.times(factor) + Estimate::new(0.0, between);
            self.times[mode] = sampled.iter().map(|sampled| sampled.time(mode)).sum::<Duration>().mul_f64(factor);
            self.chunks[mode] = sampled.iter().map(|sampled| sampled.chunks(mode) as f64).sum::<f64>() * factor;
        }
    }

    /// What a part of so many bytes takes, in bytes and in time.
    pub(super) fn share(&self, len: u64) -> (PerMode<Estimate>, PerMode<Duration>) {
        let part = len as f64 / self.len as f64;
        (self.stored.map(|stored| stored.times(part)), self.times.map(|time| time.mul_f64(part)))
    }

    /// What its chunks take in the index.
    pub(super) fn index_of_chunks(&self, mode: usize) -> f64 {
        self.chunks[mode] * CHUNK_ENTRY
    }
}

/// A name with its numbers left out: that of its kind of layer.
pub fn pattern(name: &str) -> String {
    let part = |part: &str| match !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => "*".to_owned(),
        false => part.to_owned(),
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_alike() {
        assert_eq!(
            pattern("model.layers.31.mlp.experts.7.up_proj.weight"),
            "model.layers.*.mlp.experts.*.up_proj.weight"
        );
        assert_eq!(pattern("conv1.weight"), "conv1.weight");
        assert_eq!(pattern(""), "");
        assert_eq!(pattern("12"), "*");
        assert_eq!(pattern("a..b"), "a..b");
    }
}
