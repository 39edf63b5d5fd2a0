//! Division by a frequency where processors have only floats to divide with: in vectors.

/// A little less than `1 / frequency`: `x` times this, cut to an integer, is ⌊x / frequency⌋ or one less.
///
/// For `x < frequency * 2^20`. Let `e = 2^-24`, the largest relative error of a rounding. What is multiplied is `x`, which
/// may have been rounded twice on its way to a float, by `(1 - 4e) / frequency`, rounded once; and the product is rounded
/// once more. It is therefore at most `x / frequency * (1 - 4e) (1 + e)^4 < x / frequency` and at least
/// `x / frequency * (1 - 4e) (1 - e)^4`, which is no more than `2^20 * 8e = 1/2` below it.
pub(super) fn inverse(frequency: u16) -> f32 {
    ((1.0 - f64::powi(2.0, -22)) / f64::from(frequency)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rans::{FREQUENCY_BITS, TOTAL};

    #[test]
    fn a_quotient_is_one_too_small_at_most() {
        for frequency in 1..=TOTAL as u16 {
            let f = u64::from(frequency);
            let limit = (f << (32 - FREQUENCY_BITS)).min(1 << 32);
            let mut random = f;
            let sample = (0..1000).map(|_| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 32) % limit
            });
            // Just below and at a multiple is where a quotient goes wrong first.
            for x in sample.flat_map(|x| [x, x / f * f, (x / f * f).saturating_sub(1)]).chain([0, limit - 1]) {
                let once = x as u32 as f32;
                let twice = x as u32 as i32 as f32 + if x >> 31 == 1 { f32::powi(2.0, 32) } else { 0.0 };
                for rounded in [once, twice] {
                    let quotient = (rounded * inverse(frequency)) as u64;
                    assert!(quotient == x / f || quotient + 1 == x / f, "{x} / {f} is not {quotient}");
                }
            }
        }
    }
}
