//! BF16 codecs that put a tensor together from two `bf16_se_ac` blobs.

use super::separate::{bf16_se_ac, read_elements, sized};
use super::{reserve, zeros};
use crate::error::{Error, Result};
use crate::upstream::coders::{Counts, RangeStream, Stream, Width, decode};
use crate::wire::Reader;

/// `bf16_sparsity_v1`: small elements and large ones apart, and a mask that tells which is which.
pub(super) fn sparsity(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    read_elements(&mut reader, elements)?;
    let _threshold = reader.u16()?;
    let parts = [reader.u32()? as usize, reader.u32()? as usize];
    if parts[0].checked_add(parts[1]) != Some(elements) {
        return Err(Error::corrupt(format!("{} and {} elements are not {elements}", parts[0], parts[1])));
    }
    let counts = Counts::read(&mut reader, 2, Width::U16, Width::U16)?;
    let table = RangeStream::table(&counts, elements, 0)?;
    let mut mask = zeros::<u8>(elements)?;
    decode(RangeStream::new(sized(&mut reader)?)?, &table, &mut mask)?;
    if mask.iter().filter(|&&bit| bit == 1).count() != parts[1] {
        return Err(Error::corrupt("the mask does not divide the elements as it is said to"));
    }
    let mut part = |elements| bf16_se_ac(sized(&mut reader)?, elements);
    let (small, large) = (part(parts[0])?, part(parts[1])?);
    reader.finish()?;
    let mut parts = [&small, &large].map(|part| part.as_chunks::<2>().0.iter());
    let mut words = reserve(elements * 2)?;
    for bit in mask {
        words.extend_from_slice(parts[usize::from(bit)].next().expect("they were counted"));
    }
    Ok(words)
}

/// `fp2_residual_v1`: one of four levels for each element, a residual that is added, and what is then still wrong.
pub(super) fn residual(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    read_elements(&mut reader, elements)?;
    let largest = reader.u16()?;
    let indices = sized(&mut reader)?;
    if indices.len() != elements.div_ceil(4) {
        return Err(Error::corrupt(format!("{} bytes of levels for {elements} elements", indices.len())));
    }
    let residuals = bf16_se_ac(sized(&mut reader)?, elements)?;
    let mut words = bf16_se_ac(sized(&mut reader)?, elements)?;
    reader.finish()?;
    let levels = levels(largest);
    let corrected = words.as_chunks_mut::<2>().0.iter_mut().zip(residuals.as_chunks::<2>().0);
    for (number, (word, residual)) in corrected.enumerate() {
        let level = levels[usize::from(indices[number / 4] >> (2 * (number % 4)) & 3)];
        *word = (u16::from_le_bytes(*word) ^ add(level, u16::from_le_bytes(*residual))).to_le_bytes();
    }
    Ok(words)
}

/// The four levels, in BF16, between minus and plus the value of `largest`.
fn levels(largest: u16) -> [u16; 4] {
    let a = f64::from(from_bf16(largest));
    [-a, -a / 3.0, a / 3.0, a].map(|level| to_bf16(level as f32))
}

fn from_bf16(word: u16) -> f32 {
    f32::from_bits(u32::from(word) << 16)
}

/// To the nearest BF16, of equally near ones to the even one. NaNs are rounded as numbers are.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The sum of a level and a residual in F32, rounded to BF16.
fn add(level: u16, residual: u16) -> u16 {
    let (a, b) = (from_bf16(level), from_bf16(residual));
    if b.is_nan() {
        // The processors that wrote these files return the NaN itself, made quiet; what Rust's addition returns is not said.
        return residual | 0x0040;
    }
    to_bf16(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        let rounded = |bits| to_bf16(f32::from_bits(bits));
        assert_eq!(rounded(0x3f80_8000), 0x3f80, "half way down to even");
        assert_eq!(rounded(0x3f81_8000), 0x3f82, "half way up to even");
        assert_eq!(rounded(0x3f80_8001), 0x3f81);
        assert_eq!(rounded(0x7f7f_ffff), 0x7f80, "to infinity");
        assert_eq!(rounded(0xff80_0000), 0xff80);
    }

    #[test]
    fn levels_are_symmetric_and_thirds_are_rounded_once() {
        assert_eq!(levels(0x3f80), [0xbf80, 0xbeab, 0x3eab, 0x3f80]);
    }

    #[test]
    fn nan_residuals_pass_through_and_become_quiet() {
        for (residual, expected) in [(0x7f81, 0x7fc1), (0xff81, 0xffc1), (0x7fc2, 0x7fc2), (0xffff, 0xffff)] {
            assert_eq!(add(0x3f80, residual), expected);
        }
        assert_eq!(add(0x3f80, 0x3f80), 0x4000);
    }
}
