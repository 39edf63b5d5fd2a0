//! What is recorded of a container that is being written, so that a later run can go on with it.
//!
//! The journal is a file beside the unfinished container: a header, which says what is made of what, and a record for each
//! window that was written, with the place, codec and checksum of each of its chunks. It is written as the work goes on, and
//! every few seconds both files are synced.
//!
//! Nothing in it is believed. A record counts only if its checksum holds; a chunk is taken over only if its stored bytes have
//! the checksum recorded *and* decode, with the tables that this run has made and the base that it has, to the bytes of the source. So whatever a power
//! cut made of the two files, what comes out is what an undisturbed run writes; and even if the source was changed without a trace,
//! it is that source. Only the coding is saved; the source is read, hashed and planned anew.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::frame::{PREAMBLE_LEN, VERSION};
use super::index::StoredChunk;
use super::writer::Options;
use crate::checksum::checksum;
use crate::chunk::Codec;
use crate::error::{Error, Result};
use crate::original::{MAX_CHUNK_SIZE, Original};
use crate::patch::Model;
use crate::wire::{Put, Reader};

/// What a journal begins with.
const MAGIC: &[u8] = b"bigsmall journal\n";

/// Bytes of the longest record that is read: more than the most chunks that a window may have need.
const LONGEST_RECORD: usize = 2 << 20;

/// Bytes before and behind the contents of a record: their length and their checksum.
const FRAMING: u64 = 4 + 8;

/// What a container is made of, and how: if any of it differs, nothing that an earlier run has made is taken over.
#[derive(Debug)]
pub(super) struct Making(Vec<u8>);

impl Making {
    /// To compress `source`, whose name is recorded as `name`, as a patch of `base` if there is one.
    ///
    /// # Errors
    /// Those of asking for their [stamps](Original::stamp).
    pub(super) fn of(source: &dyn Original, name: &str, options: &Options, base: Option<&Model>) -> Result<Making> {
        let mut bytes = MAGIC.to_vec();
        // The same options may mean other bytes in another version of the program.
        bytes.put_bytes(env!("CARGO_PKG_VERSION").as_bytes());
        bytes.put_bytes(VERSION.to_string().as_bytes());
        bytes.put_bytes(format!("{options:?}").as_bytes());
        bytes.put_bytes(name.as_bytes());
        bytes.put_bytes(&source.stamp()?);
        if let Some(base) = base {
            bytes.put_bytes(&base.stamp()?);
        }
        Ok(Making(bytes))
    }

    /// Whether the journal at `path` is of such a container.
    pub(super) fn is_that_of(&self, path: &Path) -> bool {
        let header = record(&self.0);
        let begins = |mut file: File| {
            let mut start = vec![0; header.len()];
            file.read_exact(&mut start).map(|()| start == header)
        };
        File::open(path).and_then(begins).unwrap_or(false)
    }
}

/// A window as a journal records it: the chunks of each of its pieces.
pub(super) type Window = Vec<Vec<StoredChunk>>;

/// What an earlier run has written.
pub(super) struct Kept {
    container: File,
    windows: Vec<Window>,
}

impl Kept {
    /// The chunks of piece number `piece` of window number `window`; none if they are not known.
    pub(super) fn chunks(&self, window: usize, piece: usize) -> &[StoredChunk] {
        self.windows.get(window).and_then(|window| window.get(piece)).map_or(&[], Vec::as_slice)
    }

    /// Reads a stored chunk that is at most `longest` bytes long; `false` if it is not there as it was recorded.
    pub(super) fn read(&self, chunk: &StoredChunk, longest: usize, bytes: &mut Vec<u8>) -> bool {
        let len = chunk.len as usize;
        if len > longest {
            return false;
        }
        bytes.resize(len, 0);
        self.container.read_exact_at(bytes, chunk.offset).is_ok() && chunk.is(bytes)
    }
}

/// The journal of a container that is being written.
pub(super) struct Journal {
    file: File,
    /// How many records there are that hold, and where each ends, the header first.
    ends: Vec<u64>,
}

impl Journal {
    /// Reads the journal `file` of the unfinished container `container`. If it is not of `making`, both are begun anew.
    pub(super) fn open(file: File, container: File, making: &Making) -> io::Result<(Journal, Kept)> {
        let mut input = io::BufReader::new(&file);
        let mut kept = Kept { container, windows: Vec::new() };
        let mut ends = Vec::new();
        if read_record(&mut input).as_ref() == Some(&making.0) {
            ends.push(making.0.len() as u64 + FRAMING);
            let mut offset = PREAMBLE_LEN;
            while let Some(contents) = read_record(&mut input) {
                let Ok(window) = read_window(&contents, kept.windows.len(), &mut offset) else { break };
                kept.windows.push(window);
                ends.push(ends[ends.len() - 1] + contents.len() as u64 + FRAMING);
            }
        }
        let mut journal = Journal { file, ends };
        // What follows does not hold.
        journal.file.set_len(journal.ends.last().copied().unwrap_or(0))?;
        if journal.ends.is_empty() {
            kept.container.set_len(0)?;
            journal.append(&making.0)?;
        }
        Ok((journal, kept))
    }

    /// Records that window number `number` is written; the ones before have been recorded. What `kept` has of it need not
    /// be recorded again.
    pub(super) fn record(&mut self, number: usize, window: &[Vec<StoredChunk>], kept: &Kept) -> io::Result<()> {
        let is_known = number + 1 < self.ends.len();
        if is_known && kept.windows.get(number).is_some_and(|kept| kept == window) {
            return Ok(());
        }
        if is_known {
            // What was recorded of later ones has other places now.
            self.ends.truncate(number + 1);
            self.file.set_len(self.ends[number])?;
        }
        self.append(&window_record(number, window))
    }

    fn append(&mut self, contents: &[u8]) -> io::Result<()> {
        let (end, record) = (self.ends.last().copied().unwrap_or(0), record(contents));
        self.file.write_all_at(&record, end)?;
        let end = end + record.len() as u64;
        self.ends.push(end);
        Ok(())
    }
}

/// A record with these contents.
fn record(contents: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(contents.len() + FRAMING as usize);
    record.put_u32(contents.len() as u32);
    record.extend_from_slice(contents);
    record.put_u64(checksum(contents));
    record
}

/// The contents of the next record, unless it is damaged or there is none.
fn read_record(input: &mut impl Read) -> Option<Vec<u8>> {
    let mut word = [0; 4];
    input.read_exact(&mut word).ok()?;
    let len = u32::from_le_bytes(word) as usize;
    if len > LONGEST_RECORD {
        return None;
    }
    let mut contents = Vec::new();
    input.take(len as u64).read_to_end(&mut contents).ok()?;
    let mut expected = [0; 8];
    input.read_exact(&mut expected).ok()?;
    (contents.len() == len && checksum(&contents) == u64::from_le_bytes(expected)).then_some(contents)
}

fn window_record(number: usize, window: &[Vec<StoredChunk>]) -> Vec<u8> {
    let mut contents = Vec::new();
    contents.put_varint(number as u64);
    contents.put_varint(window.len() as u64);
    for piece in window {
        contents.put_varint(piece.len() as u64);
        for chunk in piece {
            contents.push(chunk.codec.code());
            contents.put_varint(chunk.len.into());
            contents.put_u64(chunk.checksum);
        }
    }
    contents
}

/// Reads the record of window number `number`, whose first chunk begins at `offset`, which is moved to where the last one ends.
fn read_window(contents: &[u8], number: usize, offset: &mut u64) -> Result<Window> {
    let mut reader = Reader::new(contents);
    if reader.varint()? != number as u64 {
        return Err(Error::corrupt("the record is of another window"));
    }
    let mut window = Vec::new();
    for _ in 0..reader.count(1)? {
        let mut piece = Vec::new();
        for _ in 0..reader.count(10)? {
            let codec = Codec::from_code(reader.u8()?)?;
            let len = reader.varint_up_to(MAX_CHUNK_SIZE.into())? as u32;
            piece.push(StoredChunk { offset: *offset, len, codec, checksum: reader.u64()? });
            *offset += u64::from(len);
        }
        window.push(piece);
    }
    reader.finish()?;
    Ok(window)
}
