//! A sketch of a model: some of its weights, by which a fine-tune and its base know each other.
//!
//! A fine-tune has the tensors of its base by name and shape, but so has every other model of the architecture. What only it and its base
//! have in common are the values: most have moved by a few units in the last place, if at all. So a sketch holds the values themselves, a
//! few thousand of them: those at the same places of the same tensors for all models that have these tensors. What a patch between two
//! models would cost is estimated from their sketches (`estimate`), without the models.
//!
//! Which tensors are sampled depends on nothing but the tensors: of the floats, those that come first by priority sampling (Duffield, Lund,
//! Thorup 2007), with a hash of the name for the random number. So two models that share most tensors sample the same ones, large tensors are
//! likelier than small ones, and each stands for a known number of bytes.

mod estimate;

use std::cmp::Reverse;

use crate::checksum::checksum;
use crate::diff::Tensor;
use crate::error::Result;
use crate::patch::plain;
use crate::split::Element;
pub use estimate::Estimate;

/// How many tensors are sampled, at most.
const TENSORS: usize = 32;

/// How many runs of elements are taken of each.
const RUNS: u64 = 4;

/// How many elements a run has: as many as fit in the bytes that a disk reads at once anyway.
const RUN: u64 = 64;

/// Some weights of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch {
    /// The tensors that were sampled, by name.
    pub samples: Vec<Sampled>,
    /// Bytes of all tensors of the model.
    pub len: u64,
}

/// Some weights of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its name.
    pub name: String,
    /// Its dtype as the header of its file spells it.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// How many bytes of the model it stands for.
    pub weight: f64,
    /// The elements at the places that tensors of so many elements are sampled at, as they are in the file.
    pub values: Vec<u8>,
}

impl Sketch {
    /// Reads the sketch of a model that has these tensors: some hundred places of its files.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn of(tensors: &[Tensor<'_>]) -> Result<Sketch> {
        let floats = tensors.iter().filter_map(|tensor| Some((tensor, Element::of_float(tensor.dtype)?)));
        let mut floats: Vec<(f64, &Tensor<'_>, Element)> = floats
            .filter(|(tensor, element)| len_in(tensor, *element) > 0)
            .map(|(tensor, element)| (priority(tensor), tensor, element))
            .collect();
        floats.sort_by(|(a, x, _), (b, y, _)| b.total_cmp(a).then_with(|| x.name.cmp(&y.name)));
        // What is sampled stands for what is not.
        let threshold = floats.get(TENSORS).map_or(0.0, |(priority, ..)| *priority);
        floats.truncate(TENSORS);
        floats.sort_by(|(_, a, _), (_, b, _)| a.name.cmp(&b.name));
        let samples = floats.into_iter().map(|(_, tensor, element)| {
            Ok(Sampled {
                name: tensor.name.clone().into_owned(),
                dtype: tensor.dtype.to_owned(),
                shape: tensor.shape.to_vec(),
                weight: (tensor.byte_len() as f64).max(threshold),
                values: values(tensor, element)?,
            })
        });
        Ok(Sketch { samples: samples.collect::<Result<_>>()?, len: tensors.iter().map(Tensor::byte_len).sum() })
    }

    /// What a patch of this model over `base` would cost; `None` when they have too little in common to say.
    pub fn over(&self, base: &Sketch) -> Option<Estimate> {
        estimate::estimate(self, base)
    }
}

fn len_in(tensor: &Tensor<'_>, element: Element) -> u64 {
    tensor.byte_len() / element.size() as u64
}

/// The place of a tensor among all: its size over a number between 0 and 1 that looks random and is always the same for the name,
/// whatever wrappers have put into that.
fn priority(tensor: &Tensor<'_>) -> f64 {
    let random = ((checksum(plain(&tensor.name).as_bytes()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    tensor.byte_len() as f64 / random
}

/// The elements at the places that depend on how many there are.
fn values(tensor: &Tensor<'_>, element: Element) -> Result<Vec<u8>> {
    let (elements, size) = (len_in(tensor, element), element.size() as u64);
    let run = RUN.min(elements.div_ceil(RUNS));
    let mut values = vec![0; (RUNS * run * size) as usize];
    for (number, values) in values.chunks_exact_mut((run * size) as usize).enumerate() {
        // In the middle of each of as many equal parts.
        let start = ((2 * number as u64 + 1) * elements / (2 * RUNS)).saturating_sub(run / 2).min(elements - run);
        tensor.read_at(start * size, values)?;
    }
    Ok(values)
}

/// Sketches of a fine-tune's possible bases, the best first: those over which a patch would be smaller than a container, with what it
/// would cost.
pub fn ranked<'a, T>(tuned: &Sketch, bases: impl IntoIterator<Item = (T, &'a Sketch)>) -> Vec<(T, Estimate)> {
    let estimated = bases.into_iter().filter_map(|(base, sketch)| Some((base, tuned.over(sketch)?)));
    let mut paying: Vec<(T, Estimate)> = estimated.filter(|(_, estimate)| estimate.pays()).collect();
    paying.sort_by_key(|(_, estimate)| Reverse(estimate.saved()));
    paying
}
