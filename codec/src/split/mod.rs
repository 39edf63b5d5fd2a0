//! How an element is cut into a *key*, which is entropy coded, and *raw bits*, which are stored as they are.
//!
//! A float is a sign, an exponent and a mantissa. Exponents of trained weights are far from uniform and so is, slightly,
//! the upper mantissa; the rest of the mantissa and the sign look like noise. The key of an element is therefore its
//! magnitude (all bits but the sign) without its low `shift` bits; the raw bits are those low bits and the sign. Low
//! bits that are zero in all elements of a chunk are not stored.

pub(crate) mod planes;

use crate::error::{Error, Result};
use crate::quantised::BlockType;

/// The number of the first type of blocks: that of a type in GGUF files is added to it.
const FIRST_BLOCKS: u8 = 32;

/// What the elements of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// Brain floats: 8 bits of exponent, 7 of mantissa.
    Bf16,
    /// IEEE half precision: 5 bits of exponent, 10 of mantissa.
    F16,
    /// IEEE single precision: 8 bits of exponent, 23 of mantissa.
    F32,
    /// 8-bit floats with 4 bits of exponent and 3 of mantissa.
    F8E4M3,
    /// 8-bit floats with 5 bits of exponent and 2 of mantissa.
    F8E5M2,
    /// Anything else, as elements of so many bytes (1, 2, 4 or 8), each byte position a plane of its own.
    Bytes(u8),
    /// Blocks of quantised elements, each of which counts as one.
    Blocks(BlockType),
}

impl Element {
    /// The number under which the container stores it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Element::Bf16 => 1,
            Element::F16 => 2,
            Element::F32 => 3,
            Element::F8E4M3 => 4,
            Element::F8E5M2 => 5,
            Element::Bytes(1) => 16,
            Element::Bytes(2) => 17,
            Element::Bytes(4) => 18,
            Element::Bytes(8) => 19,
            Element::Bytes(other) => unreachable!("elements of {other} bytes are not made"),
            Element::Blocks(kind) => FIRST_BLOCKS + kind.number(),
        }
    }

    /// The element with the given number.
    pub(crate) fn from_code(code: u8) -> Result<Element> {
        Ok(match code {
            1 => Element::Bf16,
            2 => Element::F16,
            3 => Element::F32,
            4 => Element::F8E4M3,
            5 => Element::F8E5M2,
            16..=19 => Element::Bytes(1 << (code - 16)),
            _ => {
                let kind = code.checked_sub(FIRST_BLOCKS).and_then(|number| BlockType::of_number(number.into()));
                Element::Blocks(kind.ok_or_else(|| Error::corrupt(format!("element type {code} is unknown")))?)
            }
        })
    }

    /// The floats that the headers of files spell so; `None` when they are none that are coded as floats.
    pub(crate) fn of_float(dtype: &str) -> Option<Element> {
        Some(match dtype {
            "BF16" => Element::Bf16,
            "F16" => Element::F16,
            "F32" => Element::F32,
            "F8_E4M3" => Element::F8E4M3,
            "F8_E5M2" => Element::F8E5M2,
            _ => return None,
        })
    }

    /// The size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Element::Bf16 | Element::F16 => 2,
            Element::F32 => 4,
            Element::F8E4M3 | Element::F8E5M2 => 1,
            Element::Bytes(size) => usize::from(size),
            Element::Blocks(kind) => kind.bytes(),
        }
    }

    /// The split that measurement found best for this float, with no zero bits; `None` when it is no float.
    pub(crate) fn float_split(self) -> Option<Split> {
        let (width, mantissa_bits) = match self {
            Element::Bf16 => (16, 7),
            Element::F16 => (16, 10),
            Element::F32 => (32, 23),
            Element::F8E4M3 => (8, 3),
            Element::F8E5M2 => (8, 2),
            Element::Bytes(_) | Element::Blocks(_) => return None,
        };
        // The key keeps the top two bits of the mantissa.
        Some(Split { width, signed: true, shift: mantissa_bits - 2, zeros: 0 })
    }
}

/// Where an element is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// Bits of the element: 8, 16 or 32.
    pub(crate) width: u8,
    /// Whether the top bit is a sign and so a raw bit.
    pub(crate) signed: bool,
    /// How many low bits are not part of the key.
    pub(crate) shift: u8,
    /// How many of those are always zero and not stored.
    pub(crate) zeros: u8,
}

impl Split {
    /// The split of one byte plane of integers.
    pub(crate) fn of_bytes(shift: u8) -> Split {
        Split { width: 8, signed: false, shift, zeros: 0 }
    }

    /// The same split at another place, as a chunk stores it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the element has no such bits or the key would not fit
    /// in 16 or the raw bits in 31.
    pub(crate) fn at(self, shift: u8, zeros: u8) -> Result<Split> {
        let split = Split { shift, zeros, ..self };
        if zeros > shift || shift >= self.magnitude_bits() || split.key_bits() > 16 || split.raw_bits() > 31 {
            return Err(Error::corrupt(format!(
                "an element of {} bits cannot be split at bit {shift} with {zeros} zero bits",
                self.width
            )));
        }
        Ok(split)
    }

    /// Bytes of the element.
    pub(crate) fn size(self) -> usize {
        usize::from(self.width / 8)
    }

    pub(crate) fn magnitude_bits(self) -> u8 {
        self.width - u8::from(self.signed)
    }

    /// Bits of the key.
    pub(crate) fn key_bits(self) -> u8 {
        self.magnitude_bits() - self.shift
    }

    /// The largest key that an element can have.
    pub(crate) fn last_key(self) -> u16 {
        mask(self.key_bits()) as u16
    }

    /// Bits that are stored raw.
    pub(crate) fn raw_bits(self) -> u8 {
        self.shift - self.zeros + u8::from(self.signed)
    }

    /// The element at `position` of `bytes`, little-endian.
    pub(crate) fn element(self, bytes: &[u8], position: usize) -> u32 {
        let size = usize::from(self.width / 8);
        let mut element = [0; 4];
        element[..size].copy_from_slice(&bytes[position * size..][..size]);
        u32::from_le_bytes(element)
    }

    /// The key of an element.
    pub(crate) fn key(self, element: u32) -> u16 {
        ((element & mask(self.magnitude_bits())) >> self.shift) as u16
    }

    /// The raw bits of an element: the stored low bits of its magnitude, and above them the sign. What
    /// [`planes::write_planes`] does to many elements at once.
    #[cfg(test)]
    pub(crate) fn raw(self, element: u32) -> u32 {
        let low = (element & mask(self.shift)) >> self.zeros;
        if self.signed { low | (element >> (self.width - 1)) << (self.shift - self.zeros) } else { low }
    }

    /// The element with the given key and raw bits.
    pub(crate) fn join(self, key: u16, raw: u32) -> u32 {
        let stored = self.shift - self.zeros;
        let magnitude = (u32::from(key) << self.shift) | (raw & mask(stored)) << self.zeros;
        if self.signed { magnitude | (raw >> stored) << (self.width - 1) } else { magnitude }
    }

    /// The element whose magnitude is larger by so much (modulo the number of magnitudes), its sign the same.
    pub(crate) fn add(self, element: u32, amount: u32) -> u32 {
        let magnitude = mask(self.magnitude_bits());
        (element & !magnitude) | (element.wrapping_add(amount) & magnitude)
    }

    /// The element whose key is `step` further (modulo the number of keys), its raw bits the same.
    pub(crate) fn move_key(self, element: u32, step: u16) -> u32 {
        self.add(element, u32::from(step) << self.shift)
    }

    /// The element whose magnitude is larger by so many steps: the lowest of its upper 16 bits, or of all if there are no
    /// more.
    pub(crate) fn add_steps(self, element: u32, steps: u16) -> u32 {
        self.add(element, u32::from(steps) << self.width.saturating_sub(16))
    }

    /// The same split, leaving out the low bits that are zero in every element whose bits are or-ed in `any`.
    pub(crate) fn without_zeros(self, any: u32) -> Split {
        Split { zeros: any.trailing_zeros().min(u32::from(self.shift)) as u8, ..self }
    }
}

/// The lowest `bits` bits set; `bits` is at most 32.
fn mask(bits: u8) -> u32 {
    ((1u64 << bits) - 1) as u32
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every split that `Split::at` allows.
    pub(crate) fn splits() -> impl Strategy<Value = Split> {
        (prop::sample::select(vec![8u8, 16, 32]), any::<bool>(), 0..=32u8, 0..=32u8)
            .prop_filter_map("no such split", |(width, signed, shift, zeros)| {
                Split { width, signed, shift: 0, zeros: 0 }.at(shift, zeros).ok()
            })
    }

    proptest! {
        #[test]
        fn elements_come_back(split in splits(), element: u32) {
            let element = element & mask(split.width) & !mask(split.zeros);
            let (key, raw) = (split.key(element), split.raw(element));
            prop_assert!(u32::from(key) <= mask(split.key_bits()) && raw <= mask(split.raw_bits()));
            prop_assert_eq!(split.join(key, raw), element);
        }

        #[test]
        fn a_moved_key_is_another_key(split in splits(), element: u32, key: u16) {
            let element = element & mask(split.width) & !mask(split.zeros);
            let key = key & mask(split.key_bits()) as u16;
            let moved = split.move_key(element, key.wrapping_sub(split.key(element)));
            prop_assert_eq!(split.key(moved), key);
            prop_assert_eq!(split.raw(moved), split.raw(element));
        }

        #[test]
        fn zero_bits_are_found(split in splits(), any: u32) {
            let found = split.without_zeros(any);
            prop_assert!(found.zeros <= split.shift && any & mask(found.zeros) == 0);
            prop_assert!(found.zeros == split.shift || any >> found.zeros & 1 == 1);
        }
    }

    #[test]
    fn codes_of_elements_come_back() {
        for element in [
            Element::Bf16,
            Element::F16,
            Element::F32,
            Element::F8E4M3,
            Element::F8E5M2,
            Element::Bytes(1),
            Element::Bytes(2),
            Element::Bytes(4),
            Element::Bytes(8),
        ]
        .into_iter()
        .chain(BlockType::ALL.map(Element::Blocks))
        {
            assert_eq!(Element::from_code(element.code()).unwrap(), element);
        }
        assert!([0, 20, 32, 33, 36].into_iter().all(|code| Element::from_code(code).is_err()));
    }
}
