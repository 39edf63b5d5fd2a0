//! A whole model: the tensors of all its files, wherever they lie.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::base::{Base, Part};
use super::order::RowOrder;
use super::record::{BaseRecord, BaseTensor, Fingerprint};
use crate::Progress;
use crate::checksum::checksum;
use crate::diff::Tensor;
use crate::error::{Error, ErrorKind, Result};
use crate::hashes::{Md5, RangeHashes};
use crate::layout::Layout;
use crate::original::Original;
use crate::split::Element;
use crate::stored::Stored;
use crate::stream::cancelled;
use crate::wire::Put;

/// Bytes that are looked at in each of three places of a tensor.
const PROBE: u64 = 4 << 10;

/// Bytes that are hashed between two looks at the progress.
const STEP: u64 = 16 << 20;

/// How the base of a patch is compared with what the patch says about it.
///
/// Whatever is chosen: each chunk that is coded against the base carries a checksum of the base's bytes and is decoded with no
/// others, so that bytes of a wrong base are never taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// By the MD5 of each tensor that is needed, as its container records it or as it must be taken.
    Md5,
    /// By MD5s that are known and else by the probe of each tensor that is needed, which takes no time.
    Probe,
}

/// Asks whether to give up, but makes no progress: that is counted in bytes of something else.
struct Silent<'a>(&'a dyn Progress);

impl Progress for Silent<'_> {
    fn advance(&self, _: u64) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// A tensor of a [`Model`].
#[derive(Debug)]
pub struct ModelTensor {
    /// Its name.
    pub name: String,
    /// Its dtype as the header of its file spells it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// The number of the file that it is in.
    pub file: usize,
    /// Where its bytes lie in that file's original.
    pub range: Range<u64>,
    pub(crate) element: Element,
    md5: OnceLock<Md5>,
    probe: OnceLock<u64>,
}

impl ModelTensor {
    /// Its length in bytes.
    pub fn byte_len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The MD5 of its bytes, if it is known by now.
    pub fn md5(&self) -> Option<&[u8; 16]> {
        self.md5.get()
    }
}

struct File {
    name: String,
    original: Arc<dyn Original>,
}

/// The originals that a model consists of: one file, or several among which its tensors are distributed.
pub struct Model {
    name: String,
    files: Vec<File>,
    tensors: Vec<ModelTensor>,
    by_name: HashMap<String, usize>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Model {
    /// A model without files. The name is what patches call it.
    pub fn new(name: &str) -> Model {
        Model { name: name.to_owned(), files: Vec::new(), tensors: Vec::new(), by_name: HashMap::new() }
    }

    /// Adds a file. Of tensors with one name the first is meant by it.
    ///
    /// # Errors
    /// Those of reading its header.
    pub fn add(&mut self, file_name: &str, original: Arc<dyn Original>) -> Result<()> {
        self.add_known(file_name, original, &[])
    }

    /// The same with MD5s of tensors that are known, by name. They are believed.
    ///
    /// # Errors
    /// Those of reading its header.
    pub fn add_known(
        &mut self,
        file_name: &str,
        original: Arc<dyn Original>,
        md5s: &[(String, [u8; 16])],
    ) -> Result<()> {
        let known: HashMap<&str, [u8; 16]> = md5s.iter().map(|(name, md5)| (name.as_str(), *md5)).collect();
        let layout = Layout::of(&*original)?;
        for tensor in layout.tensors {
            let md5 = OnceLock::new();
            if let Some(known) = known.get(tensor.name.as_str()) {
                md5.set(*known).expect("nothing was set before");
            }
            self.by_name.entry(tensor.name.clone()).or_insert(self.tensors.len());
            self.tensors.push(ModelTensor {
                name: tensor.name,
                dtype: tensor.dtype,
                shape: tensor.shape,
                file: self.files.len(),
                range: tensor.range,
                element: tensor.element,
                md5,
                probe: OnceLock::new(),
            });
        }
        self.files.push(File { name: file_name.to_owned(), original });
        Ok(())
    }

    /// Adds the original of a container, or of a file of the Python package; a container's MD5s are believed.
    ///
    /// # Errors
    /// Those of reading the header of its original, and of [`Stored::check_complete`].
    pub fn add_stored(&mut self, file_name: &str, stored: Arc<Stored>) -> Result<()> {
        stored.check_complete()?;
        let md5s = stored.tensor_md5s();
        self.add_known(file_name, stored, &md5s)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// What a file was called when it was added.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn file_name(&self, file: usize) -> &str {
        &self.files[file].name
    }

    /// The bytes of all its originals.
    pub fn total_len(&self) -> u64 {
        self.files.iter().map(|file| file.original.len()).sum()
    }

    /// What it is called and the [stamps](Original::stamp) of its files.
    pub(crate) fn stamp(&self) -> Result<Vec<u8>> {
        let mut stamp = Vec::new();
        stamp.put_bytes(self.name.as_bytes());
        for file in &self.files {
            stamp.put_bytes(file.name.as_bytes());
            stamp.put_bytes(&file.original.stamp()?);
        }
        Ok(stamp)
    }

    /// The original of a file.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn original(&self, file: usize) -> &Arc<dyn Original> {
        &self.files[file].original
    }

    /// All tensors.
    pub fn tensors(&self) -> &[ModelTensor] {
        &self.tensors
    }

    /// The tensor of that name, the first if there are several.
    pub fn tensor(&self, name: &str) -> Option<&ModelTensor> {
        self.by_name.get(name).map(|&number| &self.tensors[number])
    }

    /// A tensor of the model as it is compared with others.
    pub fn view<'a>(&'a self, tensor: &'a ModelTensor) -> Tensor<'a> {
        Tensor {
            name: (&*tensor.name).into(),
            dtype: &tensor.dtype,
            shape: &tensor.shape,
            file: self.file_name(tensor.file),
            original: &**self.original(tensor.file),
            range: tensor.range.clone(),
            md5: tensor.md5().copied(),
        }
    }

    /// Bytes of the tensors whose MD5s are not known, of all or of those that a patch needs: the progress that
    /// [`identify`](Model::identify) makes, or [`base_for`](Model::base_for).
    pub fn unidentified(&self, record: Option<&BaseRecord>) -> u64 {
        let unknown = |tensor: &&ModelTensor| tensor.md5.get().is_none();
        match record {
            None => self.tensors.iter().filter(unknown).map(ModelTensor::byte_len).sum(),
            Some(record) => {
                let needed = record.tensors.iter().filter_map(|needed| self.tensor(&needed.name));
                needed.filter(unknown).map(ModelTensor::byte_len).sum()
            }
        }
    }

    /// Sees to it that the MD5s of all tensors are known. Makes progress by their bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], and those of reading.
    pub fn identify(&self, progress: &dyn Progress) -> Result<()> {
        self.identify_some(&self.tensors.iter().collect::<Vec<_>>(), progress)
    }

    /// The same for some of its tensors.
    fn identify_some(&self, tensors: &[&ModelTensor], progress: &dyn Progress) -> Result<()> {
        for (number, file) in self.files.iter().enumerate() {
            let mut unknown: Vec<&ModelTensor> =
                tensors.iter().copied().filter(|tensor| tensor.file == number && tensor.md5.get().is_none()).collect();
            unknown.sort_unstable_by_key(|tensor| tensor.range.start);
            let ranges: Vec<Range<u64>> = unknown.iter().map(|tensor| tensor.range.clone()).collect();
            let mut hashes = RangeHashes::new(&*file.original, &ranges);
            let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            for done in (0..total).step_by(STEP as usize) {
                if progress.cancelled() {
                    return Err(cancelled());
                }
                hashes.advance(ranges[0].start + done, STEP);
                progress.advance(STEP.min(total - done));
            }
            for (tensor, md5) in unknown.into_iter().zip(hashes.finish()) {
                let md5 = md5.map_err(|error| error.context(format_args!("{} of {:?}", file.name, self.name)))?;
                // Another thread may have been faster, with the same result.
                let _ = tensor.md5.set(md5);
            }
        }
        Ok(())
    }

    /// The fingerprint of the whole model.
    ///
    /// # Errors
    /// Those of [`identify`](Model::identify).
    pub fn fingerprint(&self, progress: &dyn Progress) -> Result<Fingerprint> {
        self.identify(progress)?;
        Ok(Fingerprint::of(self.tensors.iter().map(|tensor| {
            let md5 = *tensor.md5.get().expect("all tensors were identified");
            (tensor.name.as_str(), tensor.dtype.as_str(), tensor.shape.as_slice(), md5)
        })))
    }

    /// The probe of a tensor.
    ///
    /// # Errors
    /// Those of reading.
    pub fn probe(&self, tensor: &ModelTensor) -> Result<u64> {
        if let Some(&probe) = tensor.probe.get() {
            return Ok(probe);
        }
        let len = tensor.byte_len();
        let part = len.min(PROBE);
        let mut bytes = vec![0; 3 * part as usize];
        if part > 0 {
            let places = [0, (len - part) / 2, len - part];
            for (offset, bytes) in places.into_iter().zip(bytes.chunks_exact_mut(part as usize)) {
                self.files[tensor.file].original.read_at(tensor.range.start + offset, bytes)?;
            }
        }
        Ok(*tensor.probe.get_or_init(|| checksum(&bytes)))
    }

    /// What a patch says that needs these tensors of the model, each by its number, with its rows in an order of their own or another.
    pub(crate) fn record(&self, tensors: &[(usize, Option<RowOrder>)], progress: &dyn Progress) -> Result<BaseRecord> {
        let fingerprint = self.fingerprint(&Silent(progress))?;
        let tensor = |&(number, order): &(usize, Option<RowOrder>)| {
            let tensor = &self.tensors[number];
            Ok(BaseTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
                len: tensor.byte_len(),
                md5: *tensor.md5.get().expect("the fingerprint needs all of them"),
                probe: self.probe(tensor)?,
                order,
            })
        };
        let tensors = tensors.iter().map(tensor).collect::<Result<_>>()?;
        let (files, len) = (self.files.len() as u64, self.total_len());
        Ok(BaseRecord { name: self.name.clone(), fingerprint, files, len, tensors })
    }

    /// These tensors, each by its number, as the base of a patch that says so about them.
    pub(crate) fn base_of(&self, tensors: &[(usize, Option<RowOrder>)], record: BaseRecord) -> Base {
        Base::new(tensors.iter().map(|&(number, _)| self.part(&self.tensors[number])).collect(), record)
    }

    fn part(&self, tensor: &ModelTensor) -> Part {
        Part { original: self.files[tensor.file].original.clone(), offset: tensor.range.start }
    }

    /// The base of a patch, taken out of this model. Tensors are looked for by name and, where there is no such name, by what
    /// they hold. That the model has others besides, or others of those names that the patch does not need, is no matter.
    ///
    /// # Errors
    /// [`ErrorKind::WrongBase`] when a tensor is missing or differs, naming it; [`ErrorKind::Cancelled`], and those of reading.
    pub fn base_for(&self, record: &BaseRecord, check: Check, progress: &dyn Progress) -> Result<Base> {
        let mut candidates: Vec<&ModelTensor> = Vec::with_capacity(record.tensors.len());
        for needed in &record.tensors {
            candidates.push(self.candidate(needed).map_err(|error| self.wrong(record, error))?);
        }
        if check == Check::Md5 {
            self.identify_some(&candidates, progress)?;
        }
        for (needed, tensor) in record.tensors.iter().zip(&candidates) {
            let same = match tensor.md5.get() {
                Some(md5) => *md5 == needed.md5,
                None => self.probe(tensor)? == needed.probe,
            };
            if !same {
                let differs =
                    format!("tensor {:?} differs from that of the base which the patch was made of", needed.name);
                return Err(self.wrong(record, differs));
            }
        }
        Ok(Base::new(candidates.into_iter().map(|tensor| self.part(tensor)).collect(), record.clone()))
    }

    /// The tensor that may be the one that is needed, or why there is none.
    fn candidate(&self, needed: &BaseTensor) -> std::result::Result<&ModelTensor, String> {
        if let Some(tensor) = self.tensor(&needed.name) {
            if tensor.byte_len() != needed.len || tensor.dtype != needed.dtype {
                return Err(format!(
                    "tensor {:?} is {} {:?} there, not {} {:?}",
                    needed.name, tensor.dtype, tensor.shape, needed.dtype, needed.shape
                ));
            }
            return Ok(tensor);
        }
        self.tensors
            .iter()
            .filter(|tensor| tensor.byte_len() == needed.len)
            .find(|tensor| match tensor.md5.get() {
                Some(md5) => *md5 == needed.md5,
                None => self.probe(tensor).is_ok_and(|probe| probe == needed.probe),
            })
            .ok_or_else(|| format!("there is no tensor {:?}", needed.name))
    }

    fn wrong(&self, record: &BaseRecord, why: String) -> Error {
        Error::new(ErrorKind::WrongBase, format!("{:?} is not the base {}: {why}", self.name, record.description()))
    }
}
