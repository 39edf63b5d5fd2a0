//! What the values of a tensor are like: zeros, what is no number, exponents, and what is stored with more bits than it has.

use crate::layout::TensorLayout;
use crate::split::Element;

/// Bits of the mantissa that count as part of a key, as in the split of the coder.
const KEY_MANTISSA_BITS: u32 = 2;

/// How floats are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    /// Bits of the exponent and of the mantissa.
    exponent: u32,
    mantissa: u32,
    /// Whether the largest exponent stands for infinities and NaNs; if not, only one pattern is NaN and none infinite.
    ieee: bool,
}

impl Format {
    fn of(tensor: &TensorLayout) -> Option<Format> {
        let (exponent, mantissa, ieee) = match (tensor.element, tensor.dtype.as_str()) {
            (Element::Bf16, _) => (8, 7, true),
            (Element::F16, _) => (5, 10, true),
            (Element::F32, _) => (8, 23, true),
            (Element::F8E4M3, _) => (4, 3, false),
            (Element::F8E5M2, _) => (5, 2, true),
            (Element::Bytes(8), "F64") => (11, 52, true),
            _ => return None,
        };
        Some(Format { exponent, mantissa, ieee })
    }
}

/// What was seen of the values of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    format: Option<Format>,
    size: usize,
    /// Elements that were looked at; of blocks of elements, the bytes.
    pub seen: u64,
    /// Those that are zero, of either sign.
    pub zeros: u64,
    /// Not a number.
    pub nans: u64,
    /// Infinities.
    pub infinities: u64,
    /// Smaller than the smallest normal number, but not zero.
    pub subnormals: u64,
    /// F32 that are also numbers in BF16, and in F16.
    pub in_bf16: u64,
    /// See [`in_bf16`](Values::in_bf16).
    pub in_f16: u64,
    /// How often each key occurs: exponent and the top two bits of the mantissa; bytes of what is no float.
    keys: Vec<u64>,
    /// The bits that any element has.
    any: u64,
    first: u64,
    /// Whether all elements are alike.
    pub constant: bool,
}

impl Values {
    /// Nothing seen yet of a tensor.
    pub(crate) fn of(tensor: &TensorLayout) -> Values {
        let format = Format::of(tensor);
        // What is no float and has no size of an integer is looked at as bytes.
        let size = match tensor.element.size() {
            size @ (2 | 4 | 8) => size,
            _ => 1,
        };
        let keys = match format {
            Some(format) => 1 << (format.exponent + KEY_MANTISSA_BITS.min(format.mantissa)),
            None if size == 1 => 256,
            None => 0,
        };
        Values {
            format,
            size,
            seen: 0,
            zeros: 0,
            nans: 0,
            infinities: 0,
            subnormals: 0,
            in_bf16: 0,
            in_f16: 0,
            keys: vec![0; keys],
            any: 0,
            first: 0,
            constant: true,
        }
    }

    /// Looks at `bytes`, whole elements.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        match self.size {
            1 => self.add_all::<1>(bytes),
            2 => self.add_all::<2>(bytes),
            4 => self.add_all::<4>(bytes),
            _ => self.add_all::<8>(bytes),
        }
    }

    fn add_all<const SIZE: usize>(&mut self, bytes: &[u8]) {
        let elements = bytes.as_chunks::<SIZE>().0;
        let word = |element: &[u8; SIZE]| {
            let mut word = [0; 8];
            word[..SIZE].copy_from_slice(element);
            u64::from_le_bytes(word)
        };
        if let (0, Some(first)) = (self.seen, elements.first()) {
            self.first = word(first);
        }
        self.seen += elements.len() as u64;
        let Some(Format { exponent, mantissa, ieee }) = self.format else {
            for element in elements.iter().map(word) {
                self.zeros += u64::from(element == 0);
                self.any |= element;
                self.constant &= element == self.first;
                if SIZE == 1 {
                    self.keys[element as usize] += 1;
                }
            }
            return;
        };
        let magnitude_mask = (1u64 << (exponent + mantissa)) - 1;
        let infinity = magnitude_mask >> mantissa << mantissa;
        let shift = mantissa - KEY_MANTISSA_BITS.min(mantissa);
        for element in elements.iter().map(word) {
            let magnitude = element & magnitude_mask;
            self.any |= element;
            self.constant &= element == self.first;
            self.keys[(magnitude >> shift) as usize] += 1;
            self.zeros += u64::from(magnitude == 0);
            self.subnormals += u64::from(magnitude != 0 && magnitude >> mantissa == 0);
            if ieee {
                self.infinities += u64::from(magnitude == infinity);
                self.nans += u64::from(magnitude > infinity);
            } else {
                self.nans += u64::from(magnitude == magnitude_mask);
            }
            if SIZE == 4 {
                self.in_bf16 += u64::from(element & 0xffff == 0);
                self.in_f16 += u64::from(is_f16(element as u32));
            }
        }
    }

    /// What was seen of two parts of one tensor together.
    pub(crate) fn and(mut self, other: Values) -> Values {
        self.constant &= other.constant && (self.first == other.first || self.seen == 0 || other.seen == 0);
        self.seen += other.seen;
        self.zeros += other.zeros;
        self.nans += other.nans;
        self.infinities += other.infinities;
        self.subnormals += other.subnormals;
        self.in_bf16 += other.in_bf16;
        self.in_f16 += other.in_f16;
        self.any |= other.any;
        self.keys.iter_mut().zip(other.keys).for_each(|(all, more)| *all += more);
        self
    }

    /// Whether the elements are floats.
    pub fn are_floats(&self) -> bool {
        self.format.is_some()
    }

    /// How often each exponent occurs, by the exponent as it is stored; empty for what is no float.
    pub fn exponents(&self) -> Vec<u64> {
        let Some(format) = self.format else { return Vec::new() };
        self.keys.chunks(1 << KEY_MANTISSA_BITS.min(format.mantissa)).map(|keys| keys.iter().sum()).collect()
    }

    /// What is taken off an exponent as it is stored to have the power of two.
    pub fn bias(&self) -> i32 {
        self.format.map_or(0, |format| (1 << (format.exponent - 1)) - 1)
    }

    /// The low bits that are zero in every element.
    pub fn low_zero_bits(&self) -> u32 {
        self.format.map_or(0, |format| self.any.trailing_zeros().min(format.mantissa))
    }

    /// The bits per element that coding each by itself comes down to, by what was seen: the entropy of exponents and the top two bits of
    /// mantissas, and all other bits as they are but for those that are always zero. Of bytes their entropy; `None` for
    /// larger integers and when nothing was seen.
    pub fn entropy(&self) -> Option<f64> {
        if self.keys.is_empty() || self.seen == 0 {
            return None;
        }
        let seen = self.seen as f64;
        let mut used = 0u32;
        let entropy: f64 = self.keys.iter().filter(|&&count| count > 0).fold(0.0, |entropy, &count| {
            used += 1;
            entropy - count as f64 / seen * (count as f64 / seen).log2()
        });
        // Few elements look more regular than they are: Miller and Madow's correction.
        let entropy = entropy + f64::from(used - 1) / (2.0 * seen * std::f64::consts::LN_2);
        let raw = self.format.map_or(0, |format| {
            let raw = format.mantissa - KEY_MANTISSA_BITS.min(format.mantissa);
            1 + raw - self.low_zero_bits().min(raw)
        });
        let constant = if self.constant { 0.0 } else { 1.0 };
        Some((entropy + f64::from(raw)) * constant)
    }

    /// The elements whose exponents are more than so many octaves above the middle one of all that are not zero.
    pub fn far_above(&self, octaves: usize) -> u64 {
        let exponents = self.exponents();
        let Some(numbers) = exponents.get(1..exponents.len().saturating_sub(1)) else { return 0 };
        let half = numbers.iter().sum::<u64>().div_ceil(2);
        let mut below = 0;
        let middle = numbers.iter().position(|&count| {
            below += count;
            below >= half && half > 0
        });
        middle.map_or(0, |middle| numbers.iter().skip(middle + octaves + 1).sum())
    }
}

/// Whether an F32 is also a number in F16.
fn is_f16(bits: u32) -> bool {
    let exponent = bits >> 23 & 0xff;
    let low = match exponent {
        // A normal number in F16.
        113..=142 | 255 => 13,
        // One that has fewer bits of mantissa there, the fewer the smaller it is.
        103..=112 => 126 - exponent,
        _ => return bits << 1 == 0,
    };
    bits & ((1 << low) - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dtype: &str, element: Element, bytes: &[u8]) -> Values {
        let tensor = TensorLayout {
            name: "t".to_owned(),
            dtype: dtype.to_owned(),
            shape: vec![(bytes.len() / element.size()) as u64],
            range: 0..bytes.len() as u64,
            element,
        };
        let mut values = Values::of(&tensor);
        // In two parts, as a sample comes.
        let (start, end) = bytes.split_at(bytes.len() / 2 / element.size() * element.size());
        values.add(start);
        values.add(end);
        values
    }

    fn f32s(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_no_plain_number_is_counted() {
        let odd = [1.0, 0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(1), -1e-40, 0.1, 1.5];
        let seen = values("F32", Element::F32, &f32s(&odd));
        assert_eq!((seen.seen, seen.zeros, seen.nans, seen.infinities, seen.subnormals), (10, 2, 1, 2, 2));
        // 1.0, both zeros, NaN, both infinities, 1.5.
        assert_eq!((seen.in_bf16, seen.in_f16), (7, 7));
        let seen = values("F8_E4M3", Element::F8E4M3, &[0x7f, 0xff, 0x7e, 0x80, 0x01, 0x38]);
        assert_eq!((seen.nans, seen.infinities, seen.zeros, seen.subnormals), (2, 0, 1, 1));
        let seen = values("F8_E5M2", Element::F8E5M2, &[0x7c, 0xfc, 0x7d, 0x01, 0x00]);
        assert_eq!((seen.infinities, seen.nans, seen.subnormals, seen.zeros), (2, 1, 1, 1));
        let numbers = [f64::NAN, 1.0, 0.0, 5e-324];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let seen = values("F64", Element::Bytes(8), &bytes);
        assert_eq!((seen.nans, seen.zeros, seen.subnormals), (1, 1, 1));
    }

    #[test]
    fn numbers_of_f16_are_known() {
        // Every number in F16, made by its definition.
        for bits in 0..=u16::MAX {
            let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
            let magnitude = match exponent {
                0 => mantissa * 2f32.powi(-24),
                31 => f32::INFINITY,
                _ => (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15),
            };
            let number = if bits >> 15 == 1 { -magnitude } else { magnitude };
            assert!(is_f16(number.to_bits()), "{number}");
            if exponent != 31 && magnitude > 0.0 {
                assert!(!is_f16(number.to_bits() + 1), "{number}");
            }
        }
        for number in [65536.0, 1e-8, 0.1, 65519.0] {
            assert!(!is_f16(f32::to_bits(number)), "{number}");
        }
    }

    #[test]
    fn entropy_is_what_it_should_be() {
        // All exponents and upper mantissas of a small range equally often: 3 bits, and 1 + 5 raw ones.
        let bytes: Vec<u8> = (0..8192u32).flat_map(|n| ((n % 256 + 0x3f00) as u16).to_le_bytes()).collect();
        let entropy = values("BF16", Element::Bf16, &bytes).entropy().unwrap();
        assert!((entropy - 9.0).abs() < 0.01, "{entropy}");
        assert_eq!(values("BF16", Element::Bf16, &[0, 0x3f].repeat(100)).entropy(), Some(0.0));
        let bytes: Vec<u8> = (0..=255).cycle().take(25_600).collect();
        let entropy = values("I8", Element::Bytes(1), &bytes).entropy().unwrap();
        assert!((entropy - 8.0).abs() < 0.01, "{entropy}");
        assert_eq!(values("I64", Element::Bytes(8), &[0; 80]).entropy(), None);
        let rounded =
            f32s(&(0..1000u16).map(|n| f32::from_bits(0x3f80_0000 + (u32::from(n) << 7))).collect::<Vec<_>>());
        assert_eq!(values("F32", Element::F32, &rounded).low_zero_bits(), 7);
    }

    #[test]
    fn what_stands_far_out_is_counted() {
        let mut numbers = vec![0.01f32; 1000];
        numbers.extend([0.0, 1e-30, f32::INFINITY, 700.0, 1e20]);
        let seen = values("F32", Element::F32, &f32s(&numbers));
        assert_eq!((seen.far_above(16), seen.far_above(100)), (1, 0));
        assert_eq!(seen.exponents()[127 - 7], 1000);
        assert_eq!(seen.bias(), 127);
        assert_eq!(values("F32", Element::F32, &[0; 40]).far_above(16), 0);
    }
}
