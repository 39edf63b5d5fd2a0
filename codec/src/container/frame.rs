//! The frame of a container: the preamble at its start, and at its end the sections of the index, the directory that
//! says where they are, and the footer that says where the directory is.
//!
//! Every byte of a container is accounted for: the preamble is compared, chunks and sections lie one behind the other
//! and carry checksums, directory and footer too. A reader needs one read of the file's tail.

use super::index::Sections;
use crate::checksum::checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::original::{Original, PlainFile};
use crate::wire::{Put, Reader};

/// What a container starts with. The first byte is not ASCII and line ends are included, so that a transfer that
/// "corrects" text is noticed.
pub(crate) const MAGIC: [u8; 8] = *b"\x89BSML\r\n\x1a";

/// What a container ends with.
const END_MAGIC: [u8; 8] = *b"BSML-END";

/// What a container of the Python package starts with.
const UPSTREAM_MAGIC: &[u8] = b"BGSM";

/// The version of the format. Readers accept their own major version up to their own minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Changes when older containers can no longer be read.
    pub major: u16,
    /// Changes when a container may hold something that older readers do not know.
    pub minor: u16,
}

/// The newest version that this crate reads and writes.
pub const VERSION: Version = Version { major: 1, minor: 2 };

impl Version {
    /// The version that is named by what has nothing that is newer.
    pub(crate) const PLAIN: Version = Version { major: 1, minor: 1 };

    /// The version that has quantised blocks.
    pub(crate) const BLOCKS: Version = Version { major: 1, minor: 2 };
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Bytes of the preamble; the first chunk begins behind it.
pub(crate) const PREAMBLE_LEN: u64 = 16;

/// Bytes of the footer.
const FOOTER_LEN: usize = 48;

/// How much of a file's tail is read at first: enough for the whole index of most models.
const TAIL: u64 = 64 << 10;

/// The level at which sections are compressed. Higher ones take longer than all else that follows the last chunk, for a
/// few per cent of a few kilobytes.
const SECTION_LEVEL: i32 = 9;

/// How much larger than its stored form a section may be: `LARGEST_EXPANSION` times that and `FREE_EXPANSION` bytes.
const LARGEST_EXPANSION: u64 = 256;
const FREE_EXPANSION: u64 = 1 << 20;

/// How a section is stored.
mod encoding {
    pub(super) const PLAIN: u8 = 0;
    pub(super) const ZSTD: u8 = 1;
}

/// The preamble of a container of that version.
pub(crate) fn preamble(version: Version) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u16(version.major);
    out.put_u16(version.minor);
    out.put_u32(0);
    out
}

/// What follows the last chunk, which ends at `data_end`: sections, directory, footer.
pub(crate) fn tail(version: Version, sections: &Sections<Vec<u8>>, data_end: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    directory.put_u64(data_end);
    let mut add = |tag: &[u8; 4], section: &[u8], compress: bool| {
        let packed =
            compress.then(|| zstd::bulk::compress(section, SECTION_LEVEL).expect("Zstandard compresses any bytes"));
        let packed = packed.filter(|packed| {
            packed.len() < section.len() && section.len() as u64 <= largest_section(packed.len() as u64)
        });
        let (encoding, stored) =
            packed.as_deref().map_or((encoding::PLAIN, section), |packed| (encoding::ZSTD, packed));
        directory.extend_from_slice(tag);
        directory.push(encoding);
        directory.put_u64(stored.len() as u64);
        directory.put_u64(section.len() as u64);
        directory.put_u64(checksum(stored));
        out.extend_from_slice(stored);
    };
    add(b"FILE", &sections.original, true);
    add(b"SEGM", &sections.segments, true);
    add(b"TENS", &sections.tensors, true);
    if let Some(base) = &sections.base {
        add(b"BASE", base, true);
    }
    add(b"TABL", &sections.tables, true);
    // Mostly checksums: nothing to gain.
    add(b"CHNK", &sections.chunks, false);

    let directory_offset = data_end + out.len() as u64;
    let container_len = directory_offset + (directory.len() + FOOTER_LEN) as u64;
    let mut footer = Vec::with_capacity(FOOTER_LEN);
    footer.put_u64(directory_offset);
    footer.put_u64(checksum(&directory));
    footer.put_u64(container_len);
    footer.put_u32(directory.len() as u32);
    footer.put_u16(version.major);
    footer.put_u16(version.minor);
    footer.put_u64(checksum(&footer));
    footer.extend_from_slice(&END_MAGIC);
    out.extend_from_slice(&directory);
    out.extend_from_slice(&footer);
    out
}

fn largest_section(stored: u64) -> u64 {
    stored.saturating_mul(LARGEST_EXPANSION).saturating_add(FREE_EXPANSION)
}

/// What `read` found in a container's frame.
pub(crate) struct Frame {
    pub(crate) version: Version,
    pub(crate) sections: Sections<Vec<u8>>,
    /// Where the last chunk ends.
    pub(crate) data_end: u64,
}

/// The first bytes of a file, by which it is told what it is.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when they cannot be read.
pub(crate) fn first_bytes(file: &PlainFile) -> Result<Vec<u8>> {
    let mut bytes = vec![0; file.len().min(PREAMBLE_LEN) as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Whether these [first bytes](first_bytes) of a file are those of a container.
pub(crate) fn is_container(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

/// Reads and checks the frame of a container. `store` is the container's bytes.
pub(crate) fn read(store: &dyn Original) -> Result<Frame> {
    let len = store.len();
    let mut start = vec![0; len.min(PREAMBLE_LEN) as usize];
    store.read_at(0, &mut start)?;
    let version = read_preamble(&start)?;
    if len < PREAMBLE_LEN + FOOTER_LEN as u64 {
        return Err(version.unsupported().unwrap_or_else(cut_short));
    }
    let tail_start = len.saturating_sub(TAIL);
    let mut tail = vec![0; (len - tail_start) as usize];
    store.read_at(tail_start, &mut tail)?;
    let (footer, recorded_version) = match (Footer::read(&tail[tail.len() - FOOTER_LEN..], len), version.unsupported())
    {
        // That may look otherwise in a newer version.
        (Err(_), Some(unsupported)) => return Err(unsupported),
        (footer, _) => footer?,
    };
    if recorded_version != version {
        return Err(Error::corrupt("preamble and footer name different versions"));
    }
    if let Some(unsupported) = version.unsupported() {
        return Err(unsupported);
    }
    let directory_end = len - FOOTER_LEN as u64;
    let directory = part(store, &tail, tail_start, footer.directory_offset, directory_end - footer.directory_offset)?;
    if checksum(&directory) != footer.directory_checksum {
        return Err(Error::corrupt("the directory fails its checksum"));
    }
    read_directory(&directory, store, &tail, tail_start, &footer).map(|(sections, data_end)| Frame {
        version,
        sections,
        data_end,
    })
}

fn cut_short() -> Error {
    Error::corrupt("the container is cut short or its end is overwritten: it does not end in a footer")
}

fn read_preamble(start: &[u8]) -> Result<Version> {
    if !is_container(start) {
        let what = if start.starts_with(UPSTREAM_MAGIC) {
            "this is a container of the Python package bigsmall, which this version does not read"
        } else {
            "this is not a bigsmall container"
        };
        return Err(Error::new(ErrorKind::NotAContainer, what));
    }
    let mut reader = Reader::new(&start[MAGIC.len()..]);
    let (Ok(major), Ok(minor), Ok(reserved)) = (reader.u16(), reader.u16(), reader.u32()) else {
        return Err(cut_short());
    };
    let version = Version { major, minor };
    if reserved != 0 && version.unsupported().is_none() {
        return Err(Error::corrupt("a reserved byte of the preamble is not zero"));
    }
    Ok(version)
}

impl Version {
    /// What is to be said when this program does not read the version.
    fn unsupported(self) -> Option<Error> {
        (self.major != VERSION.major || self.minor > VERSION.minor).then(|| {
            Error::unsupported(format!(
                "the container has format version {self}, this program reads {}.0 to {VERSION}: a newer bigsmall is needed",
                VERSION.major
            ))
        })
    }
}

struct Footer {
    directory_offset: u64,
    directory_checksum: u64,
}

impl Footer {
    /// The footer, and the version that it records.
    fn read(footer: &[u8], container_len: u64) -> Result<(Footer, Version)> {
        let (checked, end) = footer.split_at(FOOTER_LEN - 16);
        let mut end = Reader::new(end);
        if end.u64()? != checksum(checked) || end.array()? != END_MAGIC {
            return Err(cut_short());
        }
        let mut reader = Reader::new(checked);
        let footer = Footer { directory_offset: reader.u64()?, directory_checksum: reader.u64()? };
        let recorded_len = reader.u64()?;
        let directory_len = u64::from(reader.u32()?);
        let recorded_version = Version { major: reader.u16()?, minor: reader.u16()? };
        reader.finish()?;
        let ends =
            footer.directory_offset.checked_add(directory_len).and_then(|end| end.checked_add(FOOTER_LEN as u64));
        if recorded_len != container_len || ends != Some(container_len) || footer.directory_offset < PREAMBLE_LEN {
            return Err(Error::corrupt(format!(
                "the container has {container_len} bytes, its footer says {recorded_len}"
            )));
        }
        Ok((footer, recorded_version))
    }
}

/// The bytes `offset..offset + len` of the container, from its tail if they lie there.
fn part(store: &dyn Original, tail: &[u8], tail_start: u64, offset: u64, len: u64) -> Result<Vec<u8>> {
    if offset >= tail_start {
        return Ok(tail[(offset - tail_start) as usize..][..len as usize].to_vec());
    }
    let mut part = vec![0; len as usize];
    store.read_at(offset, &mut part)?;
    Ok(part)
}

fn read_directory(
    directory: &[u8],
    store: &dyn Original,
    tail: &[u8],
    tail_start: u64,
    footer: &Footer,
) -> Result<(Sections<Vec<u8>>, u64)> {
    let mut reader = Reader::new(directory);
    let data_end = reader.u64()?;
    if data_end < PREAMBLE_LEN {
        return Err(Error::corrupt("the sections begin inside the preamble"));
    }
    let mut offset = data_end;
    let mut found: [Option<Vec<u8>>; 6] = Default::default();
    while reader.remaining() > 0 {
        let tag: [u8; 4] = reader.array()?;
        let name = tag.escape_ascii();
        let (encoding, stored_len, len, expected) = (reader.u8()?, reader.u64()?, reader.u64()?, reader.u64()?);
        let end = offset.checked_add(stored_len).filter(|&end| end <= footer.directory_offset);
        let Some(end) = end else { return Err(Error::corrupt(format!("section {name} reaches into the directory"))) };
        let stored = part(store, tail, tail_start, offset, stored_len)?;
        offset = end;
        if checksum(&stored) != expected {
            return Err(Error::corrupt(format!("section {name} fails its checksum")));
        }
        let slot = match &tag {
            b"FILE" => 0,
            b"SEGM" => 1,
            b"TENS" => 2,
            b"TABL" => 3,
            b"CHNK" => 4,
            b"BASE" => 5,
            // As in PNG: a small first letter marks what a reader may pass over.
            [first, ..] if first.is_ascii_lowercase() => continue,
            _ => return Err(Error::unsupported(format!("section {name} is unknown: a newer bigsmall is needed"))),
        };
        let section = unpack(encoding, stored, len).map_err(|e| e.context(format!("section {name}")))?;
        if found[slot].replace(section).is_some() {
            return Err(Error::corrupt(format!("section {name} comes twice")));
        }
    }
    if offset != footer.directory_offset {
        return Err(Error::corrupt("there are bytes between the sections and the directory"));
    }
    let [Some(original), Some(segments), Some(tensors), Some(tables), Some(chunks), base] = found else {
        return Err(Error::corrupt("a section is missing"));
    };
    Ok((Sections { original, segments, tensors, tables, chunks, base }, data_end))
}

fn unpack(encoding: u8, stored: Vec<u8>, len: u64) -> Result<Vec<u8>> {
    match encoding {
        encoding::PLAIN if stored.len() as u64 == len => Ok(stored),
        encoding::ZSTD if len <= largest_section(stored.len() as u64) => {
            let section = zstd::bulk::decompress(&stored, len as usize)
                .map_err(|e| Error::corrupt(format!("Zstandard refuses it: {e}")))?;
            if section.len() as u64 != len {
                return Err(Error::corrupt(format!("it has {} bytes, not {len}", section.len())));
            }
            Ok(section)
        }
        encoding::PLAIN | encoding::ZSTD => Err(Error::corrupt("its length is not what the directory says")),
        other => Err(Error::unsupported(format!("it is stored in the unknown way {other}"))),
    }
}
