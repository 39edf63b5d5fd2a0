//! What is in a directory and below it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A file or directory below a root.
#[derive(Debug)]
pub struct Entry {
    /// Where it is, the root included.
    pub path: PathBuf,
    /// Where it is, from the root on.
    pub relative: PathBuf,
    /// What it is, symbolic links followed.
    pub metadata: Metadata,
}

/// What to do about things that are neither files nor directories, and links that lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddities {
    /// Fail: all of the directory is wanted.
    Refuse,
    /// Pass over them: they are not what is looked for.
    Skip,
}

/// All files and directories below a root, by name, each directory before what is in it.
///
/// Symbolic links count as what they lead to: the cache of Hugging Face is made of them.
#[derive(Debug, Default)]
pub struct Tree {
    pub directories: Vec<Entry>,
    pub files: Vec<Entry>,
}

impl Tree {
    /// The tree below the directory `root`.
    ///
    /// # Errors
    /// When a directory cannot be read, a link leads back into a directory that it is in, or there is an oddity that is
    /// to be refused. All name it.
    pub fn read(root: &Path, oddities: Oddities) -> Result<Tree, Failure> {
        let metadata = fs::metadata(root).map_err(|e| cannot_read(root, &e))?;
        let mut tree = Tree::default();
        tree.add(root, Path::new(""), oddities, &mut vec![Identity::of(&metadata)])?;
        Ok(tree)
    }

    /// Adds what is in `directory`. `above` are the directories from the root to it.
    fn add(
        &mut self,
        directory: &Path,
        relative: &Path,
        oddities: Oddities,
        above: &mut Vec<Identity>,
    ) -> Result<(), Failure> {
        let names = fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>());
        let mut names = names.map_err(|e| cannot_read(directory, &e))?;
        names.sort_unstable();
        for name in names {
            let (path, relative) = (directory.join(&name), relative.join(&name));
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(_) if oddities == Oddities::Skip && is_link(&path) => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound && is_link(&path) => {
                    return Err(refused(&path, "is a symbolic link that leads nowhere"));
                }
                Err(e) => return Err(cannot_read(&path, &e)),
            };
            if metadata.is_file() {
                self.files.push(Entry { path, relative, metadata });
            } else if metadata.is_dir() {
                let identity = Identity::of(&metadata);
                if above.contains(&identity) {
                    if oddities == Oddities::Skip {
                        continue;
                    }
                    return Err(refused(&path, "is a symbolic link that leads back into a directory that it is in"));
                }
                self.directories.push(Entry { path: path.clone(), relative: relative.clone(), metadata });
                above.push(identity);
                self.add(&path, &relative, oddities, above)?;
                above.pop();
            } else if oddities == Oddities::Refuse {
                return Err(refused(&path, kind_of_oddity(&metadata)));
            }
        }
        Ok(())
    }
}

/// What makes two paths lead to the same file: its device and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of an existing file or directory.
    pub fn of(metadata: &Metadata) -> Identity {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What is at `path`, links followed; for a source that the user named.
///
/// # Errors
/// When there is nothing, or nothing that can be looked at.
pub fn source_metadata(path: &Path) -> Result<Metadata, Failure> {
    fs::metadata(path).map_err(|e| cannot_read(path, &e))
}

/// Says that `path` is neither a file nor a directory.
pub fn refuse_oddity(path: &Path, metadata: &Metadata) -> Failure {
    refused(path, kind_of_oddity(metadata))
}

fn kind_of_oddity(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "is a named pipe, not a file or directory"
    } else if kind.is_socket() {
        "is a socket, not a file or directory"
    } else {
        "is a device, not a file or directory"
    }
}

fn refused(path: &Path, what: &str) -> Failure {
    Failure::new(format!("{}: {what}", path.display()))
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::new(match error.kind() {
        io::ErrorKind::NotFound => format!("{}: no such file or directory", path.display()),
        _ => format!("{}: cannot be read: {error}", path.display()),
    })
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}
