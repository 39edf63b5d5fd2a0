//! `bf16_parallel_v1`: elements dealt to many streams that share their tables.

use super::separate::{BF16, Mantissas, read_elements, sized};
use super::zeros;
use crate::error::{Error, Result};
use crate::upstream::coders::{Counts, RansStream, Stream, Width, decode_both, rans};
use crate::wire::Reader;

const MAGIC: &[u8] = b"PAR1";

pub(super) fn decode(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(Error::corrupt("the blob does not begin as one of parallel streams does"));
    }
    read_elements(&mut reader, elements)?;
    let streams = usize::from(reader.u16()?);
    if streams == 0 || streams > elements {
        return Err(Error::corrupt(format!("{streams} streams of {elements} elements")));
    }
    if (reader.u16()?, reader.u16()?) != (BF16.se_log2_total as u16, BF16.mantissa_log2_total as u16) {
        return Err(Error::corrupt("the frequencies add up to something that they never do"));
    }
    let se_table = Counts::read(&mut reader, BF16.se_alphabet, Width::U16, Width::U16)?;
    let se_table = rans::Table::new(&se_table, BF16.se_log2_total)?;
    let exponents = reader.u32()? as usize;
    let exponents = Width::U16.read_ascending(&mut reader, exponents, BF16.exponents())?;
    let mut tables = [const { None }; 256];
    for exponent in exponents {
        let counts = Counts::read(&mut reader, BF16.mantissa_alphabet(), Width::U8, Width::U8)?;
        tables[usize::from(exponent)] = Some(rans::Table::new(&counts, BF16.mantissa_log2_total)?);
    }
    let offsets = (0..=streams).map(|_| reader.u32().map(|offset| offset as usize)).collect::<Result<Vec<_>>>()?;
    let data = reader.take(reader.remaining())?;
    if offsets[0] != 0 || offsets[streams] != data.len() || !offsets.is_sorted() {
        return Err(Error::corrupt("the offsets of the streams do not divide what is stored"));
    }
    let mut words = zeros(elements * 2)?;
    for (number, ends) in offsets.windows(2).enumerate() {
        let mut stream = Reader::new(&data[ends[0]..ends[1]]);
        let part = decode_part(&mut stream, (elements - number).div_ceil(streams), &se_table, &tables)?;
        stream.finish()?;
        let places = words.as_chunks_mut::<2>().0[number..].iter_mut().step_by(streams);
        places.zip(part.as_chunks::<2>().0).for_each(|(place, word)| *place = *word);
    }
    Ok(words)
}

/// The elements of one stream; `tables` are those of mantissas, by exponent.
fn decode_part(
    reader: &mut Reader<'_>,
    elements: usize,
    se_table: &rans::Table,
    tables: &[Option<rans::Table>; 256],
) -> Result<Vec<u8>> {
    let mut words = zeros(elements * 2)?;
    let (se, _) = words.as_chunks_mut::<2>();
    let mut se_stream = RansStream::new(sized(reader)?)?;
    let mut mantissas = Mantissas::<u8>::new(elements)?;
    let exponents = reader.u32()? as usize;
    for exponent in Width::U16.read_ascending(reader, exponents, BF16.exponents())? {
        let len = reader.u32()?;
        let (done, bucket) = mantissas.add(exponent, len)?;
        let Some(table) = &tables[usize::from(exponent)] else {
            return Err(Error::corrupt(format!("there is no table for exponent {exponent}")));
        };
        let mut stream = RansStream::new(sized(reader)?)?;
        let se = &mut se[done..done + bucket.len()];
        decode_both((&mut se_stream, se_table, se), (&mut stream, table, bucket));
        stream.finish()?;
    }
    mantissas.check_all_there()?;
    se_stream.finish()?;
    mantissas.merge(se, BF16.mantissa_bits)?;
    Ok(words)
}
