//! The codecs of BF16 and F16 that code sign and exponent as one symbol, and the mantissas apart for each exponent.
//!
//! Of `n` elements there are `n` symbols in the stream of signs and exponents and `n` in all streams of mantissas together,
//! so the latter are decoded one after the other in step with the former.

use super::zeros;
use crate::error::{Error, Result};
use crate::upstream::coders::{
    AnsStream, Counts, RangeStream, RansStream, Slot, Stream, Width, decode, decode_both, rans,
};
use crate::wire::Reader;

/// How an element is divided, and how wide the numbers of the tables are.
pub(super) struct Division {
    /// Symbols of sign and exponent.
    pub(super) se_alphabet: usize,
    /// What the frequencies of these add up to for [`RansStream`], as a power of two.
    pub(super) se_log2_total: u32,
    /// The width of the number of symbols, of symbols and of exponents.
    se_width: Width,
    /// Bits of the mantissa, below sign and exponent.
    pub(super) mantissa_bits: u32,
    /// As for sign and exponent.
    pub(super) mantissa_log2_total: u32,
    /// The width of the number of symbols and of symbols.
    mantissa_width: Width,
    /// The width of exponents.
    exponent_width: Width,
}

impl Division {
    pub(super) fn mantissa_alphabet(&self) -> usize {
        1 << self.mantissa_bits
    }

    pub(super) fn exponents(&self) -> usize {
        self.se_alphabet / 2
    }
}

/// Of BF16.
pub(super) const BF16: Division = Division {
    se_alphabet: 512,
    se_log2_total: 12,
    se_width: Width::U16,
    mantissa_bits: 7,
    mantissa_log2_total: 10,
    mantissa_width: Width::U8,
    exponent_width: Width::U16,
};

/// Of F16, which is never coded with [`RansStream`].
const F16: Division = Division {
    se_alphabet: 64,
    se_log2_total: 0,
    se_width: Width::U8,
    mantissa_bits: 10,
    mantissa_log2_total: 0,
    mantissa_width: Width::U16,
    exponent_width: Width::U8,
};

/// The largest number of exponents.
const MOST_EXPONENTS: usize = 256;

/// `bf16_se_rans`: the little-endian words of the elements, as all of these give.
pub(super) fn bf16_se_rans(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    separate::<AnsStream<'_>, u8>(&BF16, stored, elements)
}

/// `bf16_se_ac`.
pub(super) fn bf16_se_ac(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    separate::<RangeStream<'_>, u8>(&BF16, stored, elements)
}

/// `bf16_se_tans`.
pub(super) fn bf16_se_tans(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    separate::<RansStream<'_>, u8>(&BF16, stored, elements)
}

/// `fp16_se_ac`.
pub(super) fn fp16_se_ac(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    separate::<RangeStream<'_>, u16>(&F16, stored, elements)
}

/// The layout that these share.
fn separate<'a, S: Stream<'a>, M: Slot + Into<u16>>(
    division: &Division,
    stored: &'a [u8],
    elements: usize,
) -> Result<Vec<u8>> {
    if elements == 0 {
        return empty(stored);
    }
    let mut reader = Reader::new(stored);
    read_elements(&mut reader, elements)?;
    let counts = Counts::read(&mut reader, division.se_alphabet, division.se_width, division.se_width)?;
    let se_table = S::table(&counts, elements, division.se_log2_total)?;
    let mut se_stream = S::new(sized(&mut reader)?)?;
    let mut records = Reader::new(sized(&mut reader)?);
    reader.finish()?;
    let mut words = zeros(elements * 2)?;
    let (se, _) = words.as_chunks_mut::<2>();
    let mut mantissas = Mantissas::<M>::new(elements)?;
    let number = records.u32()? as usize;
    for exponent in division.exponent_width.read_ascending(&mut records, number, division.exponents())? {
        let bucket_len = records.u32()?;
        let (done, bucket) = mantissas.add(exponent, bucket_len)?;
        let width = division.mantissa_width;
        let counts = Counts::read(&mut records, division.mantissa_alphabet(), width, width)?;
        let table = S::table(&counts, bucket.len(), division.mantissa_log2_total)?;
        let mut stream = S::new(sized(&mut records)?)?;
        let se = &mut se[done..done + bucket.len()];
        decode_both((&mut se_stream, &se_table, se), (&mut stream, &table, bucket));
        stream.finish()?;
    }
    records.finish()?;
    mantissas.check_all_there()?;
    se_stream.finish()?;
    mantissas.merge(se, division.mantissa_bits)?;
    Ok(words)
}

/// `bf16_se_single_kernel`: the same in other framing, with the state before the pieces and the exponent in each record.
pub(super) fn single_kernel(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    if elements == 0 {
        return empty(stored);
    }
    let mut reader = Reader::new(stored);
    read_elements(&mut reader, elements)?;
    let counts = Counts::read(&mut reader, BF16.se_alphabet, Width::U16, Width::U16)?;
    let table = rans::Table::new(&counts, BF16.se_log2_total)?;
    let state = reader.u32()?;
    let stream = RansStream::with_state(state, pieces(&mut reader)?)?;
    let mut words = zeros(elements * 2)?;
    let (se, _) = words.as_chunks_mut::<2>();
    decode(stream, &table, se)?;
    let mut mantissas = Mantissas::<u8>::new(elements)?;
    for _ in 0..reader.u32()? {
        let exponent = reader.u16()?;
        let counts = Counts::read(&mut reader, BF16.mantissa_alphabet(), Width::U8, Width::U8)?;
        let table = rans::Table::new(&counts, BF16.mantissa_log2_total)?;
        let state = reader.u32()?;
        let bucket_len = reader.u32()?;
        let (_, bucket) = mantissas.add(exponent, bucket_len)?;
        decode(RansStream::with_state(state, pieces(&mut reader)?)?, &table, bucket)?;
    }
    reader.finish()?;
    mantissas.check_all_there()?;
    mantissas.merge(se, BF16.mantissa_bits)?;
    Ok(words)
}

/// 16-bit pieces after their number.
fn pieces<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let count = reader.u32()? as usize;
    reader.take(count.saturating_mul(2))
}

/// No elements, of no bytes.
fn empty(stored: &[u8]) -> Result<Vec<u8>> {
    match stored {
        [] => Ok(Vec::new()),
        _ => Err(Error::corrupt(format!("{} bytes are stored for an empty tensor", stored.len()))),
    }
}

/// Fails unless the next 32 bits say that there are `elements`.
pub(super) fn read_elements(reader: &mut Reader<'_>, elements: usize) -> Result<()> {
    match reader.u32()? {
        stored if stored as usize == elements => Ok(()),
        stored => Err(Error::corrupt(format!("{stored} elements are stored where {elements} are expected"))),
    }
}

/// Bytes after their number in 32 bits.
pub(super) fn sized<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let len = reader.u32()? as usize;
    reader.take(len)
}

/// Mantissas, grouped by the exponents that they belong to: ascending, those of one in the order of the elements.
pub(super) struct Mantissas<M> {
    values: Vec<M>,
    /// Where those of each exponent begin and end.
    ranges: [(usize, usize); MOST_EXPONENTS],
    /// How many have been added.
    added: usize,
    /// The exponent after the last one that was added.
    next: usize,
}

impl<M: Slot + Into<u16>> Mantissas<M> {
    /// Room for the mantissas of so many elements.
    pub(super) fn new(elements: usize) -> Result<Mantissas<M>> {
        Ok(Mantissas { values: zeros(elements)?, ranges: [(0, 0); MOST_EXPONENTS], added: 0, next: 0 })
    }

    /// Room for the `len` mantissas of the next exponent, and how many mantissas there are before.
    pub(super) fn add(&mut self, exponent: u16, len: u32) -> Result<(usize, &mut [M])> {
        let (number, len) = (usize::from(exponent), len as usize);
        if number < self.next || number >= MOST_EXPONENTS {
            return Err(Error::corrupt(format!("exponent {exponent} is out of order or impossible")));
        }
        let (start, left) = (self.added, self.values.len() - self.added);
        if len == 0 || len > left {
            return Err(Error::corrupt(format!("{len} mantissas of exponent {exponent} where there are 1 to {left}")));
        }
        self.ranges[number] = (start, start + len);
        (self.added, self.next) = (start + len, number + 1);
        Ok((start, &mut self.values[start..start + len]))
    }

    /// Fails unless there is a mantissa for each element.
    pub(super) fn check_all_there(&self) -> Result<()> {
        match self.values.len() {
            elements if elements == self.added => Ok(()),
            elements => Err(Error::corrupt(format!("{} mantissas of {elements} elements", self.added))),
        }
    }

    /// Puts the elements together: what is sign and exponent in each word becomes all of it.
    pub(super) fn merge(self, words: &mut [[u8; 2]], mantissa_bits: u32) -> Result<()> {
        let mut ranges = self.ranges;
        // The sign is above the exponent, whose bits are those that the sign and the mantissa leave.
        let mask = (1 << (15 - mantissa_bits)) - 1;
        for word in words {
            let se = u16::from_le_bytes(*word);
            let (next, end) = &mut ranges[usize::from(se & mask) % MOST_EXPONENTS];
            if next == end {
                return Err(Error::corrupt("there are fewer mantissas of an exponent than elements that have it"));
            }
            *word = (se << mantissa_bits | self.values[*next].into()).to_le_bytes();
            *next += 1;
        }
        Ok(())
    }
}
