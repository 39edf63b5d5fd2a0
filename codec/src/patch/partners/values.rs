//! Tensors of floats that are known by some of their values.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::is_comparable;
use crate::chunk::delta::convert::convert;
use crate::diff::Tensor;
use crate::error::Result;
use crate::split::Element;

/// Elements that are looked at, those in the middle of a tensor, and the fewest that say anything.
const SAMPLED: u64 = 256;
const FEWEST: u64 = 16;

/// How many pairs of one shape are compared at most: more take too long, and nobody renames so many.
const PAIRS: usize = 1 << 20;

/// Values are close when they are less than this part of how far they are from their mean apart, and clearly closer than any others
/// when they are less than this part of the distance to those apart. Independent values are 1.4 times as far apart as from their mean.
const CLOSE: f32 = 0.5;
const CLEARLY: f32 = 0.5;

/// Some values of a tensor.
pub(super) struct Sample {
    pub(super) number: usize,
    values: Vec<f32>,
    /// The distances of all from their mean.
    spread: f32,
}

/// The tensors of one shape, of either model, by their numbers.
#[derive(Default)]
struct Alike {
    tuned: Vec<usize>,
    base: Vec<usize>,
}

/// Gives those that have no partner the one whose values are clearly the closest.
pub(super) fn match_near(tuned: &[Tensor<'_>], base: &[Tensor<'_>], partners: &mut [Option<usize>]) -> Result<()> {
    let mut is_free = vec![true; base.len()];
    partners.iter().flatten().for_each(|&number| is_free[number] = false);
    let mut shapes = BTreeMap::<&[u64], Alike>::new();
    for (number, tensor) in tuned.iter().enumerate() {
        if partners[number].is_none() && Element::of_float(tensor.dtype).is_some() {
            shapes.entry(tensor.shape).or_default().tuned.push(number);
        }
    }
    for (number, tensor) in base.iter().enumerate() {
        if let Some(alike) = shapes.get_mut(tensor.shape).filter(|_| Element::of_float(tensor.dtype).is_some()) {
            alike.base.push(number);
        }
    }
    for Alike { tuned: numbers, base: mut candidates } in shapes.into_values() {
        if numbers.len().saturating_mul(candidates.len()) > PAIRS {
            continue;
        }
        // Of those that are the same, one that is nobody's comes first.
        candidates.sort_by_key(|&number| !is_free[number]);
        if candidates.is_empty() {
            continue;
        }
        let (numbers, candidates) = (samples(tuned, &numbers)?, samples(base, &candidates)?);
        let nearest = |sample: &Sample| {
            let comparable = |other: &&Sample| is_comparable(&tuned[sample.number], &base[other.number]);
            Some((sample.number, nearest(sample, candidates.iter().filter(comparable))?))
        };
        let found: Vec<(usize, usize)> = numbers.par_iter().filter_map(nearest).collect();
        found.into_iter().for_each(|(number, partner)| partners[number] = Some(partner));
    }
    Ok(())
}

/// The number of the one that is clearly the closest.
pub(super) fn nearest<'a>(sample: &Sample, others: impl Iterator<Item = &'a Sample>) -> Option<usize> {
    let (mut best, mut nearest, mut second) = (None, f32::INFINITY, f32::INFINITY);
    for other in others.filter(|other| other.values.len() == sample.values.len()) {
        let distance = distance(sample, other);
        if distance < nearest {
            (best, nearest, second) = (Some(other), distance, nearest);
        } else {
            second = second.min(distance);
        }
    }
    let best = best?;
    let is_close = nearest < CLOSE * sample.spread.min(best.spread);
    (is_close && (nearest == 0.0 || nearest < CLEARLY * second)).then_some(best.number)
}

fn distance(one: &Sample, other: &Sample) -> f32 {
    one.values.iter().zip(&other.values).map(|(a, b)| (a - b).abs()).sum()
}

/// The distance of two samples that are close.
pub(super) fn distance_of_close(one: &Sample, other: &Sample) -> Option<f32> {
    let distance = distance(one, other);
    (distance < CLOSE * one.spread.min(other.spread)).then_some(distance)
}

/// Samples of these tensors, without those that tell nothing.
fn samples(tensors: &[Tensor<'_>], numbers: &[usize]) -> Result<Vec<Sample>> {
    let sample = |&number: &usize| sample(&tensors[number], number).transpose();
    numbers.par_iter().filter_map(sample).collect()
}

/// A sample of a tensor of floats; `None` if its values are all the same, not all numbers, or too few.
fn sample(tensor: &Tensor<'_>, number: usize) -> Result<Option<Sample>> {
    let element = Element::of_float(tensor.dtype).expect("only floats are sampled");
    sample_of(tensor, number, 0, tensor.byte_len() / element.size() as u64)
}

/// The same from the middle of `elements` elements of it from number `first` on, which lie in it.
pub(super) fn sample_of(tensor: &Tensor<'_>, number: usize, first: u64, elements: u64) -> Result<Option<Sample>> {
    let element = Element::of_float(tensor.dtype).expect("only floats are sampled");
    let size = element.size() as u64;
    if elements < FEWEST {
        return Ok(None);
    }
    let count = elements.min(SAMPLED);
    let mut bytes = vec![0; (count * size) as usize];
    tensor.read_at((first + (elements - count) / 2) * size, &mut bytes)?;
    let mut wide = Vec::new();
    convert(element, Element::F32, &bytes, &mut wide);
    let values: Vec<f32> = wide.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let spread: f32 = values.iter().map(|value| (value - mean).abs()).sum();
    Ok((spread.is_finite() && spread > 0.0).then_some(Sample { number, values, spread }))
}
