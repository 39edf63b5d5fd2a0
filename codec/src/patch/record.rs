//! What a patch says about its base.

use std::fmt;

use sha2::{Digest, Sha256};

use super::order::RowOrder;
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
    /// The order that its rows are taken in, if it is not their own.
    pub order: Option<RowOrder>,
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
        let moved = self.tensors.iter().enumerate().filter_map(|(number, tensor)| Some((number, tensor.order?)));
        let moved: Vec<(usize, RowOrder)> = moved.collect();
        if !moved.is_empty() {
            out.put_varint(moved.len() as u64);
            for (number, order) in moved {
                out.put_varint(number as u64);
                order.write(&mut out);
            }
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
            tensors.push(BaseTensor { name, dtype, shape, len, md5: [0; 16], probe: 0, order: None });
        }
        for tensor in &mut tensors {
            tensor.md5 = reader.array()?;
            tensor.probe = reader.u64()?;
        }
        if reader.remaining() > 0 {
            read_orders(&mut reader, &mut tensors)?;
        }
        reader.finish()?;
        if tensors.is_empty() {
            return Err(Error::corrupt("there is a base of which nothing is used"));
        }
        Ok(BaseRecord { name, fingerprint, files, len, tensors })
    }
}

/// Reads the orders of those that have one.
fn read_orders(reader: &mut Reader<'_>, tensors: &mut [BaseTensor]) -> Result<()> {
    let count = reader.count(3)?;
    let mut next = 0;
    for _ in 0..count {
        let number = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let order = RowOrder::read(reader)?;
        let tensor = tensors.get_mut(number).filter(|tensor| number >= next && order.fits(&tensor.shape, tensor.len));
        let tensor =
            tensor.ok_or_else(|| Error::corrupt("rows are moved in a tensor of the base that has no such rows"))?;
        tensor.order = Some(order);
        next = number + 1;
    }
    if count == 0 {
        return Err(Error::corrupt("the base has a list of moved rows without any"));
    }
    Ok(())
}

fn string(reader: &mut Reader<'_>) -> Result<String> {
    String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| Error::corrupt("a name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(order: Option<RowOrder>) -> BaseRecord {
        let tensor = |name: &str, order| BaseTensor {
            name: name.to_owned(),
            dtype: "BF16".to_owned(),
            shape: vec![8, 3],
            len: 48,
            md5: [7; 16],
            probe: 9,
            order,
        };
        let tensors = vec![tensor("a", None), tensor("b", order)];
        BaseRecord { name: "base".to_owned(), fingerprint: Fingerprint([1; 32]), files: 1, len: 100, tensors }
    }

    #[test]
    fn a_record_comes_back_with_the_orders_of_rows() {
        let ordered = record(Some(RowOrder { head: 4, interleaves: true }));
        assert_eq!(BaseRecord::read(&ordered.write()).unwrap(), ordered);
        let plain = record(None);
        assert_eq!(BaseRecord::read(&plain.write()).unwrap(), plain);
        assert_eq!(ordered.write().len(), plain.write().len() + 4);
    }

    #[test]
    fn orders_that_cannot_be_are_refused() {
        let refused = |orders: &[u8]| BaseRecord::read(&[&record(None).write(), orders].concat()).is_err();
        assert!(!refused(&[1, 1, 4, 1]) && !refused(&[2, 0, 8, 0, 1, 4, 1]));
        assert!(refused(&[0]), "a list without any");
        assert!(refused(&[1, 2, 4, 1]), "there is no third tensor");
        assert!(refused(&[2, 1, 4, 1, 0, 4, 1]) && refused(&[2, 1, 4, 1, 1, 4, 1]), "not ascending");
        assert!(refused(&[1, 1, 3, 1]) && refused(&[1, 1, 2, 1]) && refused(&[1, 1, 0, 1]) && refused(&[1, 1, 6, 1]));
        assert!(refused(&[1, 1, 4, 2]) && refused(&[1, 1, 4]) && refused(&[1, 1, 4, 1, 0]));
    }
}
