//! Checking a container: every chunk's checksum, every tensor's MD5, the SHA-256 of the whole original.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Progress;
use crate::container::{Container, Tensor};
use crate::error::{ErrorKind, Result};
use crate::hashes::RangeHashes;
use crate::original::{ChunkIndex, Original};
use crate::stream::{Windows, cancelled, windows};

/// What [`verify`] found. Everything was looked at, whatever was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the original.
    pub original_len: u64,
    /// Chunks of the original.
    pub chunks: u64,
    /// Tensors of the original.
    pub tensors: u64,
    /// What is wrong, by position, what is wrong with the original as a whole last. Empty when the container is sound.
    pub damage: Vec<Damage>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// A part of the original that is lost or not what was compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong with it.
    pub cause: Cause,
    /// The bytes of the original that cannot be relied on.
    pub range: Range<u64>,
    /// The tensor that they belong to, by its position in [`Container::tensors`]; `None` when they are of none, or of
    /// the original as a whole.
    pub tensor: Option<usize>,
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// For people: what is wrong.
    pub message: String,
}

/// What a [`Damage`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Stored chunks cannot be read, fail their checksum or cannot be decoded.
    Chunk,
    /// All chunks are sound, but together they do not have the tensor's MD5.
    TensorHash,
    /// All chunks are sound, but together they do not have the original's SHA-256.
    OriginalHash,
    /// All chunks are sound, but their bytes are not those of the file that they are compared with.
    Difference,
}

/// Reads and decodes all of `container` on the threads of the current rayon pool, in bounded memory, and compares it
/// with every checksum and hash that it records. Damage does not end it.
///
/// # Errors
/// Only [`ErrorKind::Cancelled`].
pub fn verify(container: &Container, progress: &dyn Progress) -> Result<Report> {
    verify_decoded(container, &(container as &dyn Original), progress)
}

/// The same, but most of it is `decoded` in another way.
pub(crate) fn verify_decoded(container: &Container, decoded: &dyn Windows, progress: &dyn Progress) -> Result<Report> {
    compare(container, decoded, container.tensors(), container.sha256(), progress)
}

/// What [`sample`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How many chunks of the original were decoded.
    pub chunks: u64,
    /// What is wrong with them. MD5s and the SHA-256 are not compared.
    pub report: Report,
}

impl Sample {
    /// How probable it is that `damaged` chunks, wherever they are, are none of those that were looked at.
    pub fn miss_probability(&self, damaged: u64) -> f64 {
        let (all, unseen) = (self.report.chunks, self.report.chunks - self.chunks);
        if damaged > unseen {
            return 0.0;
        }
        (0..damaged).map(|i| (unseen - i) as f64 / (all - i) as f64).product()
    }
}

/// Decodes a random part of the chunks of `original`, at least one, and checks their checksums. `tensors` says where the
/// tensors lie, in order. `fraction` is from 0 to 1; `seed` chooses the chunks.
///
/// # Errors
/// Only [`ErrorKind::Cancelled`].
pub fn sample(
    original: &dyn Original,
    tensors: &[Range<u64>],
    fraction: f64,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Sample> {
    let grid = original.grid();
    let wanted = ((grid.chunks() as f64 * fraction).ceil() as u64).clamp(1.min(grid.chunks()), grid.chunks());
    let mut chosen = BTreeSet::new();
    let mut state = seed;
    // Floyd's way to choose without repetition.
    for last in grid.chunks() - wanted..grid.chunks() {
        let number = random(&mut state) % (last + 1);
        chosen.insert(if chosen.contains(&number) { last } else { number });
    }
    let chosen: Vec<u64> = chosen.into_iter().collect();
    let errors = chosen.par_iter().map_init(Vec::new, |buffer: &mut Vec<u8>, &number| {
        if progress.cancelled() {
            return Err(cancelled());
        }
        let range = grid.range(ChunkIndex(number));
        buffer.resize((range.end - range.start) as usize, 0);
        let decoded = original.decode_chunk(ChunkIndex(number), buffer);
        progress.advance(range.end - range.start);
        Ok(decoded.err().map(|error| (range, error)))
    });
    let mut lost = Lost { tensors: tensors.to_vec(), damage: Vec::new() };
    for (range, error) in errors.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        lost.add(range, error.kind(), &error.to_string());
    }
    let (chunks, tensors) = (grid.chunks(), tensors.len() as u64);
    let report = Report { original_len: original.len(), chunks, tensors, damage: lost.damage };
    Ok(Sample { chunks: wanted, report })
}

/// The next of SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Decodes all of `container` and compares it byte by byte with `source`. The report has no [`Cause`] but
/// [`Difference`](Cause::Difference) and [`Chunk`](Cause::Chunk).
///
/// # Errors
/// [`ErrorKind::Cancelled`], and those of reading `source`.
pub fn compare_with(container: &Container, source: &dyn Original, progress: &dyn Progress) -> Result<Report> {
    let tensors: Vec<Range<u64>> = container.tensors().iter().map(|tensor| tensor.range.clone()).collect();
    compare_bytes(container, &tensors, source, progress)
}

/// As [`compare_with`], of an original whose tensors lie there.
pub(crate) fn compare_bytes(
    stored: &dyn Original,
    tensors: &[Range<u64>],
    source: &dyn Original,
    progress: &dyn Progress,
) -> Result<Report> {
    let mut lost = Lost { tensors: tensors.to_vec(), damage: Vec::new() };
    let mut differences: Vec<Range<u64>> = Vec::new();
    let (mut expected, common) = (Vec::new(), stored.len().min(source.len()));
    windows(stored, progress, &mut |window| {
        let mut unknown = Vec::new();
        for chunk in window.lost {
            let range = stored.grid().range(chunk.chunk);
            lost.add(range.clone(), chunk.error.kind(), &chunk.error.to_string());
            unknown.push(range);
        }
        let start = window.range.start;
        expected.resize((common.clamp(start, window.range.end) - start) as usize, 0);
        source.read_at(start.min(common), &mut expected)?;
        for range in unknown {
            let end = range.end.min(common).max(range.start);
            let (from, to) = ((range.start - start) as usize, (end - start) as usize);
            if to <= expected.len() {
                expected[from..to].fill(0);
            }
        }
        if window.bytes[..expected.len()] != expected[..] {
            let differs = |(got, expected): (&u8, &u8)| got != expected;
            let pairs = || window.bytes.iter().zip(&expected);
            let first = pairs().position(differs).expect("they differ");
            let last = pairs().rposition(differs).expect("they differ");
            differences.push(start + first as u64..start + last as u64 + 1);
        }
        Ok(())
    })?;
    let difference = |range: Range<u64>, message: String| Damage {
        cause: Cause::Difference,
        tensor: tensors.iter().position(|tensor| tensor.start < range.end && range.start < tensor.end),
        range,
        kind: ErrorKind::Corrupt,
        message,
    };
    let mut damage = lost.damage;
    damage.extend(differences.into_iter().map(|range| difference(range, "is not what is in the source".to_owned())));
    damage.sort_by_key(|damage| damage.range.start);
    if stored.len() != source.len() {
        let range = common..stored.len().max(source.len());
        damage.push(difference(range, format!("the original has {} bytes, the source {}", stored.len(), source.len())));
    }
    let (chunks, tensors) = (stored.grid().chunks(), tensors.len() as u64);
    Ok(Report { original_len: stored.len(), chunks, tensors, damage })
}

/// Compares all of `original` with these tensors' MD5s and this SHA-256; `decoded` is how it is decoded.
fn compare(
    original: &dyn Original,
    decoded: &dyn Windows,
    tensors: &[Tensor],
    sha256: &[u8; 32],
    progress: &dyn Progress,
) -> Result<Report> {
    let ranges: Vec<Range<u64>> = tensors.iter().map(|tensor| tensor.range.clone()).collect();
    let mut tensor_hashes = RangeHashes::new(original, &ranges);
    let mut original_hash = Sha256::new();
    let mut lost = Lost { tensors: ranges.clone(), damage: Vec::new() };
    decoded.windows(progress, &mut |window| {
        for chunk in window.lost {
            lost.add(original.grid().range(chunk.chunk), chunk.error.kind(), &chunk.error.to_string());
        }
        let Range { start, end } = window.range;
        rayon::join(|| original_hash.update(window.bytes), || tensor_hashes.advance(end, end - start));
        Ok(())
    })?;
    let mut damage = lost.damage;
    let lost_tensors: HashSet<usize> = damage.iter().filter_map(|damage| damage.tensor).collect();
    // Without all of its bytes the original's hash says nothing new.
    let whole = damage.is_empty();
    for (number, (tensor, md5)) in tensors.iter().zip(tensor_hashes.finish()).enumerate() {
        let (cause, kind, message) = match md5 {
            _ if lost_tensors.contains(&number) => continue,
            Ok(md5) if md5 == tensor.md5 => continue,
            Ok(_) => (Cause::TensorHash, ErrorKind::Corrupt, "its bytes do not have the recorded MD5".to_owned()),
            // It was read well a moment ago.
            Err(error) => (Cause::Chunk, error.kind(), error.to_string()),
        };
        damage.push(Damage { cause, range: tensor.range.clone(), tensor: Some(number), kind, message });
    }
    damage.sort_by_key(|damage| damage.range.start);
    if whole && <[u8; 32]>::from(original_hash.finalize()) != *sha256 {
        damage.push(Damage {
            cause: Cause::OriginalHash,
            range: 0..original.len(),
            tensor: None,
            kind: ErrorKind::Corrupt,
            message: "the original does not have the recorded SHA-256".to_owned(),
        });
    }
    let (chunks, tensors) = (original.grid().chunks(), tensors.len() as u64);
    Ok(Report { original_len: original.len(), chunks, tensors, damage })
}

/// What is lost with chunks that cannot be decoded.
struct Lost {
    /// Where the tensors lie, in order.
    tensors: Vec<Range<u64>>,
    damage: Vec<Damage>,
}

impl Lost {
    /// Notes that the chunk at `range` is lost. Chunks come by position.
    fn add(&mut self, range: Range<u64>, kind: ErrorKind, message: &str) {
        let mut start = range.start;
        let first = self.tensors.partition_point(|tensor| tensor.end <= range.start);
        for number in first..self.tensors.len() {
            let tensor = self.tensors[number].clone();
            if tensor.start >= range.end {
                break;
            }
            let part = tensor.start.max(range.start)..tensor.end.min(range.end);
            if !part.is_empty() {
                self.add_part(start..part.start, None, kind, message);
                start = part.end;
                self.add_part(part, Some(number), kind, message);
            }
        }
        self.add_part(start..range.end, None, kind, message);
    }

    /// Notes that `range`, which lies in one tensor or in none, is lost; as more of the damage before it, if it is, so
    /// that a hole in the file is one finding a tensor and not one a chunk.
    fn add_part(&mut self, range: Range<u64>, tensor: Option<usize>, kind: ErrorKind, message: &str) {
        if range.is_empty() {
            return;
        }
        match self.damage.last_mut() {
            Some(last) if last.range.end == range.start && last.tensor == tensor && last.kind == kind => {
                last.range.end = range.end;
            }
            _ => self.damage.push(Damage { cause: Cause::Chunk, range, tensor, kind, message: message.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Options, compress};
    use crate::original::Memory;
    use crate::stream::tests::{Limit, Pattern};
    use md5::Md5;

    /// Chunks of 10 bytes up to 100, then chunks of 1000 bytes.
    const SEGMENTS: [(u64, u32); 2] = [(100, 10), (50_000_000, 1000)];

    fn tensors() -> Vec<Tensor> {
        [("a", 5..25), ("empty", 25..25), ("b", 25..28), ("c", 40..90), ("d", 100..20_000_000)]
            .map(|(name, range)| Tensor {
                name: name.to_owned(),
                dtype: "U8".to_owned(),
                shape: vec![range.end - range.start],
                md5: Md5::digest(Pattern::bytes(range.clone())).into(),
                range,
            })
            .to_vec()
    }

    fn sha256() -> [u8; 32] {
        Sha256::digest(Pattern::bytes(0..50_000_100)).into()
    }

    fn check(original: &Pattern, tensors: &[Tensor], sha256: &[u8; 32], progress: &dyn Progress) -> Result<Report> {
        compare(original, &(original as &dyn Original), tensors, sha256, progress)
    }

    fn found(report: &Report) -> Vec<(Cause, Option<usize>, Range<u64>)> {
        report.damage.iter().map(|damage| (damage.cause, damage.tensor, damage.range.clone())).collect()
    }

    #[test]
    fn what_is_sound_is_called_sound() {
        let progress = Limit::new(u64::MAX);
        let report = check(&Pattern::new(&SEGMENTS, &[]), &tensors(), &sha256(), &progress).unwrap();
        assert_eq!(report, Report { original_len: 50_000_100, chunks: 50_010, tensors: 5, damage: vec![] });
        assert!(report.is_sound());
        assert_eq!(progress.done.into_inner(), 50_000_100);
    }

    #[test]
    fn a_lost_chunk_is_named_by_tensor_and_range() {
        // The third chunk holds the end of `a`, all of `b` and two bytes of nothing.
        let report = check(&Pattern::new(&SEGMENTS, &[2]), &tensors(), &sha256(), &()).unwrap();
        let expected = [(Cause::Chunk, Some(0), 20..25), (Cause::Chunk, Some(2), 25..28), (Cause::Chunk, None, 28..30)];
        assert_eq!(found(&report), expected);
        assert_eq!((report.damage[0].kind, report.damage[0].message.as_str()), (ErrorKind::Corrupt, "broken"));
    }

    #[test]
    fn damage_does_not_end_the_check_and_neighbours_are_one_finding() {
        let mut tensors = tensors();
        tensors[3].md5[0] ^= 1;
        tensors[1].md5[15] ^= 1;
        let lost: Vec<u64> = (0..3).chain(20_000..20_030).chain([50_009]).collect();
        let report = check(&Pattern::new(&SEGMENTS, &lost), &tensors, &[0; 32], &()).unwrap();
        let expected = [
            (Cause::Chunk, None, 0..5),
            (Cause::Chunk, Some(0), 5..25),
            (Cause::Chunk, Some(2), 25..28),
            (Cause::TensorHash, Some(1), 25..25),
            (Cause::Chunk, None, 28..30),
            (Cause::TensorHash, Some(3), 40..90),
            (Cause::Chunk, Some(4), 19_990_100..20_000_000),
            (Cause::Chunk, None, 20_000_000..20_020_100),
            (Cause::Chunk, None, 49_999_100..50_000_100),
        ];
        assert_eq!(found(&report), expected);
    }

    #[test]
    fn the_hash_of_the_original_is_compared() {
        let report = check(&Pattern::new(&SEGMENTS, &[]), &tensors(), &[7; 32], &()).unwrap();
        assert_eq!(found(&report), [(Cause::OriginalHash, None, 0..50_000_100)]);
    }

    #[test]
    fn a_cancelled_check_ends() {
        let error = check(&Pattern::new(&SEGMENTS, &[]), &tensors(), &sha256(), &Limit::new(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_container_is_compared_with_what_it_records() {
        let header = br#"{"w":{"dtype":"U8","shape":[70000],"data_offsets":[0,70000]}}"#;
        let mut original = (header.len() as u64).to_le_bytes().to_vec();
        original.extend_from_slice(header);
        original.extend(Pattern::bytes(0..70_000));
        let mut container = Vec::new();
        compress(&Memory::new(original), "w.safetensors", &Options::default(), &mut container, &()).unwrap();
        let verify = |container: Vec<u8>| {
            super::verify(&Container::from_store(Box::new(Memory::new(container))).unwrap(), &()).unwrap()
        };
        assert!(verify(container.clone()).is_sound());
        // The first chunk begins behind the 16 bytes of the preamble and holds the header.
        container[20] ^= 1;
        assert_eq!(found(&verify(container)), [(Cause::Chunk, None, 0..8 + header.len() as u64)]);
    }
}
