//! Which names the mount shows, and what stands behind them. Knows no FUSE.
//!
//! A directory of the source is shown with these changes: a container `x.bs` appears as `x` with the extension of the
//! name that it records, and is itself hidden. Where that cannot be, it stays visible as the plain file it is: if it
//! cannot be opened (then whoever looks sees that something is wrong, and can copy it), if a real file has the name
//! already, if the name would be too long, or if another container comes first. Of two containers with one name, the one whose own name is the
//! shorter comes first: `x.bs` before `x.safetensors.bs`.
//!
//! In the place of the index of a directory that the Python package prepared, the index that loaders look for appears.
//!
//! With [`Recognise::ByContent`], a file of any other name that is a container appears as its original under its own
//! name. So does the cache of the Hugging Face Hub, whose files are named by hashes, with links leading to them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigsmall_codec::Stored;
use bigsmall_codec::container::EXTENSION;
use bigsmall_codec::upstream::{HUB_INDEX, LOADER_INDEX, ORIGINAL_NAME, TensorCache};
use rayon::prelude::*;
use rustix::fs::{FsWord, statfs};

use crate::containers::{Containers, Facts, Identity, Opened};
use crate::nodes::Behind;
use crate::ways::Ways;

/// The bytes that programs expect the name of a file to have at most.
const LONGEST_NAME: usize = 255;

/// The type of file systems that put layers together, in which files have the devices and inodes of their layers, and directories do not say which.
const OVERLAY_FS: FsWord = 0x794c_7630;

/// Entries of a directory that one thread lists faster than others wake up.
const LISTED_ALONE: usize = 32;

/// What stands behind a name.
#[derive(Clone)]
pub enum Kind {
    /// A directory of the source.
    Directory,
    /// A file or link of the source, shown as it is.
    Plain,
    /// The original of a container.
    Virtual(Facts),
}

/// A file, directory or link that the mount shows.
#[derive(Clone)]
pub struct Entry {
    /// Where it lies in the source; the container's path for a virtual file.
    pub path: PathBuf,
    /// The metadata of that file; of the container itself, links resolved, for a virtual file.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// The size that the mount shows, in bytes.
    pub fn len(&self) -> u64 {
        match &self.kind {
            Kind::Virtual(facts) => facts.len,
            _ => self.metadata.len(),
        }
    }

    /// Whether it is the original of a container.
    pub fn is_virtual(&self) -> bool {
        matches!(self.kind, Kind::Virtual(_))
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The name.
    pub name: OsString,
    /// Whether it is a directory, a link, ...
    pub file_type: fs::FileType,
    /// What it is numbered by.
    pub behind: Behind,
}

/// Which files are taken for containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recognise {
    /// Those that are called `*.bs`.
    #[default]
    ByName,
    /// Those besides that are containers whatever they are called.
    ByContent,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory and all below it.
    Directory(PathBuf),
    /// One container, shown alone in a directory of its own.
    Container(PathBuf),
}

/// The names that are shown.
pub struct View {
    source: Source,
    recognise: Recognise,
    containers: Arc<Containers>,
    ways: Arc<Ways>,
}

impl View {
    /// The view of `source`, `for_others` if users other than the one who mounts look at it. Tensors that can be decoded only as a whole are kept
    /// in `tensors`.
    pub fn new(source: Source, recognise: Recognise, for_others: bool, tensors: Arc<TensorCache>) -> View {
        let (containers, ways) = (Arc::new(Containers::new(tensors)), Arc::new(Ways::new(for_others)));
        View { source, recognise, containers, ways }
    }

    /// Which ways lead through the source.
    pub(crate) fn ways(&self) -> &Arc<Ways> {
        &self.ways
    }

    /// The containers that are shown.
    pub fn containers(&self) -> &Arc<Containers> {
        &self.containers
    }

    /// What is mounted.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The directory that stands behind the root of the mount. For a single container it is the one that it lies in,
    /// though nothing else of it is shown.
    pub fn root(&self) -> &Path {
        match &self.source {
            Source::Directory(path) => path,
            Source::Container(path) => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        }
    }

    /// What the mount shows as `name` in the source's directory `dir`.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when nothing is shown under that name, and those of the source.
    pub fn look_up(&self, dir: &Path, name: &OsStr) -> io::Result<Entry> {
        if let Source::Container(container) = &self.source {
            return self.look_up_single(container, name);
        }
        self.ways.check(dir)?;
        let path = dir.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => {
                if self.shown_instead(dir, name)?.is_some() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                if let Some(facts) = self.recognised(&path, name, &metadata)? {
                    return Ok(virtual_entry(path, facts));
                }
                let kind = if metadata.is_dir() { Kind::Directory } else { Kind::Plain };
                return Ok(Entry { path, metadata, kind });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for container in container_names(name) {
            if let Some(facts) = self.container(dir, &container)?
                && facts.shown_name() == Some(name)
            {
                return Ok(virtual_entry(dir.join(&container), facts));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// All that the mount shows in the source's directory `dir`, by name.
    ///
    /// # Errors
    /// Those of reading the directory. Entries that vanish meanwhile are left out.
    pub fn list(&self, dir: &Path) -> io::Result<Vec<Shown>> {
        if let Source::Container(container) = &self.source {
            let opened = self.open_single(container)?;
            return Ok(vec![virtual_name(single_name(container, &opened), &opened.metadata)]);
        }
        self.ways.check(dir)?;
        let device = device_of_files(dir)?;
        let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        let shown_of = |entry| self.shown(dir, device, entry).transpose();
        let mut shown = if entries.len() < LISTED_ALONE {
            entries.iter().filter_map(shown_of).collect::<io::Result<Vec<Shown>>>()?
        } else {
            // Containers are opened to be listed, and each waits for the disk.
            entries.par_iter().filter_map(shown_of).collect::<io::Result<Vec<Shown>>>()?
        };
        shown.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(shown)
    }

    /// What the mount shows of an entry of the source's directory `dir`, whose files are on `device` if that is known; `None` if the
    /// entry vanished.
    fn shown(&self, dir: &Path, device: Option<u64>, entry: &fs::DirEntry) -> io::Result<Option<Shown>> {
        let (name, Ok(file_type)) = (entry.file_name(), entry.file_type()) else { return Ok(None) };
        if let Some(facts) = self.shown_instead(dir, &name)? {
            // A link to a container shows the file, not the link.
            return Ok(facts.shown_name().map(|shown| virtual_name(shown.to_owned(), &facts.metadata)));
        }
        // Of most files all is known without asking for each.
        let behind = if !file_type.is_file() && !file_type.is_symlink() {
            Behind::Place
        } else if let Some(device) = device.filter(|_| file_type.is_file() && self.recognise == Recognise::ByName) {
            Behind::Plain(device, entry.ino())
        } else {
            let Ok(metadata) = entry.metadata() else { return Ok(None) };
            let recognised = self.recognised(&entry.path(), &name, &metadata)?;
            let version = |facts: Facts| Behind::Version(Identity::of(&facts.metadata));
            recognised.map_or_else(|| Behind::plain(&metadata), version)
        };
        Ok(Some(Shown { name, file_type, behind }))
    }

    /// The container `name`, if the mount shows its original under a name that it has instead; `None` when it shows `name` itself.
    fn shown_instead(&self, dir: &Path, name: &OsStr) -> io::Result<Option<Facts>> {
        let Some(facts) = self.container(dir, name)? else { return Ok(None) };
        let Some(shown) = facts.shown_name() else { return Ok(None) };
        if shown.len() > LONGEST_NAME || fs::symlink_metadata(dir.join(shown)).is_ok() {
            return Ok(None);
        }
        // Another container that is shown under this name and comes first?
        for rival in container_names(shown).into_iter().take_while(|rival| rival != name) {
            if self.container(dir, &rival)?.is_some_and(|rival| rival.shown_name() == Some(shown)) {
                return Ok(None);
            }
        }
        Ok(Some(facts))
    }

    /// The file `name` at `path`, if it is a container that is recognised by its content alone.
    fn recognised(&self, path: &Path, name: &OsStr, metadata: &Metadata) -> io::Result<Option<Facts>> {
        if self.recognise == Recognise::ByName || !metadata.is_file() || may_be_container(name) {
            return Ok(None);
        }
        // So that nothing is said of files that are none and do not claim to be.
        let known = self.containers.known(path, metadata);
        if !known && !Stored::is_stored(path).unwrap_or(false) {
            return Ok(None);
        }
        self.containers.facts(path, metadata)
    }

    /// The container called `name` in `dir`, if there is one that can be opened. A link leads to one if it may be followed.
    ///
    /// # Errors
    /// When there are not the means to open it.
    fn container(&self, dir: &Path, name: &OsStr) -> io::Result<Option<Facts>> {
        if !may_be_container(name) {
            return Ok(None);
        }
        let path = dir.join(name);
        // What a link leads to may change between being looked at and being opened, and then it is looked at again.
        for _ in 0..2 {
            let Ok((metadata, is_link)) = self.metadata(&path) else { break };
            if !metadata.is_file() {
                break;
            }
            match self.containers.facts(&path, &metadata)? {
                Some(facts) if is_link && Identity::of(&facts.metadata) != Identity::of(&metadata) => {}
                facts => return Ok(facts),
            }
        }
        Ok(None)
    }

    /// The metadata of what lies at `path`, or where that leads if it is a link, and whether it is.
    fn metadata(&self, path: &Path) -> io::Result<(Metadata, bool)> {
        match fs::symlink_metadata(path)? {
            link if link.is_symlink() => Ok((fs::symlink_metadata(self.ways.follow(path)?)?, true)),
            metadata => Ok((metadata, false)),
        }
    }

    fn look_up_single(&self, container: &Path, name: &OsStr) -> io::Result<Entry> {
        let opened = self.open_single(container)?;
        if single_name(container, &opened) != name {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(virtual_entry(container.to_owned(), Facts::of(container, &opened)))
    }

    fn open_single(&self, container: &Path) -> io::Result<Opened> {
        self.ways.check(self.root())?;
        let opened = self.containers.open(container, &self.metadata(container)?.0);
        opened.map_err(|error| io::Error::other(error.to_string()))
    }
}

/// The device of all files in the directory `dir` of the source; `None` if each may have one of its own.
fn device_of_files(dir: &Path) -> io::Result<Option<u64>> {
    let layered = statfs(dir)?.f_type == OVERLAY_FS;
    Ok(if layered { None } else { Some(fs::metadata(dir)?.dev()) })
}

/// Whether a name is that of a container.
fn may_be_container(name: &OsStr) -> bool {
    name == HUB_INDEX || Path::new(name).extension() == Some(OsStr::new(EXTENSION))
}

/// The name of the only file of a mounted container: as in a directory, or the recorded name if the container's own
/// does not end in `.bs`.
fn single_name(container: &Path, opened: &Opened) -> OsString {
    let own = container.file_name().unwrap_or_default();
    let recorded = || opened.original.stored().map_or(ORIGINAL_NAME, Stored::original_name).into();
    opened.original.shown_name(own).unwrap_or_else(recorded)
}

/// The original of a container at `path`.
fn virtual_entry(path: PathBuf, facts: Facts) -> Entry {
    Entry { path, metadata: (*facts.metadata).clone(), kind: Kind::Virtual(facts) }
}

/// The name of the original of a container.
fn virtual_name(name: OsString, metadata: &Metadata) -> Shown {
    Shown { name, file_type: metadata.file_type(), behind: Behind::Version(Identity::of(metadata)) }
}

/// The names of containers that might be shown as `shown`, in the order in which they are considered.
fn container_names(shown: &OsStr) -> Vec<OsString> {
    let with_extension = |stem: &OsStr| {
        let mut name = stem.to_owned();
        name.push(".");
        name.push(EXTENSION);
        name
    };
    let mut names = Vec::new();
    // As `Path` sees it: a name that begins with its only dot has no extension.
    if let (Some(stem), Some(_)) = (Path::new(shown).file_stem(), Path::new(shown).extension())
        && stem.as_bytes() != shown.as_bytes()
    {
        names.push(with_extension(stem));
    }
    names.push(with_extension(shown));
    if shown == LOADER_INDEX {
        names.push(HUB_INDEX.into());
    }
    names
}
