//! A bare Blosc2 chunk: Zstandard over shuffled bytes, as `wpe_delta` has it. No other filters or codecs occur.

use super::{inflate, reserve, zeros};
use crate::error::{Error, Result};
use crate::wire::Reader;

const HEADER: usize = 32;
const VERSION: u8 = 5;
/// Bits of the flags: both set when the header has 32 bytes.
const EXTENDED: u8 = 1 << 0 | 1 << 2;
/// The bytes follow as they are.
const STORED: u8 = 1 << 1;
/// A block is one stream, not one for each byte of an element.
const UNSPLIT: u8 = 1 << 4;
/// What the upper three bits of the flags are for Zstandard.
const ZSTD_FLAG: u8 = 4;
const ZSTD: u8 = 5;
const NO_FILTER: u8 = 0;
const SHUFFLE: u8 = 1;

/// The `len` bytes of a chunk of elements of `width` bytes.
pub(super) fn decode(chunk: &[u8], width: usize, len: usize) -> Result<Vec<u8>> {
    let mut reader = Reader::new(chunk);
    let (version, _, flags, size) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let (bytes, block, stored) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()? as usize);
    let filters: [u8; 6] = reader.array()?;
    let [codec, .., blosc2_flags] = reader.array::<10>()?;
    let special = blosc2_flags >> 4 & 7;
    let unknown = |what: &str| Error::unsupported(format!("a Blosc2 chunk {what}, which is not known"));
    if version != VERSION || flags & EXTENDED != EXTENDED {
        return Err(unknown("of another version"));
    }
    if usize::from(size) != width || bytes != len || stored != chunk.len() {
        return Err(Error::corrupt("a Blosc2 chunk has other sizes than it should have"));
    }
    match special {
        0 => {}
        1 => return zeros(len),
        _ => return Err(unknown("with a special value")),
    }
    if flags & STORED != 0 {
        return match &chunk[HEADER..] {
            data if data.len() == len => super::copy(data),
            _ => Err(Error::corrupt("a stored Blosc2 chunk has another length than its bytes")),
        };
    }
    let shuffled = match filters.iter().filter(|&&filter| filter != NO_FILTER).collect::<Vec<_>>()[..] {
        [] => false,
        [&SHUFFLE] => true,
        _ => return Err(unknown("with other filters")),
    };
    if flags >> 5 != ZSTD_FLAG || codec != ZSTD {
        return Err(unknown("of another codec"));
    }
    if block == 0 {
        return Err(Error::corrupt("a Blosc2 chunk has blocks of no bytes"));
    }
    let blocks = len.div_ceil(block);
    if blocks > reader.remaining() / 4 {
        return Err(Error::corrupt("a Blosc2 chunk has more blocks than bytes for them"));
    }
    let starts = (0..blocks).map(|_| reader.u32().map(|start| start as usize)).collect::<Result<Vec<_>>>()?;
    let mut out = reserve(len)?;
    for (number, start) in starts.into_iter().enumerate() {
        let here = block.min(len - number * block);
        let streams = if flags & UNSPLIT != 0 || here < block || here % width != 0 { 1 } else { width };
        let beyond = || Error::corrupt("a block of a Blosc2 chunk begins outside of it");
        let data = chunk.get(start.max(HEADER)..).ok_or_else(beyond)?;
        let block = decode_block(&mut Reader::new(data), streams, here)?;
        if shuffled {
            unshuffle(&block, width, &mut out);
        } else {
            out.extend_from_slice(&block);
        }
    }
    Ok(out)
}

/// The `len` bytes of a block that lies in so many equally long streams.
fn decode_block(reader: &mut Reader<'_>, streams: usize, len: usize) -> Result<Vec<u8>> {
    let mut block = reserve(len)?;
    let part = len / streams;
    for end in (1..=streams).map(|stream| stream * part) {
        match reader.u32()? as i32 {
            0 => block.resize(end, 0),
            run @ ..0 => {
                let token = reader.u8()?;
                let value = u8::try_from(run.unsigned_abs());
                match value {
                    Ok(value) if token & 1 != 0 => block.resize(end, value),
                    _ => return Err(Error::corrupt("a run in a Blosc2 chunk has no value")),
                }
            }
            stored if stored as usize == part => block.extend_from_slice(reader.take(part)?),
            frame => block.extend(inflate(reader.take(frame as usize)?, part)?),
        }
    }
    Ok(block)
}

/// Appends to `out` what lies in `block` byte by byte: first the lowest bytes of all elements.
fn unshuffle(block: &[u8], width: usize, out: &mut Vec<u8>) {
    let elements = block.len() / width;
    for element in 0..elements {
        out.extend((0..width).map(|byte| block[byte * elements + element]));
    }
    out.extend_from_slice(&block[elements * width..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Put;

    /// A chunk of 2-byte elements in one block of these streams.
    fn chunk(flags: u8, special: u8, len: u32, data: &[u8]) -> Vec<u8> {
        let mut chunk = vec![VERSION, 1, flags, 2];
        let starts = if flags & STORED != 0 || special != 0 { 0 } else { 4 };
        [len, len, (HEADER + starts + data.len()) as u32].into_iter().for_each(|number| chunk.put_u32(number));
        chunk.extend([SHUFFLE, 0, 0, 0, 0, 0, ZSTD, 0, 0, 0, 0, 0, 0, 0, 0, special << 4]);
        if starts > 0 {
            chunk.put_u32(HEADER as u32 + 4);
        }
        chunk.extend(data);
        chunk
    }

    const SPLIT: u8 = EXTENDED | ZSTD_FLAG << 5;

    #[test]
    fn forms_that_the_fixtures_lack() {
        assert_eq!(decode(&chunk(SPLIT | STORED, 0, 4, &[1, 2, 3, 4]), 2, 4).unwrap(), [1, 2, 3, 4]);
        assert_eq!(decode(&chunk(SPLIT, 1, 4, &[]), 2, 4).unwrap(), [0; 4]);
        let mut streams = Vec::new();
        streams.put_u32(0);
        streams.put_u32(-7i32 as u32);
        streams.push(1);
        assert_eq!(decode(&chunk(SPLIT, 0, 4, &streams), 2, 4).unwrap(), [0, 7, 0, 7]);
        let mut stored = Vec::new();
        stored.put_u32(4);
        stored.extend([1, 2, 3, 4]);
        assert_eq!(decode(&chunk(SPLIT | UNSPLIT, 0, 4, &stored), 2, 4).unwrap(), [1, 3, 2, 4]);
    }

    #[test]
    fn forgeries_are_refused() {
        let good = chunk(SPLIT, 1, 4, &[]);
        for (at, value) in [(0, 6), (2, 0), (3, 4), (4, 5), (12, 33), (31, 0x20)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(decode(&bad, 2, 4).is_err(), "byte {at}");
        }
        assert!(decode(&chunk(SPLIT, 0, 4, &[]), 2, 4).is_err(), "no streams");
        let mut no_blocks = chunk(SPLIT, 0, 4, &[0; 8]);
        no_blocks[8] = 0;
        assert!(decode(&no_blocks, 2, 4).is_err());
        let mut outside = chunk(SPLIT, 0, 4, &[0; 8]);
        outside[HEADER] = 200;
        assert!(decode(&outside, 2, 4).is_err());
    }
}
