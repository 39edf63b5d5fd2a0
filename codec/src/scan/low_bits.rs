//! Low bits that are zero in a part of a tensor only, such as rows that were never trained or were rounded once: what saves more than
//! anything else where it is, and is missed by a sample of places where it is not. So every unit is looked at for it, in passing.

use std::ops::Range;

use super::estimate::variance_of_mean;
use crate::error::Result;
use crate::original::Original;

/// Places in a unit that are looked at, and bytes of each.
const PLACES: u64 = 4;
const PLACE: u64 = 4 << 10;

/// Bytes that have low bits in common: about a row.
const PIECE: usize = 512;

/// Which part of the bits of each unit are low bits that are zero.
pub(super) struct LowBits {
    /// By unit.
    units: Vec<f64>,
    /// That of all, and the variance of it, since only some places were looked at.
    pub(super) mean: f64,
    pub(super) variance: f64,
}

impl LowBits {
    /// Looks into each unit of so many bytes of the elements of `size` bytes in `range`.
    pub(super) fn of(source: &dyn Original, range: &Range<u64>, unit: u64, size: usize) -> Result<LowBits> {
        let (mut units, mut all) = (Vec::new(), Vec::new());
        let mut bytes = vec![0; PLACE as usize];
        let mut start = range.start;
        while start < range.end {
            let len = unit.min(range.end - start);
            let first = all.len();
            for place in 0..PLACES {
                let at = (2 * place + 1) * len / (2 * PLACES) / 8 * 8;
                let bytes = &mut bytes[..PLACE.min(len - at) as usize];
                source.read_at(start + at, bytes)?;
                all.push(share(bytes, size));
            }
            units.push(mean(&all[first..]));
            start += len;
        }
        Ok(LowBits { mean: mean(&units), variance: variance_of_mean(&all, usize::MAX), units })
    }

    /// That of one unit.
    pub(super) fn of_unit(&self, unit: usize) -> f64 {
        self.units[unit]
    }
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

/// The part of the bits of `bytes` that are zero low bits of elements of `size` bytes.
fn share(bytes: &[u8], size: usize) -> f64 {
    let zero = |piece: &[u8]| {
        let mut any = [0; 8];
        piece.chunks_exact(size).for_each(|element| any.iter_mut().zip(element).for_each(|(any, byte)| *any |= byte));
        let bits = u64::from_le_bytes(any).trailing_zeros().min(8 * size as u32);
        f64::from(bits) / (8 * size) as f64 * piece.len() as f64
    };
    bytes.chunks(PIECE).map(zero).sum::<f64>() / bytes.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::original::Memory;

    #[test]
    fn zero_low_bits_are_counted_where_they_are() {
        assert_eq!(share(&[0x00, 0x80, 0x3f, 0x3f].repeat(1024), 4), 15.0 / 32.0);
        assert_eq!(share(&[0; 4096], 2), 1.0);
        let half = [[0x01, 0x3f].repeat(1024), [0x10, 0x3f].repeat(1024)].concat();
        assert_eq!(share(&half, 2), 0.125);
        // Of three units, the last one shorter, the first has four bits in sixteen.
        let bytes = [[0x10, 0x3f].repeat(32 << 10), [0x01, 0x3f].repeat(48 << 10)].concat();
        let low = LowBits::of(&Memory::new(bytes), &(0..160 << 10), 64 << 10, 2).unwrap();
        assert_eq!((low.of_unit(0), low.of_unit(1), low.of_unit(2)), (0.25, 0.0, 0.0));
        assert!((low.mean - 0.25 / 3.0).abs() < 1e-12 && low.variance > 0.0, "{}", low.mean);
    }
}
