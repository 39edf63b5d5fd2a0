//! From counts to weights that add up to 2^24, exactly as the Python package has it.
//!
//! The package divides counts by their sum in numpy and has the library `constriction` turn the quotients into integers.
//! One weight that differs makes the rest of a stream unreadable, so every rounding of those two is followed here: numpy
//! adds pairwise, and the logarithm is that of the crate `libm`, not the one of the system.

use crate::error::{Error, Result};

/// The weights of a model add up to two to the power of this.
pub(in crate::upstream) const PRECISION: u32 = 24;

/// What is added to each count, so that no symbol is impossible.
const EPSILON: f64 = 0.01;

/// Up to so many numbers are added without a split.
const PAIRWISE_BLOCK: usize = 128;

/// How many weights are moved at most. Honest tables need a few hundred moves; this ends the work that a forged one asks for.
const MOST_MOVES: usize = 1 << 16;

/// The weights for these counts.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when no weights can be given.
pub(super) fn weights(counts: &[u32]) -> Result<Vec<u32>> {
    let mut probabilities: Vec<f64> = counts.iter().map(|&count| f64::from(count) + EPSILON).collect();
    let sum = pairwise_sum(&probabilities);
    probabilities.iter_mut().for_each(|p| *p /= sum);
    perfect(&probabilities)
}

/// The sum of `values` in the order in which numpy adds contiguous numbers.
fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() < 8 {
        return values.iter().fold(-0.0, |sum, value| sum + value);
    }
    if values.len() > PAIRWISE_BLOCK {
        let (first, rest) = values.split_at(values.len() / 2 / 8 * 8);
        return pairwise_sum(first) + pairwise_sum(rest);
    }
    let (groups, rest) = values.as_chunks::<8>();
    let mut a = groups[0];
    for group in &groups[1..] {
        a.iter_mut().zip(group).for_each(|(sum, value)| *sum += value);
    }
    let sum = ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
    rest.iter().fold(sum, |sum, value| sum + value)
}

/// A symbol while its weight is sought.
#[derive(Clone, Copy)]
struct Candidate {
    symbol: usize,
    probability: f64,
    weight: u32,
    /// What one more unit of weight gains, in nats.
    win: f64,
    /// What one unit less costs.
    loss: f64,
}

impl Candidate {
    fn new(symbol: usize, probability: f64, weight: u32) -> Candidate {
        let mut candidate = Candidate { symbol, probability, weight, win: 0.0, loss: 0.0 };
        candidate.set_win();
        candidate.set_loss();
        candidate
    }

    fn set_win(&mut self) {
        self.win = self.probability * libm::log1p(1.0 / f64::from(self.weight));
    }

    fn set_loss(&mut self) {
        self.loss = match self.weight {
            1 => f64::INFINITY,
            weight => -self.probability * libm::log1p(-1.0 / f64::from(weight)),
        };
    }
}

/// Integers of at least 1 that add up to 2^24 and waste as little as can be when symbols have these probabilities.
fn perfect(probabilities: &[f64]) -> Result<Vec<u32>> {
    let impossible = || Error::corrupt("a table has counts that no model can be made of");
    let mut free = (1u32 << PRECISION).checked_sub(probabilities.len() as u32).ok_or_else(impossible)?;
    let sum = probabilities.iter().fold(0.0, |sum, p| sum + p);
    let scale = f64::from(free) / sum;
    let mut list: Vec<Candidate> = Vec::with_capacity(probabilities.len());
    for (symbol, &probability) in probabilities.iter().enumerate() {
        let extra = (probability * scale) as u32;
        free = free.checked_sub(extra).ok_or_else(impossible)?;
        // Most of an alphabet does not occur: the logarithms of neighbours are then the same.
        list.push(match list.last() {
            Some(last) if last.probability == probability => Candidate { symbol, ..*last },
            _ => Candidate::new(symbol, probability, extra + 1),
        });
    }
    while free > 0 {
        list.sort_by(|a, b| b.win.total_cmp(&a.win));
        let lucky = (free as usize).min(list.len());
        for candidate in &mut list[..lucky] {
            candidate.weight += 1;
            candidate.set_win();
            candidate.set_loss();
        }
        free -= lucky as u32;
    }
    for _ in 0..MOST_MOVES {
        let indices = || 0..list.len();
        let buyer = indices().max_by(|&a, &b| list[a].win.total_cmp(&list[b].win)).ok_or_else(impossible)?;
        let seller = indices().min_by(|&a, &b| list[a].loss.total_cmp(&list[b].loss)).ok_or_else(impossible)?;
        if buyer == seller || list[buyer].win <= list[seller].loss {
            let mut weights = vec![0; list.len()];
            list.iter().for_each(|candidate| weights[candidate.symbol] = candidate.weight);
            return Ok(weights);
        }
        list[seller].weight -= 1;
        list[seller].win = f64::NEG_INFINITY;
        list[seller].set_loss();
        list[buyer].weight += 1;
        list[buyer].loss = f64::INFINITY;
        list[buyer].set_win();
    }
    Err(impossible())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_round_as_those_of_numpy() {
        // 2^53 + 1 is no f64: whether the ones survive tells who was added to whom. A sum from left to right loses all.
        let big = 9_007_199_254_740_992.0;
        let values = |len: usize| (0..len).map(|i| if i == 0 { big } else { 1.0 }).collect::<Vec<f64>>();
        let gained = |len: usize| pairwise_sum(&values(len)) - big;
        assert_eq!(gained(7), 0.0, "from left to right");
        assert_eq!(gained(8), 6.0, "(2^53 + 1) + (1 + 1) and four of the other half");
        assert_eq!(gained(9), 8.0, "what is left over comes last, and rounds to even");
        assert_eq!(gained(16), 14.0, "eight lanes, one of them the big one's");
        assert_eq!(gained(128), 112.0);
        assert_eq!(gained(129), 120.0, "64 and 65: the second half alone is exact");
        assert_eq!(gained(300), 290.0, "150 and 150, 72 and 78 each");
        assert_eq!(pairwise_sum(&[]).to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn logarithms_are_those_of_libm() {
        // Computed by musl's algorithm, whatever the system's library says.
        for (x, bits) in [(1.0, 0x3fe6_2e42_fefa_39efu64), (-0.5, 0xbfe6_2e42_fefa_39ef), (0.0, 0)] {
            assert_eq!(libm::log1p(x).to_bits(), bits, "{x}");
        }
    }

    #[test]
    fn weights_of_extreme_counts() {
        for counts in [&[0; 512][..], &[u32::MAX; 512], &[1, 0], &[u32::MAX, 1, 0, 0], &[1; 1024]] {
            check(counts);
        }
        assert_eq!(weights(&[1, 1]).unwrap(), [1 << 23; 2]);
        let constant: Vec<u32> = (0..16).map(|i| if i == 3 { 1_000_000_000 } else { 0 }).collect();
        let expected: Vec<u32> = (0..16).map(|i| if i == 3 { (1 << 24) - 15 } else { 1 }).collect();
        assert_eq!(weights(&constant).unwrap(), expected);
    }

    #[track_caller]
    fn check(counts: &[u32]) {
        let weights = weights(counts).unwrap();
        assert_eq!(weights.iter().map(|&w| u64::from(w)).sum::<u64>(), 1 << PRECISION);
        assert!(weights.iter().all(|&w| w > 0));
    }

    proptest! {
        #[test]
        fn weights_always_add_up(counts in proptest::collection::vec(prop_oneof![Just(0), 0..1000u32, any::<u32>()], 2..600)) {
            check(&counts);
        }
    }
}
