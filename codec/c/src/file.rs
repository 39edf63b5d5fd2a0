//! An open file and its tensors.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::Arc;

use bigsmall_codec::patch::{Check, Model, ModelTensor};
use bigsmall_codec::{Error, ErrorKind, Original, PlainFile, Result, Stored};
use rayon::prelude::*;

/// Bytes that are read together, at least.
const PART: u64 = 1 << 20;

/// An open file: `bigsmall_file`.
#[derive(Debug)]
pub struct File {
    model: Arc<Model>,
    /// Unless it is a plain file.
    stored: Option<Arc<Stored>>,
    tensors: Vec<Found>,
    by_name: HashMap<Vec<u8>, usize>,
}

/// A tensor of an open file.
#[derive(Debug)]
pub(crate) struct Found {
    /// With a zero behind it, and perhaps others before.
    name: Vec<u8>,
    dtype: CString,
    shape: Vec<u64>,
    offset: u64,
    len: u64,
}

/// What a caller gets to see of it: `bigsmall_tensor`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tensor {
    name: *const c_char,
    name_len: usize,
    dtype: *const c_char,
    shape: *const u64,
    dims: usize,
    offset: u64,
    len: u64,
    dlpack_code: u8,
    dlpack_bits: u8,
}

impl File {
    /// Opens the file at `path`; over the model that these files are, if it is a patch.
    pub(crate) fn open(path: &Path, bases: &[&File]) -> Result<File> {
        let (stored, original): (_, Arc<dyn Original>) = if Stored::is_stored(path)? {
            let stored =
                Arc::new(over(Stored::open_protected(path, &Arc::default())?, bases).map_err(|e| e.in_file(path))?);
            (Some(Arc::clone(&stored)), stored)
        } else {
            (None, Arc::new(PlainFile::open(path)?))
        };
        let mut model = Model::new(&path.to_string_lossy());
        model.add(&path.to_string_lossy(), original).map_err(|e| e.in_file(path))?;
        if stored.is_none() && model.tensors().is_empty() {
            return Err(Error::new(ErrorKind::NotAContainer, "neither a container nor a file of tensors").in_file(path));
        }
        let mut tensors: Vec<Found> = model.tensors().iter().map(Found::new).collect();
        tensors.sort_by_key(|tensor| (tensor.offset, tensor.len));
        let mut by_name = HashMap::new();
        for (number, tensor) in tensors.iter().enumerate() {
            by_name.entry(tensor.name().to_vec()).or_insert(number);
        }
        Ok(File { model: Arc::new(model), stored, tensors, by_name })
    }

    fn original(&self) -> &Arc<dyn Original> {
        self.model.original(0)
    }

    /// The container, if it is one of ours.
    #[cfg(feature = "cuda")]
    pub(crate) fn container(&self) -> Option<&bigsmall_codec::Container> {
        match self.stored.as_deref() {
            Some(Stored::Container(container)) => Some(container),
            _ => None,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.original().len()
    }

    pub(crate) fn tensors(&self) -> &[Found] {
        &self.tensors
    }

    pub(crate) fn find(&self, name: &[u8]) -> Result<&Found> {
        let missing = || Error::invalid(format!("there is no tensor {:?}", String::from_utf8_lossy(name)));
        self.by_name.get(name).map(|&number| &self.tensors[number]).ok_or_else(missing)
    }

    /// Where so many bytes of the original from `offset` on end, if it has them.
    pub(crate) fn end_of(&self, offset: u64, len: usize) -> Result<u64> {
        let (end, all) = (offset.checked_add(len as u64), self.len());
        end.filter(|&end| end <= all)
            .ok_or_else(|| Error::invalid(format!("a read of {len} bytes at {offset} reaches beyond the end at {all}")))
    }

    /// Decodes the bytes of the original from `offset` on, on all threads.
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        let (original, end) = (self.original(), self.end_of(offset, to.len())?);
        // Cut between chunks, so that none is decoded twice.
        let (mut parts, mut rest, mut from) = (Vec::new(), to, offset);
        for chunk in original.grid().chunks_of(offset..end) {
            let until = original.grid().range(chunk).end.min(end);
            if until - from >= PART || until == end {
                let (part, behind) = rest.split_at_mut((until - from) as usize);
                parts.push((from, part));
                (rest, from) = (behind, until);
            }
        }
        parts.into_par_iter().try_for_each(|(from, part)| original.read_at(from, part))
    }
}

/// A file over the model that `bases` are, if it is a patch.
fn over(stored: Stored, bases: &[&File]) -> Result<Stored> {
    let Some(record) = stored.base_record().filter(|_| !bases.is_empty()) else {
        stored.check_complete()?;
        return Ok(stored);
    };
    let mut model = Model::new("the base");
    for base in bases {
        let name = base.model.name();
        match &base.stored {
            Some(stored) => model.add_stored(name, Arc::clone(stored))?,
            None => model.add(name, Arc::clone(base.original()))?,
        }
    }
    // Each chunk is compared with what it was coded against in any case.
    let base = model.base_for(record, Check::Probe, &())?;
    stored.with_base(base)
}

impl Found {
    fn new(tensor: &ModelTensor) -> Found {
        Found {
            name: [tensor.name.as_bytes(), &[0]].concat(),
            dtype: CString::new(tensor.dtype.replace('\0', " ")).unwrap_or_default(),
            shape: tensor.shape.clone(),
            offset: tensor.range.start,
            len: tensor.byte_len(),
        }
    }

    fn name(&self) -> &[u8] {
        &self.name[..self.name.len() - 1]
    }

    /// What a caller gets to see.
    pub(crate) fn describe(&self) -> Tensor {
        let (dlpack_code, dlpack_bits) = dlpack(self.dtype.to_bytes());
        Tensor {
            name: self.name.as_ptr().cast(),
            name_len: self.name().len(),
            dtype: self.dtype.as_ptr(),
            shape: self.shape.as_ptr(),
            dims: self.shape.len(),
            offset: self.offset,
            len: self.len,
            dlpack_code,
            dlpack_bits,
        }
    }
}

/// The code and bits of DLPack's `DLDataType` (version 1.1).
fn dlpack(dtype: &[u8]) -> (u8, u8) {
    const INT: u8 = 0;
    const UINT: u8 = 1;
    const FLOAT: u8 = 2;
    const BFLOAT: u8 = 4;
    const COMPLEX: u8 = 5;
    const BOOL: u8 = 6;
    const FLOAT8_E4M3FN: u8 = 10;
    const FLOAT8_E5M2: u8 = 12;
    const FLOAT8_E8M0FNU: u8 = 14;
    match dtype {
        b"BOOL" => (BOOL, 8),
        b"U8" => (UINT, 8),
        b"U16" => (UINT, 16),
        b"U32" => (UINT, 32),
        b"U64" => (UINT, 64),
        b"I8" => (INT, 8),
        b"I16" => (INT, 16),
        b"I32" => (INT, 32),
        b"I64" => (INT, 64),
        b"F16" => (FLOAT, 16),
        b"F32" => (FLOAT, 32),
        b"F64" => (FLOAT, 64),
        b"BF16" => (BFLOAT, 16),
        b"C64" => (COMPLEX, 64),
        b"F8_E4M3" => (FLOAT8_E4M3FN, 8),
        b"F8_E5M2" => (FLOAT8_E5M2, 8),
        b"F8_E8M0" => (FLOAT8_E8M0FNU, 8),
        _ => (0, 0),
    }
}
