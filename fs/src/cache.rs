//! Decoded chunks, kept for a while.
//!
//! The kernel's page cache is the cache that matters; this one bridges the time until the kernel has asked for all of a
//! chunk, which it does in pieces that begin and end within chunks, from several threads and out of order. Whoever asks
//! first for a part of a chunk decodes it; whoever asks for another part meanwhile waits for that. No lock is held while
//! a chunk is decoded.
//!
//! Two kinds of chunks are not kept. One that a read wants all of is decoded to where the read wants it: the kernel never
//! has two reads of one page under way, so nobody else can want it now. And one of which each byte has been handed out
//! is dropped: the kernel has it. So a file that is read from its start to its end needs next to no memory here, and the
//! few buffers that it needs are used again and again, while the processor still has them in its caches.
//!
//! Others may [offer](ChunkCache::offer) chunks that nobody has asked for yet, which are taken as long as there is room.
//!
//! Chunks of the base of a patch are kept in any case, as long as there is room: they are read here and not by the kernel, and what one
//! patch was decoded with the next one will be.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bigsmall_codec::{ChunkIndex, Error, ErrorKind, Original, make_room};
use lru::LruCache;

use crate::lock::lock;

/// What an original is called in the cache: given once to each opening of each version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u64);

/// How many buffers of chunks that were dropped wait for the next chunk.
const SPARE_BUFFERS: usize = 8;

/// A chunk, or why there is none. Shared by all who wait for it.
type Outcome = Result<Arc<Vec<u8>>, Arc<Error>>;

type Key = (FileId, ChunkIndex);

/// What chunks are read from.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    /// Its name in the cache.
    pub file: FileId,
    /// What is decoded.
    pub original: &'a dyn Original,
    /// Who reads it.
    pub reader: Reader,
}

/// Who reads chunks, and so whether they will be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The kernel, which keeps what it has read.
    Kernel,
    /// A patch that is decoded with them. Others may have the same base.
    Patch,
}

impl Store<'_> {
    /// How many bytes the kernel has when this part of a chunk has been read.
    fn handed_out(&self, part: &Range<usize>) -> usize {
        if self.reader == Reader::Kernel { part.len() } else { 0 }
    }
}

/// A decode that is under way.
#[derive(Default)]
struct Flight {
    outcome: Mutex<Option<Outcome>>,
    landed: Condvar,
    /// Bytes that those who wait for it will have been handed out; changed under the lock of the cache's state.
    handed_out: AtomicUsize,
}

/// A chunk that is kept.
struct Kept {
    bytes: Arc<Vec<u8>>,
    /// Bytes that have been handed out, however often each.
    handed_out: usize,
}

struct State {
    chunks: LruCache<Key, Kept>,
    /// Bytes of all chunks together.
    bytes: u64,
    flights: HashMap<Key, Arc<Flight>>,
    /// Buffers for the next chunks: those of chunks that were dropped, or made by [`ChunkCache::make_ready`].
    spare: Vec<Vec<u8>>,
    /// The length of the last chunk that needed a buffer, in bytes.
    last_len: usize,
}

/// What becomes of a chunk that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is kept, or was there, or is being decoded.
    Taken,
    /// There is no room for it now.
    Full,
}

/// What a cache has done so far.
#[derive(Debug, Default)]
pub struct Counters {
    hits: AtomicU64,
    decoded: AtomicU64,
    offered: AtomicU64,
    decode_nanoseconds: AtomicU64,
    failed: AtomicU64,
}

/// What a cache had done at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Parts of chunks that were at hand, or became so while somebody else decoded them.
    pub hits: u64,
    /// Chunks that were decoded.
    pub decoded: u64,
    /// Chunks that were decoded by others and offered.
    pub offered: u64,
    /// The time that decoding took, that of all threads added up.
    pub decode_time: Duration,
    /// Chunks that could not be decoded.
    pub failed: u64,
}

/// A bounded cache of decoded chunks, shared between threads.
pub struct ChunkCache {
    capacity: u64,
    state: Mutex<State>,
    counters: Counters,
}

impl ChunkCache {
    /// A cache that keeps at most `capacity` bytes of chunks.
    pub fn new(capacity: u64) -> ChunkCache {
        let state =
            State { chunks: LruCache::unbounded(), bytes: 0, flights: HashMap::new(), spare: Vec::new(), last_len: 0 };
        ChunkCache { capacity, state: Mutex::new(state), counters: Counters::default() }
    }

    /// Fills `out` with the bytes of the original from `offset` on.
    ///
    /// # Errors
    /// Those of [`Original::decode_chunk`]; `out` then holds unspecified bytes. An error is not kept: the next who asks
    /// tries again.
    ///
    /// # Panics
    /// When the range reaches beyond the end of the original.
    pub fn read(&self, store: Store<'_>, offset: u64, out: &mut [u8]) -> Result<(), Arc<Error>> {
        let original = store.original;
        let end = offset + out.len() as u64;
        assert!(end <= original.len(), "bytes {offset} to {end} of {}", original.len());
        let mut rest = out;
        for chunk in original.grid().chunks_of(offset..end) {
            let have = original.grid().range(chunk);
            let (from, to) = (have.start.max(offset), have.end.min(end));
            let part;
            (part, rest) = rest.split_at_mut((to - from) as usize);
            self.read_chunk(store, chunk, (from - have.start) as usize..(to - have.start) as usize, part)?;
        }
        Ok(())
    }

    /// Sees to it that a buffer is at hand for the next chunk. To be called when nobody waits: where chunks are kept each needs a new
    /// buffer, and memory that comes from the system, page by page, takes a fifth of the time that a read of some bytes takes.
    pub fn make_ready(&self) {
        let len = {
            let state = lock(&self.state);
            if !state.spare.is_empty() { 0 } else { state.last_len }
        };
        let mut buffer = Vec::new();
        // Without memory the next read will say so, if it still is so then.
        if len > 0 && make_room(&mut buffer, len).is_ok() {
            recycle(&mut lock(&self.state), buffer);
        }
    }

    /// What has been done so far.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            hits: get(&self.counters.hits),
            decoded: get(&self.counters.decoded),
            offered: get(&self.counters.offered),
            decode_time: Duration::from_nanos(get(&self.counters.decode_nanoseconds)),
            failed: get(&self.counters.failed),
        }
    }

    /// Takes a decoded chunk that has not been asked for. Nothing is dropped for it.
    pub fn offer(&self, file: FileId, chunk: ChunkIndex, bytes: &[u8]) -> Offer {
        let key = (file, chunk);
        let is_known = |state: &State| state.chunks.contains(&key) || state.flights.contains_key(&key);
        let is_full = |state: &State| state.bytes + bytes.len() as u64 > self.capacity;
        let mut buffer = {
            let mut state = lock(&self.state);
            if is_known(&state) {
                return Offer::Taken;
            }
            if is_full(&state) {
                return Offer::Full;
            }
            state.spare.pop().unwrap_or_default()
        };
        if make_room(&mut buffer, bytes.len()).is_err() {
            return Offer::Full;
        }
        buffer.copy_from_slice(bytes);
        let mut state = lock(&self.state);
        if is_known(&state) {
            return Offer::Taken;
        }
        if is_full(&state) {
            return Offer::Full;
        }
        self.keep(&mut state, key, Kept { bytes: Arc::new(buffer), handed_out: 0 });
        drop(state);
        self.counters.offered.fetch_add(1, Ordering::Relaxed);
        Offer::Taken
    }

    /// Bytes of chunks that are kept now, and the most that may be.
    pub fn usage(&self) -> (u64, u64) {
        (lock(&self.state).bytes, self.capacity)
    }

    /// Fills `out` with the part `wanted` of a chunk.
    fn read_chunk(
        &self,
        store: Store<'_>,
        chunk: ChunkIndex,
        wanted: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), Arc<Error>> {
        let key = (store.file, chunk);
        let range = store.original.grid().range(chunk);
        let len = (range.end - range.start) as usize;
        let mut state = lock(&self.state);
        let bytes = if let Some(kept) = state.chunks.get_mut(&key) {
            kept.handed_out += store.handed_out(&wanted);
            let (bytes, done) = (Arc::clone(&kept.bytes), kept.handed_out >= len);
            if done {
                self.drop_chunk(&mut state, &key);
            }
            drop(state);
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            bytes
        } else if let Some(flight) = state.flights.get(&key).cloned() {
            flight.handed_out.fetch_add(store.handed_out(&wanted), Ordering::Relaxed);
            drop(state);
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            flight.wait()?
        } else if wanted.len() == len && store.reader == Reader::Kernel {
            drop(state);
            return self.decode(store, chunk, out).map_err(Arc::new);
        } else {
            let flight = Arc::new(Flight { handed_out: store.handed_out(&wanted).into(), ..Flight::default() });
            state.flights.insert(key, Arc::clone(&flight));
            let buffer = state.spare.pop().unwrap_or_default();
            state.last_len = len;
            drop(state);
            self.fly(store, chunk, &flight, buffer, len)?
        };
        out.copy_from_slice(&bytes[wanted]);
        self.give_back(bytes);
        Ok(())
    }

    /// Decodes a chunk of `len` bytes for all who wait for `flight`, and keeps it unless they are handed out all of it.
    fn fly(&self, store: Store<'_>, chunk: ChunkIndex, flight: &Flight, mut buffer: Vec<u8>, len: usize) -> Outcome {
        let key = (store.file, chunk);
        let outcome = make_room(&mut buffer, len).and_then(|()| self.decode(store, chunk, &mut buffer));
        let outcome = outcome.map(|()| Arc::new(buffer)).map_err(Arc::new);
        let mut state = lock(&self.state);
        state.flights.remove(&key);
        let handed_out = flight.handed_out.load(Ordering::Relaxed);
        if let Ok(bytes) = &outcome
            && handed_out < len
        {
            self.keep(&mut state, key, Kept { bytes: Arc::clone(bytes), handed_out });
        }
        drop(state);
        flight.land(outcome.clone());
        outcome
    }

    /// Decodes a chunk.
    fn decode(&self, store: Store<'_>, chunk: ChunkIndex, out: &mut [u8]) -> Result<(), Error> {
        let start = Instant::now();
        // A panic must not leave the others waiting for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| store.original.decode_chunk(chunk, out)))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Corrupt, "the decoder panicked")));
        let counter = if outcome.is_ok() { &self.counters.decoded } else { &self.counters.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.counters.decode_nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        outcome
    }

    fn keep(&self, state: &mut State, key: Key, chunk: Kept) {
        state.bytes += chunk.bytes.len() as u64;
        if let Some(old) = state.chunks.put(key, chunk) {
            state.bytes -= old.bytes.len() as u64;
        }
        while state.bytes > self.capacity {
            let Some((_, evicted)) = state.chunks.pop_lru() else { break };
            state.bytes -= evicted.bytes.len() as u64;
            recycle_chunk(state, evicted.bytes);
        }
    }

    fn drop_chunk(&self, state: &mut State, key: &Key) {
        if let Some(kept) = state.chunks.pop(key) {
            state.bytes -= kept.bytes.len() as u64;
        }
    }

    /// Takes back what was handed out, in case that it was the last use of a chunk that is not kept any more.
    fn give_back(&self, bytes: Arc<Vec<u8>>) {
        if let Some(buffer) = Arc::into_inner(bytes) {
            recycle(&mut lock(&self.state), buffer);
        }
    }
}

/// Keeps the buffer of a chunk that nobody uses for the next one.
fn recycle_chunk(state: &mut State, bytes: Arc<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(bytes) {
        recycle(state, buffer);
    }
}

fn recycle(state: &mut State, buffer: Vec<u8>) {
    if state.spare.len() < SPARE_BUFFERS {
        state.spare.push(buffer);
    }
}

impl Flight {
    fn wait(&self) -> Outcome {
        let mut outcome = lock(&self.outcome);
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            outcome = self.landed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn land(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
        self.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use bigsmall_codec::{Grid, Result as CodecResult};

    use super::*;

    const CHUNK: usize = 100;

    /// An original whose bytes are known, that counts what is decoded and fails on demand.
    struct Counting {
        grid: Grid,
        decoded: AtomicU64,
        fails: AtomicBool,
        panics: AtomicBool,
        takes: Duration,
    }

    impl Counting {
        fn new(len: u64) -> Counting {
            let no = AtomicBool::default;
            let grid = Grid::uniform(len, CHUNK as u32).unwrap();
            Counting { grid, decoded: AtomicU64::new(0), fails: no(), panics: no(), takes: Duration::ZERO }
        }

        fn byte(at: u64) -> u8 {
            (at * 31 / 7) as u8
        }

        fn decoded(&self) -> u64 {
            self.decoded.load(Ordering::Relaxed)
        }
    }

    impl Original for Counting {
        fn grid(&self) -> &Grid {
            &self.grid
        }

        fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> CodecResult<()> {
            thread::sleep(self.takes);
            self.decoded.fetch_add(1, Ordering::Relaxed);
            assert!(!self.panics.load(Ordering::Relaxed), "as the test wishes");
            if self.fails.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Corrupt, "as the test wishes"));
            }
            let start = self.grid.range(chunk).start;
            (start..).zip(out).for_each(|(at, byte)| *byte = Counting::byte(at));
            Ok(())
        }
    }

    fn store(original: &Counting) -> Store<'_> {
        Store { file: FileId(1), original, reader: Reader::Kernel }
    }

    #[track_caller]
    fn read(cache: &ChunkCache, original: &Counting, offset: u64, len: usize) {
        let mut out = vec![0; len];
        cache.read(store(original), offset, &mut out).unwrap();
        assert!((offset..).zip(&out).all(|(at, byte)| *byte == Counting::byte(at)), "{len} bytes at {offset}");
    }

    #[test]
    fn a_file_read_from_start_to_end_is_decoded_once_and_not_kept() {
        let (cache, original) = (ChunkCache::new(1000), Counting::new(1050));
        // Pieces that begin and end within chunks, and some that hold whole ones.
        let mut at = 0;
        for len in [30, 250, 20, 370, 100, 180, 100] {
            read(&cache, &original, at, len);
            at += len as u64;
        }
        assert_eq!((at, original.decoded()), (1050, 11));
        assert_eq!(cache.usage(), (0, 1000));
        assert_eq!((cache.counts().decoded, cache.counts().failed), (11, 0));
    }

    #[test]
    fn a_buffer_is_ready_where_chunks_take_some() {
        let spare = |cache: &ChunkCache| lock(&cache.state).spare.iter().map(Vec::len).collect::<Vec<_>>();
        let (cache, original) = (ChunkCache::new(1000), Counting::new(1000));
        cache.make_ready();
        read(&cache, &original, 0, CHUNK);
        cache.make_ready();
        assert!(spare(&cache).is_empty(), "nothing has needed one");
        read(&cache, &original, 110, 10);
        cache.make_ready();
        cache.make_ready();
        assert_eq!(spare(&cache), [CHUNK]);
        read(&cache, &original, 210, 10);
        assert!(spare(&cache).is_empty(), "chunk 2 has it");
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let (cache, original) = (ChunkCache::new(250), Counting::new(1000));
        for chunk in [0, 1, 0, 2, 0] {
            read(&cache, &original, chunk * 100, 10);
            assert!(cache.usage().0 <= 250);
        }
        assert_eq!(original.decoded(), 3);
        read(&cache, &original, 110, 10);
        assert_eq!(original.decoded(), 4, "chunk 1 was used least recently");
        let none = ChunkCache::new(0);
        read(&none, &original, 5, 300);
        assert_eq!(none.usage(), (0, 0));
    }

    #[test]
    fn what_is_offered_is_taken_as_long_as_there_is_room() {
        let (cache, original) = (ChunkCache::new(250), Counting::new(1000));
        let chunk = |number: u64| (number * 100..(number + 1) * 100).map(Counting::byte).collect::<Vec<u8>>();
        let offer = |number| cache.offer(FileId(1), ChunkIndex(number), &chunk(number));
        assert_eq!([offer(0), offer(1), offer(0), offer(2)], [Offer::Taken, Offer::Taken, Offer::Taken, Offer::Full]);
        assert_eq!((cache.usage().0, cache.counts().offered), (200, 2));
        read(&cache, &original, 0, 100);
        read(&cache, &original, 100, 60);
        read(&cache, &original, 160, 40);
        assert_eq!((original.decoded(), cache.usage().0), (0, 0), "all of both was read");
        assert_eq!(offer(2), Offer::Taken);
        read(&cache, &original, 250, 100);
        assert_eq!(original.decoded(), 1, "the one that was not offered");
    }

    #[test]
    fn what_patches_read_is_kept_for_the_next_one() {
        let (cache, original) = (ChunkCache::new(250), Counting::new(1000));
        let of_patch = Store { reader: Reader::Patch, ..store(&original) };
        let read = |offset| cache.read(of_patch, offset, &mut [0; CHUNK]).unwrap();
        (0..10).for_each(|_| read(100));
        assert_eq!((original.decoded(), cache.usage().0), (1, 100));
        [200, 300, 200].into_iter().for_each(read);
        assert_eq!((original.decoded(), cache.usage().0), (3, 200), "as long as there is room");
        read(100);
        assert_eq!(original.decoded(), 4);
        cache.read(store(&original), 100, &mut [0; CHUNK]).unwrap();
        assert_eq!((original.decoded(), cache.usage().0), (4, 100), "the kernel has all of it now");
    }

    #[test]
    fn one_decode_serves_all_who_ask_meanwhile() {
        let cache = ChunkCache::new(1000);
        let original = Counting { takes: Duration::from_millis(50), ..Counting::new(100) };
        let barrier = Barrier::new(16);
        thread::scope(|scope| {
            for offset in 0..16 {
                let (cache, original, barrier) = (&cache, &original, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    read(cache, original, offset, 3);
                });
            }
        });
        assert_eq!(original.decoded(), 1);
        assert_eq!(cache.counts().hits, 15);
    }

    #[test]
    fn a_chunk_that_two_readers_share_is_not_kept_when_both_have_their_parts() {
        let cache = ChunkCache::new(1000);
        let original = Counting { takes: Duration::from_millis(50), ..Counting::new(100) };
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            for offset in [0, 50] {
                let (cache, original, barrier) = (&cache, &original, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    read(cache, original, offset, 50);
                });
            }
        });
        assert_eq!((original.decoded(), cache.counts().hits), (1, 1));
        assert_eq!(cache.usage().0, 0);
        assert_eq!(lock(&cache.state).spare.len(), 1, "its buffer is for the next one");
    }

    #[test]
    fn failures_reach_all_who_wait_and_are_not_kept() {
        let cache = ChunkCache::new(1000);
        let original = Counting { takes: Duration::from_millis(50), ..Counting::new(100) };
        for failing in [&original.fails, &original.panics] {
            failing.store(true, Ordering::Relaxed);
            let failed = AtomicU64::new(0);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let outcome = cache.read(store(&original), 0, &mut [0; 10]);
                        failed.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!(failed.into_inner(), 4);
            assert!(cache.read(store(&original), 0, &mut [0; CHUNK]).is_err(), "a whole chunk");
            failing.store(false, Ordering::Relaxed);
            read(&cache, &original, 0, 10);
            cache.read(store(&original), 10, &mut [0; 90]).unwrap();
        }
    }
}
