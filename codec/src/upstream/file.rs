//! An open file of the Python package, as the safetensors file that its tensors make.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use md5::{Digest, Md5};
use serde_json::Value;

use super::cache::{TensorCache, Wanted};
use super::codecs::{self, Expected, group_members, inflate, zeros};
use super::header::{self, Entry, Header};
use super::hub::HubIndex;
use super::parity::{Fallback, PackageMended};
use super::rebuilt::{self, Part};
use crate::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, TensorLayout};
use crate::original::{ChunkIndex, DEFAULT_CHUNK_SIZE, Grid, Original, PlainFile, checked_range};
use crate::output::NewFile;
use crate::stored::{StoredTensorUsage, StoredUsage};
use crate::stream::cancelled;
use crate::verify::{Cause, Damage, Report};

/// The codec of tensors that are the difference from a base.
const XOR_DELTA: &str = "zstd_xor_delta";
/// The codec of tensors that equal another one.
const TIED: &str = "tied_ref";
/// The codec of the tensors of a group that is stored with another of them, and of that one.
const MEMBER: &str = "group_member";
const GROUP: &str = "group_stream_v1";

/// So many steps from a tensor that is tied to the one that is stored; the package itself makes one.
const LONGEST_TIE: usize = 16;

/// An open file of the Python package.
///
/// Opening reads the header. Tensors are read, decoded and compared with their MD5s when they are asked for.
pub struct UpstreamFile {
    store: Box<dyn Original>,
    version: u16,
    is_delta: bool,
    /// The header of the safetensors file.
    head: Vec<u8>,
    /// In the order of their bytes.
    tensors: Vec<UpstreamTensor>,
    /// What is decoded in one piece.
    units: Vec<Unit>,
    grid: Grid,
    cache: Arc<TensorCache>,
    id: u64,
    base: Option<Base>,
    /// Where damaged tensors are taken from, if the file may have a sidecar.
    fallback: Option<Fallback>,
    mended_header: bool,
}

/// A tensor of an [`UpstreamFile`].
#[derive(Debug)]
pub struct UpstreamTensor {
    /// Its name.
    pub name: String,
    /// Its dtype as safetensors spells it.
    pub dtype: &'static str,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the safetensors file.
    pub range: Range<u64>,
    /// The MD5 that its bytes are to have, if it is recorded.
    pub md5: Option<[u8; 16]>,
    unit: usize,
    /// Where its bytes are in what the unit decodes to.
    part: Range<usize>,
}

impl UpstreamTensor {
    /// What two tensors have in common that are stored once, and no others.
    pub fn place(&self) -> (usize, &Range<usize>) {
        (self.unit, &self.part)
    }
}

/// What is stored, and decoded, in one piece: one tensor or a group of them.
struct Unit {
    /// The entry that says how it is stored.
    entry: Entry,
    /// Of all that it decodes to.
    expected: Expected,
    /// The tensors that are made of it, by their positions.
    tensors: Vec<usize>,
    /// The bytes of all of those.
    uses: u64,
}

/// Another file that tensors are differences from.
struct Base {
    original: Arc<dyn Original>,
    tensors: HashMap<String, TensorLayout>,
}

impl std::fmt::Debug for UpstreamFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamFile")
            .field("version", &self.version)
            .field("tensors", &self.tensors)
            .finish_non_exhaustive()
    }
}

impl UpstreamFile {
    /// Opens the file at `path`, whose decoded tensors `cache` keeps. If an [index](HubIndex) is beside it, the tensors that
    /// it counts to the file without their being stored there belong to it too.
    ///
    /// # Errors
    /// [`ErrorKind::NotAContainer`](crate::ErrorKind::NotAContainer), [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when it holds something that is not known,
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::Io`](crate::ErrorKind::Io). All name the file.
    pub fn open(path: &Path, cache: &Arc<TensorCache>) -> Result<UpstreamFile> {
        UpstreamFile::from_file(PlainFile::open(path)?, path, cache)
    }

    /// As [`open`](UpstreamFile::open), of a file that is open already.
    ///
    /// # Errors
    /// As [`open`](UpstreamFile::open).
    pub fn from_file(file: PlainFile, path: &Path, cache: &Arc<TensorCache>) -> Result<UpstreamFile> {
        UpstreamFile::beside_index(Box::new(file), path, cache)
    }

    /// As [`from_file`](UpstreamFile::from_file), but what is damaged is put right while it is read, as far as the package's own sidecar
    /// beside the file (`model.bs.ecc`) goes. The file stays as it is. Without damage the sidecar is not even opened.
    ///
    /// # Errors
    /// As [`open`](UpstreamFile::open).
    pub fn from_protected_file(file: PlainFile, path: &Path, cache: &Arc<TensorCache>) -> Result<UpstreamFile> {
        match UpstreamFile::from_file(file, path, cache) {
            Ok(mut opened) => {
                opened.fallback = Some(Fallback::new(path));
                Ok(opened)
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotAContainer) => {
                let mended = PackageMended::open(path);
                let opened = mended.and_then(|mended| UpstreamFile::beside_index(Box::new(mended), path, cache));
                let mut opened = opened.map_err(|_| error)?;
                opened.mended_header = true;
                Ok(opened)
            }
            Err(error) => Err(error),
        }
    }

    /// The same file, which calls `tell` with the name of each tensor that it could decode only thanks to its sidecar; if it was opened
    /// as [protected](UpstreamFile::from_protected_file), and its header is sound.
    pub fn on_mended(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> UpstreamFile {
        self.fallback = self.fallback.take().map(|fallback| fallback.telling(Box::new(tell)));
        self
    }

    /// Whether the header is damaged and the file could be [opened](UpstreamFile::from_protected_file) thanks to its sidecar alone. All
    /// of it is then read through the sidecar, and nobody is [told](UpstreamFile::on_mended) of what was put right.
    pub fn has_mended_header(&self) -> bool {
        self.mended_header
    }

    /// Opens the file at `path`, whose bytes `store` holds.
    fn beside_index(store: Box<dyn Original>, path: &Path, cache: &Arc<TensorCache>) -> Result<UpstreamFile> {
        let index = HubIndex::beside(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let known = index.as_ref().ok().and_then(Option::as_ref);
        let aliases: Vec<(&str, &str)> = known.iter().flat_map(|index| index.aliases_in(&name)).collect();
        let opened = UpstreamFile::from_store(store, &aliases, cache);
        // What is wrong with the file itself is said first.
        let opened = opened.map_err(|e| if e.io_error().is_some() { e } else { e.in_file(path) })?;
        index.map(|_| opened)
    }

    /// Opens the file whose bytes `store` holds. `aliases` are tensors that belong to it without being stored, each with the
    /// one that it equals.
    ///
    /// # Errors
    /// As [`open`](UpstreamFile::open), without a file's name.
    pub fn from_store(
        store: Box<dyn Original>,
        aliases: &[(&str, &str)],
        cache: &Arc<TensorCache>,
    ) -> Result<UpstreamFile> {
        let Header { version, is_delta, metadata, entries } = header::read(&*store)?;
        let (mut tensors, mut units) = arrange(entries)?;
        add_aliases(&mut tensors, aliases)?;
        tensors.sort_by(|(a_dtype, a), (b_dtype, b)| rebuilt::order((*a_dtype, &a.name), (*b_dtype, &b.name)));
        let parts: Vec<Part<'_>> = tensors
            .iter()
            .map(|(dtype, tensor)| Part {
                name: &tensor.name,
                dtype: *dtype,
                shape: &tensor.shape,
                bytes: tensor.part.len() as u64,
            })
            .collect();
        let (head, ranges) = rebuilt::header(metadata.as_deref(), &parts)?;
        let mut tensors: Vec<UpstreamTensor> = tensors.into_iter().map(|(_, tensor)| tensor).collect();
        tensors.iter_mut().zip(ranges).for_each(|(tensor, range)| tensor.range = range);
        for (number, tensor) in tensors.iter().enumerate() {
            let unit = &mut units[tensor.unit];
            unit.tensors.push(number);
            unit.uses = unit.uses.saturating_add(tensor.part.len() as u64);
        }
        let mut grid = Grid::new();
        grid.push(head.len() as u64, DEFAULT_CHUNK_SIZE)?;
        for tensor in &tensors {
            grid.push(tensor.part.len() as u64, DEFAULT_CHUNK_SIZE)?;
        }
        let (cache, id) = (Arc::clone(cache), cache.new_file());
        let (base, fallback) = (None, None);
        let mended_header = false;
        Ok(UpstreamFile {
            store,
            version,
            is_delta,
            head,
            tensors,
            units,
            grid,
            cache,
            id,
            base,
            fallback,
            mended_header,
        })
    }

    /// The same file, whose differences are taken from `base`, the safetensors file that it was made against.
    ///
    /// # Errors
    /// Those of reading the header of `base`, and [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when it has not the tensors that are needed.
    pub fn with_base(mut self, base: Arc<dyn Original>) -> Result<UpstreamFile> {
        let tensors = Layout::of(&*base)?.tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let base = Base { original: base, tensors };
        for tensor in self.tensors.iter().filter(|tensor| self.units[tensor.unit].entry.codec == XOR_DELTA) {
            base.range(tensor)?;
        }
        self.base = Some(base);
        Ok(self)
    }

    /// Whether the file is a difference from another one, which has not been [given](UpstreamFile::with_base).
    pub fn needs_base(&self) -> bool {
        self.is_delta && self.base.is_none()
    }

    /// The version of the container.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The size of the file in bytes.
    pub fn stored_len(&self) -> u64 {
        self.store.len()
    }

    /// The tensors in the order of their bytes in the safetensors file.
    pub fn tensors(&self) -> &[UpstreamTensor] {
        &self.tensors
    }

    /// What each codec stores. Tensors that are not stored since they equal another count as `tied_ref`.
    pub fn codec_usage(&self) -> Vec<StoredUsage> {
        let mut usage = BTreeMap::<&str, StoredUsage>::new();
        let mut seen = vec![0; self.units.len()];
        for tensor in &self.tensors {
            let entry = &self.units[tensor.unit].entry;
            let first = seen[tensor.unit] == 0;
            let group = entry.codec == GROUP;
            seen[tensor.unit] += 1;
            let codec = if first || group { entry.codec.as_str() } else { TIED };
            let nothing = || StoredUsage { codec: codec.to_owned(), pieces: 0, original_len: 0, stored_len: 0 };
            let usage = usage.entry(codec).or_insert_with(nothing);
            usage.pieces += 1;
            usage.original_len += tensor.part.len() as u64;
            usage.stored_len += if first { entry.stored.end - entry.stored.start } else { 0 };
        }
        usage.into_values().collect()
    }

    /// How each of the [tensors](UpstreamFile::tensors) is stored, in their order. What a group takes is divided among its tensors
    /// evenly, as they are equally long.
    pub fn tensor_usage(&self) -> Vec<StoredTensorUsage> {
        let mut first_at = HashMap::new();
        let usage = self.tensors.iter().enumerate().map(|(number, tensor)| {
            let entry = &self.units[tensor.unit].entry;
            let first = *first_at.entry(tensor.place()).or_insert(number);
            let twin = (first != number).then_some(first);
            let (part, whole) = (tensor.part.clone(), self.units[tensor.unit].expected.bytes as u128);
            let up_to =
                |at: usize| (u128::from(entry.stored.end - entry.stored.start) * at as u128 / whole.max(1)) as u64;
            let usage = StoredUsage {
                codec: if twin.is_some() { TIED } else { &entry.codec }.to_owned(),
                pieces: 1,
                original_len: part.len() as u64,
                stored_len: if twin.is_some() { 0 } else { up_to(part.end) - up_to(part.start) },
            };
            StoredTensorUsage { codecs: vec![usage], twin }
        });
        usage.collect()
    }

    /// Decodes everything, tensors in parallel on the threads of the current rayon pool, and writes it to `out`. Each thread
    /// holds one tensor at a time.
    ///
    /// # Errors
    /// Those of decoding any tensor and of writing, [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn decompress(&self, out: &NewFile, progress: &dyn Progress) -> Result<()> {
        out.reserve(self.len())?;
        out.write_at(0, &self.head)?;
        progress.advance(self.head.len() as u64);
        self.each_unit(progress, |unit, decoded| {
            let bytes = decoded?;
            unit.tensors.iter().try_for_each(|&tensor| {
                let tensor = &self.tensors[tensor];
                out.write_at(tensor.range.start, &bytes[tensor.part.clone()])
            })
        })
    }

    /// Decodes everything, as [`decompress`](UpstreamFile::decompress) does, and compares it with the MD5s. Damage does not
    /// end it.
    ///
    /// # Errors
    /// Only [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn verify(&self, progress: &dyn Progress) -> Result<Report> {
        let damage = std::sync::Mutex::new(Vec::new());
        self.each_unit(progress, |unit, decoded| {
            let Err(error) = decoded else { return Ok(()) };
            let mut damage = damage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            damage.extend(unit.tensors.iter().map(|&tensor| Damage {
                cause: Cause::Chunk,
                range: self.tensors[tensor].range.clone(),
                tensor: Some(tensor),
                kind: error.kind(),
                message: error.to_string(),
            }));
            Ok(())
        })?;
        let mut damage = damage.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        damage.sort_by_key(|damage| damage.range.start);
        let (chunks, tensors) = (self.grid.chunks(), self.tensors.len() as u64);
        Ok(Report { original_len: self.len(), chunks, tensors, damage })
    }

    /// Decodes every unit and gives it to `consume`, the largest first: the last ones then end at about the same time.
    fn each_unit(
        &self,
        progress: &dyn Progress,
        consume: impl Fn(&Unit, Result<Vec<u8>>) -> Result<()> + Sync,
    ) -> Result<()> {
        let mut units: Vec<&Unit> = self.units.iter().collect();
        units.sort_by_key(|unit| std::cmp::Reverse(unit.expected.bytes));
        // One by one to whoever is idle: ranges of them would be as unequal as the tensors are.
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        rayon::broadcast(|_| {
            while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                if progress.cancelled() {
                    return Err(cancelled());
                }
                if failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                consume(unit, self.decode_unit(unit)).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                progress.advance(unit.uses);
            }
            Ok(())
        })
        .into_iter()
        .collect()
    }

    /// Reads and decodes a unit; if it is damaged, once more with what the sidecar makes of its stored bytes.
    fn decode_unit(&self, unit: &Unit) -> Result<Vec<u8>> {
        let entry = &unit.entry;
        let decode = || {
            let stored_len = usize::try_from(entry.stored.end - entry.stored.start);
            let mut stored = zeros(stored_len.map_err(|_| Error::corrupt("more is stored than memory can hold"))?)?;
            let read = self.store.read_at(entry.stored.start, &mut stored);
            let decoded = read.and_then(|()| self.decode_stored(unit, &stored));
            decoded.or_else(|error| match &self.fallback {
                Some(fallback) if fallback.mend(entry.stored.start, &mut stored) => {
                    let decoded = self.decode_stored(unit, &stored).map_err(|_| error)?;
                    fallback.tell(&entry.name);
                    Ok(decoded)
                }
                _ => Err(error),
            })
        };
        decode().map_err(|e: Error| e.context(format_args!("tensor {:?}", entry.name)))
    }

    /// Decodes a unit, of which these are the stored bytes, and compares its tensors with their MD5s.
    fn decode_stored(&self, unit: &Unit, stored: &[u8]) -> Result<Vec<u8>> {
        let Unit { entry, expected, tensors, .. } = unit;
        let bytes = match entry.codec.as_str() {
            XOR_DELTA => self.xor(unit, stored)?,
            codec => codecs::decode(codec, &entry.extra, stored, expected)?,
        };
        let mut checked: Vec<(&Range<usize>, &[u8; 16])> = Vec::new();
        for tensor in tensors.iter().map(|&number| &self.tensors[number]) {
            let Some(md5) = &tensor.md5 else { continue };
            if checked.contains(&(&tensor.part, md5)) {
                continue;
            }
            if <[u8; 16]>::from(Md5::digest(&bytes[tensor.part.clone()])) != *md5 {
                return Err(Error::corrupt("its bytes do not have the recorded MD5"));
            }
            checked.push((&tensor.part, md5));
        }
        Ok(bytes)
    }

    /// The bytes of a tensor that is a difference from the base.
    fn xor(&self, unit: &Unit, stored: &[u8]) -> Result<Vec<u8>> {
        let expected = &unit.expected;
        let needed = "it is a difference from another model, which is needed to read it: give that as the base";
        let base = self.base.as_ref().ok_or_else(|| Error::invalid(needed))?;
        let tensor = unit.tensors.first().map(|&number| &self.tensors[number]);
        let tensor = tensor.ok_or_else(|| Error::corrupt("it is no tensor"))?;
        codecs::check_ratio(stored.len(), expected.bytes)?;
        let mut bytes = inflate(stored, expected.bytes)?;
        let mut other = zeros(expected.bytes)?;
        base.original.read_at(base.range(tensor)?.start, &mut other)?;
        bytes.iter_mut().zip(other).for_each(|(byte, other): (&mut u8, u8)| *byte ^= other);
        Ok(bytes)
    }
}

impl Base {
    /// Where the tensor is in the base.
    fn range(&self, tensor: &UpstreamTensor) -> Result<Range<u64>> {
        let same = |other: &&TensorLayout| other.dtype == tensor.dtype && other.shape == tensor.shape;
        match self.tensors.get(&tensor.name).filter(same) {
            Some(other) => Ok(other.range.clone()),
            None => Err(Error::invalid(format!(
                "the base has no tensor {:?} of that shape and dtype: it is not what the file was made against",
                tensor.name
            ))),
        }
    }
}

impl Drop for UpstreamFile {
    fn drop(&mut self) {
        self.cache.forget(self.id);
    }
}

impl Original for UpstreamFile {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.read_at(self.grid.range(chunk).start, out)
    }

    /// Tensor by tensor and not chunk by chunk: so it is known to the byte what has been handed out of each.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = checked_range(offset, buf.len(), self.len())?;
        let within = |part: &Range<u64>| (part.start - range.start) as usize..(part.end - range.start) as usize;
        let head = range.start..range.end.min(self.head.len() as u64);
        if !head.is_empty() {
            buf[within(&head)].copy_from_slice(&self.head[head.start as usize..head.end as usize]);
        }
        let first = self.tensors.partition_point(|tensor| tensor.range.end <= range.start);
        for tensor in self.tensors[first..].iter().take_while(|tensor| tensor.range.start < range.end) {
            let part = tensor.range.start.max(range.start)..tensor.range.end.min(range.end);
            if part.is_empty() {
                continue;
            }
            let unit = &self.units[tensor.unit];
            let wanted = Wanted {
                key: (self.id, tensor.unit),
                len: unit.expected.bytes as u64,
                part: part.clone(),
                uses: unit.uses,
            };
            let bytes = self.cache.get(wanted, || self.decode_unit(unit))?;
            let start = tensor.part.start + (part.start - tensor.range.start) as usize;
            let out = &mut buf[within(&part)];
            out.copy_from_slice(&bytes[start..start + out.len()]);
        }
        Ok(())
    }

    fn check_unchanged(&self) -> Result<()> {
        self.store.check_unchanged()
    }

    fn stamp(&self) -> Result<Vec<u8>> {
        let mut stamp = self.store.stamp()?;
        if let Some(base) = &self.base {
            stamp.extend(base.original.stamp()?);
        }
        Ok(stamp)
    }
}

/// A tensor, and its dtype for its place in the file.
type Placed = (super::dtype::Dtype, UpstreamTensor);

/// The tensors of the entries and the units that they are stored in.
fn arrange(entries: Vec<Entry>) -> Result<(Vec<Placed>, Vec<Unit>)> {
    let stored = Places::of(&entries)?.all()?;
    let mut unit_of = vec![None; entries.len()];
    let mut tensors = Vec::with_capacity(entries.len());
    let mut units = Vec::new();
    for (entry, Place { master, members, part }) in entries.iter().zip(stored) {
        let unit = *unit_of[master].get_or_insert_with(|| {
            units.push((master, members));
            units.len() - 1
        });
        let tensor = UpstreamTensor {
            name: entry.name.clone(),
            dtype: entry.dtype.name(),
            shape: entry.shape.clone(),
            range: 0..0,
            md5: entry.md5,
            unit,
            part,
        };
        tensors.push((entry.dtype, tensor));
    }
    let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
    let units = units.into_iter().map(|(master, members)| {
        let entry = entries[master].take().expect("a unit has one master");
        // That these do not overflow has been checked for its place.
        let expected = Expected { elements: entry.elements * members, bytes: entry.bytes * members };
        Unit { entry, expected, tensors: Vec::new(), uses: 0 }
    });
    let units = units.collect();
    Ok((tensors, units))
}

/// Where an entry is stored.
struct Place {
    /// The entry that it is stored with; itself most often.
    master: usize,
    /// How many of its size are stored there together.
    members: usize,
    /// Its bytes among all of theirs.
    part: Range<usize>,
}

/// Finds where entries are stored.
struct Places<'a> {
    entries: &'a [Entry],
    numbers: HashMap<&'a str, usize>,
    /// For each group, by its master, the numbers of its members.
    groups: HashMap<usize, HashMap<&'a str, usize>>,
}

impl<'a> Places<'a> {
    fn of(entries: &'a [Entry]) -> Result<Places<'a>> {
        let mut numbers = HashMap::with_capacity(entries.len());
        let mut groups = HashMap::new();
        for (number, entry) in entries.iter().enumerate() {
            if numbers.insert(entry.name.as_str(), number).is_some() {
                return Err(Error::corrupt(format!("there are two tensors {:?}", entry.name)));
            }
            if entry.name == "__metadata__" {
                return Err(Error::corrupt("a tensor has the name that metadata have"));
            }
            if entry.codec == GROUP {
                let members = group_members(&entry.extra).map_err(|e| in_tensor(e, entry))?;
                groups.insert(number, members);
            }
        }
        Ok(Places { entries, numbers, groups })
    }

    fn all(&self) -> Result<Vec<Place>> {
        self.entries.iter().map(|entry| self.place(entry).map_err(|e| in_tensor(e, entry))).collect()
    }

    fn find(&self, name: &Value) -> Option<usize> {
        self.numbers.get(name.as_str()?).copied()
    }

    fn place(&self, entry: &Entry) -> Result<Place> {
        let mut number = self.numbers[entry.name.as_str()];
        for _ in 0..LONGEST_TIE {
            if self.entries[number].codec != TIED {
                break;
            }
            let target = self.find(&self.entries[number].extra["tied_to"]);
            number = target.ok_or_else(|| Error::corrupt("it is tied to a tensor that is not there"))?;
        }
        let current = &self.entries[number];
        let place = match current.codec.as_str() {
            TIED => return Err(Error::corrupt("it is tied to itself, or to others that are tied in turn")),
            GROUP => self.member(number, current)?,
            MEMBER => {
                let master = self.find(&current.extra["group_master"]);
                self.member(master.ok_or_else(|| Error::corrupt("the master of its group is not there"))?, current)?
            }
            _ => Place { master: number, members: 1, part: 0..current.bytes },
        };
        match place.part.len() == entry.bytes {
            true => Ok(place),
            false => Err(Error::corrupt("it is tied to a tensor of another length")),
        }
    }

    /// The place of a member of the group whose master has this number.
    fn member(&self, master: usize, member: &Entry) -> Result<Place> {
        let first = &self.entries[master];
        let group = self.groups.get(&master);
        let group = group
            .filter(|_| (first.dtype, first.bytes, first.elements) == (member.dtype, member.bytes, member.elements));
        let group = group.ok_or_else(|| Error::corrupt("the master of its group is none, or of another kind"))?;
        let number = group.get(member.name.as_str()).copied();
        let number = number.ok_or_else(|| Error::corrupt("its group does not know it"))?;
        let recorded = member.extra.get("member_index").and_then(Value::as_u64);
        if member.codec == MEMBER && recorded.is_some_and(|recorded| recorded != number as u64) {
            return Err(Error::corrupt("its number in its group is not what the group says"));
        }
        let overflow = || Error::corrupt("the lengths of a group overflow");
        member.bytes.checked_mul(group.len()).ok_or_else(overflow)?;
        member.elements.checked_mul(group.len()).ok_or_else(overflow)?;
        let start = number * member.bytes;
        Ok(Place { master, members: group.len(), part: start..start + member.bytes })
    }
}

fn in_tensor(error: Error, entry: &Entry) -> Error {
    error.context(format_args!("tensor {:?}", entry.name))
}

/// Adds tensors that are not stored to those that are.
fn add_aliases(tensors: &mut Vec<Placed>, aliases: &[(&str, &str)]) -> Result<()> {
    let mut names: HashMap<String, usize> =
        tensors.iter().enumerate().map(|(number, (_, tensor))| (tensor.name.clone(), number)).collect();
    for &(alias, master) in aliases {
        let Some(&number) = names.get(master) else {
            return Err(Error::corrupt(format!(
                "the index says that {alias:?} equals {master:?}, which is not in this file"
            )));
        };
        if names.contains_key(alias) {
            continue;
        }
        let (dtype, UpstreamTensor { dtype: spelled, shape, md5, unit, part, .. }) = &tensors[number];
        let tensor = UpstreamTensor {
            name: alias.to_owned(),
            dtype: spelled,
            shape: shape.clone(),
            range: 0..0,
            md5: *md5,
            unit: *unit,
            part: part.clone(),
        };
        names.insert(alias.to_owned(), tensors.len());
        tensors.push((*dtype, tensor));
    }
    Ok(())
}
