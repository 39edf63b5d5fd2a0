//! Names that differ only in what wrapping a model has put into them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::is_comparable;
use crate::diff::Tensor;

/// The parts that programs put into names which wrap a model or its modules: data parallelism, compilation, sharding, checkpointing of
/// activations, adapters, and classes that hold a model together with a head.
const WRAPPERS: [&str; 11] = [
    "module",
    "model",
    "base_model",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "original_module",
    "base_layer",
    "language_model",
];

/// A name without the parts that wrappers put into it.
pub fn plain(name: &str) -> Cow<'_, str> {
    let is_wrapper = |part: &&str| WRAPPERS.contains(part);
    if !name.split('.').any(|part| is_wrapper(&part)) {
        return name.into();
    }
    let parts: Vec<&str> = name.split('.').filter(|part| !is_wrapper(part)).collect();
    parts.join(".").into()
}

/// The plain name without its first part, if as much is left of it as tells anything.
fn inner(name: &str) -> Option<Cow<'_, str>> {
    let plain = plain(name);
    let (_, inner) = plain.split_once('.')?;
    inner.contains('.').then(|| inner.to_owned().into())
}

/// What names are compared by.
type Key = fn(&str) -> Option<Cow<'_, str>>;

/// Gives those that have no partner one whose name is the same in the end, and that has the name alone.
pub(super) fn match_plain(tuned: &[Tensor<'_>], base: &[Tensor<'_>], partners: &mut [Option<usize>]) {
    let whole: Key = |name| Some(plain(name));
    // A model of another class has its name before all others, as `bert.encoder...`.
    for (key, base_key) in [(whole, whole), (inner as Key, whole), (whole, inner as Key)] {
        let mut is_free = vec![true; base.len()];
        partners.iter().flatten().for_each(|&number| is_free[number] = false);
        let free = (0..base.len()).filter(|&number| is_free[number]);
        let of_base = alone(free.map(|number| (number, &*base[number].name)), base_key);
        let single = (0..tuned.len()).filter(|&number| partners[number].is_none());
        for (key, number) in alone(single.map(|number| (number, &*tuned[number].name)), key) {
            let partner = number.zip(of_base.get(&key).copied().flatten());
            if let Some((number, partner)) = partner.filter(|&(number, at)| is_comparable(&tuned[number], &base[at])) {
                partners[number] = Some(partner);
            }
        }
    }
}

/// The number that each key is of, if it is of but one.
fn alone<'a>(names: impl Iterator<Item = (usize, &'a str)>, key: Key) -> HashMap<Cow<'a, str>, Option<usize>> {
    let mut numbers = HashMap::new();
    for (number, name) in names {
        if let Some(key) = key(name) {
            numbers.entry(key).and_modify(|number| *number = None).or_insert(Some(number));
        }
    }
    numbers
}
