//! What the header of a GGUF file says of its tensors: versions 2 and 3, little-endian, files of a split model included, each
//! of which has a header of its own.
//!
//! The header has no length. It is read in pieces until its last tensor has been named, and nothing of it is kept but those: the
//! vocabulary of a tokenizer, which is most of it, is skipped.

mod types;

use crate::error::{Error, Result};
use crate::layout::{Header, TensorLayout};
use crate::original::Original;

/// What a file begins with.
const MAGIC: [u8; 4] = *b"GGUF";

/// The longest header that is looked into, in bytes: as long as that of a safetensors file.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes of the header that are read at a time.
const PIECE: u64 = 128 << 10;

/// The longest name of a tensor or key, in bytes, and the most dimensions. llama.cpp has 64 and 4.
const LONGEST_NAME: u64 = 4096;
const MOST_DIMENSIONS: u32 = 8;

/// The fewest bytes that a key with its value takes, and those that a tensor does.
const LEAST_ENTRY: u64 = 8 + 4 + 1;
const LEAST_TENSOR: u64 = 8 + 4 + 4 + 8;

/// Tensors begin at multiples of it unless the header says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The key of the alignment.
const ALIGNMENT_KEY: &[u8] = b"general.alignment";

/// How deep arrays may lie in one another.
const DEEPEST_ARRAY: u32 = 4;

/// The header of a GGUF file; `None` when it is none, or cannot be relied on.
///
/// # Errors
/// Only those of reading `source`.
pub(crate) fn read_header(source: &dyn Original) -> Result<Option<Header>> {
    match parse(source) {
        Ok(header) => Ok(Some(header)),
        Err(Stop::Unexpected) => Ok(None),
        Err(Stop::Unreadable(error)) => Err(error),
    }
}

/// Why a header is not read to its end.
enum Stop {
    /// It is not what it should be.
    Unexpected,
    /// The file cannot be read.
    Unreadable(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Unreadable(error)
    }
}

type Parsed<T> = std::result::Result<T, Stop>;

/// The value, if it is what it should be.
fn expect<T>(value: Option<T>) -> Parsed<T> {
    value.ok_or(Stop::Unexpected)
}

fn parse(source: &dyn Original) -> Parsed<Header> {
    // By itself: of a file of another kind nothing more is read, which might be damaged.
    let mut magic = MAGIC.map(|_| 0);
    if source.len() < magic.len() as u64 {
        return Err(Stop::Unexpected);
    }
    source.read_at(0, &mut magic)?;
    if magic != MAGIC {
        return Err(Stop::Unexpected);
    }
    let mut cursor = Cursor { source, at: 0, end: source.len().min(LONGEST_HEADER), piece: Vec::new(), piece_at: 0 };
    // The version of a big-endian file is a large number here.
    if cursor.array()? != MAGIC || !matches!(cursor.u32()?, 2 | 3) {
        return Err(Stop::Unexpected);
    }
    let tensors = cursor.count(LEAST_TENSOR)?;
    let entries = cursor.count(LEAST_ENTRY)?;
    let mut alignment = DEFAULT_ALIGNMENT;
    for _ in 0..entries {
        let is_alignment = cursor.string()? == ALIGNMENT_KEY;
        match cursor.u32()? {
            value::U32 if is_alignment => alignment = u64::from(cursor.u32()?),
            kind => cursor.skip_value(kind, DEEPEST_ARRAY)?,
        }
    }
    let mut infos = Vec::new();
    for _ in 0..tensors {
        infos.extend(TensorInfo::parse(&mut cursor)?);
    }
    // There need be nothing between the header and the end of a file without tensors.
    let data = expect(cursor.at.checked_next_multiple_of(alignment))?.min(source.len());
    let tensors = infos.into_iter().map(|info| info.layout(data, source.len())).collect::<Option<_>>();
    Ok(Header { data, tensors: expect(tensors)? })
}

/// What a value in the metadata is.
mod value {
    pub(super) const U32: u32 = 4;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;

    /// The bytes of a number of that kind.
    pub(super) fn size(kind: u32) -> Option<u64> {
        Some(match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ => return None,
        })
    }
}

/// A tensor as the header names it.
struct TensorInfo {
    name: String,
    shape: Vec<u64>,
    kind: types::Type,
    /// Where it begins, behind the beginning of the data.
    offset: u64,
}

impl TensorInfo {
    /// The next tensor of a header; `None` when it is of a type that nothing is known of. Its bytes are then a gap.
    fn parse(cursor: &mut Cursor<'_>) -> Parsed<Option<TensorInfo>> {
        let name = expect(String::from_utf8(cursor.string()?).ok())?;
        let dimensions = cursor.u32()?;
        if dimensions > MOST_DIMENSIONS {
            return Err(Stop::Unexpected);
        }
        // The innermost one comes first there, and last everywhere else.
        let mut shape = (0..dimensions).map(|_| cursor.u64()).collect::<Parsed<Vec<u64>>>()?;
        shape.reverse();
        let (kind, offset) = (types::of_number(cursor.u32()?), cursor.u64()?);
        Ok(kind.map(|kind| TensorInfo { name, shape, kind, offset }))
    }

    /// Where it lies in a file of `len` bytes whose data begin at `data`; `None` when it does not.
    fn layout(self, data: u64, len: u64) -> Option<TensorLayout> {
        let TensorInfo { name, shape, kind, offset } = self;
        if !shape.last().unwrap_or(&1).is_multiple_of(kind.elements) {
            return None;
        }
        let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
        let start = data.checked_add(offset)?;
        let end = start.checked_add((elements / kind.elements).checked_mul(kind.bytes)?)?;
        let layout =
            TensorLayout { name, dtype: kind.name.to_owned(), shape, range: start..end, element: kind.element };
        (end <= len).then_some(layout)
    }
}

/// Takes what a header is made of off the front of a file.
struct Cursor<'a> {
    source: &'a dyn Original,
    /// Where it is in the file, and where it must stop.
    at: u64,
    end: u64,
    /// The bytes of the file from `piece_at` on.
    piece: Vec<u8>,
    piece_at: u64,
}

impl Cursor<'_> {
    fn skip(&mut self, len: u64) -> Parsed<()> {
        self.at = expect(self.at.checked_add(len).filter(|&at| at <= self.end))?;
        Ok(())
    }

    /// The next `len` bytes, at most as many as a piece has.
    fn take(&mut self, len: u64) -> Parsed<&[u8]> {
        let start = self.at;
        self.skip(len)?;
        if start < self.piece_at || self.at > self.piece_at + self.piece.len() as u64 {
            self.piece.resize(PIECE.min(self.end - start) as usize, 0);
            self.piece_at = start;
            self.source.read_at(start, &mut self.piece)?;
        }
        Ok(&self.piece[(start - self.piece_at) as usize..][..len as usize])
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("take gives the length that was asked for"))
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of items, each of which takes `least` bytes or more of what is left.
    fn count(&mut self, least: u64) -> Parsed<u64> {
        let count = self.u64()?;
        expect(Some(count).filter(|&count| count <= (self.end - self.at) / least))
    }

    /// The bytes of a name.
    fn string(&mut self) -> Parsed<Vec<u8>> {
        let len = self.u64()?;
        expect(Some(len).filter(|&len| len <= LONGEST_NAME))?;
        Ok(self.take(len)?.to_vec())
    }

    /// Skips a value of that kind, with arrays in it at most so deep.
    fn skip_value(&mut self, kind: u32, depth: u32) -> Parsed<()> {
        match kind {
            value::STRING => {
                let len = self.u64()?;
                self.skip(len)
            }
            value::ARRAY => {
                let depth = expect(depth.checked_sub(1))?;
                let kind = self.u32()?;
                match value::size(kind) {
                    Some(size) => {
                        let count = self.count(size)?;
                        self.skip(count * size)
                    }
                    None => {
                        let count = self.count(8)?;
                        (0..count).try_for_each(|_| self.skip_value(kind, depth))
                    }
                }
            }
            kind => self.skip(expect(value::size(kind))?),
        }
    }
}

#[cfg(test)]
mod tests;
