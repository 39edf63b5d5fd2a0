//! A file that holds an original in one of the forms that are known: a container, or a `.bs` file of the Python package.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::Progress;
use crate::container::{CodecUsage, Container, first_bytes, is_container};
use crate::decompress::decompress;
use crate::error::{Error, Result};
use crate::original::{ChunkIndex, Grid, Original, PlainFile};
use crate::output::NewFile;
use crate::parity::sidecar_path;
use crate::patch::{Base, BaseRecord};
use crate::upstream::{self, PackageParity, TensorCache, UpstreamFile};
use crate::verify::{self, Report, Sample};

/// An open file that holds an original. What forms there are matters to few; to most it is an [`Original`].
#[derive(Debug)]
pub enum Stored {
    /// One of our containers.
    Container(Box<Container>),
    /// A file of the Python package.
    Upstream(Box<UpstreamFile>),
}

/// A tensor of an original, as every form knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dtype as the header of a safetensors file spells it.
    pub dtype: &'a str,
    /// Its dimensions.
    pub shape: &'a [u64],
    /// Where its bytes lie in the original.
    pub range: Range<u64>,
}

/// How a tensor of an original is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTensorUsage {
    /// What each codec stores of it.
    pub codecs: Vec<StoredUsage>,
    /// The tensor with the same bytes that is stored instead of it, by its position among all.
    pub twin: Option<usize>,
}

/// How much of an original is stored by one codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUsage {
    /// The name of the codec.
    pub codec: String,
    /// What it stores: chunks of a container, tensors of a file of the Python package.
    pub pieces: u64,
    /// Bytes of the original in them.
    pub original_len: u64,
    /// Bytes of the file that they take.
    pub stored_len: u64,
}

/// What is decoded, and put right, in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A chunk of a container.
    Chunk(ChunkIndex),
    /// A tensor of a file of the Python package, by its name.
    Tensor(&'a str),
}

impl std::fmt::Display for Piece<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Chunk(chunk) => write!(f, "chunk {}", chunk.0),
            Piece::Tensor(name) => write!(f, "tensor {name:?}"),
        }
    }
}

impl From<CodecUsage> for StoredUsage {
    fn from(usage: CodecUsage) -> StoredUsage {
        StoredUsage {
            codec: usage.codec.name().to_owned(),
            pieces: usage.chunks,
            original_len: usage.original_len,
            stored_len: usage.stored_len,
        }
    }
}

impl Stored {
    /// Opens the file at `path`, whatever its name. `cache` keeps tensors that can be decoded only as a whole.
    ///
    /// # Errors
    /// Those of [`Container::open`] and [`UpstreamFile::open`].
    pub fn open(path: &Path, cache: &Arc<TensorCache>) -> Result<Stored> {
        Stored::from_file(PlainFile::open(path)?, path, cache)
    }

    /// As [`open`](Stored::open), but what is damaged is put right while it is read, as far as the sidecar beside the file goes: see
    /// [`Container::open_protected`] and [`UpstreamFile::from_protected_file`].
    ///
    /// # Errors
    /// As [`open`](Stored::open).
    pub fn open_protected(path: &Path, cache: &Arc<TensorCache>) -> Result<Stored> {
        Stored::from_protected_file(PlainFile::open(path)?, path, cache)
    }

    /// As [`open`](Stored::open), of a file that was opened at `path` before.
    ///
    /// # Errors
    /// As [`open`](Stored::open).
    pub fn from_file(file: PlainFile, path: &Path, cache: &Arc<TensorCache>) -> Result<Stored> {
        match upstream::is_upstream(&first_bytes(&file)?) {
            true => UpstreamFile::from_file(file, path, cache).map(|file| Stored::Upstream(file.into())),
            false => Container::from_file(file, path).map(|file| Stored::Container(file.into())),
        }
    }

    /// As [`open_protected`](Stored::open_protected), of a file that was opened at `path` before.
    ///
    /// # Errors
    /// As [`open`](Stored::open).
    pub fn from_protected_file(file: PlainFile, path: &Path, cache: &Arc<TensorCache>) -> Result<Stored> {
        // The sidecar tells what a file is whose beginning is lost.
        let start = first_bytes(&file)?;
        let is_upstream = upstream::is_upstream(&start)
            || !is_container(&start) && PackageParity::is_one(&sidecar_path(path)).unwrap_or(false);
        match is_upstream {
            true => UpstreamFile::from_protected_file(file, path, cache).map(|file| Stored::Upstream(file.into())),
            false => Container::from_protected_file(file, path).map(|file| Stored::Container(file.into())),
        }
    }

    /// The same, which calls `tell` whenever a damaged piece was put right while it was read, with what it is: see
    /// [`Container::on_mended`] and [`UpstreamFile::on_mended`].
    pub fn on_mended(self, tell: impl Fn(&Piece<'_>) + Send + Sync + 'static) -> Stored {
        match self {
            Stored::Container(container) => {
                Stored::Container(container.on_mended(move |chunk| tell(&Piece::Chunk(chunk))).into())
            }
            Stored::Upstream(file) => {
                Stored::Upstream(file.on_mended(move |tensor| tell(&Piece::Tensor(tensor))).into())
            }
        }
    }

    /// Whether it could be opened thanks to its sidecar alone; then nobody is [told](Stored::on_mended) of what was put right.
    pub fn has_mended_index(&self) -> bool {
        match self {
            Stored::Container(container) => container.has_mended_index(),
            Stored::Upstream(file) => file.has_mended_header(),
        }
    }

    /// Whether the file at `path` starts as one that holds an original does, whatever its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when it cannot be read.
    pub fn is_stored(path: &Path) -> Result<bool> {
        let start = first_bytes(&PlainFile::open(path)?)?;
        Ok(upstream::is_upstream(&start) || is_container(&start))
    }

    /// The name that the original had. The Python package does not record it, and writes safetensors files alone.
    pub fn original_name(&self) -> &str {
        match self {
            Stored::Container(container) => container.original_name(),
            Stored::Upstream(_) => upstream::ORIGINAL_NAME,
        }
    }

    /// The size of the file in bytes.
    pub fn stored_len(&self) -> u64 {
        match self {
            Stored::Container(container) => container.stored_len(),
            Stored::Upstream(file) => file.stored_len(),
        }
    }

    /// The SHA-256 of the original, if it is recorded.
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        match self {
            Stored::Container(container) => Some(container.sha256()),
            Stored::Upstream(_) => None,
        }
    }

    /// The tensors, by the position of their bytes.
    pub fn tensors(&self) -> Vec<StoredTensor<'_>> {
        match self {
            Stored::Container(container) => container
                .tensors()
                .iter()
                .map(|tensor| StoredTensor {
                    name: &tensor.name,
                    dtype: &tensor.dtype,
                    shape: &tensor.shape,
                    range: tensor.range.clone(),
                })
                .collect(),
            Stored::Upstream(file) => file
                .tensors()
                .iter()
                .map(|tensor| StoredTensor {
                    name: &tensor.name,
                    dtype: tensor.dtype,
                    shape: &tensor.shape,
                    range: tensor.range.clone(),
                })
                .collect(),
        }
    }

    /// What each codec stores.
    pub fn codec_usage(&self) -> Vec<StoredUsage> {
        match self {
            Stored::Container(container) => container.codec_usage().into_iter().map(StoredUsage::from).collect(),
            Stored::Upstream(file) => file.codec_usage(),
        }
    }

    /// How each of the [tensors](Stored::tensors) is stored, in their order.
    pub fn tensor_usage(&self) -> Vec<StoredTensorUsage> {
        match self {
            Stored::Container(container) => {
                let usage = container.tensor_usage().into_iter().map(|usage| StoredTensorUsage {
                    codecs: usage.codecs.into_iter().map(StoredUsage::from).collect(),
                    twin: usage.twin,
                });
                usage.collect()
            }
            Stored::Upstream(file) => file.tensor_usage(),
        }
    }

    /// What it says about its base, if it is a patch.
    pub fn base_record(&self) -> Option<&BaseRecord> {
        match self {
            Stored::Container(container) => container.base_record(),
            Stored::Upstream(_) => None,
        }
    }

    /// The patch over its base.
    ///
    /// # Errors
    /// Those of [`Container::with_base`].
    pub fn with_base(self, base: Base) -> Result<Stored> {
        match self {
            Stored::Container(container) => {
                container.with_base(base).map(|container| Stored::Container(container.into()))
            }
            Stored::Upstream(_) => Err(Error::invalid("it is no patch of this program and takes no base")),
        }
    }

    /// The MD5s of its tensors that are recorded and can be relied on, by name.
    pub fn tensor_md5s(&self) -> Vec<(String, [u8; 16])> {
        match self {
            Stored::Container(container) => {
                container.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.md5)).collect()
            }
            // Those of the Python package are not of the bytes as they are in the file.
            Stored::Upstream(_) => Vec::new(),
        }
    }

    /// Fails when something else is needed to read it that it has not been given.
    ///
    /// # Errors
    /// [`ErrorKind::BaseMissing`](crate::ErrorKind::BaseMissing), [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    pub fn check_complete(&self) -> Result<()> {
        match self {
            Stored::Container(container) => container.check_complete(),
            Stored::Upstream(file) if file.needs_base() => Err(Error::unsupported(
                "the difference from another model, made by the Python package; it cannot be read without that model",
            )),
            _ => Ok(()),
        }
    }

    /// Reads and decodes everything and compares it with all that is recorded to compare it with. Damage does not end it.
    ///
    /// # Errors
    /// Only [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn verify(&self, progress: &dyn Progress) -> Result<Report> {
        match self {
            Stored::Container(container) => verify::verify(container, progress),
            Stored::Upstream(file) => file.verify(progress),
        }
    }

    /// As [`verify::sample`].
    ///
    /// # Errors
    /// Only [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn sample(&self, fraction: f64, seed: u64, progress: &dyn Progress) -> Result<Sample> {
        verify::sample(self.original(), &self.tensor_ranges(), fraction, seed, progress)
    }

    /// Decodes everything and compares it byte by byte with `source`. The report has no [`Cause`](verify::Cause) but
    /// [`Difference`](verify::Cause::Difference) and [`Chunk`](verify::Cause::Chunk).
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), and those of reading `source`.
    pub fn compare_with(&self, source: &dyn Original, progress: &dyn Progress) -> Result<Report> {
        verify::compare_bytes(self.original(), &self.tensor_ranges(), source, progress)
    }

    fn tensor_ranges(&self) -> Vec<Range<u64>> {
        self.tensors().into_iter().map(|tensor| tensor.range).collect()
    }

    /// Writes the original to `out`.
    ///
    /// # Errors
    /// Those of [`decompress`](crate::decompress()).
    pub fn decompress(&self, out: &NewFile, progress: &dyn Progress) -> Result<()> {
        match self {
            Stored::Container(container) => decompress(&**container, out, progress),
            Stored::Upstream(file) => file.decompress(out, progress),
        }
    }

    fn original(&self) -> &dyn Original {
        match self {
            Stored::Container(container) => &**container,
            Stored::Upstream(file) => &**file,
        }
    }
}

impl Original for Stored {
    fn grid(&self) -> &Grid {
        self.original().grid()
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.original().decode_chunk(chunk, out)
    }

    fn check_unchanged(&self) -> Result<()> {
        self.original().check_unchanged()
    }

    fn stamp(&self) -> Result<Vec<u8>> {
        self.original().stamp()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.original().read_at(offset, buf)
    }
}
