//! The sidecars of the Python package (`x.bs.ecc`): Reed-Solomon parity without checksums, which repairs scattered bytes.
//!
//! The file is cut into chunks of 223 bytes, the last filled up with zeros, each of which has 32 bytes of parity. Up to 16 wrong bytes
//! of a chunk and its parity together can be put right; a burst that is longer, or a lost tail, cannot. The sidecar has the MD5
//! of the whole file, and not its length.

mod code;
mod mended;

use std::path::Path;

use md5::{Digest, Md5};
use rayon::prelude::*;

use crate::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::original::{Original, PlainFile};
use crate::output::NewFile;
use crate::stream::cancelled;
use crate::wire::Reader;
use code::{Code, DATA, PARITY};
pub(super) use mended::{Fallback, PackageMended};

/// What such a sidecar begins with.
const MAGIC: &[u8] = b"BSECC1__";

/// The version that is known.
const VERSION: u16 = 1;

/// Bytes of the header.
const HEADER: u64 = 42;

/// Chunks that a thread looks at in one go.
const STEP: u64 = 4096;

/// A sidecar of the Python package.
#[derive(Debug)]
pub struct PackageParity {
    file: PlainFile,
    chunks: u64,
    md5: [u8; 16],
}

/// How much of a file and of its sidecar is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageDamage {
    /// Bytes of the file that are wrong and can be put right.
    pub wrong_bytes: u64,
    /// Bytes of the parity that are wrong.
    pub wrong_parity_bytes: u64,
    /// Chunks with more wrong bytes than can be put right.
    pub lost_chunks: u64,
    /// Whether the file has a length that the protected one cannot have.
    pub wrong_length: bool,
}

impl PackageDamage {
    /// Whether nothing is wrong.
    pub fn is_none(&self) -> bool {
        *self == PackageDamage::default()
    }

    fn add(self, other: PackageDamage) -> PackageDamage {
        PackageDamage {
            wrong_bytes: self.wrong_bytes + other.wrong_bytes,
            wrong_parity_bytes: self.wrong_parity_bytes + other.wrong_parity_bytes,
            lost_chunks: self.lost_chunks + other.lost_chunks,
            wrong_length: self.wrong_length || other.wrong_length,
        }
    }
}

impl PackageParity {
    /// Whether the file at `path` begins as such a sidecar does.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be read.
    pub fn is_one(path: &Path) -> Result<bool> {
        let file = PlainFile::open(path)?;
        let mut start = vec![0; file.len().min(MAGIC.len() as u64) as usize];
        file.read_at(0, &mut start)?;
        Ok(start == MAGIC)
    }

    /// Opens the sidecar at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::NotAContainer`] when it is something else, [`ErrorKind::Unsupported`] for another version of it,
    /// [`ErrorKind::Corrupt`] when its header and its length do not go together, [`ErrorKind::Io`]. All name the file.
    pub fn open(path: &Path) -> Result<PackageParity> {
        let file = PlainFile::open(path)?;
        let read = || {
            let mut header = vec![0; file.len().min(HEADER) as usize];
            file.read_at(0, &mut header)?;
            let Some(header) = header.strip_prefix(MAGIC) else {
                return Err(Error::new(ErrorKind::NotAContainer, "not a sidecar of the Python package"));
            };
            let mut reader = Reader::new(header);
            if reader.u16()? != VERSION {
                return Err(Error::unsupported("a sidecar of the Python package in a version that is not known"));
            }
            let (data, parity, chunks, md5) = (reader.u32()?, reader.u32()?, reader.u64()?, reader.array()?);
            if (data, parity) != (DATA as u32, PARITY as u32) {
                return Err(Error::unsupported(format!("a code of {data} and {parity} bytes, which is not known")));
            }
            let len = chunks.checked_mul(PARITY as u64).and_then(|len| len.checked_add(HEADER));
            match len == Some(file.len()) {
                true => Ok((chunks, md5)),
                false => Err(Error::corrupt("its header says another length than it has")),
            }
        };
        let (chunks, md5) = read().map_err(|e| if e.io_error().is_some() { e } else { e.in_file(path) })?;
        Ok(PackageParity { file, chunks, md5 })
    }

    /// Compares `file` with the parity.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`].
    pub fn examine(&self, file: &dyn Original, progress: &dyn Progress) -> Result<PackageDamage> {
        self.correct_all(file, &|_, _| Ok(()), progress)
    }

    /// Writes `file` to `out` with all put right that can be; what cannot be is as it is. Whether the result is the protected
    /// file is told by its MD5: see [`holds`](PackageParity::holds).
    ///
    /// # Errors
    /// Those of `out`; [`ErrorKind::Cancelled`].
    pub fn repair(&self, file: &dyn Original, out: &NewFile, progress: &dyn Progress) -> Result<PackageDamage> {
        let damage = self.correct_all(file, &|offset, bytes| out.write_at(offset, bytes), progress)?;
        let len = self.len_of(out, file.len())?;
        out.file().set_len(len).map_err(|e| Error::io("cannot set the length", e).in_file(out.target()))?;
        Ok(damage)
    }

    /// Whether `file` has the MD5 of the file that is protected.
    ///
    /// # Errors
    /// Those of reading it; [`ErrorKind::Cancelled`].
    pub fn holds(&self, file: &dyn Original, progress: &dyn Progress) -> Result<bool> {
        let mut md5 = Md5::new();
        hash(&mut md5, file, 0..file.len(), progress)?;
        Ok(<[u8; 16]>::from(md5.finalize()) == self.md5)
    }

    /// Puts all chunks of `file` right and passes them on; what lies behind its end, or cannot be read, counts as zeros.
    fn correct_all(
        &self,
        file: &dyn Original,
        put: &(dyn Fn(u64, &[u8]) -> Result<()> + Sync),
        progress: &dyn Progress,
    ) -> Result<PackageDamage> {
        let code = Code::new();
        let steps = (0..self.chunks.div_ceil(STEP)).into_par_iter();
        let damage = steps.map(|step| {
            if progress.cancelled() {
                return Err(cancelled());
            }
            let (first, end) = (step * STEP, self.chunks.min((step + 1) * STEP));
            let start = first * DATA as u64;
            let mut data = vec![0; (end - first) as usize * DATA];
            let there = (file.len().saturating_sub(start)).min(data.len() as u64) as usize;
            read_as_it_is(file, start, &mut data[..there]);
            let mut parity = vec![0; (end - first) as usize * PARITY];
            read_as_it_is(&self.file, HEADER + first * PARITY as u64, &mut parity);
            let mut damage = PackageDamage::default();
            for (data, parity) in data.as_chunks_mut().0.iter_mut().zip(parity.as_chunks_mut().0) {
                let before = *data;
                match code.correct(data, parity) {
                    Some(wrong) => {
                        let in_data = before.iter().zip(&*data).filter(|(one, other)| one != other).count();
                        damage.wrong_bytes += in_data as u64;
                        damage.wrong_parity_bytes += (wrong - in_data) as u64;
                    }
                    None => damage.lost_chunks += 1,
                }
            }
            put(start, &data)?;
            progress.advance(data.len() as u64);
            Ok(damage)
        });
        let damage = damage.try_reduce(PackageDamage::default, |one, other| Ok(one.add(other)))?;
        let wrong_length = !self.lens().contains(&file.len());
        Ok(PackageDamage { wrong_length, ..damage })
    }

    /// The lengths that the protected file may have.
    fn lens(&self) -> std::ops::RangeInclusive<u64> {
        let most = self.chunks.saturating_mul(DATA as u64);
        most.saturating_sub(DATA as u64 - 1).min(most)..=most
    }

    /// How long the protected file is, which `out` holds, perhaps with zeros behind its end: as long as its MD5 says, else as long
    /// as it was found.
    fn len_of(&self, out: &NewFile, found: u64) -> Result<u64> {
        let contents = out.contents()?;
        let lens = self.lens();
        let (mut prefix, mut tail) = (Md5::new(), vec![0; (lens.end() - lens.start()) as usize]);
        hash(&mut prefix, &contents, 0..*lens.start(), &())?;
        contents.read_at(*lens.start(), &mut tail)?;
        let is_it = |len: &u64| {
            let mut md5 = prefix.clone();
            md5.update(&tail[..(len - lens.start()) as usize]);
            <[u8; 16]>::from(md5.finalize()) == self.md5
        };
        Ok(lens.clone().find(is_it).unwrap_or(found.clamp(*lens.start(), *lens.end())))
    }
}

/// Hashes a part of a file.
fn hash(md5: &mut Md5, file: &dyn Original, range: std::ops::Range<u64>, progress: &dyn Progress) -> Result<()> {
    let mut piece = vec![0; 1 << 20];
    let mut at = range.start;
    while at < range.end {
        if progress.cancelled() {
            return Err(cancelled());
        }
        let len = (range.end - at).min(piece.len() as u64) as usize;
        file.read_at(at, &mut piece[..len])?;
        md5.update(&piece[..len]);
        at += len as u64;
    }
    Ok(())
}

/// Reads what can be read, sector by sector if need be; the rest is zeros.
fn read_as_it_is(file: &dyn Original, start: u64, bytes: &mut [u8]) {
    const SECTOR: usize = 512;
    if file.read_at(start, bytes).is_err() {
        for (number, sector) in bytes.chunks_mut(SECTOR).enumerate() {
            if file.read_at(start + (number * SECTOR) as u64, sector).is_err() {
                sector.fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::original::Memory;
    use crate::output::Existing;
    use std::fs;

    /// A file and its sidecar as the Python package wrote them, and that file damaged.
    fn fixture() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let read =
            |name| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstream/ecc").join(name)).unwrap();
        (read("model.bs"), read("model.bs.ecc"), read("damaged"))
    }

    struct Bench {
        directory: tempfile::TempDir,
        parity: PackageParity,
    }

    impl Bench {
        fn new(sidecar: &[u8]) -> Result<Bench> {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("model.bs.ecc");
            fs::write(&path, sidecar).unwrap();
            PackageParity::open(&path).map(|parity| Bench { directory, parity })
        }

        /// The file as it can be put right, and what was wrong.
        fn repair(&self, file: &[u8]) -> (Vec<u8>, PackageDamage) {
            let out = NewFile::create(&self.directory.path().join("out"), Existing::Refuse).unwrap();
            let file = Memory::new(file.to_vec());
            let damage = self.parity.repair(&file, &out, &()).unwrap();
            assert_eq!(self.parity.examine(&file, &()).unwrap(), damage);
            let contents = out.contents().unwrap();
            let mut bytes = vec![0; contents.len() as usize];
            contents.read_at(0, &mut bytes).unwrap();
            (bytes, damage)
        }
    }

    #[test]
    fn the_package_s_own_sidecar_repairs_the_package_s_own_damage() {
        let (model, sidecar, damaged) = fixture();
        let bench = Bench::new(&sidecar).unwrap();
        assert!(bench.parity.examine(&Memory::new(model.clone()), &()).unwrap().is_none());
        assert!(bench.parity.holds(&Memory::new(model.clone()), &()).unwrap());
        assert!(!bench.parity.holds(&Memory::new(damaged.clone()), &()).unwrap());
        let (repaired, damage) = bench.repair(&damaged);
        assert!(repaired == model);
        assert_eq!((damage.wrong_bytes, damage.lost_chunks), (17, 0));
    }

    #[test]
    fn sixteen_wrong_bytes_of_a_chunk_a_short_or_long_end_and_wrong_parity_are_put_right() {
        let (model, sidecar, _) = fixture();
        let bench = Bench::new(&sidecar).unwrap();
        let mut torn = model.clone();
        torn[..16].fill(0);
        torn[1000..1016].iter_mut().for_each(|byte| *byte = !*byte);
        assert!(bench.repair(&torn).0 == model);
        torn[2230 + 100..2230 + 117].iter_mut().for_each(|byte| *byte = !*byte);
        let (as_far, damage) = bench.repair(&torn);
        assert_eq!(damage.lost_chunks, 1);
        assert!(as_far[..2230] == model[..2230] && as_far[2230 + 223..] == model[2230 + 223..]);
        // The length is nowhere but in the MD5.
        assert!(bench.repair(&model[..model.len() - 9]).0 == model);
        assert!(bench.repair(&[&model[..], &[7; 5]].concat()).0 == model);
        let cut = bench.repair(&model[..model.len() - 400]).1;
        assert!(cut.lost_chunks > 0 && cut.wrong_length);
        let mut wrong_parity = sidecar.clone();
        wrong_parity[42..52].fill(0xee);
        let mut torn = model.clone();
        torn[3..8].iter_mut().for_each(|byte| *byte ^= 0x10);
        let (repaired, damage) = Bench::new(&wrong_parity).unwrap().repair(&torn);
        assert!(repaired == model);
        assert_eq!((damage.wrong_bytes, damage.lost_chunks), (5, 0));
        assert!(damage.wrong_parity_bytes >= 9);
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_take_memory() {
        let (model, sidecar, _) = fixture();
        for at in 0..60 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut torn = sidecar.clone();
                torn[at] = value;
                if let Ok(bench) = Bench::new(&torn) {
                    // Its header is as it was, or the MD5 alone is not.
                    bench.repair(&model);
                }
            }
            assert!(Bench::new(&sidecar[..at]).is_err());
        }
    }
}
