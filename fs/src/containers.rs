//! Open containers, found again by path as long as the file there is the same.
//!
//! What stands for another file is a container here: ours, those of the Python package, and that package's index of a
//! directory, which stands for the index that loaders look for.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use bigsmall_codec::container::shown_name;
use bigsmall_codec::patch::{Base, BaseRecord};
use bigsmall_codec::upstream::{HUB_INDEX, HubIndex, LOADER_INDEX, TensorCache};
use bigsmall_codec::{ChunkIndex, Error, ErrorKind, Grid, Memory, Original, PlainFile, Stored};
use lru::LruCache;
use rustix::process::{Resource, getrlimit};

use crate::cache::FileId;
use crate::lock::lock;

/// How many containers are kept open between uses at most. Each costs a file descriptor and its index; those in use by open
/// files stay open however many they are.
const KEPT_OPEN: u64 = 256;

/// How many are kept open between uses: at most a quarter of the files that this process may have open.
fn kept_open() -> NonZeroUsize {
    let may_be_open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    NonZeroUsize::new(KEPT_OPEN.min(may_be_open / 4) as usize).unwrap_or(NonZeroUsize::MIN)
}

/// Of how many containers is remembered what listing them takes, some 400 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

/// What tells one version of a file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// The identity of the file with this metadata.
    pub fn of(metadata: &Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is shown in the place of a file.
pub enum Shown {
    /// The original that it holds.
    Stored(Stored),
    /// For the Python package's index of a directory, the index of the same tensors as loaders expect it; `None` when they
    /// need none.
    Index(Option<Memory>),
}

impl Shown {
    /// Opens what is called `path`.
    fn open(file: PlainFile, path: &Path, tensors: &Arc<TensorCache>) -> Result<Shown, Error> {
        if path.file_name() == Some(OsStr::new(HUB_INDEX)) {
            let index = HubIndex::read(&file).map_err(|e| if e.io_error().is_some() { e } else { e.in_file(path) })?;
            let needed = index.files() > 1;
            return Ok(Shown::Index(needed.then(|| Memory::new(index.for_loaders().into_bytes()))));
        }
        let stored = Stored::from_protected_file(file, path, tensors)?;
        // The base of a patch is looked for when it is needed; those of the Python package are not.
        if stored.base_record().is_none() {
            stored.check_complete().map_err(|e| e.in_file(path))?;
        }
        Ok(Shown::Stored(stored))
    }

    /// The name under which it is shown where the file is called `name`; `None` when the file is shown instead.
    pub fn shown_name(&self, name: &OsStr) -> Option<OsString> {
        match self {
            Shown::Stored(stored) => shown_name(name, stored.original_name()),
            Shown::Index(index) => index.as_ref().map(|_| LOADER_INDEX.into()),
        }
    }

    /// Whether it keeps what it has decoded until all of that was read, so that nobody else need.
    pub fn keeps_what_it_decodes(&self) -> bool {
        !matches!(self, Shown::Stored(Stored::Container(_)))
    }

    /// What a patch says about its base, if it is one that has not been given its base.
    pub fn wants_base(&self) -> Option<&BaseRecord> {
        self.stored().filter(|stored| stored.check_complete().is_err())?.base_record()
    }

    /// The container or file that the original is stored in; `None` for an index.
    pub fn stored(&self) -> Option<&Stored> {
        match self {
            Shown::Stored(stored) => Some(stored),
            Shown::Index(_) => None,
        }
    }

    fn original(&self) -> &dyn Original {
        static NOTHING: LazyLock<Memory> = LazyLock::new(|| Memory::new(Vec::new()));
        match self {
            Shown::Stored(stored) => stored,
            Shown::Index(Some(index)) => index,
            Shown::Index(None) => &*NOTHING,
        }
    }
}

impl Original for Shown {
    fn grid(&self) -> &Grid {
        self.original().grid()
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<(), Error> {
        self.original().decode_chunk(chunk, out)
    }

    fn check_unchanged(&self) -> Result<(), Error> {
        self.original().check_unchanged()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.original().read_at(offset, buf)
    }
}

/// An open container.
#[derive(Clone)]
pub struct Opened {
    /// What is shown in its place.
    pub original: Arc<Shown>,
    /// Its name in the cache of chunks, given to no other version of the file.
    pub id: FileId,
    /// The metadata of its file, taken from the open file: nothing else can be in its place meanwhile.
    pub metadata: Arc<Metadata>,
}

/// What is shown of a container without opening it.
#[derive(Clone)]
pub struct Facts {
    /// The metadata of its file.
    pub metadata: Arc<Metadata>,
    /// Bytes of what is shown in its place.
    pub len: u64,
    shown_name: Option<OsString>,
}

impl Facts {
    /// Those of `opened`, which lies at `path`.
    pub(crate) fn of(path: &Path, opened: &Opened) -> Facts {
        let shown_name = opened.original.shown_name(path.file_name().unwrap_or_default());
        Facts { metadata: Arc::clone(&opened.metadata), len: opened.original.len(), shown_name }
    }

    /// The name under which it is shown instead of the container; `None` when the container is shown.
    pub fn shown_name(&self) -> Option<&OsStr> {
        self.shown_name.as_deref()
    }
}

/// The outcome of opening a file as a container: the container, or why it is none.
type Outcome = Result<Opened, Arc<Error>>;

/// Containers by path.
pub struct Containers {
    kept: Mutex<LruCache<PathBuf, (Identity, Outcome)>>,
    /// What was learnt of each when it was opened; `None` if it was none.
    remembered: Mutex<LruCache<PathBuf, (Identity, Option<Facts>)>>,
    next_id: AtomicU64,
    healed: Arc<AtomicU64>,
    /// Tensors of all files that are decoded tensor by tensor.
    tensors: Arc<TensorCache>,
}

impl Containers {
    /// None yet. Tensors that can be decoded only as a whole are kept in `tensors`.
    pub fn new(tensors: Arc<TensorCache>) -> Containers {
        let (kept, remembered) = (Mutex::new(LruCache::new(kept_open())), Mutex::new(LruCache::new(REMEMBERED)));
        Containers { kept, remembered, next_id: AtomicU64::new(0), healed: Arc::default(), tensors }
    }

    /// How often a damaged chunk was decoded thanks to the sidecar of its container.
    pub fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    /// The container at `path`, whose metadata is `metadata`; opened now, or before if the file is still the same.
    ///
    /// # Errors
    /// Those of [`Stored::open`], remembered until the file changes, except those that may pass by themselves.
    pub fn open(&self, path: &Path, metadata: &Metadata) -> Outcome {
        let identity = Identity::of(metadata);
        if let Some((known, outcome)) = lock(&self.kept).get(path)
            && *known == identity
        {
            return outcome.clone();
        }
        // Two threads may do this at once; then both do it, and one result stays.
        let (identity, outcome) = self.open_now(path, identity);
        if let Err(error) = &outcome {
            tracing::warn!("{error}");
            if matches!(error.kind(), ErrorKind::Io(_)) {
                return outcome;
            }
        }
        let facts = outcome.as_ref().ok().map(|opened| Facts::of(path, opened));
        lock(&self.remembered).put(path.to_owned(), (identity, facts));
        lock(&self.kept).put(path.to_owned(), (identity, outcome.clone()));
        outcome
    }

    /// What is shown of the container at `path`, whose metadata is `metadata`; `None` when it cannot be opened. It is opened if
    /// it never was.
    ///
    /// # Errors
    /// When this process lacks memory or descriptors: it may well be a container.
    pub fn facts(&self, path: &Path, metadata: &Metadata) -> io::Result<Option<Facts>> {
        if let Some(facts) = self.remembered(path, metadata) {
            return Ok(facts);
        }
        match self.open(path, metadata) {
            Ok(opened) => Ok(Some(Facts::of(path, &opened))),
            Err(error) => match error.io_error().and_then(io::Error::raw_os_error) {
                Some(errno @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => Err(io::Error::from_raw_os_error(errno)),
                _ => Ok(None),
            },
        }
    }

    /// Whether the file at `path`, with this metadata, has been opened as a container and was one.
    pub fn known(&self, path: &Path, metadata: &Metadata) -> bool {
        matches!(self.remembered(path, metadata), Some(Some(_)))
    }

    fn remembered(&self, path: &Path, metadata: &Metadata) -> Option<Option<Facts>> {
        let mut remembered = lock(&self.remembered);
        let (identity, facts) = remembered.get(path)?;
        (*identity == Identity::of(metadata)).then(|| facts.clone())
    }

    /// The outcome and the identity of what was opened, which is not `expected` where the file has just been replaced.
    fn open_now(&self, path: &Path, expected: Identity) -> (Identity, Outcome) {
        let mut identity = expected;
        let opened = PlainFile::open(path).and_then(|file| {
            let metadata = file.file().metadata().map_err(|e| Error::io("cannot stat the file", e).in_file(path))?;
            identity = Identity::of(&metadata);
            let original = self.open_file(file, path)?;
            Ok(Opened {
                original: Arc::new(original),
                id: FileId(self.next_id.fetch_add(1, Ordering::Relaxed)),
                metadata: Arc::new(metadata),
            })
        });
        (identity, opened.map_err(Arc::new))
    }

    /// What is shown in the place of an open file called `path`.
    fn open_file(&self, file: PlainFile, path: &Path) -> Result<Shown, Error> {
        let original = Shown::open(file, path, &self.tensors)?;
        tracing::debug!("{}: opened", path.display());
        let Shown::Stored(stored) = original else { return Ok(original) };
        if stored.has_mended_index() {
            tracing::warn!(
                "{}: its index is damaged: it is read through its sidecar, and should be repaired",
                path.display()
            );
        }
        if let Stored::Upstream(_) = stored {
            tracing::info!(
                "{}: was written by the Python package and is decoded tensor by tensor: bigsmall migrate makes it fast",
                path.display()
            );
        }
        let (healed, of) = (Arc::clone(&self.healed), path.to_owned());
        Ok(Shown::Stored(stored.on_mended(move |piece| {
            healed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "{}: {piece} is damaged: it was restored from the sidecar; the file should be repaired",
                of.display()
            );
        })))
    }

    /// The patch `opened`, which lies at `path`, over its base.
    ///
    /// # Errors
    /// When it has been replaced meanwhile or cannot be opened again.
    pub(crate) fn over(&self, opened: &Opened, path: &Path, base: Base) -> Result<Opened, Error> {
        let file = PlainFile::open(path)?;
        let metadata = file.file().metadata().map_err(|e| Error::io("cannot stat the file", e).in_file(path))?;
        if Identity::of(&metadata) != Identity::of(&opened.metadata) {
            return Err(Error::new(ErrorKind::SourceChanged, "the patch was replaced").in_file(path));
        }
        let Shown::Stored(stored) = self.open_file(file, path)? else {
            return Err(Error::invalid("not a patch").in_file(path));
        };
        let original = Shown::Stored(stored.with_base(base).map_err(|e| e.in_file(path))?);
        // It decodes to the same whatever its base is read from.
        Ok(Opened { original: Arc::new(original), id: opened.id, metadata: Arc::clone(&opened.metadata) })
    }
}

impl Default for Containers {
    fn default() -> Self {
        Containers::new(Arc::default())
    }
}
