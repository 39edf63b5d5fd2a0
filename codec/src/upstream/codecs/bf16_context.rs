//! `bf16_v8`: sign and exponent coded by a table that the exponent of the element above chooses.

use super::separate::{BF16, Mantissas, bf16_se_ac};
use super::zeros;
use crate::error::{Error, Result};
use crate::upstream::coders::{Counts, Model, RangeStream, Stream, Width, decode as decode_stream};
use crate::wire::Reader;

const EXPONENTS: usize = 256;

pub(super) fn decode(stored: &[u8], elements: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(stored);
    let form = reader.u8()?;
    if reader.u64()? != elements as u64 {
        return Err(Error::corrupt(format!("other than the {elements} elements of the shape are stored")));
    }
    match form {
        0 => {
            let len = reader.u32()? as usize;
            let words = bf16_se_ac(reader.take(len)?, elements)?;
            reader.finish()?;
            Ok(words)
        }
        1 => contexts(reader, elements),
        _ => Err(Error::unsupported(format!("there is no form {form} of this codec"))),
    }
}

fn contexts(mut reader: Reader<'_>, elements: usize) -> Result<Vec<u8>> {
    let (rows, columns) = (reader.u32()? as usize, reader.u32()? as usize);
    if rows.checked_mul(columns) != Some(elements) {
        return Err(Error::corrupt(format!("{rows} rows of {columns} are not {elements} elements")));
    }
    let mut words = zeros(elements * 2)?;
    let (se, _) = words.as_chunks_mut::<2>();
    let (counts, code) = section(&mut reader, BF16.se_alphabet)?;
    decode_stream(RangeStream::new(code)?, &*RangeStream::table(&counts, columns, 0)?, &mut se[..columns])?;

    let number = usize::from(reader.u16()?);
    let mut contexts: [Option<Context<'_>>; EXPONENTS] = [const { None }; EXPONENTS];
    let mut above = None;
    for _ in 0..number {
        let context = reader.u16()?;
        if above.replace(context) >= Some(context) || usize::from(context) >= EXPONENTS {
            return Err(Error::corrupt(format!("context {context} is out of order or impossible")));
        }
        let (counts, code) = section(&mut reader, BF16.se_alphabet)?;
        contexts[usize::from(context)] =
            Some(Context { stream: RangeStream::new(code)?, model: Model::new(&counts)?, left: counts.total() });
    }
    for position in columns..elements {
        let context = usize::from(u16::from_le_bytes(se[position - columns])) % EXPONENTS;
        se[position] = match &mut contexts[context] {
            Some(Context { stream, model, left: left @ 1.. }) => {
                *left -= 1;
                stream.next(model).to_le_bytes()
            }
            _ => return Err(Error::corrupt(format!("more elements below exponent {context} than are stored"))),
        };
    }
    for context in contexts.into_iter().flatten() {
        if context.left > 0 {
            return Err(Error::corrupt("fewer elements in a context than are stored"));
        }
        context.stream.finish()?;
    }

    let mut mantissas = Mantissas::<u8>::new(elements)?;
    for _ in 0..reader.u16()? {
        let exponent = reader.u16()?;
        let (counts, code) = section(&mut reader, BF16.mantissa_alphabet())?;
        let len = u32::try_from(counts.total()).map_err(|_| Error::corrupt("more mantissas than elements"))?;
        let (_, bucket) = mantissas.add(exponent, len)?;
        decode_stream(RangeStream::new(code)?, &*Model::new(&counts)?, bucket)?;
    }
    reader.finish()?;
    mantissas.check_all_there()?;
    mantissas.merge(se, BF16.mantissa_bits)?;
    Ok(words)
}

/// The elements that have one exponent above them.
struct Context<'a> {
    stream: RangeStream<'a>,
    model: Box<Model>,
    /// How many are still to come.
    left: u64,
}

/// A table and the stream that it is for.
fn section<'a>(reader: &mut Reader<'a>, alphabet: usize) -> Result<(Counts, &'a [u8])> {
    let (bytes, symbols, counts) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()? as usize);
    if symbols != counts {
        return Err(Error::corrupt(format!("{counts} counts of {symbols} symbols")));
    }
    let code = reader.take(bytes)?;
    let symbols = Width::U16.read_ascending(reader, symbols, alphabet)?;
    let counts = symbols.iter().map(|_| reader.u64()).collect::<Result<Vec<u64>>>()?;
    Ok((Counts::new(alphabet, &symbols, counts.into_iter())?, code))
}
