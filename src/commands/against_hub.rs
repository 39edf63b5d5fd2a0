//! `bigsmall verify --against-hub`: whether originals are what the Hub has, without writing them out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use bigsmall_codec::container::shown_name;
use bigsmall_codec::{Original, Progress, Stored};

use crate::failure::Failure;
use crate::hub::api::File;
use crate::hub::digest::ContentId;
use crate::hub::settings::Settings;
use crate::hub::{Hub, RepoPath, Source};

/// The files of a repo and their hashes.
#[derive(Debug)]
pub struct Listing {
    source: Source,
    files: BTreeMap<RepoPath, File>,
}

/// How an original and a file of the Hub compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// What is different.
    Different(String),
    /// The Hub has no such file.
    Unknown(String),
}

impl Listing {
    /// Asks the Hub.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn of(source: &Source) -> Result<Listing, Failure> {
        let hub = Hub::new(Settings::from_environment()?)?;
        let files = hub.files(&hub.revision(source)?)?;
        let files = files.into_iter().map(|file| (file.path.clone(), file)).collect();
        Ok(Listing { source: source.clone(), files })
    }

    /// Compares the original that `stored` holds, which lies at `relative` below the directory that is checked. What a container
    /// records of its original must have been compared with what it decodes to.
    ///
    /// # Errors
    /// When the original must be read to know its hash and cannot be.
    pub fn compare(&self, relative: &Path, stored: &Stored, progress: &dyn Progress) -> Result<Verdict, Failure> {
        let name = relative.file_name().unwrap_or_default();
        let shown = shown_name(name, stored.original_name());
        let names = [shown.as_deref(), Some(OsStr::new(stored.original_name()))];
        let path = |name: &OsStr| RepoPath::of(&relative.with_file_name(name)).ok();
        let known = names.into_iter().flatten().find_map(|name| self.files.get(&path(name)?));
        let Some(file) = known else {
            let original = shown.unwrap_or_else(|| stored.original_name().into());
            let original = relative.with_file_name(original);
            return Ok(Verdict::Unknown(format!("{} has no file {}", self.source, original.display())));
        };
        if file.size != stored.len() {
            let (here, there) = (stored.len(), file.size);
            let what = format!("{} in {} has {there} bytes, the original here {here}", file.path, self.source);
            return Ok(Verdict::Different(what));
        }
        let id = match (file.id, stored.sha256()) {
            (ContentId::Sha256(_), Some(sha256)) => ContentId::Sha256(*sha256),
            _ => ContentId::of(stored, &file.id, progress)?,
        };
        if id == file.id {
            return Ok(Verdict::Same);
        }
        let what = format!("{} in {} has the hash {}, the original here {id}", file.path, self.source, file.id);
        Ok(Verdict::Different(what))
    }
}
