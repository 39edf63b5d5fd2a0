//! A first look at every tensor: what its values are like, and whether it equals another.

use std::collections::HashMap;

use super::Values;
use crate::Progress;
use crate::checksum::checksum;
use crate::error::Result;
use crate::layout::{TINY, TensorLayout};
use crate::original::Original;
use crate::stream::cancelled;

/// Places in a tensor that are looked at if not all of it is.
pub(super) const PLACES: u64 = 8;

/// Bytes that are looked at in one step when all are.
const STEP: u64 = 1 << 20;

/// What was learned.
pub(super) struct Look {
    /// A checksum of what was looked at; `None` of tiny tensors, which equal one another for no reason.
    pub(super) print: Option<u64>,
    pub(super) values: Values,
}

/// Looks at a tensor of `source`, or at so many bytes in each of some places if it is longer than they are together.
pub(super) fn look(
    source: &dyn Original,
    tensor: &TensorLayout,
    place: Option<u64>,
    progress: &dyn Progress,
) -> Result<Look> {
    let len = tensor.range.end - tensor.range.start;
    let place_len = place.filter(|place| len > PLACES * place);
    let places: Vec<(u64, u64)> = if let Some(place_len) = place_len {
        // At whole elements.
        (0..PLACES).map(|place| ((len - place_len) / (PLACES - 1) * place / 8 * 8, place_len)).collect()
    } else {
        (0..len).step_by(STEP as usize).map(|start| (start, STEP.min(len - start))).collect()
    };
    let mut values = Values::of(tensor);
    let mut bytes = Vec::new();
    let mut prints = Vec::new();
    for (start, len) in places {
        if progress.cancelled() {
            return Err(cancelled());
        }
        bytes.resize(len as usize, 0);
        source.read_at(tensor.range.start + start, &mut bytes)?;
        values.add(&bytes);
        progress.advance(len);
        prints.extend_from_slice(&checksum(&bytes).to_le_bytes());
    }
    Ok(Look { print: (len >= TINY).then(|| checksum(&prints)), values })
}

/// For each tensor the first one before it that is of the same kind and has the same bytes, wherever it was looked.
pub(super) fn twins(tensors: &[TensorLayout], looks: &[Look]) -> Vec<Option<usize>> {
    let mut first = HashMap::new();
    let twin_of = |(number, (tensor, look)): (usize, (&TensorLayout, &Look))| {
        let kind = (tensor.element, tensor.range.end - tensor.range.start, look.print?);
        let first = *first.entry(kind).or_insert(number);
        (first != number).then_some(first)
    };
    tensors.iter().zip(looks).enumerate().map(twin_of).collect()
}
