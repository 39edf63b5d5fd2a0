//! A directory for what must be on a disk to be measured.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A new directory among the temporary files, which is removed with what is in it.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Scratch, Failure> {
        let path = std::env::temp_dir().join(format!("bigsmall-benchmark-{}", std::process::id()));
        fs::create_dir(&path).map_err(|e| cannot("make", &path, &e))?;
        Ok(Scratch { path })
    }

    /// Makes a directory in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(|e| cannot("make", &path, &e))?;
        Ok(path)
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(|e| cannot("write", &path, &e))?;
        Ok(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> Result<(), Failure> {
        fs::remove_dir_all(&self.path).map_err(|e| cannot("remove", &self.path, &e))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever went wrong is told already; after `remove` there is nothing left.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: cannot {what} it: {error}", path.display()))
}
