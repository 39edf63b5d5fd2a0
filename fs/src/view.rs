//! Which names the mount shows, and what stands behind them. Knows no FUSE.
//!
//! A directory of the source is shown with these changes: a container `x.bs` appears as `x` with the extension of the
//! name that it records, and is itself hidden. Where that cannot be, it stays visible as the plain file it is: if it
//! cannot be opened (then whoever looks sees that something is wrong, and can copy it), if a real file has the name
//! already, or if another container comes first. Of two containers with one name, the one whose own name is the
//! shorter comes first: `x.bs` before `x.safetensors.bs`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigsmall_codec::Original;
use bigsmall_codec::container::{EXTENSION, shown_name};

use crate::containers::{Containers, Identity, Opened};

/// What stands behind a name.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory of the source.
    Directory,
    /// A file or link of the source, shown as it is.
    Plain,
    /// The original of a container.
    Virtual(Opened),
}

/// A file, directory or link that the mount shows.
#[derive(Clone, Debug)]
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
            Kind::Virtual(opened) => opened.container.len(),
            _ => self.metadata.len(),
        }
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
    /// The version of its container, if it is a virtual file.
    pub version: Option<Identity>,
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
    containers: Arc<Containers>,
}

impl View {
    /// The view of `source`.
    pub fn new(source: Source) -> View {
        View { source, containers: Arc::new(Containers::new()) }
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
        let path = dir.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => {
                if self.shown_instead(dir, name)?.is_some() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let kind = if metadata.is_dir() { Kind::Directory } else { Kind::Plain };
                return Ok(Entry { path, metadata, kind });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for container in container_names(name) {
            if let Some((path, metadata, opened)) = self.container(dir, &container)?
                && shown_name(&container, opened.container.original_name()).as_deref() == Some(name)
            {
                return Ok(Entry { path, metadata, kind: Kind::Virtual(opened) });
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
            let metadata = fs::metadata(container)?;
            return Ok(vec![virtual_name(self.single_name(container)?, &metadata)]);
        }
        let mut shown = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Ok(file_type) = entry.file_type() else { continue };
            match self.shown_instead(dir, &name) {
                // A link to a container shows the file, not the link.
                Ok(Some(instead)) => shown.extend(fs::metadata(entry.path()).map(|m| virtual_name(instead, &m))),
                Ok(None) => shown.push(Shown { name, file_type, version: None }),
                Err(_) => {}
            }
        }
        shown.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(shown)
    }

    /// The name under which the mount shows the original of the container `name` instead of the container; `None` when
    /// it shows `name` itself.
    fn shown_instead(&self, dir: &Path, name: &OsStr) -> io::Result<Option<OsString>> {
        let Some((_, _, opened)) = self.container(dir, name)? else { return Ok(None) };
        let Some(shown) = shown_name(name, opened.container.original_name()) else { return Ok(None) };
        if fs::symlink_metadata(dir.join(&shown)).is_ok() {
            return Ok(None);
        }
        // Another container that is shown under this name and comes first?
        for rival in container_names(&shown) {
            if rival == name {
                break;
            }
            if let Some((_, _, rival_opened)) = self.container(dir, &rival)?
                && shown_name(&rival, rival_opened.container.original_name()).as_ref() == Some(&shown)
            {
                return Ok(None);
            }
        }
        Ok(Some(shown))
    }

    /// The container called `name` in `dir`, if there is one that can be opened.
    fn container(&self, dir: &Path, name: &OsStr) -> io::Result<Option<(PathBuf, Metadata, Opened)>> {
        if Path::new(name).extension() != Some(OsStr::new(EXTENSION)) {
            return Ok(None);
        }
        let path = dir.join(name);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            _ => return Ok(None),
        };
        Ok(self.containers.open(&path, &metadata).ok().map(|opened| (path, metadata, opened)))
    }

    fn look_up_single(&self, container: &Path, name: &OsStr) -> io::Result<Entry> {
        if self.single_name(container)? != name {
            return Err(io::ErrorKind::NotFound.into());
        }
        let metadata = fs::metadata(container)?;
        let opened = self.open_single(container, &metadata)?;
        Ok(Entry { path: container.to_owned(), metadata, kind: Kind::Virtual(opened) })
    }

    fn open_single(&self, container: &Path, metadata: &Metadata) -> io::Result<Opened> {
        self.containers.open(container, metadata).map_err(|error| io::Error::other(error.to_string()))
    }

    /// The name of the only file of a mounted container: as in a directory, or the recorded name if the container's own
    /// does not end in `.bs`.
    fn single_name(&self, container: &Path) -> io::Result<OsString> {
        let opened = self.open_single(container, &fs::metadata(container)?)?;
        let recorded = opened.container.original_name();
        let own = container.file_name().unwrap_or_default();
        Ok(shown_name(own, recorded).unwrap_or_else(|| recorded.into()))
    }
}

/// The name of the original of a container with this metadata.
fn virtual_name(name: OsString, metadata: &Metadata) -> Shown {
    Shown { name, file_type: metadata.file_type(), version: Some(Identity::of(metadata)) }
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
    names
}
