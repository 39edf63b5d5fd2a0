//! Segments with equal bytes: tied weights, which a container stores once.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::checksum::checksum;
use crate::error::Result;
use crate::layout::{Content, SegmentLayout};
use crate::original::Original;

/// Bytes that are looked at in each of three places before two segments are compared as a whole.
const PROBE: u64 = 4 << 10;

/// Bytes that are compared at a time.
const STEP: u64 = 1 << 20;

/// For each segment the first one before it that has the same elements and the same bytes, if there is one.
pub(crate) fn find(source: &dyn Original, segments: &[SegmentLayout]) -> Result<Vec<Option<usize>>> {
    let mut alike = HashMap::<_, Vec<usize>>::new();
    for (number, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.content == Content::Tensor) {
        alike.entry((segment.element, segment.range.end - segment.range.start)).or_default().push(number);
    }
    let candidates: Vec<usize> = alike.values().filter(|numbers| numbers.len() > 1).flatten().copied().collect();
    let probes: Vec<(usize, u64)> =
        candidates.par_iter().map(|&number| Ok((number, probe(source, &segments[number])?))).collect::<Result<_>>()?;

    let mut groups = HashMap::<_, Vec<usize>>::new();
    for (number, probe) in probes {
        let segment = &segments[number];
        groups.entry((segment.element, segment.range.end - segment.range.start, probe)).or_default().push(number);
    }
    let mut first = vec![None; segments.len()];
    for mut group in groups.into_values() {
        group.sort_unstable();
        let pairs =
            group[1..].par_iter().map(|&later| Ok((later, equal(source, &segments[group[0]], &segments[later])?)));
        for (later, equal) in pairs.collect::<Result<Vec<_>>>()? {
            first[later] = equal.then_some(group[0]);
        }
    }
    Ok(first)
}

/// A checksum of the segment's beginning, middle and end.
fn probe(source: &dyn Original, segment: &SegmentLayout) -> Result<u64> {
    let len = segment.range.end - segment.range.start;
    let part = len.min(PROBE);
    let mut bytes = vec![0; 3 * part as usize];
    for (offset, bytes) in [0, (len - part) / 2, len - part].into_iter().zip(bytes.chunks_exact_mut(part as usize)) {
        source.read_at(segment.range.start + offset, bytes)?;
    }
    Ok(checksum(&bytes))
}

/// Whether two segments of one length hold the same bytes.
fn equal(source: &dyn Original, a: &SegmentLayout, b: &SegmentLayout) -> Result<bool> {
    let len = a.range.end - a.range.start;
    let (mut left, mut right) = (vec![0; STEP.min(len) as usize], vec![0; STEP.min(len) as usize]);
    for offset in (0..len).step_by(STEP as usize) {
        let step = STEP.min(len - offset) as usize;
        source.read_at(a.range.start + offset, &mut left[..step])?;
        source.read_at(b.range.start + offset, &mut right[..step])?;
        if left[..step] != right[..step] {
            return Ok(false);
        }
    }
    Ok(true)
}
