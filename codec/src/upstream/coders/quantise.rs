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
pub(crate) fn weights(counts: &[u32]) -> Result<Vec<u32>> {
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

/// What one more unit of weight gains, in nats.
fn win(probability: f64, weight: u32) -> f64 {
    probability * libm::log1p(1.0 / f64::from(weight))
}

/// What one unit less costs.
fn loss(probability: f64, weight: u32) -> f64 {
    match weight {
        1 => f64::INFINITY,
        weight => -probability * libm::log1p(-1.0 / f64::from(weight)),
    }
}

/// Symbols while their weights are sought, in the order in which they are compared.
struct Candidates {
    symbols: Vec<usize>,
    probabilities: Vec<f64>,
    weights: Vec<u32>,
    wins: Vec<f64>,
    losses: Vec<f64>,
}

impl Candidates {
    fn with_capacity(len: usize) -> Candidates {
        Candidates {
            symbols: (0..len).collect(),
            probabilities: Vec::with_capacity(len),
            weights: Vec::with_capacity(len),
            wins: Vec::with_capacity(len),
            losses: Vec::with_capacity(len),
        }
    }

    fn push(&mut self, probability: f64, weight: u32) {
        // Most of an alphabet does not occur: the logarithms of neighbours are then the same.
        let (win, loss) = match (self.probabilities.last(), self.weights.last(), self.wins.last(), self.losses.last()) {
            (Some(&p), Some(&w), Some(&win), Some(&loss)) if p == probability && w == weight => (win, loss),
            _ => (win(probability, weight), loss(probability, weight)),
        };
        self.probabilities.push(probability);
        self.weights.push(weight);
        self.wins.push(win);
        self.losses.push(loss);
    }

    /// Puts those that win most first; those that win the same stay in order.
    fn sort_by_win(&mut self) {
        let mut order: Vec<usize> = (0..self.wins.len()).collect();
        order.sort_by(|&a, &b| self.wins[b].total_cmp(&self.wins[a]));
        self.symbols = order.iter().map(|&at| self.symbols[at]).collect();
        self.probabilities = order.iter().map(|&at| self.probabilities[at]).collect();
        self.weights = order.iter().map(|&at| self.weights[at]).collect();
        self.wins = order.iter().map(|&at| self.wins[at]).collect();
        self.losses = order.iter().map(|&at| self.losses[at]).collect();
    }

    fn set_win(&mut self, at: usize) {
        self.wins[at] = win(self.probabilities[at], self.weights[at]);
    }

    fn set_loss(&mut self, at: usize) {
        self.losses[at] = loss(self.probabilities[at], self.weights[at]);
    }

    /// The last of those that win most.
    fn buyer(&self) -> usize {
        let most = extreme(&self.wins, f64::NEG_INFINITY, |a, b| a > b);
        self.wins.iter().rposition(|&win| win == most).unwrap_or(0)
    }

    /// The first of those that lose least.
    fn seller(&self) -> usize {
        let least = extreme(&self.losses, f64::INFINITY, |a, b| a < b);
        self.losses.iter().position(|&loss| loss == least).unwrap_or(0)
    }
}

/// That of `values`, or `start`, which is `better` than all others. None is a NaN.
fn extreme(values: &[f64], start: f64, better: impl Fn(f64, f64) -> bool) -> f64 {
    let choose = |a: f64, b: f64| if better(a, b) { a } else { b };
    // Eight at once: all of this is what makes a table, and there are thousands.
    let (groups, rest) = values.as_chunks::<8>();
    let mut lanes = [start; 8];
    for group in groups {
        lanes.iter_mut().zip(group).for_each(|(lane, &value)| *lane = choose(value, *lane));
    }
    lanes.iter().chain(rest).fold(start, |extreme, &value| choose(value, extreme))
}

/// Integers of at least 1 that add up to 2^24 and waste as little as can be when symbols have these probabilities.
fn perfect(probabilities: &[f64]) -> Result<Vec<u32>> {
    let impossible = || Error::corrupt("a table has counts that no model can be made of");
    let mut free = (1u32 << PRECISION).checked_sub(probabilities.len() as u32).ok_or_else(impossible)?;
    let sum = probabilities.iter().fold(0.0, |sum, p| sum + p);
    let scale = f64::from(free) / sum;
    let mut list = Candidates::with_capacity(probabilities.len());
    for &probability in probabilities {
        let extra = (probability * scale) as u32;
        free = free.checked_sub(extra).ok_or_else(impossible)?;
        list.push(probability, extra + 1);
    }
    while free > 0 {
        list.sort_by_win();
        let lucky = (free as usize).min(probabilities.len());
        for at in 0..lucky {
            list.weights[at] += 1;
            list.set_win(at);
            list.set_loss(at);
        }
        free -= lucky as u32;
    }
    for _ in 0..MOST_MOVES {
        let (buyer, seller) = (list.buyer(), list.seller());
        if buyer == seller || list.wins[buyer] <= list.losses[seller] {
            let mut weights = vec![0; probabilities.len()];
            list.symbols.iter().zip(&list.weights).for_each(|(&symbol, &weight)| weights[symbol] = weight);
            return Ok(weights);
        }
        list.weights[seller] -= 1;
        list.wins[seller] = f64::NEG_INFINITY;
        list.set_loss(seller);
        list.weights[buyer] += 1;
        list.losses[buyer] = f64::INFINITY;
        list.set_win(buyer);
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

    /// The weights as the library has them that the package uses, of the same quotients.
    fn weights_of_constriction(counts: &[u32]) -> Vec<u32> {
        use constriction::stream::model::{DefaultContiguousCategoricalEntropyModel, IterableEntropyModel};
        let mut probabilities: Vec<f64> = counts.iter().map(|&count| f64::from(count) + EPSILON).collect();
        let sum = pairwise_sum(&probabilities);
        probabilities.iter_mut().for_each(|p| *p /= sum);
        let model = DefaultContiguousCategoricalEntropyModel::from_floating_point_probabilities_perfect(&probabilities)
            .unwrap();
        model.symbol_table().map(|(_, _, weight)| weight.get()).collect()
    }

    #[test]
    fn weights_are_those_of_constriction() {
        // Histograms of the shapes that occur, of each alphabet: few exponents, mantissas nearly alike, single symbols.
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for alphabet in [2, 16, 64, 128, 256, 512, 1024] {
            for round in 0..12 {
                let scale = 1 << (2 * round);
                let counts: Vec<u32> = (0..alphabet)
                    .map(|symbol| match round % 3 {
                        0 => random() % scale,
                        1 => scale.checked_shr(symbol % 64).unwrap_or(0),
                        _ => {
                            if random() % 8 == 0 {
                                scale + random() % scale
                            } else {
                                0
                            }
                        }
                    })
                    .collect();
                assert_eq!(weights(&counts).unwrap(), weights_of_constriction(&counts), "{counts:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn weights_are_always_those_of_constriction(
            counts in proptest::collection::vec(prop_oneof![Just(0), 0..1000u32, 0..1_000_000u32], 2..200),
        ) {
            prop_assert_eq!(weights(&counts).unwrap(), weights_of_constriction(&counts));
        }

        #[test]
        fn weights_always_add_up(counts in proptest::collection::vec(prop_oneof![Just(0), 0..1000u32, any::<u32>()], 2..600)) {
            check(&counts);
        }
    }
}
