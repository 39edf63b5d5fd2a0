//! Making a file from a file, or a directory from a directory: what goes where, whether it may, and doing it.
//!
//! Everything that can be checked is checked before the first byte is written ([`Transfer::file`],
//! [`Transfer::directory`]). A directory that does not exist yet gets its name when all in it is complete; into one
//! that exists the files come one by one, each complete.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use bigsmall_codec::output::{Attributes, Existing, KeptJournal, NewDirectory, NewFile, check_replaceable, unfinished};
use bigsmall_codec::{Error, ErrorKind, Progress};

use crate::failure::Failure;
use crate::interrupt;
use crate::tree::{Entry, Identity, Oddities, Tree};
use crate::ui::count;
use crate::ui::progress::Meter;
use crate::ui::size::show_size;

/// Bytes that are copied between two looks at whether to give up.
const COPY_STEP: u64 = 16 << 20;

/// One file to make.
#[derive(Debug)]
pub struct Item {
    /// The file that it is made from.
    pub source: PathBuf,
    /// The name of the new file, from the target's directory on.
    name: PathBuf,
    /// Whether it is made by the command's conversion, or copied.
    convert: bool,
    /// The size of the source in bytes.
    pub source_len: u64,
    identity: Identity,
}

impl Item {
    fn new(source: PathBuf, name: PathBuf, convert: bool, metadata: &Metadata) -> Item {
        Item { source, name, convert, source_len: metadata.len(), identity: Identity::of(metadata) }
    }
}

/// What becomes of a file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is converted, and the result has this name.
    Convert(OsString),
    /// It is copied as it is.
    Copy,
    /// It is of no use in the new directory.
    Leave,
}

/// What is to be made of what.
#[derive(Debug)]
pub struct Transfer {
    /// The directory that the files are made in, as the user knows it.
    root: PathBuf,
    items: Vec<Item>,
    /// The directories below `root` and their attributes, each before those in it.
    directories: Vec<(PathBuf, Attributes)>,
    /// The attributes of `root` if it is to be made; `None` when it is there.
    new_root: Option<Attributes>,
    existing: Existing,
    start: Start,
}

/// What becomes of what an interrupted run has left of the same targets, and of what this one leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is removed.
    Anew,
    /// This run goes on with it, and leaves what it has done to the next when it fails.
    Resume,
}

/// How one file is made from another.
pub trait Conversion {
    /// What there is to say about a file that was made.
    type Outcome;

    /// Writes to `file` what is made from `item`; gives what there is to say, and the attributes that the file is to have.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn convert(&mut self, item: &Item, file: &mut NewFile) -> Result<(Self::Outcome, Attributes), Failure>;

    /// What there is to say about the file at `place` if it is what [`convert`](Conversion::convert) would make: an earlier run has left
    /// it, with that journal.
    fn finished(&mut self, item: &Item, place: &Path, journal: &KeptJournal) -> Option<Self::Outcome>;
}

/// One that cannot be resumed.
struct Unresumable<F>(F);

impl<T, F: FnMut(&Item, &mut NewFile) -> Result<(T, Attributes), Failure>> Conversion for Unresumable<F> {
    type Outcome = T;

    fn convert(&mut self, item: &Item, file: &mut NewFile) -> Result<(T, Attributes), Failure> {
        self.0(item, file)
    }

    fn finished(&mut self, _: &Item, _: &Path, _: &KeptJournal) -> Option<T> {
        None
    }
}

/// A file that was converted.
#[derive(Debug)]
pub struct Converted<'a, T> {
    pub item: &'a Item,
    /// What the conversion says about it.
    pub outcome: T,
    /// How long it took until the file was on disk.
    pub time: Duration,
}

/// What was copied and not converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A line for people; nothing when nothing was copied.
impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.files {
            0 => Ok(()),
            files => writeln!(f, "and {} copied as they are, {}", count(files, "other file"), show_size(self.bytes)),
        }
    }
}

impl Transfer {
    /// Makes the one file `target` from `source`.
    ///
    /// # Errors
    /// When it may not or cannot be made.
    pub fn file(
        source: &Path,
        metadata: &Metadata,
        target: &Path,
        existing: Existing,
        start: Start,
    ) -> Result<Transfer, Failure> {
        let (Some(name), false) = (target.file_name(), ends_in_slash(target)) else {
            return Err(Failure::new(format!("{}: there is no such directory", target.display())));
        };
        let transfer = Transfer {
            root: target.parent().map(Path::to_owned).unwrap_or_default(),
            items: vec![Item::new(source.to_owned(), PathBuf::from(name), true, metadata)],
            directories: Vec::new(),
            new_root: None,
            existing,
            start,
        };
        transfer.check_parent(target)?;
        transfer.check_files()?;
        Ok(transfer)
    }

    /// Makes the directory `target` from all that is in `source`. `fate` says what becomes of each file.
    ///
    /// # Errors
    /// When it may not or cannot be made; those of `fate`.
    pub fn directory(
        source: &Path,
        metadata: &Metadata,
        target: &Path,
        existing: Existing,
        start: Start,
        mut fate: impl FnMut(&Entry) -> Result<Fate, Failure>,
    ) -> Result<Transfer, Failure> {
        check_not_inside(source, target)?;
        let tree = Tree::read(source, Oddities::Refuse)?;
        let mut items = Vec::with_capacity(tree.files.len());
        for file in tree.files {
            let (name, convert) = match fate(&file)? {
                Fate::Convert(name) => (file.relative.with_file_name(name), true),
                Fate::Copy => (file.relative, false),
                Fate::Leave => continue,
            };
            items.push(Item::new(file.path, name, convert, &file.metadata));
        }
        let directories = tree.directories.into_iter().map(|dir| (dir.relative, Attributes::of(&dir.metadata)));
        let transfer = Transfer {
            root: target.to_owned(),
            items,
            directories: directories.collect(),
            new_root: fs::symlink_metadata(target).is_err().then(|| Attributes::of(metadata)),
            existing,
            start,
        };
        transfer.check_names()?;
        if transfer.new_root.is_some() {
            transfer.check_parent(target)?;
        } else {
            transfer.check_existing_root()?;
            transfer.check_files()?;
        }
        Ok(transfer)
    }

    /// The files that are to be converted.
    pub fn conversions(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.convert)
    }

    /// What is to be copied.
    pub fn copies(&self) -> Copied {
        let copies = self.items.iter().filter(|item| !item.convert);
        copies.fold(Copied::default(), |sum, item| Copied { files: sum.files + 1, bytes: sum.bytes + item.source_len })
    }

    /// Where the file made from `item` will be, as the user knows it.
    pub fn target_of(&self, item: &Item) -> PathBuf {
        self.root.join(&item.name)
    }

    /// Makes everything. `convert` makes one file: see [`Conversion::convert`].
    ///
    /// # Errors
    /// The first of anything; nothing unfinished is left behind.
    pub fn run<T>(
        &self,
        meter: &Meter,
        convert: impl FnMut(&Item, &mut NewFile) -> Result<(T, Attributes), Failure>,
    ) -> Result<Vec<Converted<'_, T>>, Failure> {
        self.run_resumable(meter, Unresumable(convert))
    }

    /// Makes everything.
    ///
    /// # Errors
    /// The first of anything; nothing unfinished is left behind, unless it is for a run that resumes.
    pub fn run_resumable<C: Conversion>(
        &self,
        meter: &Meter,
        mut conversion: C,
    ) -> Result<Vec<Converted<'_, C::Outcome>>, Failure> {
        // The next run wants to know of files that are finished, as long as not all are.
        let mut journals = Vec::new();
        let result = self.make_all(meter, &mut conversion, &mut journals);
        result.map_err(|failure| {
            if self.start == Start::Resume {
                journals.into_iter().for_each(KeptJournal::keep);
            }
            if self.is_unfinished() || self.start == Start::Resume && unfinished(&self.root) {
                failure.with_work_kept()
            } else {
                failure
            }
        })
    }

    fn make_all<C: Conversion>(
        &self,
        meter: &Meter,
        conversion: &mut C,
        journals: &mut Vec<KeptJournal>,
    ) -> Result<Vec<Converted<'_, C::Outcome>>, Failure> {
        let staged = self.new_root.as_ref().map(|_| match self.start {
            Start::Anew => NewDirectory::create(&self.root),
            Start::Resume => NewDirectory::resume(&self.root),
        });
        let staged = staged.transpose()?;
        let root = staged.as_ref().map_or(self.root.as_path(), NewDirectory::path);
        let mut converted = Vec::new();
        let mut made = Vec::new();
        for (name, attributes) in &self.directories {
            let path = root.join(name);
            match fs::create_dir(&path) {
                Ok(()) => made.push((path, attributes)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                    // If it is not the user's, an earlier run has made it, perhaps with the permissions of its source.
                    if staged.is_some() {
                        fs::set_permissions(&path, Permissions::from_mode(0o700))
                            .map_err(|e| Error::io("cannot set the permissions", e).in_file(&path))?;
                        made.push((path, attributes));
                    }
                }
                Err(e) => return Err(Error::io("cannot be created", e).in_file(&self.root.join(name)).into()),
            }
        }
        for item in &self.items {
            meter.set_file(&item.name.to_string_lossy());
            let (place, begun) = (root.join(&item.name), Instant::now());
            let mut existing = self.existing;
            if self.start == Start::Resume && fs::symlink_metadata(&place).is_ok() {
                if item.convert {
                    if let Some(journal) = KeptJournal::find(&place) {
                        if let Some(outcome) = conversion.finished(item, &place, &journal) {
                            journals.push(journal);
                            converted.push(Converted { item, outcome, time: begun.elapsed() });
                            continue;
                        }
                        // It is of a source that is no longer the same.
                        existing = Existing::Replace;
                    }
                } else if is_copy(&item.source, &place) {
                    meter.advance(item.source_len);
                    continue;
                }
                if staged.is_some() {
                    fs::remove_file(&place).map_err(|e| Error::io("cannot be removed", e).in_file(&place))?;
                }
            }
            let mut file = match (&staged, self.start) {
                (Some(directory), _) => directory.create_file(&item.name)?,
                (None, Start::Anew) => NewFile::create(&place, existing)?,
                (None, Start::Resume) => NewFile::resume(&place, existing)?,
            };
            if item.convert {
                let (outcome, attributes) = conversion.convert(item, &mut file)?;
                journals.extend(file.commit_keeping_journal(&attributes)?);
                converted.push(Converted { item, outcome, time: begun.elapsed() });
            } else {
                let attributes = copy(&item.source, &mut file, meter)?;
                file.commit(&attributes)?;
            }
        }
        journals.clear();
        if let Some(directory) = staged.as_ref().filter(|_| self.start == Start::Resume) {
            self.remove_others(directory.path())?;
        }
        // Innermost first: what is put into a directory changes its time, and its permissions may forbid it.
        for (path, attributes) in made.iter().rev() {
            attributes.apply_to_directory(path)?;
        }
        if let (Some(directory), Some(attributes)) = (staged, &self.new_root) {
            directory.commit(attributes)?;
        }
        Ok(converted)
    }

    /// Removes what an earlier run has put into `root` and this one has no use for, since the source has changed.
    fn remove_others(&self, root: &Path) -> Result<(), Failure> {
        let wanted: HashSet<&Path> = self.items.iter().map(|item| item.name.as_path()).collect();
        let directories: HashSet<&Path> = self.directories.iter().map(|(name, _)| name.as_path()).collect();
        let mut open = vec![PathBuf::new()];
        while let Some(directory) = open.pop() {
            let path = root.join(&directory);
            let cannot_read = |e| Error::io("cannot be read", e).in_file(&path);
            for entry in fs::read_dir(&path).map_err(cannot_read)? {
                let entry = entry.map_err(cannot_read)?;
                let (name, is_directory) =
                    (directory.join(entry.file_name()), entry.file_type().map_err(cannot_read)?.is_dir());
                let removed = match is_directory {
                    true if directories.contains(name.as_path()) => {
                        open.push(name);
                        continue;
                    }
                    true => fs::remove_dir_all(entry.path()),
                    false if wanted.contains(name.as_path()) => continue,
                    false => fs::remove_file(entry.path()),
                };
                removed.map_err(|e| Error::io("cannot be removed", e).in_file(&entry.path()))?;
            }
        }
        Ok(())
    }

    /// Fails when two files would get one name.
    fn check_names(&self) -> Result<(), Failure> {
        let mut taken = HashMap::new();
        for item in &self.items {
            if let Some(first) = taken.insert(item.name.as_path(), item) {
                return Err(Failure::new(format!(
                    "{} and {} would both become {}: move or rename one of them first",
                    first.source.display(),
                    item.source.display(),
                    self.target_of(item).display()
                )));
            }
        }
        let directory = self.directories.iter().find_map(|(directory, _)| taken.get(directory.as_path()));
        match directory {
            Some(item) => Err(Failure::new(format!(
                "{} would get the name of a directory, {}: move or rename one of them first",
                item.source.display(),
                self.target_of(item).display()
            ))),
            None => Ok(()),
        }
    }

    /// Fails when the directory that `target` is to be made in is not there.
    fn check_parent(&self, target: &Path) -> Result<(), Failure> {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match fs::metadata(parent) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(format!("{} is not a directory", parent.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!("there is no directory {}", parent.display())),
            Err(e) => Err(format!("{}: {e}", parent.display())),
        }
        .map_err(|why| Failure::new(format!("{}: cannot be created: {why}", target.display())))
    }

    /// Fails unless files may be put into the target, which is there.
    fn check_existing_root(&self) -> Result<(), Failure> {
        let root = self.root.display();
        let mut entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(Failure::new(format!("{root}: exists already and is not a directory")));
            }
            Err(e) => return Err(Failure::new(format!("{root}: cannot be read: {e}"))),
        };
        if self.existing == Existing::Refuse && entries.next().is_some() && !self.is_unfinished() {
            return Err(Failure::new(format!(
                "{root}: exists already\n--force writes into it and replaces files of the same names; -o gives another place"
            )));
        }
        Ok(())
    }

    /// Whether an earlier run has begun to make this, so that this one can go on.
    fn is_unfinished(&self) -> bool {
        self.start == Start::Resume && self.conversions().any(|item| unfinished(&self.target_of(item)))
    }

    /// Whether an earlier run has made this file, which this one goes on with.
    fn may_be_finished(&self, item: &Item) -> bool {
        let target = self.target_of(item);
        self.start == Start::Resume
            && match item.convert {
                true => KeptJournal::exists(&target),
                false => is_copy(&item.source, &target),
            }
    }

    /// Fails when a file may not be put where it is to be.
    fn check_files(&self) -> Result<(), Failure> {
        let sources: HashSet<Identity> = self.items.iter().map(|item| item.identity).collect();
        for (directory, _) in &self.directories {
            let path = self.root.join(directory);
            if fs::symlink_metadata(&path).is_ok() && !path.is_dir() {
                return Err(Failure::new(format!("{}: exists already and is not a directory", path.display())));
            }
        }
        for item in &self.items {
            let target = self.target_of(item);
            if fs::metadata(&target).is_ok_and(|metadata| sources.contains(&Identity::of(&metadata))) {
                let source = item.source.display();
                return Err(Failure::new(match item.convert {
                    true => format!("{source}: would be written over itself; give another name with -o"),
                    false => format!("{source}: would be written over a file that is read; give another place with -o"),
                }));
            }
            if self.may_be_finished(item) {
                continue;
            }
            check_replaceable(&target, self.existing).map_err(|e| match (e.kind(), self.existing) {
                (ErrorKind::AlreadyExists, Existing::Refuse) => {
                    Failure::new(format!("{e}\n--force replaces it; -o gives another name"))
                }
                _ => Failure::from(e),
            })?;
        }
        Ok(())
    }
}

/// Whether the file at `place` is a copy of `source` that was made as [`copy`] makes them, as far as size and time tell.
fn is_copy(source: &Path, place: &Path) -> bool {
    let same = |one: &Metadata, other: &Metadata| {
        one.is_file() && other.is_file() && one.len() == other.len() && one.modified().ok() == other.modified().ok()
    };
    matches!((fs::metadata(source), fs::symlink_metadata(place)), (Ok(one), Ok(other)) if same(&one, &other))
}

/// Copies `source` as it is.
fn copy(source: &Path, file: &mut NewFile, meter: &Meter) -> Result<Attributes, Failure> {
    let cannot_read = |e| Error::io("cannot be read", e).in_file(source);
    let mut from = File::open(source).map_err(cannot_read)?;
    let metadata = from.metadata().map_err(cannot_read)?;
    file.reserve(metadata.len())?;
    loop {
        if meter.cancelled() {
            return Err(interrupt::failure());
        }
        // The kernel copies from file to file where it can.
        let copied = io::copy(&mut (&mut from).take(COPY_STEP), &mut file.file());
        let copied = copied.map_err(|e| {
            Error::io(format_args!("{}: cannot be copied to it", source.display()), e).in_file(file.target())
        })?;
        if copied == 0 {
            break;
        }
        meter.advance(copied);
    }
    let after = from.metadata().map_err(cannot_read)?;
    if (after.len(), after.modified().ok()) != (metadata.len(), metadata.modified().ok()) {
        return Err(Error::new(ErrorKind::SourceChanged, "the file changed while it was read").in_file(source).into());
    }
    Ok(Attributes::of(&metadata))
}

/// Fails when `target` is `source` or lies in it.
fn check_not_inside(source: &Path, target: &Path) -> Result<(), Failure> {
    let cannot_resolve = |path: &Path, e: io::Error| Failure::new(format!("{}: cannot be read: {e}", path.display()));
    let real_source = fs::canonicalize(source).map_err(|e| cannot_resolve(source, e))?;
    // The target, or what there is of it.
    let absolute = std::path::absolute(target).map_err(|e| cannot_resolve(target, e))?;
    let real_target = absolute.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok());
    if real_target.is_some_and(|real_target| real_target.starts_with(&real_source)) {
        return Err(Failure::new(format!(
            "{}: lies in {}, which is read; give another place with -o",
            target.display(),
            source.display()
        )));
    }
    Ok(())
}

/// Whether the user wrote `path` as that of a directory.
fn ends_in_slash(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().ends_with(b"/")
}

/// The directory beside `source` with the name that `rename` makes of its name.
///
/// # Errors
/// When `source` has no name, as `/` has none.
pub fn sibling(source: &Path, rename: impl FnOnce(OsString) -> OsString) -> Result<PathBuf, Failure> {
    // `.` and `..` have names, but elsewhere.
    let named = match source.components().next_back() {
        Some(Component::Normal(_)) => source.to_owned(),
        _ => {
            fs::canonicalize(source).map_err(|e| Failure::new(format!("{}: cannot be read: {e}", source.display())))?
        }
    };
    match named.file_name() {
        Some(name) => Ok(named.with_file_name(rename(name.to_owned()))),
        None => Err(Failure::new(format!("{}: has no name; give one for the new directory with -o", source.display()))),
    }
}
