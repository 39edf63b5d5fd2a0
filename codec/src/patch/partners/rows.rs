//! Tensors of floats whose rows have been moved within attention heads.

use std::collections::{HashMap, HashSet};

use super::is_comparable;
use super::values::{self, Sample};
use crate::diff::Tensor;
use crate::error::Result;
use crate::patch::order::{HEADS, RowOrder};
use crate::split::Element;

/// How many pairs of first rows are compared at most.
const PAIRS: usize = 1 << 20;

/// For each tensor the order of the rows of its partner, if they have been moved; tensors whose rows have been moved, and that have no
/// partner, get one.
///
/// The first row of a head stays where it is, and so does the last: by the first row of all tensors without a partner are found, and those that
/// have one by their values may have it for rows that stayed. The order shows in some others, of the first head and of the last.
///
/// # Errors
/// Those of reading.
pub(crate) fn find_moved(
    tuned: &[Tensor<'_>],
    base: &[Tensor<'_>],
    partners: &mut [Option<usize>],
) -> Result<Vec<Option<RowOrder>>> {
    let is_matrix = |tensor: &Tensor<'_>| {
        tensor.shape.len() == 2 && tensor.shape[0] >= *HEADS.start() && Element::of_float(tensor.dtype).is_some()
    };
    let mut orders = vec![None; tuned.len()];
    let mut single = Vec::new();
    for (number, tensor) in tuned.iter().enumerate().filter(|(_, tensor)| is_matrix(tensor)) {
        match partners[number].map(|partner| &base[partner]) {
            None => single.push(number),
            Some(partner) if partner.name != tensor.name && partner.shape == tensor.shape && is_matrix(partner) => {
                let stayed = row(tensor, number, 1)?.zip(row(partner, 0, 1)?);
                if stayed.is_some_and(|(row, of_base)| values::distance_of_close(&row, &of_base).is_none()) {
                    orders[number] = order_of(tensor, partner)?;
                }
            }
            Some(_) => {}
        }
    }
    let shapes: HashSet<&[u64]> = single.iter().map(|&number| tuned[number].shape).collect();
    let taken: HashSet<usize> = partners.iter().flatten().copied().collect();
    let is_other =
        |number: &usize| is_matrix(&base[*number]) && shapes.contains(base[*number].shape) && !taken.contains(number);
    let others: Vec<usize> = (0..base.len()).filter(is_other).collect();
    if single.len().saturating_mul(others.len()) > PAIRS {
        return Ok(orders);
    }
    let mut firsts = Vec::new();
    for &number in &others {
        firsts.extend(row(&base[number], number, 0)?);
    }
    for number in single {
        let tensor = &tuned[number];
        let Some(first) = row(tensor, number, 0)? else { continue };
        let comparable =
            |other: &&Sample| tensor.shape == base[other.number].shape && is_comparable(tensor, &base[other.number]);
        if let Some(partner) = values::nearest(&first, firsts.iter().filter(comparable))
            && let Some(order) = order_of(tensor, &base[partner])?
        {
            (partners[number], orders[number]) = (Some(partner), Some(order));
        }
    }
    Ok(orders)
}

/// The order that makes the rows of `base` those of `tuned`, if one does; of several the one that makes them closest.
fn order_of(tuned: &Tensor<'_>, base: &Tensor<'_>) -> Result<Option<RowOrder>> {
    let rows = tuned.shape[0];
    let (mut of_tuned, mut of_base) = (Rows::of(tuned), Rows::of(base));
    let mut best: Option<(RowOrder, f32)> = None;
    for head in HEADS.filter(|head| head.is_multiple_of(2) && rows.is_multiple_of(*head)) {
        for interleaves in [true, false] {
            let order = RowOrder { head, interleaves };
            if !order.fits(base.shape, base.byte_len()) {
                continue;
            }
            let mut sum = Some(0.0);
            for at in [1, 2, head - 2, rows - 2] {
                let pair = of_tuned.sample(at)?.zip(of_base.sample(order.source(at))?);
                let distance = pair.and_then(|(moved, source)| values::distance_of_close(moved, source));
                sum = sum.zip(distance).map(|(sum, distance)| sum + distance);
                if sum.is_none() {
                    break;
                }
            }
            if let Some(sum) = sum.filter(|&sum| best.is_none_or(|(_, least)| sum < least)) {
                best = Some((order, sum));
            }
        }
    }
    Ok(best.map(|(order, _)| order))
}

/// Samples of rows of a matrix, each read once.
struct Rows<'a> {
    tensor: &'a Tensor<'a>,
    known: HashMap<u64, Option<Sample>>,
}

impl<'a> Rows<'a> {
    fn of(tensor: &'a Tensor<'a>) -> Rows<'a> {
        Rows { tensor, known: HashMap::new() }
    }

    fn sample(&mut self, at: u64) -> Result<Option<&Sample>> {
        if !self.known.contains_key(&at) {
            self.known.insert(at, row(self.tensor, 0, at)?);
        }
        Ok(self.known[&at].as_ref())
    }
}

/// A sample of a row of a matrix.
fn row(tensor: &Tensor<'_>, number: usize, row: u64) -> Result<Option<Sample>> {
    let columns = tensor.shape[1];
    values::sample_of(tensor, number, row * columns, columns)
}
