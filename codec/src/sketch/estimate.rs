//! What a patch would cost, from samples of both models.
//!
//! The same is counted as the codecs for patches and for floats code: the first the logarithm of the difference as an integer, given the base's
//! exponent, the second the exponent with two bits of the mantissa; the other bits count as they are. Both are pooled over all
//! tensors of a dtype, since a tensor has few samples, and what a table learns of few samples counts too little: that is corrected
//! after Miller (1955).

use std::collections::{BTreeMap, HashMap};

use super::{Sampled, Sketch};
use crate::patch::plain;
use crate::split::Element;

/// The part of the container's cost that a patch must save to be worth the trouble of needing its base.
const WORTH: f64 = 0.05;

/// The part of the bytes that both models must have in common, by name, dtype and shape, for anything to be said.
const COMMON: f64 = 0.25;

/// What a patch would cost, roughly, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// What the container of the fine-tune alone would take.
    pub container: u64,
    /// What the patch would take.
    pub patch: u64,
}

impl Estimate {
    /// What the patch would save besides what the container saves.
    pub fn saved(&self) -> u64 {
        self.container.saturating_sub(self.patch)
    }

    /// Whether that is worth it.
    pub fn pays(&self) -> bool {
        self.saved() as f64 > self.container as f64 * WORTH
    }
}

/// What the samples of one tensor cost, in bits an element.
#[derive(Default)]
struct Bits {
    element: f64,
    container: f64,
    patch: Option<f64>,
}

/// As [`Sketch::over`].
pub(super) fn estimate(tuned: &Sketch, base: &Sketch) -> Option<Estimate> {
    let bases: HashMap<_, &Sampled> = base.samples.iter().map(|sample| (plain(&sample.name), sample)).collect();
    let base_of = |sample: &Sampled| {
        let base = bases.get(&plain(&sample.name))?;
        let same = base.dtype == sample.dtype && base.shape == sample.shape && base.values.len() == sample.values.len();
        same.then_some(*base)
    };
    let (mut plain, mut differences) = (BTreeMap::new(), BTreeMap::new());
    for sample in &tuned.samples {
        let element = Element::of_float(&sample.dtype)?;
        let pooled: &mut Pooled = plain.entry(sample.dtype.as_str()).or_default();
        elements(element, &sample.values).for_each(|value| pooled.count(0, key(element, value)));
        if let Some(base) = base_of(sample) {
            let pooled: &mut Pooled = differences.entry(sample.dtype.as_str()).or_default();
            let pairs = elements(element, &sample.values).zip(elements(element, &base.values));
            pairs.for_each(|(value, base)| pooled.count(context(element, base), difference(element, value, base)));
        }
    }
    let (mut weight, mut common, mut container, mut patch) = (0.0, 0.0, 0.0, 0.0);
    for sample in &tuned.samples {
        let bits = bits(sample, base_of(sample), &plain[sample.dtype.as_str()], differences.get(sample.dtype.as_str()));
        weight += sample.weight;
        container += sample.weight * bits.container / bits.element;
        patch += sample.weight * bits.patch.unwrap_or(bits.container).min(bits.container) / bits.element;
        common += if bits.patch.is_some() { sample.weight } else { 0.0 };
    }
    if weight == 0.0 || common < weight * COMMON {
        return None;
    }
    // What was not sampled, since it is no float, is in neither.
    Some(Estimate { container: container as u64, patch: patch as u64 })
}

/// What the samples of a tensor cost with what is known of all.
fn bits(sample: &Sampled, base: Option<&Sampled>, plain: &Pooled, differences: Option<&Pooled>) -> Bits {
    let Some(element) = Element::of_float(&sample.dtype) else { return Bits::default() };
    let count = (sample.values.len() / element.size()).max(1) as f64;
    let width = (element.size() * 8) as f64;
    let cost = |value| plain.bits(0, key(element, value)) + f64::from(raw_bits(element));
    let container = elements(element, &sample.values).map(cost).sum::<f64>() / count;
    let patch = base.zip(differences).map(|(base, differences)| {
        let pairs = elements(element, &sample.values).zip(elements(element, &base.values));
        let cost = |(value, base)| {
            let difference = difference(element, value, base);
            differences.bits(context(element, base), difference) + f64::from(extra_bits(difference))
        };
        pairs.map(cost).sum::<f64>() / count
    });
    Bits { element: width, container: container.min(width), patch }
}

/// How often symbols occur in each of several contexts.
#[derive(Default)]
struct Pooled {
    contexts: HashMap<u32, HashMap<i32, u32>>,
    totals: HashMap<u32, u32>,
}

impl Pooled {
    fn count(&mut self, context: u32, symbol: i32) {
        *self.contexts.entry(context).or_default().entry(symbol).or_default() += 1;
        *self.totals.entry(context).or_default() += 1;
    }

    /// What a symbol costs that has been counted.
    fn bits(&self, context: u32, symbol: i32) -> f64 {
        let (symbols, total) = (&self.contexts[&context], f64::from(self.totals[&context]));
        let correction = (symbols.len() - 1) as f64 / (2.0 * total * std::f64::consts::LN_2);
        (total / f64::from(symbols[&symbol])).log2() + correction
    }
}

/// The elements of some bytes.
fn elements(element: Element, bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(element.size()).map(|bytes| {
        let mut value = [0; 4];
        value[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(value)
    })
}

/// Bits of an element's mantissa, and of all of it.
fn layout(element: Element) -> (u32, u32) {
    match element {
        Element::Bf16 => (7, 16),
        Element::F16 => (10, 16),
        Element::F32 => (23, 32),
        Element::F8E4M3 => (3, 8),
        Element::F8E5M2 => (2, 8),
        Element::Bytes(_) | Element::Blocks(_) => unreachable!("only floats are sampled"),
    }
}

fn magnitude(element: Element, value: u32) -> u32 {
    value & ((1u64 << (layout(element).1 - 1)) - 1) as u32
}

/// The part of a float that is entropy coded.
fn key(element: Element, value: u32) -> i32 {
    (magnitude(element, value) >> (layout(element).0 - 2)) as i32
}

/// The bits of a float that are not.
fn raw_bits(element: Element) -> u32 {
    layout(element).0 - 2 + 1
}

/// What is known of a difference from the base's element: its exponent.
fn context(element: Element, base: u32) -> u32 {
    magnitude(element, base) >> layout(element).0
}

/// The difference from the base's element as it is coded: 0, or its sign with the number of its bits.
fn difference(element: Element, value: u32, base: u32) -> i32 {
    let ordered = |value: u32| {
        let magnitude = i64::from(magnitude(element, value));
        if value >> (layout(element).1 - 1) & 1 == 0 { magnitude } else { -1 - magnitude }
    };
    let difference = ordered(value) - ordered(base);
    let away = if ordered(base) < 0 { -difference } else { difference };
    away.signum() as i32 * (64 - away.unsigned_abs().leading_zeros()) as i32
}

/// Bits of a difference that are stored as they are: all below its highest.
fn extra_bits(difference: i32) -> u32 {
    difference.unsigned_abs().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::super::ranked;
    use super::*;
    use crate::diff::Tensor;
    use crate::original::{Memory, Original};

    /// A model of tensors of BF16, whose weights are those of `seed` moved by `step` where a generator says so, one time in `every`.
    struct Fake {
        tensors: Vec<(String, Vec<u64>, Memory)>,
    }

    impl Fake {
        fn new(seed: u64, step: u16, every: u64) -> Fake {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state >> 16
            };
            let mut moved = 12_345u64;
            let tensors = (0..50).map(|number| {
                let shape = vec![64, 100 + number];
                let elements = 64 * (100 + number);
                let mut bytes = Vec::new();
                for _ in 0..elements {
                    // About normal, so that exponents are as those of weights.
                    let sum: f32 = (0..4).map(|_| (random() % 2000) as f32 / 1000.0 - 1.0).sum();
                    let mut value = ((sum * 0.05).to_bits() >> 16) as u16;
                    moved = moved.wrapping_mul(6364136223846793005).wrapping_add(1);
                    if step > 0 && (moved >> 33).is_multiple_of(every) {
                        value = value.wrapping_add(1 + (moved >> 40) as u16 % step);
                    }
                    bytes.extend(value.to_le_bytes());
                }
                (format!("layers.{number}.weight"), shape, Memory::new(bytes))
            });
            Fake { tensors: tensors.collect() }
        }

        fn sketch(&self) -> Sketch {
            let tensors: Vec<Tensor<'_>> = self
                .tensors
                .iter()
                .map(|(name, shape, bytes)| Tensor {
                    name: name.into(),
                    dtype: "BF16",
                    shape,
                    file: "model",
                    original: bytes,
                    range: 0..bytes.len(),
                    md5: None,
                })
                .collect();
            Sketch::of(&tensors).unwrap()
        }
    }

    #[test]
    fn a_fine_tune_knows_its_base_among_models_of_the_same_shape() {
        let tuned = Fake::new(1, 3, 2).sketch();
        let models: Vec<Sketch> = (1..6).map(|seed| Fake::new(seed, 0, 1).sketch()).collect();
        let found = ranked(&tuned, models.iter().enumerate());
        assert_eq!(found.len(), 1, "no other pays: {found:?}");
        let (number, Estimate { container, patch }) = found[0];
        let len = tuned.len as f64;
        assert_eq!(number, 0);
        // Half of the weights moved by 1, 2 or 3, so it takes 1 bit to say whether and log2(3) how far, of 16.
        let expected = (1.0 + 0.5 * 3f64.log2()) / 16.0;
        assert!((patch as f64 / len - expected).abs() < 0.03, "{patch} of {len}");
        assert!((0.6..0.8).contains(&(container as f64 / len)), "{container} of {len}");
    }

    #[test]
    fn names_with_parts_of_wrappers_are_the_same() {
        let (tuned, base) = (Fake::new(1, 3, 2), Fake::new(1, 0, 1));
        let expected = tuned.sketch().over(&base.sketch()).unwrap();
        let mut wrapped = tuned;
        wrapped.tensors.iter_mut().for_each(|(name, ..)| *name = format!("module.base_model.model.{name}"));
        assert_eq!(wrapped.sketch().over(&base.sketch()), Some(expected));
    }

    #[test]
    fn the_nearer_of_two_bases_comes_first() {
        let tuned = Fake::new(1, 3, 5).sketch();
        let (far, near, same) = (Fake::new(1, 200, 1).sketch(), Fake::new(1, 0, 1).sketch(), tuned.clone());
        let order: Vec<&str> = ranked(&tuned, [("far", &far), ("near", &near), ("same", &same)])
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(order[..2], ["same", "near"]);
        assert_eq!(tuned.over(&same).unwrap().patch, 0);
    }

    #[test]
    fn models_with_little_in_common_are_not_compared() {
        let tuned = Fake::new(1, 3, 2).sketch();
        let mut other = tuned.clone();
        other.samples.truncate(3);
        assert_eq!(tuned.over(&other), None);
        let mut other = tuned.clone();
        other.samples.iter_mut().for_each(|sample| sample.shape[0] += 1);
        assert_eq!(tuned.over(&other), None);
        let empty = Sketch { samples: Vec::new(), len: 0 };
        assert_eq!((empty.over(&tuned), tuned.over(&empty)), (None, None));
    }

    #[test]
    fn samples_of_another_length_are_not_believed() {
        let tuned = Fake::new(1, 3, 2).sketch();
        let mut forged = tuned.clone();
        forged.samples.iter_mut().for_each(|sample| sample.values.truncate(7));
        assert_eq!(tuned.over(&forged), None);
    }
}
