//! The bases of patches: looked for when a patch is opened, and where they are.
//!
//! A patch says which tensors it was made of, by MD5, wherever they lie. Any model in the source, in the directories that were named, or in
//! the cache of the Hugging Face Hub that has them will do: a plain file, a container, or a patch over a base of its own. A search
//! takes as long as it takes to look at the headers of all that is there, so that it is not done by a thread that takes requests; what has
//! come of it is kept: where a base was found, until one of its files changes, where none was, for a second.
//!
//! A plain file has no MD5s. It is compared by a few kilobytes of each tensor that is needed, which tells any other model apart; and
//! each chunk of a patch has the checksum of what it is decoded with, so that bytes of another base are never taken.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bigsmall_codec::container::EXTENSION;
use bigsmall_codec::patch::{Base, BaseRecord, Check, Model};
use bigsmall_codec::{ChunkIndex, Error, ErrorKind, Grid, Original, PlainFile, Stored};
use lru::LruCache;

use crate::cache::{ChunkCache, Reader, Store};
use crate::containers::{Containers, Identity, Opened};
use crate::lock::lock;
use crate::models::{Depth, ModelFiles, Part, in_directory};

/// How many patches are kept open with their bases.
const KEPT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How long it is believed that there is no base.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest chain of patches.
const LONGEST_CHAIN: usize = 16;

/// The most models that are remembered not to be the base of a patch.
const MOST_REFUSED: usize = 1 << 16;

/// Where bases are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A directory, or a file.
    pub path: PathBuf,
    /// How much of a directory.
    pub depth: Depth,
}

/// A patch over its base, or why it has none, as people say it.
pub type Outcome = Result<Opened, Arc<str>>;

/// Bases by patches.
pub struct Bases {
    containers: Arc<Containers>,
    cache: Arc<ChunkCache>,
    places: Vec<Place>,
    /// What lies in the mount is no base: whoever decodes must not wait for the mount.
    mountpoint: PathBuf,
    known: Mutex<LruCache<PathBuf, Known>>,
    /// Held by who searches.
    refused: Mutex<Refused>,
}

/// What is known of the base of a patch.
struct Known {
    /// The patch that it is known of.
    patch: Identity,
    outcome: Result<Complete, Arc<str>>,
    since: Instant,
}

/// A patch over its base.
#[derive(Clone)]
struct Complete {
    opened: Opened,
    /// The files that it depends on, those of the bases of its base included.
    files: Vec<(PathBuf, Identity)>,
}

/// The models that were found not to be the base of a patch: there is no need to look at them again.
#[derive(Default)]
struct Refused(HashMap<(Identity, Vec<Identity>), Option<String>>);

/// Why a model is not used.
enum Refusal {
    /// It is not the base; how it differs, if it seems to be meant.
    Another(Option<String>),
    /// It is the base, but a patch itself, which cannot be read.
    Incomplete(String),
}

/// A search that is under way.
struct Search<'a> {
    models: Vec<ModelFiles>,
    /// The device of the mount.
    mount: Option<u64>,
    refused: &'a mut Refused,
    /// The patches whose bases are looked for, each the base of the one before.
    chain: Vec<Identity>,
}

impl Bases {
    /// Bases that are looked for in `places`, opened by `containers` and read through `cache`, for what is mounted on `mountpoint`.
    pub fn new(containers: Arc<Containers>, cache: Arc<ChunkCache>, places: Vec<Place>, mountpoint: PathBuf) -> Bases {
        let known = Mutex::new(LruCache::new(KEPT));
        Bases { containers, cache, places, mountpoint, known, refused: Mutex::default() }
    }

    /// The patch `opened`, which lies at `path`, over its base, if that is known by now.
    pub fn known(&self, path: &Path, opened: &Opened) -> Option<Outcome> {
        let mut all = lock(&self.known);
        let known = all.get(path).filter(|known| known.patch == Identity::of(&opened.metadata))?;
        let (outcome, since) = (known.outcome.clone(), known.since);
        drop(all);
        match outcome {
            Ok(complete) => complete.is_unchanged().then_some(Ok(complete.opened)),
            Err(why) => (since.elapsed() < PATIENCE).then_some(Err(why)),
        }
    }

    /// The files that the patch at `path` is read with; none if that is not known.
    pub fn files(&self, path: &Path) -> Vec<PathBuf> {
        let all = lock(&self.known);
        let complete = all.peek(path).and_then(|known| known.outcome.as_ref().ok());
        complete.into_iter().flat_map(|complete| &complete.files).map(|(path, _)| path.clone()).collect()
    }

    /// The patch over its base, which is looked for. This may take a while; only one search is done at a time.
    pub fn find(&self, path: &Path, opened: &Opened) -> Outcome {
        let mut refused = lock(&self.refused);
        // Somebody else may have searched meanwhile.
        if let Some(outcome) = self.known(path, opened) {
            return outcome;
        }
        let mount = fs::metadata(&self.mountpoint).ok().map(|metadata| metadata.dev());
        let mut search = Search { models: self.models(), mount, refused: &mut refused, chain: Vec::new() };
        let outcome = self.search(path, opened, &mut search).map_err(Arc::<str>::from);
        match &outcome {
            Ok(complete) => {
                let files: Vec<String> = complete.files.iter().map(|(path, _)| path.display().to_string()).collect();
                tracing::info!("{}: is read with {}", path.display(), files.join(", "));
            }
            Err(why) => tracing::warn!("{}: {why}", path.display()),
        }
        let known = Known { patch: Identity::of(&opened.metadata), outcome: outcome.clone(), since: Instant::now() };
        lock(&self.known).put(path.to_owned(), known);
        outcome.map(|complete| complete.opened)
    }

    /// All models that may be bases.
    fn models(&self) -> Vec<ModelFiles> {
        let in_place = |Place { path, depth }: &Place| match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => ModelFiles::of([path.clone()]).into_iter().collect(),
            _ => in_directory(path, *depth).unwrap_or_default(),
        };
        self.places.iter().flat_map(in_place).collect()
    }

    /// The patch over the first of the models that is its base.
    fn search(&self, path: &Path, opened: &Opened, search: &mut Search<'_>) -> Result<Complete, String> {
        let record = opened.original.wants_base().ok_or("it needs no base")?;
        if search.chain.len() >= LONGEST_CHAIN {
            return Err(format!("the chain of its bases is longer than {LONGEST_CHAIN}"));
        }
        let patch = Identity::of(&opened.metadata);
        search.chain.push(patch);
        let mut order: Vec<usize> = (0..search.models.len()).collect();
        order.sort_by_key(|&number| likelihood(&search.models[number], record));
        let (mut differs, mut incomplete) = (None, None);
        for number in order {
            let files = search.models[number].clone();
            match self.complete(path, opened, record, &files, search) {
                Ok(complete) => {
                    search.chain.pop();
                    return Ok(complete);
                }
                Err(Refusal::Another(why)) => differs = differs.or(why),
                Err(Refusal::Incomplete(why)) => incomplete = incomplete.or(Some(why)),
            }
        }
        search.chain.pop();
        let places: Vec<String> = self.places.iter().map(|place| place.path.display().to_string()).collect();
        let missing = || format!("its base {:?} is not in {}", record.name, places.join(" or "));
        Err(match (incomplete, differs) {
            (Some(why), _) => why,
            (None, Some(why)) => format!("{}\n{why}", missing()),
            (None, None) => missing(),
        })
    }

    /// The patch over this model, if it is its base.
    fn complete(
        &self,
        path: &Path,
        opened: &Opened,
        record: &BaseRecord,
        files: &ModelFiles,
        search: &mut Search<'_>,
    ) -> Result<Complete, Refusal> {
        let identities: Vec<Identity> = files.parts.iter().map(|part| Identity::of(&part.metadata)).collect();
        if files.parts.iter().any(|part| Some(part.metadata.dev()) == search.mount) {
            return Err(Refusal::Another(None));
        }
        let key = (Identity::of(&opened.metadata), identities);
        if let Some(why) = search.refused.0.get(&key) {
            return Err(Refusal::Another(why.clone()));
        }
        let outcome = self.base(record, files, search).and_then(|(base, files)| {
            let opened = self.containers.over(opened, path, base);
            let opened = opened.map_err(|error| Refusal::Incomplete(error.to_string()))?;
            Ok(Complete { opened, files })
        });
        if let Err(Refusal::Another(why)) = &outcome {
            if search.refused.0.len() >= MOST_REFUSED {
                search.refused.0.clear();
            }
            search.refused.0.insert(key, why.clone());
        }
        outcome
    }

    /// The base that `record` names out of these files, and all that it depends on.
    fn base(
        &self,
        record: &BaseRecord,
        files: &ModelFiles,
        search: &mut Search<'_>,
    ) -> Result<(Base, Vec<(PathBuf, Identity)>), Refusal> {
        let mut sources = files.parts.iter().map(|part| self.source(part)).collect::<Option<Vec<_>>>();
        let sources = sources.as_mut().ok_or(Refusal::Another(None))?;
        // Without links: where one leads later is none of the base's business, and nothing to ask while a request is served.
        let place = |part: &Part| fs::canonicalize(&part.path).unwrap_or_else(|_| part.path.clone());
        let mut needed: Vec<(PathBuf, Identity)> =
            files.parts.iter().map(|part| (place(part), Identity::of(&part.metadata))).collect();
        if !may_hold(sources, record) {
            return Err(Refusal::Another(None));
        }
        for (part, source) in files.parts.iter().zip(&mut *sources) {
            let Source::Container(opened) = source else { continue };
            if opened.original.wants_base().is_none() {
                continue;
            }
            if search.chain.contains(&Identity::of(&opened.metadata)) {
                return Err(Refusal::Incomplete(format!(
                    "its base {:?} is the patch {}, which needs this one as its own base: a circle",
                    record.name,
                    part.path.display()
                )));
            }
            let complete = self.search(&part.path, opened, search).map_err(|why| {
                Refusal::Incomplete(format!(
                    "its base is the patch {}, which cannot be read: {why}",
                    part.path.display()
                ))
            })?;
            needed.extend(complete.files);
            *opened = complete.opened;
        }
        Ok((self.take(record, files, sources)?, needed))
    }

    /// Takes the base out of a model whose files are `sources`.
    fn take(&self, record: &BaseRecord, files: &ModelFiles, sources: &[Source]) -> Result<Base, Refusal> {
        let mut model = Model::new(&record.name);
        for (part, source) in files.parts.iter().zip(sources) {
            let name = part.path.display().to_string();
            let added = match source {
                Source::Plain(file) => model.add(&name, Arc::clone(file) as Arc<dyn Original>),
                Source::Container(opened) => {
                    let md5s = opened.original.stored().map(Stored::tensor_md5s).unwrap_or_default();
                    model.add_known(&name, self.served(opened), &md5s)
                }
            };
            added.map_err(|_| Refusal::Another(None))?;
        }
        model.base_for(record, Check::Probe, &()).map_err(|error| {
            let meant = model.total_len() == record.len || files.parts.iter().any(|part| is_named(&part.path, record));
            let paths: Vec<String> = files.parts.iter().map(|part| part.path.display().to_string()).collect();
            Refusal::Another(meant.then(|| format!("{}: {error}", paths.join(", "))))
        })
    }

    /// A file of a model; `None` if it cannot be read.
    fn source(&self, part: &Part) -> Option<Source> {
        if Stored::is_stored(&part.path).ok()? {
            return self.containers.open(&part.path, &part.metadata).ok().map(Source::Container);
        }
        PlainFile::open(&part.path).ok().map(|file| Source::Plain(Arc::new(file)))
    }

    /// The original of a container, read through the cache of chunks if it does not keep what it decodes itself.
    fn served(&self, opened: &Opened) -> Arc<dyn Original> {
        if opened.original.keeps_what_it_decodes() {
            return Arc::clone(&opened.original) as Arc<dyn Original>;
        }
        Arc::new(Served { cache: Arc::clone(&self.cache), opened: opened.clone() })
    }
}

/// A file of a model.
enum Source {
    Plain(Arc<PlainFile>),
    Container(Opened),
}

impl Complete {
    fn is_unchanged(&self) -> bool {
        let unchanged = |(path, identity): &(PathBuf, Identity)| {
            fs::symlink_metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == *identity)
        };
        self.files.iter().all(unchanged)
    }
}

/// How soon a model is to be looked at, the soonest first: a plain file as long as the base was needs only a glance.
fn likelihood(files: &ModelFiles, record: &BaseRecord) -> u8 {
    let len: u64 = files.parts.iter().map(|part| part.metadata.len()).sum();
    match files.parts.first() {
        _ if len == record.len => 0,
        Some(first) if is_named(&first.path, record) => 1,
        Some(first) if first.path.extension().is_some_and(|extension| extension == EXTENSION) => 2,
        _ => 3,
    }
}

/// Whether the tensors of the patches among the parts of a model can be those of a base, as far as they have them: what a patch records of
/// its tensors is known before its own base is.
fn may_hold(parts: &[Source], record: &BaseRecord) -> bool {
    let patches = parts.iter().filter_map(|part| match part {
        Source::Container(opened) if opened.original.wants_base().is_some() => opened.original.stored(),
        _ => None,
    });
    let (mut md5s, mut number) = (HashMap::new(), 0);
    for patch in patches {
        md5s.extend(patch.tensor_md5s());
        number += 1;
    }
    let mut known = record.tensors.iter().filter_map(|needed| Some((needed.md5, md5s.get(&needed.name)?))).peekable();
    // Parts that are no patches may have what is needed.
    (known.peek().is_some() || number < parts.len()) && known.all(|(needed, md5)| needed == *md5)
}

/// Whether a file has the name that the base had, extensions aside.
fn is_named(path: &Path, record: &BaseRecord) -> bool {
    path.file_stem().is_some() && path.file_stem() == Path::new(&record.name).file_stem()
}

/// The original of a container, read by patches through the cache of chunks, where all patches of it meet.
struct Served {
    cache: Arc<ChunkCache>,
    opened: Opened,
}

impl Original for Served {
    fn grid(&self) -> &Grid {
        self.opened.original.grid()
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<(), Error> {
        self.read_at(self.grid().range(chunk).start, out)
    }

    fn check_unchanged(&self) -> Result<(), Error> {
        self.opened.original.check_unchanged()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "a read reaches beyond the end of the base"));
        }
        let store = Store { file: self.opened.id, original: &*self.opened.original, reader: Reader::Patch };
        // Several may wait for one error, so it cannot be taken along.
        self.cache.read(store, offset, buf).map_err(|error| Error::new(error.kind(), error.to_string()))
    }
}
