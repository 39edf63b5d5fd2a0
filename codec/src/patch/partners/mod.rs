//! Which tensors of a model are those of another, its base, also where they have other names.
//!
//! Whoever has the name of a tensor of the base is its partner. Of the others, first those whose names are the same but for what programs put
//! into them that wrap models ([`names`]); then floats whose shape is the same and whose values, of which some are looked at, are close
//! ([`values`]). What is in doubt has no partner: a wrong one costs more than none.

mod names;
mod rows;
mod values;

use std::collections::HashMap;

use crate::chunk::delta::convert;
use crate::diff::Tensor;
use crate::error::Result;
use crate::split::Element;

pub use names::plain;
pub(crate) use rows::find_moved;

/// For each tensor of `tuned` the number of its partner in `base`. Several may have the same, if their values say so. Reads at most a
/// few hundred elements of any tensor, and none where names are enough.
///
/// # Errors
/// Those of reading.
pub(crate) fn find(tuned: &[Tensor<'_>], base: &[Tensor<'_>]) -> Result<Vec<Option<usize>>> {
    let mut numbers = HashMap::new();
    for (number, tensor) in base.iter().enumerate() {
        numbers.entry(&*tensor.name).or_insert(number);
    }
    let mut partners: Vec<Option<usize>> = tuned.iter().map(|tensor| numbers.get(&*tensor.name).copied()).collect();
    if partners.contains(&None) {
        names::match_plain(tuned, base, &mut partners);
        values::match_near(tuned, base, &mut partners)?;
    }
    Ok(partners)
}

/// Whether elements of `tuned` can be coded against those of `base` that have the same place.
fn is_comparable(tuned: &Tensor<'_>, base: &Tensor<'_>) -> bool {
    let dtypes = tuned.dtype == base.dtype
        || Element::of_float(base.dtype)
            .zip(Element::of_float(tuned.dtype))
            .is_some_and(|(from, to)| convert::is_possible(from, to));
    dtypes && has_rows_of(tuned.shape, base.shape) && tuned.byte_len() > 0 && base.byte_len() > 0
}

/// Whether tensors of these shapes have their elements at the same places, but for the number of rows.
pub(crate) fn has_rows_of(tuned: &[u64], base: &[u64]) -> bool {
    tuned == base || !tuned.is_empty() && tuned.get(1..) == base.get(1..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::original::{Memory, Original};

    /// A tensor of F32 as long as its shape says, with values that depend on the seed.
    struct Made {
        name: &'static str,
        shape: Vec<u64>,
        bytes: Memory,
    }

    /// Values around a mean, each moved by up to `step`, which not every tensor of this seed is.
    fn made(name: &'static str, shape: &[u64], seed: u64, mean: f32, step: f32) -> Made {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let elements = shape.iter().product::<u64>();
        let values = (0..elements).map(|at| mean + 0.02 * random() + if at % 2 == 0 { step } else { -step });
        let bytes = values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        Made { name, shape: shape.to_vec(), bytes: Memory::new(bytes) }
    }

    fn names(name: &'static str) -> Made {
        // Values that are all the same say nothing.
        let bytes = Memory::new(vec![0; 4096]);
        Made { name, shape: vec![32, 32], bytes }
    }

    fn tensors(made: &[Made]) -> Vec<Tensor<'_>> {
        made.iter()
            .map(|made| Tensor {
                name: made.name.into(),
                dtype: "F32",
                shape: &made.shape,
                file: "file",
                original: &made.bytes,
                range: 0..made.bytes.len(),
                md5: None,
            })
            .collect()
    }

    fn find<'a>(tuned: &[Made], base: &'a [Made]) -> Vec<&'a str> {
        let partners = super::find(&tensors(tuned), &tensors(base)).unwrap();
        partners.into_iter().map(|partner| partner.map_or("", |number| base[number].name)).collect()
    }

    #[test]
    fn what_wrappers_put_into_names_does_not_matter() {
        let base =
            ["model.layers.0.q.weight", "model.layers.1.q.weight", "lm_head.weight", "encoder.layer.0.w"].map(names);
        let tuned = [
            "_orig_mod.module.base_model.model.model.layers.0.q.base_layer.weight",
            "layers._checkpoint_wrapped_module.1.q.weight",
            "lm_head.weight",
            "bert.encoder.layer.0.w",
            "new.weight",
        ];
        let expected =
            ["model.layers.0.q.weight", "model.layers.1.q.weight", "lm_head.weight", "encoder.layer.0.w", ""];
        assert_eq!(find(&tuned.map(names), &base), expected);
        // And the other way round.
        let expected = [tuned[0], tuned[1], tuned[2], tuned[3]];
        assert_eq!(find(&base, &tuned.map(names)), expected);
    }

    #[test]
    fn names_that_may_be_either_are_none() {
        let base = ["module.a.w", "model.a.w", "model.b.w", "c.w"].map(names);
        let tuned = ["a.w", "module.b.w", "b.w", "encoder.c.w", "decoder.c.w"].map(names);
        assert_eq!(find(&tuned, &base), ["", "", "", "", ""]);
        // One that has a partner of its own name is no longer in doubt.
        let tuned = ["model.a.w", "a.w"].map(names);
        assert_eq!(find(&tuned, &base), ["model.a.w", "module.a.w"]);
    }

    #[test]
    fn names_of_tensors_of_other_shapes_do_not_count() {
        let base = [made("model.a", &[64, 8], 1, 0.0, 0.0), made("model.b", &[64, 8], 2, 0.0, 0.0)];
        let tuned = [made("a", &[8, 64], 3, 0.0, 0.0), made("b", &[70, 8], 4, 0.0, 0.0)];
        assert_eq!(find(&tuned, &base), ["", "model.b"]);
    }

    #[test]
    fn floats_are_found_by_their_values() {
        let all = |step: f32, names: [&'static str; 4]| {
            [
                made(names[0], &[100, 40], 1, 0.0, step),
                made(names[1], &[100, 40], 2, 0.0, step),
                // Of norms, which are all close to one another.
                made(names[2], &[40], 3, 1.0, step),
                made(names[3], &[40], 4, 1.0, step),
            ]
        };
        let base = all(0.0, ["a", "b", "c", "d"]);
        let tuned = all(0.001, ["1", "2", "3", "4"]);
        assert_eq!(find(&tuned, &base), ["a", "b", "c", "d"]);
        // Moved by as much as they are large.
        assert_eq!(find(&all(0.02, ["1", "2", "3", "4"]), &base), ["", "", "", ""]);
    }

    #[test]
    fn one_tensor_may_be_the_partner_of_two() {
        let base = [made("embed", &[100, 40], 1, 0.0, 0.0)];
        let tuned = [made("embed", &[100, 40], 1, 0.0, 0.001), made("head", &[100, 40], 1, 0.0, 0.002)];
        assert_eq!(find(&tuned, &base), ["embed", "embed"]);
    }

    #[test]
    fn values_that_may_be_of_either_are_of_none() {
        let close = [made("a", &[100, 40], 1, 0.0, 0.001), made("b", &[100, 40], 1, 0.0, -0.001)];
        assert_eq!(find(&[made("x", &[100, 40], 1, 0.0, 0.0)], &close), [""]);
        // Of two that are the same, either will do.
        let same = [made("a", &[100, 40], 1, 0.0, 0.0), made("b", &[100, 40], 1, 0.0, 0.0)];
        assert_eq!(find(&[made("x", &[100, 40], 1, 0.0, 0.0)], &same), ["a"]);
        let strangers = [made("a", &[100, 40], 2, 0.0, 0.0), names("b")];
        assert_eq!(find(&[made("x", &[100, 40], 1, 0.0, 0.0), names("y")], &strangers), ["", ""]);
    }

    #[test]
    fn what_is_no_number_is_near_to_nothing() {
        let mut broken = made("x", &[100, 40], 1, 0.0, 0.0);
        let mut bytes = broken.bytes.bytes().to_vec();
        bytes.as_chunks_mut::<4>().0[2000] = f32::NAN.to_le_bytes();
        broken.bytes = Memory::new(bytes);
        assert_eq!(find(&[broken], &[made("a", &[100, 40], 1, 0.0, 0.0)]), [""]);
    }
}
