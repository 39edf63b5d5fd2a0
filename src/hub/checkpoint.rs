//! What a pipeline has done, on disk after every step, so that it can be killed at any moment and go on.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::card::MOST_MD5S;
use super::{Error, ErrorKind, Result};

/// The directory, in that of the pipeline, which is the pipeline's own.
const DIRECTORY: &str = ".bigsmall";
const STATE: &str = "pipeline.json";
const LOCK: &str = "pipeline.lock";

/// The version of the file.
const VERSION: u32 = 1;

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// It is here, compressed and compared with what the Hub lists if it is to be.
    Stored,
    /// The Hub has it; it may be gone from here.
    Uploaded,
}

/// A file that was worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The id of what was fetched.
    pub source_id: String,
    /// Its size.
    pub original_bytes: u64,
    /// What it became, from the pipeline's directory on.
    pub file: String,
    pub stored_bytes: u64,
    /// The SHA-256 of what it became.
    pub sha256: String,
    pub step: Step,
    /// The names and the MD5s of its tensors if it became a container, for the model card.
    #[serde(default)]
    pub tensor_md5s: Vec<(String, String)>,
}

/// All that a pipeline knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The repo and the revision that were asked for.
    pub source: String,
    /// The commit that is worked on.
    pub commit: String,
    /// How it is compressed; `none` when it is not.
    pub mode: String,
    /// The repo that it goes to, if it goes to one.
    pub repo: Option<String>,
    /// All files that there are to work on, with their sizes.
    pub wanted: BTreeMap<String, u64>,
    pub files: BTreeMap<String, Record>,
    /// Whether all of it was done.
    pub finished: bool,
    /// The commit in `repo` that has it all.
    pub published: Option<String>,
    /// There are more tensors than a card lists, so that their MD5s are not kept.
    #[serde(default)]
    many_tensors: bool,
}

impl State {
    /// One in which nothing was done.
    pub fn new(source: String, commit: String, mode: String, repo: Option<String>) -> State {
        let (wanted, files) = Default::default();
        let (finished, published, many_tensors) = Default::default();
        State { version: VERSION, source, commit, mode, repo, wanted, files, finished, published, many_tensors }
    }

    /// Notes what became of a file.
    pub fn note(&mut self, path: &str, record: Record) {
        self.files.insert(path.to_owned(), record);
        let tensors: usize = self.files.values().map(|record| record.tensor_md5s.len()).sum();
        self.many_tensors |= tensors > MOST_MD5S;
        if self.many_tensors {
            self.files.values_mut().for_each(|record| record.tensor_md5s.clear());
        }
    }

    /// That of the pipeline in a directory, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(directory: &Path) -> Result<Option<State>> {
        let path = directory.join(DIRECTORY).join(STATE);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Error::file(&path, "cannot be read", &e))?,
        };
        let unknown = |why: String| {
            let advice = "remove it to begin anew; files that are whole are not fetched again";
            Error::new(
                ErrorKind::Other,
                format!("{}: is not what a pipeline has written: {why}\n{advice}", path.display()),
            )
        };
        let state: State = serde_json::from_slice(&text).map_err(|e| unknown(e.to_string()))?;
        if state.version == VERSION { Ok(Some(state)) } else { Err(unknown(format!("version {}", state.version))) }
    }
}

/// The state of a pipeline at work.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    state: Mutex<State>,
    /// Holds the lock.
    _lock: File,
}

/// Makes the directory of a pipeline and keeps others out of it for as long as the result lives.
///
/// # Errors
/// When another pipeline is at work there.
pub fn lock(directory: &Path) -> Result<File> {
    let own = directory.join(DIRECTORY);
    fs::create_dir_all(&own).map_err(|e| Error::file(&own, "cannot be created", &e))?;
    let path = own.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| Error::file(&path, "cannot be created", &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::Other, format!("{}: another pipeline is at work in it", directory.display())))
        }
        Err(TryLockError::Error(e)) => Err(Error::file(&path, "cannot be locked", &e)),
    }
}

impl Checkpoint {
    /// Goes on from `state` in a directory that is [locked](lock()).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(directory: &Path, state: State, lock: File) -> Result<Checkpoint> {
        let path = directory.join(DIRECTORY).join(STATE);
        let checkpoint = Checkpoint { path, state: Mutex::new(state), _lock: lock };
        checkpoint.change(|_| ())?;
        Ok(checkpoint)
    }

    /// What is known now.
    pub fn state(&self) -> State {
        self.state.lock().expect("no thread panics with it").clone()
    }

    /// Notes something, on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock().expect("no thread panics with it");
        change(&mut state);
        let text = serde_json::to_string_pretty(&*state).expect("it has text for keys");
        let temporary = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)
        };
        write().map_err(|e| Error::file(&self.path, "cannot be written", &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_tensors_nothing_is_kept() {
        let mut state = State::new("org/x".into(), "0".repeat(40), "balanced".into(), None);
        let record = |tensors: usize| Record {
            source_id: String::new(),
            original_bytes: 1,
            file: "x.bs".into(),
            stored_bytes: 1,
            sha256: String::new(),
            step: Step::Stored,
            tensor_md5s: vec![("t".into(), "0".repeat(32)); tensors],
        };
        let kept = |state: &State| state.files.values().map(|record| record.tensor_md5s.len()).sum::<usize>();
        state.note("a", record(MOST_MD5S));
        assert_eq!(kept(&state), MOST_MD5S);
        state.note("b", record(1));
        state.note("c", record(1));
        assert_eq!((kept(&state), state.files.len()), (0, 3));
    }

    #[test]
    fn what_was_noted_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        assert!(State::read(directory.path()).unwrap().is_none());
        let state = State::new("org/x".into(), "0".repeat(40), "balanced".into(), None);
        let checkpoint = Checkpoint::new(directory.path(), state, lock(directory.path()).unwrap()).unwrap();
        let message = lock(directory.path()).unwrap_err().to_string();
        assert!(message.ends_with("another pipeline is at work in it"), "{message}");
        checkpoint.change(|state| state.finished = true).unwrap();
        assert!(State::read(directory.path()).unwrap().unwrap().finished);
        drop(checkpoint);
        lock(directory.path()).unwrap();
        fs::write(directory.path().join(DIRECTORY).join(STATE), "{").unwrap();
        assert!(State::read(directory.path()).unwrap_err().to_string().contains("begin anew"));
    }
}
