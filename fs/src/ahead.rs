//! Decoding ahead of who reads a file from start to end, on a GPU.
//!
//! Only where that was asked for. A file that is read in sequence for a while gets a thread, which has the device decode what comes next
//! and lays it into the cache, as far as there is room. Nobody waits for that thread: a read finds what it has laid there, or decodes as it
//! would without it. It ends with the file and with the mount, when the reader has gone elsewhere, and when the device fails, which is then left
//! alone for a while.

use std::mem;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bigsmall_codec::{ChunkIndex, Device, Error, ErrorKind, Original, Stored};
use lru::LruCache;
use rayon::ThreadPoolBuilder;

use crate::cache::{ChunkCache, FileId, Offer};
use crate::containers::Opened;
use crate::lock::lock;

/// Bytes that are read in sequence before it is worth starting the device.
const IN_SEQUENCE: u64 = 2 << 20;

/// How far from where it went on last time a reader may be and still be reading in sequence: the kernel asks for several pieces at once, and they
/// come in any order.
const SLACK: u64 = 4 << 20;

/// Bytes that must be left for the device to be of use.
const LEAST_LEFT: u64 = 4 << 20;

/// How long a reader may do nothing before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether there is room again.
const POLL: Duration = Duration::from_millis(2);

/// Files whose readers are remembered.
const FILES: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Threads at a time: each takes some hundreds of megabytes of pinned memory.
const MOST_THREADS: usize = 2;

/// Threads of the processor that work for each of these: they read and check what the device decodes.
const WORKERS: usize = 4;

/// How long a device that failed is left alone.
const PAUSE: Duration = Duration::from_secs(60);

/// How many runs there have been.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Where the reader of a file is.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// Its run from one jump to the next; no two have the same number.
    run: u64,
    /// The end of what it has read.
    end: u64,
    /// Bytes in sequence before that.
    in_sequence: u64,
    /// When it got on last.
    when: Instant,
    /// Whether there is a thread that decodes ahead of this run.
    has_thread: bool,
}

/// What decodes ahead.
pub struct Ahead {
    device: Device,
    cache: Arc<ChunkCache>,
    state: Mutex<State>,
}

struct State {
    readers: LruCache<FileId, Reader>,
    /// Those that decode, and some that have ended.
    threads: Vec<JoinHandle<()>>,
    /// When the device failed last.
    failed: Option<Instant>,
    /// Whether no more is wanted.
    is_over: bool,
}

/// A thread that decodes ahead of a run. When dropped, there may be another.
struct Running<'a> {
    ahead: &'a Ahead,
    file: &'a Opened,
    run: u64,
}

impl Ahead {
    /// Has `device` decode into `cache`.
    pub fn new(device: Device, cache: Arc<ChunkCache>) -> Arc<Ahead> {
        Arc::new(Ahead { device, cache, state: Mutex::new(State::new()) })
    }

    /// That the bytes from `offset` on were read, so many; starts the device when that is worth it.
    pub fn was_read(self: &Arc<Self>, opened: &Opened, offset: u64, len: u64) {
        let Some(Stored::Container(container)) = opened.original.stored() else { return };
        let mut state = self.state();
        let reader = state.readers.get_or_insert_mut(opened.id, || Reader::at(offset));
        reader.was_read(offset, len);
        let worth = reader.in_sequence >= IN_SEQUENCE && container.len().saturating_sub(reader.end) >= LEAST_LEFT;
        let (run, first) = (reader.run, container.grid().chunk_at(reader.end));
        let Some(first) = first.filter(|_| worth && !reader.has_thread) else { return };
        if !state.may_start() {
            return;
        }
        let (ahead, file) = (Arc::clone(self), opened.clone());
        let decode = move || Running { ahead: &ahead, file: &file, run }.decode(first);
        // It cannot be through before it is entered here: that takes the lock.
        match thread::Builder::new().name("ahead".to_owned()).spawn(decode) {
            Ok(thread) => {
                state.threads.push(thread);
                if let Some(reader) = state.readers.peek_mut(&opened.id) {
                    reader.has_thread = true;
                }
            }
            Err(error) => {
                state.failed = Some(Instant::now());
                tracing::warn!("cannot start a thread that decodes ahead: {error}");
            }
        }
    }

    /// Decodes no more, and waits until nothing is being decoded.
    pub fn end(&self) {
        let threads = {
            let mut state = self.state();
            state.is_over = true;
            mem::take(&mut state.threads)
        };
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn new() -> State {
        State { readers: LruCache::new(FILES), threads: Vec::new(), failed: None, is_over: false }
    }

    /// Whether one more thread may be started.
    fn may_start(&mut self) -> bool {
        self.threads.retain(|thread| !thread.is_finished());
        let pauses = self.failed.is_some_and(|when| when.elapsed() < PAUSE);
        !pauses && !self.is_over && self.threads.len() < MOST_THREADS
    }
}

impl Running<'_> {
    /// Decodes the file from that chunk on.
    fn decode(&self, first: ChunkIndex) {
        let Some(stored) = self.file.original.stored() else { return };
        // Of its own: one of them waits for room in the cache, and must not hold up what others do.
        let workers = ThreadPoolBuilder::new().num_threads(WORKERS).build();
        let decoded = workers
            .map_err(|e| Error::new(ErrorKind::Device, format!("cannot start its threads: {e}")))
            .and_then(|workers| {
                let device = &self.ahead.device;
                workers.install(|| device.decode_ahead(stored, first, &mut |chunk, bytes| self.lay(chunk, bytes)))
            });
        if let Err(error) = decoded {
            self.ahead.state().failed = Some(Instant::now());
            tracing::warn!("a GPU that was to decode ahead failed, and the processor goes on: {error}");
        }
    }

    /// Lays a chunk into the cache as soon as there is room; whether to go on.
    fn lay(&self, chunk: ChunkIndex, bytes: &[u8]) -> bool {
        let end = self.file.original.grid().range(chunk).end;
        loop {
            let Some(reader) = self.reader() else { return false };
            if end <= reader.end {
                // The reader was faster.
                return true;
            }
            match self.ahead.cache.offer(self.file.id, chunk, bytes) {
                Offer::Taken => return true,
                Offer::Full if reader.when.elapsed() > PATIENCE => return false,
                Offer::Full => thread::sleep(POLL),
            }
        }
    }

    /// The reader, as long as it has not gone elsewhere and there is a mount.
    fn reader(&self) -> Option<Reader> {
        let state = self.ahead.state();
        state.readers.peek(&self.file.id).filter(|reader| reader.run == self.run && !state.is_over).copied()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.ahead.state();
        if thread::panicking() {
            state.failed = Some(Instant::now());
        }
        if let Some(reader) = state.readers.peek_mut(&self.file.id).filter(|reader| reader.run == self.run) {
            (reader.has_thread, reader.in_sequence) = (false, 0);
        }
    }
}

impl Reader {
    fn at(offset: u64) -> Reader {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        Reader { run, end: offset, in_sequence: 0, when: Instant::now(), has_thread: false }
    }

    fn was_read(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        if offset > self.end + SLACK || end + SLACK < self.end {
            *self = Reader::at(offset);
        }
        if end > self.end {
            self.in_sequence += end - self.end;
            (self.end, self.when) = (end, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_reader_is_in_sequence_until_it_jumps() {
        let mut reader = Reader::at(0);
        for at in [0, 2, 1, 3] {
            reader.was_read(at << 20, 1 << 20);
        }
        assert_eq!((reader.end, reader.in_sequence), (4 << 20, 4 << 20));
        let first = reader.run;
        reader.was_read(1 << 20, 1 << 20);
        assert_eq!((reader.end, reader.in_sequence), (4 << 20, 4 << 20), "again");
        assert_eq!(reader.run, first);
        reader.has_thread = true;
        reader.was_read(100 << 20, 1 << 20);
        assert_eq!((reader.end, reader.in_sequence), (101 << 20, 1 << 20), "elsewhere");
        let second = reader.run;
        assert!(second != first && !reader.has_thread, "the thread is of the first run");
        reader.was_read(0, 100);
        assert_eq!((reader.end, reader.in_sequence), (100, 100), "back");
        assert!(reader.run != first && reader.run != second);
    }

    #[test]
    fn no_more_threads_than_there_may_be() {
        let mut state = State::new();
        assert!(state.may_start());
        let barrier = Arc::new(Barrier::new(MOST_THREADS + 1));
        for _ in 0..MOST_THREADS {
            assert!(state.may_start());
            let barrier = Arc::clone(&barrier);
            state.threads.push(thread::spawn(move || {
                barrier.wait();
            }));
        }
        assert!(!state.may_start(), "there are enough");
        barrier.wait();
        while !state.threads.iter().all(JoinHandle::is_finished) {
            thread::yield_now();
        }
        assert!(state.may_start(), "they have ended");
        state.failed = Some(Instant::now());
        assert!(!state.may_start(), "the device failed a moment ago");
        state.failed = Instant::now().checked_sub(PAUSE);
        assert!(state.may_start(), "it failed long ago");
        state.is_over = true;
        assert!(!state.may_start(), "there is no mount any more");
    }
}
