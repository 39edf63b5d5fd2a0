//! The difference between an element and that of the base, and the key and bits that it is coded as.

use super::{CONTEXTS, RUN};
use crate::split::Element;

/// What matters of a float here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Bits: 8, 16 or 32.
    pub(crate) width: u32,
    /// Bits of the mantissa.
    pub(crate) mantissa: u32,
}

impl Kind {
    /// `None` when it is no float.
    pub(crate) fn of(element: Element) -> Option<Kind> {
        let mantissa = match element {
            Element::Bf16 => 7,
            Element::F16 => 10,
            Element::F32 => 23,
            Element::F8E4M3 => 3,
            Element::F8E5M2 => 2,
            _ => return None,
        };
        Some(Kind { width: 8 * element.size() as u32, mantissa })
    }

    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        (self.width / 8) as usize
    }

    fn sign(self) -> u32 {
        1 << (self.width - 1)
    }

    fn magnitude(self, element: u32) -> u32 {
        element & (self.sign() - 1)
    }

    /// The exponent of an element, as it is stored.
    pub(crate) fn exponent(self, element: u32) -> i32 {
        (self.magnitude(element) >> self.mantissa) as i32
    }

    /// How much further from the base's element in the direction of its sign the element is, in numbers of floats, modulo
    /// 2^width.
    pub(crate) fn difference(self, element: u32, base: u32) -> i32 {
        let place =
            if (element ^ base) & self.sign() == 0 { self.magnitude(element) } else { !self.magnitude(element) };
        let unused = 32 - self.width;
        (place.wrapping_sub(self.magnitude(base)) << unused) as i32 >> unused
    }

    /// The element that has this difference to that of the base.
    pub(crate) fn moved(self, base: u32, difference: i32) -> u32 {
        let unused = 32 - self.width;
        let place = (self.magnitude(base).wrapping_add(difference as u32) << unused) as i32 >> unused;
        let folded = if place < 0 { !place } else { place } as u32;
        let flipped = if place < 0 { self.sign() } else { 0 };
        folded | (base & self.sign()) ^ flipped
    }

    /// Keys are below this: the largest difference is one of 2^(width - 1), and negative.
    pub(crate) fn keys(self) -> u8 {
        4 * self.width as u8 - 2
    }

    /// Takes elements out of `bytes`, which may hold less than there is room for; all others are 0.
    #[inline(always)]
    pub(crate) fn load(self, bytes: &[u8], elements: &mut [u32; RUN]) {
        if bytes.len() < RUN * self.size() {
            elements.fill(0);
        }
        match self.width {
            8 => elements.iter_mut().zip(bytes).for_each(|(element, &byte)| *element = byte.into()),
            16 => {
                let halves = bytes.as_chunks().0.iter().map(|half| u16::from_le_bytes(*half));
                elements.iter_mut().zip(halves).for_each(|(element, half)| *element = half.into());
            }
            _ => {
                let words = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
                elements.iter_mut().zip(words).for_each(|(element, word)| *element = word);
            }
        }
    }

    /// Puts elements into `bytes`, as many as there is room for.
    #[inline(always)]
    pub(crate) fn store(self, elements: &[u32; RUN], bytes: &mut [u8]) {
        match self.width {
            8 => bytes.iter_mut().zip(elements).for_each(|(byte, &element)| *byte = element as u8),
            16 => {
                let halves = bytes.as_chunks_mut().0.iter_mut().zip(elements);
                halves.for_each(|(half, &element)| *half = (element as u16).to_le_bytes());
            }
            _ => {
                let words = bytes.as_chunks_mut().0.iter_mut().zip(elements);
                words.for_each(|(word, &element)| *word = element.to_le_bytes());
            }
        }
    }
}

/// A difference as it is coded: 0, 1, 2, 3, then buckets of half an octave each, and the sign in the lowest bit of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: u8,
    /// Where in its bucket it is.
    pub(crate) extra: u32,
}

/// How many bits say where in its bucket a difference with this key is: at most 30.
pub(crate) fn extra_bits(key: u8) -> u32 {
    (u32::from(key) >> 2).max(1) - 1
}

impl Step {
    #[inline(always)]
    pub(crate) fn of(difference: i32) -> Step {
        let size = difference.unsigned_abs();
        let negative = u8::from(difference < 0);
        // The logarithm is the exponent of the size as a float, which vectors have an instruction for; 0 is as 1. The bits that are taken
        // away are those that rounding could carry from one octave to the next. (Of 2^31 it is that of the number below 0.)
        let float = ((size & !(size >> 1)) as i32 as f32).to_bits();
        let octave = (float >> 23 & 0xff).max(127) - 127;
        let below = octave.max(1) - 1;
        let bucket = (2 * octave) | (size >> below & 1);
        Step { key: (bucket as u8) << 1 | negative, extra: size & ((1 << below) - 1) }
    }

    /// The difference that is coded as this, modulo 2^32.
    pub(crate) fn difference(self) -> i32 {
        let bucket = u32::from(self.key >> 1);
        let size = if bucket < 2 { bucket } else { ((2 | bucket & 1) << extra_bits(self.key)) + self.extra };
        let size = size as i32;
        if self.key & 1 == 1 { size.wrapping_neg() } else { size }
    }
}

/// The context of an element whose base has this exponent; `place` is the sum of the origin and the code of its run.
pub(crate) fn context(place: i32, exponent: i32) -> usize {
    (place - exponent).clamp(0, CONTEXTS as i32 - 1) as usize
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const FLOATS: [Element; 5] =
        [Element::Bf16, Element::F16, Element::F32, Element::F8E4M3, Element::F8E5M2];

    proptest! {
        #[test]
        fn elements_come_back(element in prop::sample::select(FLOATS.to_vec()), a: u32, b: u32) {
            let kind = Kind::of(element).unwrap();
            let mask = u32::MAX >> (32 - kind.width);
            let (a, b) = (a & mask, b & mask);
            let difference = kind.difference(a, b);
            prop_assert_eq!(kind.moved(b, difference), a);
            let step = Step::of(difference);
            prop_assert_eq!(step.difference(), difference);
            prop_assert!(step.extra < 1 << extra_bits(step.key));
        }
    }

    #[test]
    fn neighbours_are_one_apart_whatever_the_sign() {
        let kind = Kind::of(Element::Bf16).unwrap();
        assert_eq!(kind.difference(0x3f81, 0x3f80), 1);
        assert_eq!(kind.difference(0xbf81, 0xbf80), 1);
        assert_eq!(kind.difference(0x3f7f, 0x3f80), -1);
        assert_eq!(kind.difference(0x8000, 0x0000), -1);
        assert_eq!(kind.difference(0x0000, 0x8000), -1);
        assert_eq!(kind.exponent(0xbf80), 127);
    }

    #[test]
    fn buckets_are_half_octaves() {
        let keys: Vec<u8> = [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12].map(|size| Step::of(size).key >> 1).to_vec();
        assert_eq!(keys, [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7]);
        assert_eq!(Step::of(i32::MIN).key, 125);
        assert_eq!(Kind::of(Element::F32).unwrap().keys(), 126);
        assert_eq!(extra_bits(125), 30);
    }
}
