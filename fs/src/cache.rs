//! Decoded chunks, kept for a while.
//!
//! The kernel's page cache is the cache that matters; this one bridges the time until the kernel has asked for all of a
//! chunk, which it does in pieces smaller than one, from several threads and out of order. Whoever asks first for a
//! chunk decodes it; whoever asks for it meanwhile waits for that. No lock is held while a chunk is decoded.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bigsmall_codec::{ChunkIndex, Error, ErrorKind, Original};
use lru::LruCache;

/// What an original is called in the cache: given once to each opening of each version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u64);

/// A chunk, or why there is none. Shared by all who wait for it.
type Outcome = Result<Arc<[u8]>, Arc<Error>>;

type Key = (FileId, ChunkIndex);

/// A decode that is under way.
#[derive(Default)]
struct Flight {
    outcome: Mutex<Option<Outcome>>,
    landed: Condvar,
}

struct State {
    chunks: LruCache<Key, Arc<[u8]>>,
    /// Bytes of all chunks together.
    bytes: u64,
    flights: HashMap<Key, Arc<Flight>>,
}

/// A bounded cache of decoded chunks, shared between threads.
pub struct ChunkCache {
    capacity: u64,
    state: Mutex<State>,
}

/// What is poisoned here is never inconsistent: each critical section changes one thing at a time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChunkCache {
    /// A cache that keeps at most `capacity` bytes of chunks.
    pub fn new(capacity: u64) -> ChunkCache {
        let state = State { chunks: LruCache::unbounded(), bytes: 0, flights: HashMap::new() };
        ChunkCache { capacity, state: Mutex::new(state) }
    }

    /// The bytes of a chunk of `original`, decoded now or a while ago.
    ///
    /// # Errors
    /// Those of [`Original::decode_chunk`]. An error is not kept: the next who asks tries again.
    pub fn get(&self, file: FileId, original: &dyn Original, chunk: ChunkIndex) -> Outcome {
        let key = (file, chunk);
        let flight = {
            let mut state = lock(&self.state);
            if let Some(bytes) = state.chunks.get(&key) {
                return Ok(Arc::clone(bytes));
            }
            if let Some(flight) = state.flights.get(&key).cloned() {
                drop(state);
                return flight.wait();
            }
            let flight = Arc::new(Flight::default());
            state.flights.insert(key, Arc::clone(&flight));
            flight
        };
        // A panic must not leave the others waiting for ever.
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(original, chunk)))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Corrupt, "the decoder panicked")));
        let outcome = decoded.map_err(Arc::new);
        let mut state = lock(&self.state);
        state.flights.remove(&key);
        if let Ok(bytes) = &outcome {
            self.insert(&mut state, key, Arc::clone(bytes));
        }
        drop(state);
        flight.land(outcome.clone());
        outcome
    }

    fn insert(&self, state: &mut State, key: Key, bytes: Arc<[u8]>) {
        state.bytes += bytes.len() as u64;
        if let Some(old) = state.chunks.put(key, bytes) {
            state.bytes -= old.len() as u64;
        }
        while state.bytes > self.capacity {
            let Some((_, evicted)) = state.chunks.pop_lru() else { break };
            state.bytes -= evicted.len() as u64;
        }
    }
}

fn decode(original: &dyn Original, chunk: ChunkIndex) -> Result<Arc<[u8]>, Error> {
    let range = original.grid().range(chunk);
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, (range.end - range.start) as usize).collect();
    original.decode_chunk(chunk, Arc::get_mut(&mut bytes).expect("nobody else has it yet"))?;
    Ok(bytes)
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
