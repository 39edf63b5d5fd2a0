//! Sizes that are not known for sure.

use std::ops::Add;

/// A size that is not known for sure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Bytes.
    pub bytes: f64,
    variance: f64,
}

impl Estimate {
    pub(super) fn new(bytes: f64, variance: f64) -> Estimate {
        Estimate { bytes, variance }
    }

    /// A size that is known.
    pub(super) fn sure(bytes: f64) -> Estimate {
        Estimate { bytes, variance: 0.0 }
    }

    /// How far off it may be, in bytes: with 95 % probability not more than that.
    pub fn error(self) -> f64 {
        2.0 * self.variance.sqrt()
    }

    /// So many times this.
    pub(super) fn times(self, factor: f64) -> Estimate {
        Estimate { bytes: self.bytes * factor, variance: self.variance * factor * factor }
    }
}

impl Add for Estimate {
    type Output = Estimate;

    /// The sum of two that have nothing to do with each other.
    fn add(self, other: Estimate) -> Estimate {
        Estimate { bytes: self.bytes + other.bytes, variance: self.variance + other.variance }
    }
}

/// The variance of the mean of `of` numbers of which `seen` are at hand, spread evenly: by how much each differs from
/// the next, so that a slow drift, which such a sample follows, does not count. Of few numbers it is taken for as much larger as Student's
/// distribution is wider than the normal one.
pub(super) fn variance_of_mean(seen: &[f64], of: usize) -> f64 {
    if seen.len() < 2 || seen.len() >= of {
        return 0.0;
    }
    let squares: f64 = seen.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
    let variance = squares / (2 * (seen.len() - 1)) as f64;
    let wider = match seen.len() - 1 {
        1 => 10.0,
        2 => 5.0,
        freedom => freedom as f64 / (freedom - 2) as f64,
    };
    wider * variance / seen.len() as f64 * (1.0 - seen.len() as f64 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_add_up_as_they_should() {
        let sum = Estimate::new(10.0, 9.0) + Estimate::new(5.0, 16.0) + Estimate::sure(1.0);
        assert_eq!((sum.bytes, sum.error()), (16.0, 10.0));
        assert_eq!((sum.times(3.0).bytes, sum.times(3.0).error()), (48.0, 30.0));
    }

    #[test]
    fn a_mean_is_the_surer_the_more_is_seen() {
        let noise: Vec<f64> = (0..1000).map(|n| f64::from(n * 7919 % 1000)).collect();
        let every = |step: usize| noise.iter().copied().step_by(step).collect::<Vec<f64>>();
        let few = variance_of_mean(&every(100), 1000);
        let many = variance_of_mean(&every(3), 1000);
        assert!(few > 5.0 * many && many > 0.0, "{few} {many}");
        assert_eq!(variance_of_mean(&noise, 1000), 0.0);
        assert_eq!(variance_of_mean(&[1.0], 1000), 0.0);
        // Of numbers between 0 and 999 the variance is a twelfth of a million.
        assert!((many * 334.0 / (1.0 - 0.334) / 83_333.0 - 1.0).abs() < 0.5, "{many}");
    }
}
