//! How far the elements of two tensors are apart, in steps from one value that their dtype has to the next.
//!
//! The elements are taken for integers that are ordered as their values are; a step is a difference of one, which for floats is a unit in
//! the last place. Two elements whose bits differ are at least a step apart: also 0 and -0 are.

/// How elements of a dtype are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Floats of so many bytes: a sign and a magnitude.
    Float(usize),
    /// Signed integers of so many bytes, in two's complement.
    Signed(usize),
    /// Unsigned integers of so many bytes.
    Unsigned(usize),
    /// Bytes that say nothing of their order, such as blocks of quantised weights: only whether they differ is counted.
    Bytes,
}

impl Scale {
    /// That of a dtype, as the headers of safetensors and GGUF files spell it.
    pub(super) fn of(dtype: &str) -> Scale {
        match dtype {
            "F8_E4M3" | "F8_E5M2" => Scale::Float(1),
            "BF16" | "F16" => Scale::Float(2),
            // A complex number is two floats.
            "F32" | "C64" => Scale::Float(4),
            "F64" => Scale::Float(8),
            "I8" => Scale::Signed(1),
            "I16" => Scale::Signed(2),
            "I32" => Scale::Signed(4),
            "I64" => Scale::Signed(8),
            // An exponent alone.
            "U8" | "BOOL" | "F8_E8M0" => Scale::Unsigned(1),
            "U16" => Scale::Unsigned(2),
            "U32" => Scale::Unsigned(4),
            "U64" => Scale::Unsigned(8),
            _ => Scale::Bytes,
        }
    }

    /// Bytes of an element.
    pub(super) fn size(self) -> usize {
        match self {
            Scale::Float(size) | Scale::Signed(size) | Scale::Unsigned(size) => size,
            Scale::Bytes => 1,
        }
    }

    /// Whether it has steps.
    pub(super) fn is_ordered(self) -> bool {
        self != Scale::Bytes
    }

    /// Compares as many elements of `a` as of `b`, which begin with whole elements and are equally long.
    pub(super) fn compare(self, a: &[u8], b: &[u8]) -> Steps {
        debug_assert_eq!(a.len(), b.len());
        let mut steps = Steps { elements: (a.len() / self.size()) as u64, ..Steps::default() };
        for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
            if a != b {
                steps.add(&self.compare_block(a, b));
            }
        }
        steps
    }

    fn compare_block(self, a: &[u8], b: &[u8]) -> Steps {
        match self {
            Scale::Float(1) => {
                block(a, b, u8::from_le_bytes, |x| if x >> 7 == 0 { x | 1 << 7 } else { !x }, u8::abs_diff)
            }
            Scale::Float(2) => {
                block(a, b, u16::from_le_bytes, |x| if x >> 15 == 0 { x | 1 << 15 } else { !x }, u16::abs_diff)
            }
            Scale::Float(4) => {
                block(a, b, u32::from_le_bytes, |x| if x >> 31 == 0 { x | 1 << 31 } else { !x }, u32::abs_diff)
            }
            Scale::Float(_) => {
                block(a, b, u64::from_le_bytes, |x| if x >> 63 == 0 { x | 1 << 63 } else { !x }, u64::abs_diff)
            }
            Scale::Signed(1) => block(a, b, i8::from_le_bytes, |x| x, i8::abs_diff),
            Scale::Signed(2) => block(a, b, i16::from_le_bytes, |x| x, i16::abs_diff),
            Scale::Signed(4) => block(a, b, i32::from_le_bytes, |x| x, i32::abs_diff),
            Scale::Signed(_) => block(a, b, i64::from_le_bytes, |x| x, i64::abs_diff),
            Scale::Unsigned(1) => block(a, b, u8::from_le_bytes, |x| x, u8::abs_diff),
            Scale::Unsigned(2) => block(a, b, u16::from_le_bytes, |x| x, u16::abs_diff),
            Scale::Unsigned(4) => block(a, b, u32::from_le_bytes, |x| x, u32::abs_diff),
            Scale::Unsigned(_) => block(a, b, u64::from_le_bytes, |x| x, u64::abs_diff),
            Scale::Bytes => {
                let changed = a.iter().zip(b).map(|(a, b)| u64::from(a != b)).sum();
                Steps { changed, ..Steps::default() }
            }
        }
    }
}

/// Bytes that are compared as a whole before their elements are. Most of what differs at all differs everywhere, and much does not differ.
const BLOCK: usize = 4096;

/// The steps between two blocks, without their number of elements.
#[inline(always)]
fn block<const SIZE: usize, T: Copy, D: Into<u64> + Copy>(
    a: &[u8],
    b: &[u8],
    read: impl Fn([u8; SIZE]) -> T,
    order: impl Fn(T) -> T,
    distance: impl Fn(T, T) -> D,
) -> Steps {
    let (mut changed, mut low, mut high, mut max) = (0u64, 0u64, 0u64, 0u64);
    for (a, b) in a.as_chunks::<SIZE>().0.iter().zip(b.as_chunks::<SIZE>().0) {
        let step: u64 = distance(order(read(*a)), order(read(*b))).into();
        changed += u64::from(step != 0);
        max = max.max(step);
        // The halves of a block's steps add up without an overflow, whatever they are.
        low += step & 0xffff_ffff;
        high += step >> 32;
    }
    Steps { elements: 0, changed, sum: (u128::from(high) << 32) + u128::from(low), max }
}

/// How far elements are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// How many were compared.
    pub elements: u64,
    /// How many of them are not the same, bit by bit.
    pub changed: u64,
    /// All steps added up; 0 where elements have none.
    pub sum: u128,
    /// The most steps between two elements; 0 where they have none.
    pub max: u64,
}

impl Steps {
    /// These and `other`.
    pub fn add(&mut self, other: &Steps) {
        self.elements += other.elements;
        self.changed += other.changed;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// The steps that an element that changed has made on average; `None` when none did, or they have none.
    pub fn mean(&self) -> Option<f64> {
        (self.changed > 0 && self.sum > 0).then(|| self.sum as f64 / self.changed as f64)
    }

    /// The part of the elements that changed, from 0 to 1; `None` of none.
    pub fn fraction(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.changed as f64 / self.elements as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compare<const N: usize>(dtype: &str, a: [u8; N], b: [u8; N]) -> (u64, u64, u128, u64) {
        let steps = Scale::of(dtype).compare(&a, &b);
        (steps.elements, steps.changed, steps.sum, steps.max)
    }

    #[test]
    fn steps_are_units_in_the_last_place() {
        let next = 1.0f32.next_up().next_up();
        assert_eq!(compare("F32", 1.0f32.to_le_bytes(), next.to_le_bytes()), (1, 1, 2, 2));
        let around_zero = (f64::from_bits(3).to_le_bytes(), (-f64::from_bits(2)).to_le_bytes());
        assert_eq!(compare("F64", around_zero.0, around_zero.1), (1, 1, 6, 6), "0 and -0 are two values");
        assert_eq!(compare("BF16", [0, 0, 0x80, 0x3f], [0, 0x80, 0x82, 0x3f]), (2, 2, 3, 2));
        assert_eq!(compare("F8_E4M3", [0x10, 0x91, 0], [0x12, 0x90, 0]), (3, 2, 3, 2));
        assert_eq!(compare("I8", [127, 5], [128, 5]), (2, 1, 255, 255));
        assert_eq!(compare("U8", [127, 5], [128, 5]), (2, 1, 1, 1));
        assert_eq!(compare("I64", i64::MIN.to_le_bytes(), i64::MAX.to_le_bytes()), (1, 1, u64::MAX.into(), u64::MAX));
        assert_eq!(compare("Q4_K", [1, 2, 3], [1, 5, 9]), (3, 2, 0, 0), "of these only whether they differ is known");
    }

    proptest! {
        #[test]
        fn floats_are_apart_as_far_as_counting_takes(a: f32, up in 0..1000u32, down in 0..1000u32) {
            let mut b = a;
            (0..up).for_each(|_| b = b.next_up());
            (0..down).for_each(|_| b = b.next_down());
            prop_assume!(a.is_finite() && b.is_finite() && (a > 0.0) == (b > 0.0) && a != 0.0 && b != 0.0);
            let steps = Scale::Float(4).compare(&a.to_le_bytes(), &b.to_le_bytes());
            prop_assert_eq!(steps.max, u64::from(up.abs_diff(down)));
        }

        #[test]
        fn parts_add_up(a in prop::collection::vec(any::<u16>(), 0..6000), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>()), 0..20), cut: prop::sample::Index) {
            let mut b = a.clone();
            for (at, flip) in flips {
                if !b.is_empty() { let at = at.index(b.len()); b[at] ^= flip; }
            }
            let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
            let cut = cut.index(a.len() + 1);
            let mut parts = Scale::Float(2).compare(&bytes(&a[..cut]), &bytes(&b[..cut]));
            parts.add(&Scale::Float(2).compare(&bytes(&a[cut..]), &bytes(&b[cut..])));
            prop_assert_eq!(parts, Scale::Float(2).compare(&bytes(&a), &bytes(&b)));
            prop_assert_eq!(parts.changed, a.iter().zip(&b).filter(|(a, b)| a != b).count() as u64);
        }
    }
}
