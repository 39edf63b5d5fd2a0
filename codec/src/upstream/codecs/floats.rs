//! The codecs of F32, F16, FP8 and FP4.

use super::separate::{bf16_se_ac, bf16_se_rans, read_elements, sized};
use super::{inflate, reserve, zeros};
use crate::error::{Error, Result};
use crate::upstream::coders::{Counts, RangeStream, Slot, Stream, Width, decode};
use crate::wire::Reader;

/// Symbols of sign and exponent of F32.
const SE_ALPHABET: usize = 512;
/// Bits of the mantissa of F32, below sign and exponent.
const MANTISSA_BITS: u32 = 23;

/// A little-endian F32 with sign and exponent, whose mantissa is still to come.
impl Slot for [u8; 4] {
    #[inline(always)]
    fn of(symbol: u16) -> [u8; 4] {
        (u32::from(symbol) << MANTISSA_BITS).to_le_bytes()
    }
}

/// `fp32_se_ac`: sign and exponent coded, the mantissa as three planes of bytes.
pub(super) fn fp32(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    read_elements(&mut reader, elements)?;
    let mut bytes = zeros(elements * 4)?;
    let (words, _) = bytes.as_chunks_mut::<4>();
    stream(&mut reader, SE_ALPHABET, Width::U16, Width::U16, words)?;
    for (plane, bits) in [8, 8, MANTISSA_BITS - 16].into_iter().enumerate() {
        // One at a time: all of them at once would be as much memory again.
        let values = inflate(sized(&mut reader)?, elements)?;
        if values.iter().any(|value| u32::from(*value) >> bits != 0) {
            return Err(Error::corrupt(format!("{bits} bits of a mantissa are more")));
        }
        for (word, value) in words.iter_mut().zip(values) {
            *word = (u32::from_le_bytes(*word) | u32::from(value) << (8 * plane)).to_le_bytes();
        }
    }
    reader.finish()?;
    Ok(bytes)
}

/// A table with the widths of its number of symbols and of symbols, and the stream that it is for.
fn stream<T: Slot>(reader: &mut Reader<'_>, alphabet: usize, count: Width, symbol: Width, out: &mut [T]) -> Result<()> {
    let counts = Counts::read(reader, alphabet, count, symbol)?;
    decode(RangeStream::new(sized(reader)?)?, &*RangeStream::table(&counts, out.len(), 0)?, out)
}

/// `bf16_native_f32`: the upper and lower halves of the words apart, each in its way.
pub(super) fn native_f32(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    halves(stored, elements, false)
}

/// `bf16_native_f32_v2`: the same, each in the way that it says.
pub(super) fn native_f32_v2(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    halves(stored, elements, true)
}

fn halves(stored: &[u8], elements: usize, tagged: bool) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    read_elements(&mut reader, elements)?;
    let mut half = |untagged: u8| {
        let code = if tagged { reader.u8()? } else { untagged };
        let blob = sized(&mut reader)?;
        match code {
            0 => inflate(blob, elements * 2),
            1 => bf16_se_rans(blob, elements),
            2 => bf16_se_ac(blob, elements),
            _ => Err(Error::unsupported(format!("there is no way {code} to store a half"))),
        }
    };
    let (high, low) = (half(2)?, half(0)?);
    reader.finish()?;
    let mut bytes = reserve(elements * 4)?;
    for ([a, b], [c, d]) in low.as_chunks::<2>().0.iter().zip(high.as_chunks::<2>().0) {
        bytes.extend_from_slice(&[*a, *b, *c, *d]);
    }
    Ok(bytes)
}

/// `fp8_cat_ac`: bytes as symbols.
pub(super) fn fp8(stored: &[u8], bytes: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    read_elements(&mut reader, bytes)?;
    let mut symbols = zeros::<u8>(bytes)?;
    stream(&mut reader, 256, Width::U16, Width::U8, &mut symbols)?;
    reader.finish()?;
    Ok(symbols)
}

/// `fp4_cat_ac`: halves of bytes as symbols, two or one in a byte of the tensor.
pub(super) fn fp4(stored: &[u8], bytes: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    let elements = reader.u32()? as usize;
    let symbols_count = reader.u8()?;
    let packed = match reader.u8()? {
        0 => false,
        1 => true,
        other => return Err(Error::corrupt(format!("{other} is neither packed nor not"))),
    };
    if elements != if packed { bytes.saturating_mul(2) } else { bytes } {
        return Err(Error::corrupt(format!("{elements} elements are stored in {bytes} bytes")));
    }
    let symbols = Width::U8.read_ascending(&mut reader, usize::from(symbols_count), 16)?;
    let counts = symbols.iter().map(|_| reader.u32()).collect::<Result<Vec<u32>>>()?;
    let counts = Counts::new(16, &symbols, counts.into_iter().map(u64::from))?;
    let mut values = zeros::<u8>(elements)?;
    decode(RangeStream::new(sized(&mut reader)?)?, &*RangeStream::table(&counts, elements, 0)?, &mut values)?;
    reader.finish()?;
    if !packed {
        return Ok(values);
    }
    let mut bytes = reserve(bytes)?;
    bytes.extend(values.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4));
    Ok(bytes)
}
