//! Floats of one kind made floats of another: a base need not be stored as what was tuned from it.
//!
//! All go by way of F32, which holds each of the shorter ones exactly. Making it shorter rounds to the nearest, ties to even,
//! to infinity beyond the largest; what is not a number becomes the quiet one with the same sign.

use crate::split::Element;

/// Whether elements of this kind can be made those of another kind.
pub(crate) fn is_possible(from: Element, to: Element) -> bool {
    from != to && from.float_split().is_some() && matches!(to, Element::Bf16 | Element::F16 | Element::F32)
}

/// Appends to `out` the elements of `bytes`, made those of another kind.
///
/// # Panics
/// When that [is not possible](is_possible).
pub(crate) fn convert(from: Element, to: Element, bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() / from.size() * to.size());
    match from {
        Element::Bf16 => shorten(to, halves(bytes).map(|bits| u32::from(bits) << 16), out),
        Element::F16 => shorten(to, halves(bytes).map(widen_f16), out),
        Element::F32 => shorten(to, bytes.as_chunks().0.iter().map(|bits| u32::from_le_bytes(*bits)), out),
        Element::F8E4M3 => shorten(to, bytes.iter().map(|&bits| widen_e4m3(bits)), out),
        Element::F8E5M2 => shorten(to, bytes.iter().map(|&bits| widen_f16(u16::from(bits) << 8)), out),
        _ => panic!("only floats are converted"),
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|bits| u16::from_le_bytes(*bits))
}

/// Appends to `out` the elements of F32 with these bits, made shorter if they are to be.
fn shorten(to: Element, elements: impl Iterator<Item = u32>, out: &mut Vec<u8>) {
    match to {
        Element::F32 => elements.for_each(|bits| out.extend_from_slice(&bits.to_le_bytes())),
        Element::Bf16 => elements.for_each(|bits| out.extend_from_slice(&shorten_to_bf16(bits).to_le_bytes())),
        Element::F16 => elements.for_each(|bits| out.extend_from_slice(&shorten_to_f16(bits).to_le_bytes())),
        _ => panic!("nothing is made elements of {to:?}"),
    }
}

const INFINITY: u32 = 0xff << 23;
const MAGNITUDE: u32 = u32::MAX >> 1;

fn widen_f16(bits: u16) -> u32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, mantissa) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match (exponent, mantissa) {
        (0, mantissa) => sign | (mantissa as f32 * f32::from_bits((127 - 24) << 23)).to_bits(),
        (0x1f, 0) => sign | INFINITY,
        (0x1f, _) => sign | INFINITY | 1 << 22,
        _ => sign | (exponent + 112) << 23 | mantissa << 13,
    }
}

fn widen_e4m3(bits: u8) -> u32 {
    let sign = u32::from(bits & 0x80) << 24;
    let (exponent, mantissa) = (u32::from(bits >> 3 & 0xf), u32::from(bits & 7));
    match (exponent, mantissa) {
        (0, mantissa) => sign | (mantissa as f32 * f32::from_bits((127 - 9) << 23)).to_bits(),
        (0xf, 7) => sign | INFINITY | 1 << 22,
        _ => sign | (exponent + 120) << 23 | mantissa << 20,
    }
}

fn shorten_to_bf16(bits: u32) -> u16 {
    if bits & MAGNITUDE > INFINITY {
        return (bits >> 16) as u16 & 0x8000 | 0x7fc0;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn shorten_to_f16(bits: u32) -> u16 {
    let (sign, magnitude) = ((bits >> 16) as u16 & 0x8000, bits & MAGNITUDE);
    if magnitude > INFINITY {
        return sign | 0x7e00;
    }
    // The first that rounds to infinity, and the least normal number.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if magnitude < 113 << 23 {
        // Added to a number whose last place is worth as much as that of a subnormal one, it is rounded as it should be.
        let last_place = f32::from_bits((127 - 1) << 23);
        return sign | (f32::from_bits(magnitude) + last_place).to_bits().wrapping_sub(last_place.to_bits()) as u16;
    }
    let rounded = magnitude - (112 << 23) + 0xfff + (magnitude >> 13 & 1);
    sign | (rounded >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a float with these bits of exponent and mantissa, from its parts.
    fn value(bits: u16, exponent_bits: u32, mantissa_bits: u32) -> f64 {
        let bits = u32::from(bits);
        let exponent = (bits >> mantissa_bits & ((1 << exponent_bits) - 1)) as i32;
        let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
        let bias = (1 << (exponent_bits - 1)) - 1;
        let size =
            if exponent == 0 { mantissa * 2f64.powi(1 - bias) } else { (1.0 + mantissa) * 2f64.powi(exponent - bias) };
        if bits >> (exponent_bits + mantissa_bits) & 1 == 1 { -size } else { size }
    }

    #[test]
    fn longer_floats_have_the_same_value() {
        for bits in 0..=u16::MAX {
            let f16 = f32::from_bits(widen_f16(bits));
            match bits & 0x7fff {
                0x7c00 => assert!(f16.is_infinite() && f16.is_sign_negative() == (bits > 0x8000)),
                0x7c01.. => assert!(f16.is_nan()),
                _ => assert_eq!((f64::from(f16), f16.is_sign_negative()), (value(bits, 5, 10), bits >= 0x8000)),
            }
            assert_eq!(shorten_to_f16(widen_f16(bits)), if f16.is_nan() { bits & 0x8000 | 0x7e00 } else { bits });
        }
        for bits in 0..=u8::MAX {
            let e4m3 = f32::from_bits(widen_e4m3(bits));
            match bits & 0x7f {
                0x7f => assert!(e4m3.is_nan()),
                _ => assert_eq!((f64::from(e4m3), e4m3.is_sign_negative()), (value(bits.into(), 4, 3), bits >= 0x80)),
            }
        }
    }

    #[test]
    fn shorter_floats_are_the_nearest_ones() {
        let nearest = |x: f64, of: &dyn Fn(u16) -> f64, last: u16| {
            let above = (0..=last).find(|&bits| of(bits) >= x).unwrap_or(last);
            let below = above.saturating_sub(1);
            match (x - of(below)).partial_cmp(&(of(above) - x)).unwrap() {
                std::cmp::Ordering::Less => below,
                std::cmp::Ordering::Greater => above,
                std::cmp::Ordering::Equal => [below, above].into_iter().find(|bits| bits % 2 == 0).unwrap(),
            }
        };
        let mut state = 1u64;
        for _ in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Around what F16 has, subnormal numbers included.
            let bits = ((state >> 40) as u32 & 0x7f_ffff) | (100 + (state >> 33) as u32 % 41) << 23;
            for bits in [bits, bits & !0xfff, bits & !0x7fff] {
                let x = f64::from(f32::from_bits(bits));
                let half = shorten_to_f16(bits);
                assert_eq!(half, nearest(x, &|bits| value(bits, 5, 10), 0x7bff), "{x}");
                assert_eq!(shorten_to_f16(bits | 1 << 31), half | 0x8000);
                let brain = shorten_to_bf16(bits);
                let candidates = [bits >> 16, (bits >> 16) + 1];
                let distance = |bits: u32| (f64::from(f32::from_bits(bits << 16)) - x).abs();
                let expected = match distance(candidates[0]).partial_cmp(&distance(candidates[1])).unwrap() {
                    std::cmp::Ordering::Less => candidates[0],
                    std::cmp::Ordering::Greater => candidates[1],
                    std::cmp::Ordering::Equal => candidates.into_iter().find(|bits| bits % 2 == 0).unwrap(),
                };
                assert_eq!(u32::from(brain), expected);
            }
        }
        assert_eq!(shorten_to_f16(65504f32.to_bits()), 0x7bff);
        assert_eq!(shorten_to_f16(65520f32.to_bits()), 0x7c00);
        assert_eq!(shorten_to_bf16(f32::MAX.to_bits()), 0x7f80);
        assert_eq!(shorten_to_bf16(f32::NAN.to_bits() | 1 << 31), 0xffc0);
        assert_eq!(shorten_to_f16(f32::NEG_INFINITY.to_bits()), 0xfc00);
    }
}
