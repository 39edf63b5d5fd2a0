//! What a page tells: the tensors of a model, and where in it they stand.

use std::collections::BTreeMap;

use bigsmall_codec::scan::{Scan, Values};
use bigsmall_codec::{Original as _, Stored};

/// A model, of one file or of several.
pub struct Model {
    pub title: String,
    pub files: u64,
    /// Whether what is stored is only expected.
    pub expected: bool,
    /// Whether what is stored is the difference from another model.
    pub difference: bool,
    /// Bytes of the originals, and of the containers.
    pub original: u64,
    pub stored: u64,
    pub tensors: Vec<Tensor>,
}

/// A tensor.
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub original: u64,
    pub stored: u64,
    pub codec: String,
    /// What its values are like; `None` where they cannot be had without another model.
    pub values: Option<Values>,
    /// Whether another with the same bytes is stored in its place.
    pub twin: bool,
    pub place: Place,
}

/// Where in a model a tensor stands, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The layers that it belongs to, such as `model.layers`; empty if it belongs to none.
    pub stack: String,
    /// Which of them it belongs to.
    pub depth: Option<u64>,
    /// What it is in its layer, such as `mlp.up_proj.weight`.
    pub kind: String,
}

impl Place {
    /// The place of a tensor with this name: its first number is the depth.
    fn of(name: &str) -> Place {
        let parts: Vec<&str> = name.split('.').collect();
        let number = parts.iter().position(|part| part.parse::<u64>().is_ok());
        // What follows may have numbers too, such as those of experts.
        match number.filter(|&number| number + 1 < parts.len()) {
            Some(number) => Place {
                stack: parts[..number].join("."),
                depth: parts[number].parse().ok(),
                kind: bigsmall_codec::scan::pattern(&parts[number + 1..].join(".")),
            },
            None => Place { stack: String::new(), depth: None, kind: name.to_owned() },
        }
    }
}

/// Tensors taken together.
#[derive(Clone, Default)]
pub struct Sum {
    pub tensors: u64,
    pub original: u64,
    pub stored: u64,
    /// Elements, and the bits that each would take by its entropy, of the tensors of which it is known.
    elements: f64,
    entropy: f64,
    known_stored: f64,
}

impl Sum {
    fn add(&mut self, tensor: &Tensor) {
        self.tensors += 1;
        self.original += tensor.original;
        self.stored += tensor.stored;
        if let (Some(entropy), Some(elements), false) = (tensor.entropy(), tensor.elements(), tensor.twin) {
            self.elements += elements;
            self.entropy += entropy * elements;
            self.known_stored += tensor.stored as f64 * 8.0;
        }
    }

    /// What is stored as part of the original.
    pub fn ratio(&self) -> f64 {
        if self.original > 0 { self.stored as f64 / self.original as f64 } else { 1.0 }
    }

    /// Bits of an element as stored, and by its entropy; of the tensors of which that is known.
    pub fn bits(&self) -> Option<(f64, f64)> {
        (self.elements > 0.0).then(|| (self.known_stored / self.elements, self.entropy / self.elements))
    }
}

impl Tensor {
    /// Its elements, as its shape says; `None` of none.
    fn elements(&self) -> Option<f64> {
        let elements = self.shape.iter().map(|&dim| dim as f64).product::<f64>();
        (elements >= 1.0).then_some(elements)
    }

    /// Bits of an element, as stored.
    pub fn bits(&self) -> Option<f64> {
        self.elements().map(|elements| self.stored as f64 * 8.0 / elements)
    }

    /// Bits of an element by the entropy of its values.
    pub fn entropy(&self) -> Option<f64> {
        let (values, elements) = (self.values.as_ref()?, self.elements()?);
        // Where several elements are in a block, its bytes are looked at.
        let values_per_element = if values.are_floats() { 1.0 } else { self.original as f64 / elements };
        Some(values.entropy()? * values_per_element)
    }
}

impl Model {
    pub fn new(title: String) -> Model {
        Model { title, files: 0, expected: false, difference: false, original: 0, stored: 0, tensors: Vec::new() }
    }

    /// Adds a container; `values` are those of its tensors, `None` if it is a difference from another model.
    pub fn add_stored(&mut self, stored: &Stored, values: Option<Vec<Values>>) {
        self.files += 1;
        self.difference |= values.is_none();
        let mut values = values.into_iter().flatten();
        self.original += stored.len();
        self.stored += stored.stored_len();
        for (tensor, usage) in stored.tensors().iter().zip(stored.tensor_usage()) {
            let codecs: Vec<&str> = usage.codecs.iter().map(|codec| codec.codec.as_str()).collect();
            self.tensors.push(Tensor {
                name: tensor.name.to_owned(),
                dtype: tensor.dtype.to_owned(),
                shape: tensor.shape.to_vec(),
                original: tensor.range.end - tensor.range.start,
                stored: usage.codecs.iter().map(|codec| codec.stored_len).sum(),
                codec: codecs.join(" + "),
                values: values.next(),
                twin: usage.twin.is_some(),
                place: Place::of(tensor.name),
            });
        }
    }

    /// Adds what is expected of a file.
    pub fn add_scan(&mut self, scan: Scan) {
        self.files += 1;
        self.expected = true;
        self.original += scan.len;
        self.stored += scan.containers[0].bytes.round() as u64;
        self.tensors.extend(scan.tensors.into_iter().map(|tensor| Tensor {
            place: Place::of(&tensor.name),
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            original: tensor.range.end - tensor.range.start,
            stored: tensor.stored[0].bytes.round() as u64,
            codec: String::new(),
            values: Some(tensor.values),
            twin: tensor.twin.is_some(),
        }));
    }

    /// Sums of the tensors that have something in common, in the order of its first appearance.
    pub fn sums<K: Ord + Clone>(&self, key: impl Fn(&Tensor) -> Option<K>) -> Vec<(K, Sum)> {
        let mut places = BTreeMap::new();
        let mut sums: Vec<(K, Sum)> = Vec::new();
        for tensor in &self.tensors {
            let Some(key) = key(tensor) else { continue };
            let place = *places.entry(key.clone()).or_insert(sums.len());
            if place == sums.len() {
                sums.push((key, Sum::default()));
            }
            sums[place].1.add(tensor);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_where_a_tensor_stands() {
        let place = |name: &str| {
            let Place { stack, depth, kind } = Place::of(name);
            (stack, depth, kind)
        };
        let some = |stack: &str, depth, kind: &str| (stack.to_owned(), depth, kind.to_owned());
        assert_eq!(place("model.layers.31.mlp.up_proj.weight"), some("model.layers", Some(31), "mlp.up_proj.weight"));
        assert_eq!(place("blk.0.ffn.7.w1"), some("blk", Some(0), "ffn.*.w1"));
        assert_eq!(place("lm_head.weight"), some("", None, "lm_head.weight"));
        assert_eq!(place("0.weight"), some("", Some(0), "weight"));
        assert_eq!(place("conv.3"), some("", None, "conv.3"));
    }
}
