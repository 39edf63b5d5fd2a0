//! What a patch says about its base.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::hashes::Md5;
use crate::wire::{Put, Reader};

/// What identifies a model: the SHA-256 of its tensors' names, dtypes, shapes and MD5s, whatever files they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// That of a model with these tensors, in any order.
    pub(crate) fn of<'a>(tensors: impl Iterator<Item = (&'a str, &'a str, &'a [u64], Md5)>) -> Fingerprint {
        let mut entries: Vec<Vec<u8>> = tensors
            .map(|(name, dtype, shape, md5)| {
                let mut entry = Vec::new();
                entry.put_bytes(name.as_bytes());
                entry.put_bytes(dtype.as_bytes());
                entry.put_varint(shape.len() as u64);
                shape.iter().for_each(|&dim| entry.put_varint(dim));
                entry.extend_from_slice(&md5);
                entry
            })
            .collect();
        entries.sort_unstable();
        let mut hash = Sha256::new();
        entries.iter().for_each(|entry| hash.update(entry));
        Fingerprint(hash.finalize().into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A tensor of the base that a patch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseTensor {
    /// Its name in the base.
    pub name: String,
    /// Its dtype as the header of a safetensors file spells it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its length in bytes.
    pub len: u64,
    /// The MD5 of its bytes.
    pub md5: [u8; 16],
    /// The XXH3 of its first 4 KiB, 4 KiB in its middle and its last 4 KiB: enough to tell what it is not, at once.
    pub probe: u64,
}

/// What a patch says about its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseRecord {
    /// The name that the base's file or folder had: a hint for people.
    pub name: String,
    /// That of the whole base.
    pub fingerprint: Fingerprint,
    /// The number of files of the base: a hint.
    pub files: u64,
    /// The length of the originals in these files, in bytes: a hint.
    pub len: u64,
    /// The tensors that the patch needs, and no others. Segments count the bytes of the base over all of these, in this order.
    pub tensors: Vec<BaseTensor>,
}

/// The largest length of a name.
const LONGEST_NAME: usize = 4096;

impl BaseRecord {
    /// Bytes of all tensors.
    pub fn tensors_len(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.len).sum()
    }

    /// What to call the base in a message.
    pub(crate) fn description(&self) -> String {
        let Fingerprint(print) = self.fingerprint;
        format!("{:?} (fingerprint {:02x}{:02x}{:02x}{:02x}...)", self.name, print[0], print[1], print[2], print[3])
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes(self.name.as_bytes());
        out.extend_from_slice(&self.fingerprint.0);
        out.put_varint(self.files);
        out.put_varint(self.len);
        out.put_varint(self.tensors.len() as u64);
        for tensor in &self.tensors {
            out.put_bytes(tensor.name.as_bytes());
            out.put_bytes(tensor.dtype.as_bytes());
            out.put_varint(tensor.shape.len() as u64);
            tensor.shape.iter().for_each(|&dim| out.put_varint(dim));
            out.put_varint(tensor.len);
        }
        // Apart from the rest, which compresses much better than they do.
        for tensor in &self.tensors {
            out.extend_from_slice(&tensor.md5);
            out.put_u64(tensor.probe);
        }
        out
    }

    pub(crate) fn read(section: &[u8]) -> Result<BaseRecord> {
        let mut reader = Reader::new(section);
        let name = string(&mut reader)?;
        if name.len() > LONGEST_NAME {
            return Err(Error::corrupt("the name of the base is too long"));
        }
        let fingerprint = Fingerprint(reader.array()?);
        let (files, len) = (reader.varint()?, reader.varint()?);
        // What is least: empty strings, no dimensions, the length; MD5 and probe.
        let count = reader.count(4 + 24)?;
        let mut tensors = Vec::with_capacity(count);
        let mut total = 0u64;
        for _ in 0..count {
            let (name, dtype) = (string(&mut reader)?, string(&mut reader)?);
            let dims = reader.count(1)?;
            let shape = (0..dims).map(|_| reader.varint()).collect::<Result<Vec<u64>>>()?;
            let len = reader.varint()?;
            total = total.checked_add(len).ok_or_else(|| Error::corrupt("the tensors of the base are too long"))?;
            tensors.push(BaseTensor { name, dtype, shape, len, md5: [0; 16], probe: 0 });
        }
        for tensor in &mut tensors {
            tensor.md5 = reader.array()?;
            tensor.probe = reader.u64()?;
        }
        reader.finish()?;
        if tensors.is_empty() {
            return Err(Error::corrupt("there is a base of which nothing is used"));
        }
        Ok(BaseRecord { name, fingerprint, files, len, tensors })
    }
}

fn string(reader: &mut Reader<'_>) -> Result<String> {
    String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| Error::corrupt("a name is not UTF-8"))
}
