//! `bigsmall compress --in-place`: containers in the place of the files that they are made from.
//!
//! Nothing is taken away before the container is on disk and every byte that it decodes to has been compared with the file.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bigsmall_codec::container::{self, Options};
use bigsmall_codec::output::{Attributes, Existing, NewFile, sync_name};
use bigsmall_codec::verify::compare_with;
use bigsmall_codec::{Container, Error, ErrorKind, PlainFile};

use super::compress::{WEIGHTS, container_name, holds_weights, recorded_name};
use crate::failure::Failure;
use crate::transfer::Start;
use crate::tree::{self, Identity};
use crate::ui::progress::{Meter, Quiet};

/// The longest header of a safetensors file that its readers take, in bytes.
const LONGEST_HEADER: u64 = 100 << 20;

/// Which files are compressed, and what their containers are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Those called `x.safetensors` or `x.gguf`; their containers are called `x.bs`.
    Named,
    /// Those that begin as safetensors or GGUF files do; their containers get their names. So the cache of the Hub stays as it is
    /// for those who know its names.
    Recognised,
}

/// A file to compress.
#[derive(Debug)]
pub struct Candidate {
    pub path: PathBuf,
    pub len: u64,
    /// Where its container goes.
    pub target: PathBuf,
}

/// What became of a file.
#[derive(Debug)]
pub struct Replaced {
    /// Where it was.
    pub source: PathBuf,
    /// Where its container is; `None` when that would not be smaller, and the file was left.
    pub container: Option<PathBuf>,
    pub original_len: u64,
    pub stored_len: u64,
    /// Bytes of the original that an earlier run had coded.
    pub resumed_len: u64,
    pub sha256: [u8; 32],
    pub time: Duration,
}

/// The files at `source`, or in it and below it, that are to be compressed. Symbolic links are not followed: what they
/// lead to is replaced where it lies, or belongs to somebody else. A file with several names is left as well, since only one
/// of them would lead to the container.
///
/// # Errors
/// When something cannot be read, a target exists, or there is nothing to do (for [`Kind::Named`]).
pub fn candidates(source: &Path, kind: Kind) -> Result<Vec<Candidate>, Failure> {
    let metadata = tree::source_metadata(source)?;
    let mut found = Vec::new();
    if metadata.is_file() {
        super::compress::refuse_container(source)?;
        found.push(candidate(source.to_owned(), &metadata, kind));
    } else if metadata.is_dir() {
        add_directory(source, kind, &mut found)?;
    } else {
        return Err(tree::refuse_oddity(source, &metadata));
    }
    // (A cache may be compressed again and again, as it fills.)
    if found.is_empty() && kind == Kind::Named {
        return Err(Failure::new(format!(
            "{}: there is no {WEIGHTS} in it that can be replaced: nothing to compress",
            source.display()
        )));
    }
    for Candidate { path, target, .. } in &found {
        if path != target && fs::symlink_metadata(target).is_ok() && !is_container_of(target, path) {
            return Err(Failure::new(format!(
                "{}: exists already, so {} cannot be replaced by it; move one of them first",
                target.display(),
                path.display()
            )));
        }
    }
    Ok(found)
}

fn candidate(path: PathBuf, metadata: &Metadata, kind: Kind) -> Candidate {
    let target = match kind {
        Kind::Named => path.with_file_name(container_name(&path)),
        Kind::Recognised => path.clone(),
    };
    Candidate { path, len: metadata.len(), target }
}

fn add_directory(directory: &Path, kind: Kind, found: &mut Vec<Candidate>) -> Result<(), Failure> {
    let cannot_read = |e| Error::io("cannot be read", e).in_file(directory);
    let entries = fs::read_dir(directory).map_err(cannot_read)?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(cannot_read)?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind_of_entry) = (entry.path(), entry.file_type().map_err(cannot_read)?);
        if kind_of_entry.is_dir() {
            add_directory(&path, kind, found)?;
        } else if kind_of_entry.is_file() && is_wanted(&path, kind)? {
            let metadata = entry.metadata().map_err(cannot_read)?;
            if metadata.nlink() == 1 {
                found.push(candidate(path, &metadata, kind));
            }
        }
    }
    Ok(())
}

fn is_wanted(path: &Path, kind: Kind) -> Result<bool, Failure> {
    match kind {
        Kind::Named => Ok(holds_weights(path)),
        // What is being downloaded.
        Kind::Recognised if path.extension() == Some(OsStr::new("incomplete")) => Ok(false),
        Kind::Recognised => begins_as_weights(path).map_err(|e| Error::io("cannot be read", e).in_file(path).into()),
    }
}

/// Whether a file begins with the length of a header and a JSON object, and is longer than both, or as a GGUF file does.
fn begins_as_weights(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut start = [0; 9];
    if file.read(&mut start)? < start.len() {
        return Ok(false);
    }
    if start.starts_with(b"GGUF") {
        return Ok(true);
    }
    let header = u64::from_le_bytes(start[..8].try_into().expect("they are 8"));
    Ok(start[8] == b'{' && header <= LONGEST_HEADER && 8 + header <= file.metadata()?.len())
}

/// Whether the file at `target` is a container that was made of `path`, by a run that was killed before it removed that.
fn is_container_of(target: &Path, path: &Path) -> bool {
    let same = || -> bigsmall_codec::Result<bool> {
        let (container, source) = (Container::open(target)?, PlainFile::open(path)?);
        Ok(compare_with(&container, &source, &())?.is_sound())
    };
    same().unwrap_or(false)
}

/// Replaces a file by its container, unless that is not smaller.
///
/// # Errors
/// When it cannot be done; the file is then still there.
pub fn replace(candidate: &Candidate, options: &Options, resume: Start, meter: &Meter) -> Result<Replaced, Failure> {
    let start = Instant::now();
    let Candidate { path, target, .. } = candidate;
    let source = PlainFile::open(path)?;
    let stat = |file: &File| file.metadata().map_err(|e| Error::io("cannot be read", e).in_file(path));
    let before = stat(source.file())?;
    // Left by a run that was killed: compared when it was found.
    let finished = path != target && fs::symlink_metadata(target).is_ok();
    let existing = if path == target || finished { Existing::Replace } else { Existing::Refuse };
    let mut file = match resume {
        Start::Anew => NewFile::create(target, existing)?,
        Start::Resume => NewFile::resume(target, existing)?,
    };
    let summary = container::compress_file(&source, &recorded_name(path), options, None, &mut file, meter)?;
    let mut replaced = Replaced {
        source: path.clone(),
        container: None,
        original_len: summary.original_len,
        stored_len: summary.stored_len,
        resumed_len: summary.kept_len,
        sha256: summary.sha256,
        time: Duration::ZERO,
    };
    if summary.stored_len < summary.original_len {
        let container = Container::from_store(Box::new(file.contents()?)).map_err(|e| e.in_file(target))?;
        let report = compare_with(&container, &source, &Quiet(meter))?;
        if !report.is_sound() {
            return Err(Failure::new(format!(
                "{}: what was written does not decode to it, and was removed again; is the disk or the memory faulty?",
                path.display()
            )));
        }
        drop(container);
        let now = fs::symlink_metadata(path).map_err(|e| Error::io("cannot be read", e).in_file(path))?;
        let changed = |one: &Metadata, other: &Metadata| {
            Identity::of(one) != Identity::of(other)
                || (one.len(), one.modified().ok()) != (other.len(), other.modified().ok())
        };
        if changed(&before, &now) {
            return Err(Error::new(ErrorKind::SourceChanged, "the file changed while it was read")
                .in_file(path)
                .into());
        }
        file.commit(&Attributes::of(&before))?;
        if path != target {
            fs::remove_file(path).map_err(|e| Error::io("cannot be removed", e).in_file(path))?;
            sync_name(path)?;
        }
        replaced.container = Some(target.clone());
    }
    replaced.time = start.elapsed();
    Ok(replaced)
}
