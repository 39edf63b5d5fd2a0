//! The tensors of a base that one patch needs.

use std::sync::Arc;

use super::record::BaseRecord;
use crate::error::{Error, Result};
use crate::original::Original;

/// Where a tensor of the base is.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) original: Arc<dyn Original>,
    /// Where it begins there.
    pub(super) offset: u64,
}

/// The tensors of a base that one patch needs, each in some original. [`Model::base_for`](super::Model::base_for) makes one.
#[derive(Clone)]
pub struct Base {
    /// One for each tensor of the record.
    parts: Vec<Part>,
    /// Where each ends, counted over all of them.
    ends: Vec<u64>,
    record: BaseRecord,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("name", &self.record.name).finish_non_exhaustive()
    }
}

impl Base {
    /// The base that consists of these parts, one for each tensor of `record`, each of which lies in its original.
    pub(super) fn new(parts: Vec<Part>, record: BaseRecord) -> Base {
        let ends = record
            .tensors
            .iter()
            .scan(0, |end, tensor| {
                *end += tensor.len;
                Some(*end)
            })
            .collect();
        Base { parts, ends, record }
    }

    /// What the base was taken for.
    pub fn record(&self) -> &BaseRecord {
        &self.record
    }

    /// The originals that it is read from, each once.
    fn distinct(&self) -> Vec<&Arc<dyn Original>> {
        let mut distinct: Vec<&Arc<dyn Original>> = Vec::new();
        for original in self.originals() {
            let is_it = |other: &&Arc<dyn Original>| Arc::as_ptr(other).cast::<()>() == Arc::as_ptr(original).cast();
            if !distinct.iter().any(is_it) {
                distinct.push(original);
            }
        }
        distinct
    }

    /// The originals that it is read from, each at least once.
    pub fn originals(&self) -> impl Iterator<Item = &Arc<dyn Original>> {
        self.parts.iter().map(|part| &part.original)
    }

    /// Fails if any of the originals has changed since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.distinct().into_iter().try_for_each(|original| original.check_unchanged())
    }

    /// The [stamps](Original::stamp) of the originals.
    pub(crate) fn stamp(&self) -> Result<Vec<u8>> {
        let stamps = self.distinct().into_iter().map(|original| original.stamp()).collect::<Result<Vec<_>>>()?;
        Ok(stamps.concat())
    }

    /// The name of the tensor that byte `offset`, counted over all tensors, belongs to.
    pub(crate) fn name_at(&self, offset: u64) -> &str {
        let at = self.ends.partition_point(|&end| end <= offset);
        self.record.tensors.get(at).map_or("", |tensor| &tensor.name)
    }

    /// Fills `buf` with the bytes from `offset` on, counted over all tensors.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut at = self.ends.partition_point(|&end| end <= offset);
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let Some((part, &end)) = self.parts.get(at).zip(self.ends.get(at)) else {
                return Err(Error::invalid("a read reaches beyond the end of the base"));
            };
            let tensor = &self.record.tensors[at];
            let within = offset - (end - tensor.len);
            let len = (end - offset).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(len);
            let read = |at: u64, buf: &mut [u8]| part.original.read_at(part.offset + at, buf);
            let done = match tensor.order {
                Some(order) => order.read_at(tensor.len / tensor.shape[0], within, now, read),
                None => read(within, now),
            };
            done.map_err(|error| error.context(format_args!("base {:?}, tensor {:?}", self.record.name, tensor.name)))?;
            (offset, rest, at) = (end, later, at + 1);
        }
        Ok(())
    }
}
