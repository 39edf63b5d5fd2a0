//! The MD5 of many ranges of an original.
//!
//! One MD5 alone is far slower than anything else that is done with an original, and it cannot be taken in parts. But
//! there are many tensors, and [`lanes`] hashes sixteen messages in the time of one. So the tensors are not hashed as
//! their bytes go by, one after the other, but sixteen at a time wherever they lie: each lane reads a range of its own
//! from the source, beside whoever else reads it, and turns to the next range when it is done, the longest first, so that
//! no lane is left alone with a long one at the end.
//!
//! The source is thus read twice. [`RangeHashes::advance`] does as much at a time as its caller has read, and looks no
//! further ahead than [`HORIZON`], so that the second reader finds in the page cache what the first has brought there.

pub(crate) mod lanes;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::error::Result;
use crate::original::Original;
use crate::simd::{self, Level};
use lanes::{BLOCK, LANES, States};

/// How far beyond its caller's position a range may begin that is hashed already, in bytes. Far enough that sixteen of
/// the largest tensors of most models lie in it, and little enough that a page cache can hold it.
const HORIZON: u64 = 2 << 30;

/// Bytes that all lanes together may have read and not yet hashed.
const MEMORY: u64 = 16 << 20;

/// Bytes that a lane reads at a time, at least, where chunks are short.
const READ: u64 = 64 << 10;

/// An MD5.
pub(crate) type Md5 = [u8; 16];

/// Takes the MD5 of ranges of an original.
pub(crate) struct RangeHashes<'a> {
    source: &'a dyn Original,
    level: Level,
    ranges: &'a [Range<u64>],
    hashes: Vec<Option<Result<Md5>>>,
    /// The first range that is not yet in `waiting`.
    next: usize,
    /// The ranges that a lane may turn to, the longest first and of equally long ones the first.
    waiting: BinaryHeap<(u64, Reverse<usize>)>,
    states: States,
    lanes: [Option<Lane>; LANES],
    /// Memory of lanes that are done.
    buffers: Vec<Vec<u8>>,
    /// How many lanes may read at once.
    readers: usize,
}

/// A range that is being hashed.
struct Lane {
    /// Its number.
    range: usize,
    /// Where the bytes that are still to be read begin.
    position: u64,
    /// What is read lies in here from `hashed` to `filled`; the bytes before are done.
    buffer: Vec<u8>,
    hashed: usize,
    filled: usize,
    /// Whether `buffer` ends with the end of the message.
    padded: bool,
}

impl<'a> RangeHashes<'a> {
    /// Begins to hash `ranges` of `source`, sorted by where they begin.
    pub(crate) fn new(source: &'a dyn Original, ranges: &'a [Range<u64>]) -> RangeHashes<'a> {
        RangeHashes::with_level(source, ranges, simd::level())
    }

    fn with_level(source: &'a dyn Original, ranges: &'a [Range<u64>], level: Level) -> RangeHashes<'a> {
        debug_assert!(ranges.is_sorted_by_key(|range| range.start));
        RangeHashes {
            source,
            level,
            ranges,
            hashes: ranges.iter().map(|_| None).collect(),
            next: 0,
            waiting: BinaryHeap::new(),
            states: States::new(),
            lanes: [const { None }; LANES],
            buffers: Vec::new(),
            readers: (MEMORY / u64::from(source.grid().longest_chunk()).max(1)).clamp(1, LANES as u64) as usize,
        }
    }

    /// Hashes about `bytes` more bytes of the ranges that begin before `position` or not far behind it.
    pub(crate) fn advance(&mut self, position: u64, bytes: u64) {
        let near = self.ranges.partition_point(|range| range.start <= position.saturating_add(HORIZON));
        let (ranges, new) = (self.ranges, self.next..near.max(self.next));
        self.next = new.end;
        self.waiting.extend(new.map(|number| (ranges[number].end - ranges[number].start, Reverse(number))));
        let mut done = 0;
        while done < bytes {
            match self.step() {
                0 => break,
                hashed => done += hashed,
            }
        }
    }

    /// The hashes of all ranges, in their order, or why they could not be read.
    pub(crate) fn finish(mut self) -> Vec<Result<Md5>> {
        self.advance(u64::MAX, u64::MAX);
        self.hashes.into_iter().map(|hash| hash.expect("no range is left")).collect()
    }

    /// Hashes as many blocks as every busy lane has; returns how many bytes that are, 0 when there is nothing to do.
    fn step(&mut self) -> u64 {
        for lane in 0..self.readers {
            self.supply(lane);
        }
        let left = |lane: &Lane| (lane.filled - lane.hashed) / BLOCK * BLOCK;
        let busy = || self.lanes.iter().flatten();
        let Some(len) = busy().map(left).min() else { return 0 };
        let hashed = (busy().count() * len) as u64;
        // A lane without work goes along with another.
        let other = busy().next().expect("there is one, since there is a shortest");
        let messages = std::array::from_fn(|number| {
            let lane = self.lanes[number].as_ref().unwrap_or(other);
            &lane.buffer[lane.hashed..lane.hashed + len]
        });
        self.states.update(messages, self.level);
        self.lanes.iter_mut().flatten().for_each(|lane| lane.hashed += len);
        hashed
    }

    /// Sees to it that a lane has a block to hash, unless nothing is left to do.
    fn supply(&mut self, number: usize) {
        loop {
            let Some(lane) = &mut self.lanes[number] else {
                let Some((_, Reverse(range))) = self.waiting.pop() else { return };
                let position = self.ranges[range].start;
                let buffer = self.buffers.pop().unwrap_or_default();
                self.lanes[number] = Some(Lane { range, position, buffer, hashed: 0, filled: 0, padded: false });
                self.states.set_lane(number, States::INITIAL);
                continue;
            };
            if lane.filled - lane.hashed >= BLOCK {
                return;
            }
            let hash = if lane.padded {
                Ok(digest(self.states.lane(number)))
            } else {
                match lane.read(self.source, &self.ranges[lane.range]) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                }
            };
            self.hashes[lane.range] = Some(hash);
            self.buffers.extend(self.lanes[number].take().map(|lane| lane.buffer));
        }
    }
}

impl Lane {
    /// Reads on to the end of `range` or, since chunks are decoded as a whole, of a chunk of `source`. Behind the last
    /// byte the message is padded.
    fn read(&mut self, source: &dyn Original, range: &Range<u64>) -> Result<()> {
        self.buffer.copy_within(self.hashed..self.filled, 0);
        (self.hashed, self.filled) = (0, self.filled - self.hashed);
        if self.position < range.end {
            let last = (self.position + READ).min(range.end) - 1;
            let chunk = source.grid().chunk_at(last).map(|chunk| source.grid().range(chunk));
            let end = chunk.map_or(range.end, |chunk| chunk.end.min(range.end));
            let filled = self.filled + (end - self.position) as usize;
            // With room for the padding. What is there already is overwritten, so it need not be cleared.
            if self.buffer.len() < filled + 2 * BLOCK {
                self.buffer.resize(filled + 2 * BLOCK, 0);
            }
            source.read_at(self.position, &mut self.buffer[self.filled..filled])?;
            (self.filled, self.position) = (filled, end);
        }
        if self.position == range.end {
            // RFC 1321, 3.1 and 3.2: a bit, zeros up to a whole block less 8 bytes, the length in bits.
            let padded = (self.filled + 1 + 8).next_multiple_of(BLOCK);
            self.buffer.resize(self.buffer.len().max(padded), 0);
            let padding = &mut self.buffer[self.filled..padded];
            padding.fill(0);
            padding[0] = 0x80;
            let (_, length) = padding.split_last_chunk_mut().expect("padding is longer than a length");
            *length = ((range.end - range.start) << 3).to_le_bytes();
            self.filled = padded;
            self.padded = true;
        }
        Ok(())
    }
}

/// What a state means when all blocks are done.
fn digest(state: [u32; 4]) -> Md5 {
    let mut digest = [0; 16];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_le_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::original::{ChunkIndex, Grid};
    use md5::Digest;

    /// Random bytes in chunks of several lengths, of which one may be broken.
    struct Random {
        bytes: Vec<u8>,
        grid: Grid,
        broken: Option<ChunkIndex>,
    }

    impl Random {
        fn new(broken: Option<u64>) -> Random {
            let mut grid = Grid::new();
            for (len, chunk_size) in [(1000, 7), (100_000, 1000), (3 << 20, 64 << 10), (2 << 20, 1 << 20)] {
                grid.push(len, chunk_size).unwrap();
            }
            let mut random = 1u64;
            let byte = |_| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 56) as u8
            };
            Random { bytes: (0..grid.len()).map(byte).collect(), grid, broken: broken.map(ChunkIndex) }
        }
    }

    impl Original for Random {
        fn grid(&self) -> &Grid {
            &self.grid
        }

        fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
            if self.broken == Some(chunk) {
                return Err(Error::corrupt("broken"));
            }
            let range = self.grid.range(chunk);
            out.copy_from_slice(&self.bytes[range.start as usize..range.end as usize]);
            Ok(())
        }
    }

    /// Ranges of all lengths around a block's, and some long ones; some are empty, some are the same.
    fn ranges() -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = (0..200).map(|len| (len * 37, len)).map(|(at, len)| at..at + len).collect();
        ranges.extend((0..20).map(|i| 100_000 + i * 1000..100_000 + i * i * 10_000));
        ranges.extend([101_000..101_000 + (3 << 20), 5_000_000..5_343_880, 5_343_880..5_343_880]);
        ranges.sort_by_key(|range| range.start);
        ranges
    }

    #[test]
    fn hashes_are_those_of_the_definition() {
        let (source, ranges) = (Random::new(None), ranges());
        let expected: Vec<Md5> = ranges
            .iter()
            .map(|range| md5::Md5::digest(&source.bytes[range.start as usize..range.end as usize]).into())
            .collect();
        for level in Level::available() {
            for step in [1000, 1 << 20, u64::MAX] {
                let mut hashes = RangeHashes::with_level(&source, &ranges, level);
                (0..30).for_each(|i| hashes.advance(i * 200_000, step));
                let hashes = hashes.finish().into_iter().collect::<Result<Vec<_>>>().unwrap();
                assert_eq!(hashes, expected, "{level:?}, {step} bytes at a time");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_spoils_no_other_hash() {
        let (source, ranges) = (Random::new(Some(250)), ranges());
        let broken = source.grid.range(ChunkIndex(250));
        let hashes = RangeHashes::new(&source, &ranges).finish();
        let mut spoilt = 0;
        for (range, hash) in ranges.iter().zip(hashes) {
            if range.start < broken.end && broken.start < range.end {
                assert_eq!(hash.unwrap_err().kind(), ErrorKind::Corrupt);
                spoilt += 1;
            } else {
                let bytes = &source.bytes[range.start as usize..range.end as usize];
                assert_eq!(hash.unwrap(), <Md5>::from(md5::Md5::digest(bytes)));
            }
        }
        assert!(spoilt > 1);
    }

    #[test]
    fn nothing_is_hashed_far_ahead() {
        let grid = Grid::uniform(4 * HORIZON, 1 << 20).unwrap();
        struct Far(Grid);
        impl Original for Far {
            fn grid(&self) -> &Grid {
                &self.0
            }
            fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
                assert!(self.0.range(chunk).start <= HORIZON, "read too far");
                out.fill(0);
                Ok(())
            }
        }
        let far = Far(grid);
        let ranges = [0..100, HORIZON..HORIZON + 100, 3 * HORIZON..3 * HORIZON + 100];
        let mut hashes = RangeHashes::new(&far, &ranges);
        hashes.advance(0, u64::MAX);
        assert_eq!(hashes.hashes.iter().filter(|hash| hash.is_some()).count(), 2);
    }

    #[test]
    fn nothing_to_hash_is_no_trouble() {
        assert!(RangeHashes::new(&Random::new(None), &[]).finish().is_empty());
    }
}
