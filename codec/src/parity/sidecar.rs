//! The sidecar's header and table of checksums, both written twice, and reading its parity blocks.

use std::path::Path;

use super::geometry::{Geometry, PAGE_ENTRIES};
use crate::checksum::checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::original::{Original, PlainFile};
use crate::wire::{Put, Reader};

/// What a sidecar starts with, as what a container starts with but for the E.
const MAGIC: [u8; 8] = *b"\x89BSME\r\n\x1a";

/// What a sidecar of the Python package starts with.
const UPSTREAM_MAGIC: &[u8] = b"BSECC1__";

/// The version of the sidecar's format: major, minor.
const VERSION: (u16, u16) = (1, 0);

/// The code of GF(2^16) that `docs/format.md` defines, the only one so far.
const CODE: u32 = 1;

/// Bytes of the header, which is at the beginning and again at the end.
pub(super) const HEADER_LEN: usize = 72;

/// A header: the geometry, and the checksum of all entries of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) geometry: Geometry,
    pub(super) table_checksum: u64,
}

impl Header {
    pub(super) fn write(&self) -> Vec<u8> {
        let Geometry { file_len, block, stripes, data, parity } = self.geometry;
        let mut out = MAGIC.to_vec();
        out.put_u16(VERSION.0);
        out.put_u16(VERSION.1);
        out.put_u32(CODE);
        out.put_u32(block as u32);
        out.put_u32(data as u32);
        out.put_u32(parity as u32);
        out.put_u32(0);
        out.put_u64(stripes);
        out.put_u64(file_len);
        out.put_u64(self.geometry.sidecar_len());
        out.put_u64(self.table_checksum);
        out.put_u64(checksum(&out));
        debug_assert_eq!(out.len(), HEADER_LEN);
        out
    }

    fn read(bytes: &[u8]) -> Result<Header> {
        let mut reader = Reader::new(bytes);
        let magic: [u8; 8] = reader.array()?;
        if magic != MAGIC {
            let what = if bytes.starts_with(UPSTREAM_MAGIC) {
                "this is a sidecar of the Python package bigsmall, which this version does not read"
            } else {
                "this is not a parity sidecar of bigsmall"
            };
            return Err(Error::new(ErrorKind::NotAContainer, what));
        }
        if checksum(&bytes[..HEADER_LEN - 8]).to_le_bytes() != bytes[HEADER_LEN - 8..] {
            return Err(Error::corrupt("its header fails its checksum"));
        }
        let (major, minor, code) = (reader.u16()?, reader.u16()?, reader.u32()?);
        if major != VERSION.0 || minor > VERSION.1 || code != CODE {
            return Err(Error::unsupported(format!(
                "the sidecar has format version {major}.{minor} and code {code}: a newer bigsmall is needed"
            )));
        }
        let (block, data, parity, zero) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        let geometry = Geometry {
            block: u64::from(block),
            data: u64::from(data),
            parity: u64::from(parity),
            stripes: reader.u64()?,
            file_len: reader.u64()?,
        };
        let geometry = geometry.checked()?;
        let (sidecar_len, table_checksum) = (reader.u64()?, reader.u64()?);
        if zero != 0 || sidecar_len != geometry.sidecar_len() {
            return Err(Error::corrupt("its header contradicts itself"));
        }
        Ok(Header { geometry, table_checksum })
    }
}

/// The table as it is stored: pages of entries, each with its checksum behind it.
pub(super) fn table(entries: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity((entries.len() + entries.len().div_ceil(PAGE_ENTRIES)) * 8);
    for page in entries.chunks(PAGE_ENTRIES) {
        let start = out.len();
        page.iter().for_each(|&entry| out.put_u64(entry));
        out.put_u64(checksum(&out[start..]));
    }
    out
}

/// The checksum of all entries, for the header.
pub(super) fn table_checksum(entries: &[u64]) -> u64 {
    let mut hasher = twox_hash::XxHash3_64::new();
    entries.iter().for_each(|entry| hasher.write_entry(*entry));
    std::hash::Hasher::finish(&hasher)
}

/// Feeds an entry as its little-endian bytes, on any machine.
trait WriteEntry {
    fn write_entry(&mut self, entry: u64);
}

impl WriteEntry for twox_hash::XxHash3_64 {
    fn write_entry(&mut self, entry: u64) {
        std::hash::Hasher::write(self, &entry.to_le_bytes());
    }
}

/// What is wrong with the header and the table of a sidecar that can be used all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SidecarDamage {
    /// Of the two headers, how many are lost.
    pub headers: u64,
    /// Pages of the two copies of the table that are lost.
    pub pages: u64,
    /// Pages of which both copies are lost: the blocks that they are about cannot be told from damaged ones.
    pub lost_pages: u64,
    /// Whether the file is longer or shorter than it was.
    pub wrong_length: bool,
}

impl SidecarDamage {
    /// Whether nothing is wrong.
    pub fn is_none(&self) -> bool {
        *self == SidecarDamage::default()
    }
}

/// An open sidecar.
pub struct Sidecar {
    store: Box<dyn Original>,
    geometry: Geometry,
    entries: Vec<u64>,
    /// Which pages of the table are lost.
    lost: Vec<bool>,
    damage: SidecarDamage,
}

impl std::fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sidecar")
            .field("geometry", &self.geometry)
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}

impl Sidecar {
    /// Opens the sidecar at `path`; one header and one copy of each page of the table have to be sound.
    ///
    /// # Errors
    /// [`ErrorKind::NotAContainer`] when it is no sidecar, [`ErrorKind::Unsupported`] when it is newer than this program,
    /// [`ErrorKind::Corrupt`] when too little of it is left, [`ErrorKind::Io`]. All name the file.
    pub fn open(path: &Path) -> Result<Sidecar> {
        let store = PlainFile::open(path)?;
        Sidecar::from_store(Box::new(store)).map_err(|e| if e.io_error().is_some() { e } else { e.in_file(path) })
    }

    /// Opens the sidecar whose bytes `store` holds.
    ///
    /// # Errors
    /// As [`open`](Sidecar::open), without a file's name.
    pub fn from_store(store: Box<dyn Original>) -> Result<Sidecar> {
        let len = store.len();
        if len < HEADER_LEN as u64 {
            return Err(Error::new(ErrorKind::NotAContainer, "this is not a parity sidecar of bigsmall"));
        }
        let header_at = |offset| {
            let mut bytes = [0; HEADER_LEN];
            store.read_at(offset, &mut bytes)?;
            Header::read(&bytes)
        };
        let (first, second) = (header_at(0), header_at(len - HEADER_LEN as u64));
        let mut damage = SidecarDamage::default();
        let header = match (first, second) {
            (Ok(first), Ok(second)) if first == second => first,
            (Ok(_), Ok(_)) => return Err(Error::corrupt("its two headers are of different files")),
            (Ok(header), Err(_)) | (Err(_), Ok(header)) => {
                damage.headers = 1;
                header
            }
            // Which of the two says more: what is damaged, or that it is no sidecar.
            (Err(first), Err(second)) if first.kind() == ErrorKind::NotAContainer => {
                return Err(if second.kind() == ErrorKind::NotAContainer { first } else { second });
            }
            (Err(first), Err(_)) => return Err(first),
        };
        let geometry = header.geometry;
        damage.wrong_length = len != geometry.sidecar_len();
        // Memory must be earned: at least one copy of the table has to be there.
        if geometry.table_len() > len {
            return Err(Error::corrupt("it is cut short: neither copy of its table is left"));
        }
        let (entries, lost) = read_table(&*store, &geometry, &mut damage)?;
        if damage.lost_pages == 0 && table_checksum(&entries) != header.table_checksum {
            return Err(Error::corrupt("its table and its header do not belong together"));
        }
        Ok(Sidecar { store, geometry, entries, lost, damage })
    }

    /// How the protected file is cut into blocks.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What is wrong with the header and the table; parity blocks are not looked at.
    pub fn damage(&self) -> SidecarDamage {
        self.damage
    }

    /// The checksum of an entry of the table, if it is known.
    fn entry(&self, number: u64) -> Option<u64> {
        let number = number as usize;
        (!self.lost[number / PAGE_ENTRIES]).then(|| self.entries[number])
    }

    /// Whether `bytes` are known to be those of data block `number`.
    pub(super) fn is_data(&self, number: u64, bytes: &[u8]) -> bool {
        self.entry(number).is_some_and(|entry| entry == checksum(bytes))
    }

    /// Whether anything is known about data block `number`.
    pub(super) fn knows(&self, number: u64) -> bool {
        self.entry(number).is_some()
    }

    /// Reads parity block `number` and says whether it is sound.
    pub(super) fn read_parity(&self, number: u64, block: &mut [u8]) -> bool {
        let read = self.store.read_at(self.geometry.parity_offset(number), block);
        read.is_ok() && self.entry(self.geometry.data_blocks() + number) == Some(checksum(block))
    }
}

/// Both copies of the table, merged: the entries, and which pages of them are lost.
fn read_table(store: &dyn Original, geometry: &Geometry, damage: &mut SidecarDamage) -> Result<(Vec<u64>, Vec<bool>)> {
    let total = geometry.entries() as usize;
    let mut entries = Vec::with_capacity(total);
    let mut lost = Vec::with_capacity(total.div_ceil(PAGE_ENTRIES));
    let copies = [HEADER_LEN as u64, geometry.second_table()];
    let (mut page, mut other) = ([0; (PAGE_ENTRIES + 1) * 8], [0; (PAGE_ENTRIES + 1) * 8]);
    while entries.len() < total {
        let count = PAGE_ENTRIES.min(total - entries.len());
        let offset = (lost.len() * (PAGE_ENTRIES + 1) * 8) as u64;
        let read = |copy: u64, into: &mut [u8]| {
            let read = store.read_at(copy + offset, into);
            let (body, sum) = into.split_at(count * 8);
            read.is_ok() && checksum(body).to_le_bytes() == sum
        };
        let sound = [read(copies[0], &mut page[..count * 8 + 8]), read(copies[1], &mut other[..count * 8 + 8])];
        damage.pages += sound.iter().map(|&sound| u64::from(!sound)).sum::<u64>();
        let body = if sound[0] { &page[..count * 8] } else { &other[..count * 8] };
        lost.push(sound == [false, false]);
        damage.lost_pages += u64::from(sound == [false, false]);
        if sound == [true, true] && page[..count * 8] != other[..count * 8] {
            return Err(Error::corrupt("the two copies of its table are of different files"));
        }
        let mut reader = Reader::new(body);
        for _ in 0..count {
            entries.push(reader.u64()?);
        }
    }
    Ok((entries, lost))
}
