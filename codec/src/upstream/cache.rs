//! Decoded tensors, kept while their chunks are asked for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of decoded tensors that are kept unless told otherwise.
pub const DEFAULT_CAPACITY: u64 = 1 << 30;

/// What decoding came to, for all who wait for it.
type Outcome = std::result::Result<Arc<Vec<u8>>, Failed>;

/// Why a tensor could not be decoded.
#[derive(Clone, Debug)]
struct Failed {
    kind: ErrorKind,
    message: Arc<str>,
}

impl Failed {
    fn of(error: &Error) -> Failed {
        Failed { kind: error.kind(), message: error.to_string().into() }
    }

    fn error(self) -> Error {
        Error::new(self.kind, &*self.message)
    }
}

/// A tensor: the file, and its number there.
pub(super) type Key = (u64, usize);

/// Decoded tensors of any number of files, in bounded memory, each decoded once however many ask for it at once.
///
/// What is kept, and what is being decoded, is no more than the capacity; a tensor that is larger is decoded when no other
/// is, and is then kept alone. The least recently used are dropped first, but not before the next one is there: those who
/// read from the end of one tensor into the next still find what they read last. One that has been handed out to its last
/// byte is dropped at once, since whoever asked for it has it.
///
/// That a tensor is damaged is remembered too; otherwise each of its chunks would cost the decoding of all of it.
#[derive(Debug)]
pub struct TensorCache {
    capacity: u64,
    state: Mutex<State>,
    /// Some decoding has ended.
    landed: Condvar,
    next_file: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<Key, Kept>,
    flights: HashMap<Key, Arc<Flight>>,
    /// Bytes of the tensors that are kept.
    bytes: u64,
    /// Bytes of the tensors that are being decoded.
    in_flight: u64,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    outcome: Outcome,
    used: u64,
    handed_out: HandedOut,
}

/// Which bytes of a tensor have been handed out: who maps a file may be given some of them twice before others once.
#[derive(Debug, Default)]
struct HandedOut {
    /// Where they lie, sorted, with gaps between them.
    ranges: Vec<Range<u64>>,
    bytes: u64,
}

impl HandedOut {
    /// Ranges that are told apart; where there are more of them, further ones are not counted.
    const MOST: usize = 1 << 14;

    fn add(&mut self, range: &Range<u64>) {
        let first = self.ranges.partition_point(|other| other.end < range.start);
        let end = first + self.ranges[first..].partition_point(|other| other.start <= range.end);
        let met = &self.ranges[first..end];
        if range.is_empty() || met.is_empty() && self.ranges.len() >= HandedOut::MOST {
            return;
        }
        let start = met.first().map_or(range.start, |other| other.start.min(range.start));
        let merged = start..met.last().map_or(range.end, |other| other.end.max(range.end));
        self.bytes += merged.end - merged.start - met.iter().map(|other| other.end - other.start).sum::<u64>();
        self.ranges.splice(first..end, [merged]);
    }
}

/// A decoding that others wait for.
#[derive(Debug, Default)]
struct Flight {
    outcome: Mutex<Option<Outcome>>,
    landed: Condvar,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: Key,
    /// The length of the tensor once it is decoded, in bytes.
    pub(super) len: u64,
    /// Which of its bytes are going to be used now, by their positions in the file that is shown.
    pub(super) part: Range<u64>,
    /// How many of its bytes there are to be used in all: it may be there under two names.
    pub(super) uses: u64,
}

impl TensorCache {
    /// An empty cache that keeps `capacity` bytes at most, or one tensor.
    pub fn new(capacity: u64) -> TensorCache {
        TensorCache { capacity, state: Mutex::default(), landed: Condvar::new(), next_file: AtomicU64::new(0) }
    }

    /// A number for a file, given to no other.
    pub(super) fn new_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// The bytes of a tensor, by `decode` if they are not kept. `decode` must not run anything else of its thread pool
    /// meanwhile: that might wait for this very tensor.
    ///
    /// # Errors
    /// Those of `decode`.
    pub(super) fn get(&self, wanted: Wanted, decode: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<Vec<u8>>> {
        let key = wanted.key;
        let mut state = lock(&self.state);
        loop {
            if let Some(outcome) = state.hand_out(&wanted) {
                return outcome.map_err(Failed::error);
            }
            if let Some(flight) = state.flights.get(&key).cloned() {
                drop(state);
                let outcome = flight.wait();
                lock(&self.state).hand_out(&wanted);
                return outcome.map_err(Failed::error);
            }
            if state.in_flight == 0 || state.in_flight.saturating_add(wanted.len) <= self.capacity {
                break;
            }
            // Those that are being decoded need nothing of this thread, so they end.
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let flight = Arc::new(Flight::default());
        state.flights.insert(key, Arc::clone(&flight));
        state.in_flight += wanted.len;
        drop(state);
        // If decoding panics, those who wait must hear of it.
        let mut landing = Landing { cache: self, wanted: wanted.clone(), flight: &flight, outcome: None };
        let outcome = decode().map(Arc::new).map_err(|error| Failed::of(&error));
        landing.outcome = Some(outcome.clone());
        drop(landing);
        outcome.map_err(Failed::error)
    }

    /// Bytes of the tensors that are kept now, and the most that may be.
    pub fn usage(&self) -> (u64, u64) {
        (lock(&self.state).bytes, self.capacity)
    }

    /// Forgets the tensors of a file.
    pub(super) fn forget(&self, file: u64) {
        let mut state = lock(&self.state);
        state.kept.retain(|key, _| key.0 != file);
        state.bytes = state.kept.values().map(Kept::bytes).sum();
    }

    /// Ends a flight.
    fn land(&self, wanted: &Wanted, outcome: &Outcome) {
        let mut state = lock(&self.state);
        state.flights.remove(&wanted.key);
        state.in_flight -= wanted.len;
        self.landed.notify_all();
        // What the system refuses may pass; what is damaged stays so.
        if matches!(outcome, Err(Failed { kind: ErrorKind::Io(_), .. })) {
            return;
        }
        state.clock += 1;
        let kept = Kept { outcome: outcome.clone(), used: state.clock, handed_out: HandedOut::default() };
        state.bytes += kept.bytes();
        state.kept.insert(wanted.key, kept);
        state.hand_out(wanted);
        while state.bytes > self.capacity {
            let others = state.kept.iter().filter(|(other, kept)| **other != wanted.key && kept.bytes() > 0);
            let Some(oldest) = others.min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key) else { break };
            state.remove(&oldest);
        }
    }
}

impl State {
    /// What is kept of a tensor, if it is.
    fn hand_out(&mut self, wanted: &Wanted) -> Option<Outcome> {
        self.clock += 1;
        let kept = self.kept.get_mut(&wanted.key)?;
        kept.used = self.clock;
        kept.handed_out.add(&wanted.part);
        let outcome = kept.outcome.clone();
        if kept.handed_out.bytes >= wanted.uses && outcome.is_ok() {
            self.remove(&wanted.key);
        }
        Some(outcome)
    }

    fn remove(&mut self, key: &Key) {
        self.bytes -= self.kept.remove(key).map_or(0, |kept| kept.bytes());
    }
}

impl Default for TensorCache {
    fn default() -> Self {
        TensorCache::new(DEFAULT_CAPACITY)
    }
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.outcome.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}

/// Tells those who wait, whatever happens.
struct Landing<'a> {
    cache: &'a TensorCache,
    wanted: Wanted,
    flight: &'a Flight,
    outcome: Option<Outcome>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let panicked = || Err(Failed { kind: ErrorKind::Corrupt, message: "the decoder panicked".into() });
        let outcome = self.outcome.take().unwrap_or_else(panicked);
        self.cache.land(&self.wanted, &outcome);
        *lock(&self.flight.outcome) = Some(outcome);
        self.flight.landed.notify_all();
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::Duration;

    /// A few bytes of a tensor of this length.
    fn some_of(number: usize, len: u64) -> Wanted {
        Wanted { key: (0, number), len, part: 0..1, uses: len }
    }

    #[test]
    fn what_is_kept_is_bounded_but_for_the_last() {
        let cache = TensorCache::new(100);
        let decoded = AtomicUsize::new(0);
        let get = |number: usize, len: usize| {
            let decode = || {
                decoded.fetch_add(1, Ordering::Relaxed);
                Ok(vec![0; len])
            };
            cache.get(some_of(number, len as u64), decode).unwrap();
            (decoded.load(Ordering::Relaxed), cache.usage().0)
        };
        assert_eq!(get(1, 40), (1, 40));
        assert_eq!(get(2, 40), (2, 80));
        assert_eq!(get(1, 40), (2, 80));
        assert_eq!(get(3, 40), (3, 80), "the second was used least recently");
        assert_eq!(get(1, 40), (3, 80));
        assert_eq!(get(4, 500), (4, 500));
        assert_eq!(get(4, 500), (4, 500));
        cache.forget(0);
        assert_eq!(get(1, 40), (5, 40));
    }

    #[test]
    fn what_has_been_handed_out_is_dropped() {
        let cache = TensorCache::new(100);
        let get = |part: Range<u64>| {
            let wanted = Wanted { key: (0, 0), len: 40, part, uses: 80 };
            let mut decoded = false;
            cache
                .get(wanted, || {
                    decoded = true;
                    Ok(vec![0; 40])
                })
                .unwrap();
            (decoded, cache.usage().0)
        };
        assert_eq!(get(0..40), (true, 40), "it is there under two names");
        assert_eq!(get(50..80), (false, 40));
        assert_eq!(get(45..80), (false, 40));
        assert_eq!(get(0..44), (false, 40), "some of it was handed out twice, and some never");
        assert_eq!(get(44..45), (false, 0));
        assert_eq!(get(0..80), (true, 0), "all at once");
    }

    #[test]
    fn what_was_handed_out_is_known_to_the_byte() {
        let mut state = 1u64;
        let mut below = move |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        for _ in 0..50 {
            let (mut handed_out, mut bytes) = (HandedOut::default(), [false; 200]);
            for _ in 0..60 {
                let start = below(200);
                let range = start..(start + below(20)).min(200);
                handed_out.add(&range);
                bytes[range.start as usize..range.end as usize].fill(true);
                assert_eq!(handed_out.bytes, bytes.iter().filter(|&&byte| byte).count() as u64);
                assert!(handed_out.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
        let mut many = HandedOut::default();
        (0..2 * HandedOut::MOST as u64).for_each(|number| many.add(&(2 * number..2 * number + 1)));
        assert_eq!((many.ranges.len(), many.bytes), (HandedOut::MOST, HandedOut::MOST as u64));
    }

    #[test]
    fn what_is_decoded_at_once_is_bounded() {
        let cache = TensorCache::new(100);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..12 {
                let (cache, now, most) = (&cache, &now, &most);
                let len = if number % 4 == 0 { 500 } else { 50 };
                scope.spawn(move || {
                    let decode = || {
                        most.fetch_max(now.fetch_add(len, Ordering::SeqCst) + len, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(5));
                        now.fetch_sub(len, Ordering::SeqCst);
                        Ok(vec![0; len])
                    };
                    cache.get(some_of(number, len as u64), decode).unwrap();
                });
            }
        });
        assert!(most.into_inner() <= 500, "one large one, or two small ones");
    }

    #[test]
    fn one_decoding_serves_all_and_failures_are_remembered() {
        let cache = TensorCache::new(100);
        let (decoded, barrier) = (AtomicUsize::new(0), Barrier::new(8));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let outcome = cache.get(some_of(0, 10), || {
                        decoded.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(50));
                        Err(Error::corrupt("as the test wishes"))
                    });
                    assert_eq!(outcome.unwrap_err().to_string(), "as the test wishes");
                });
            }
        });
        assert_eq!(decoded.into_inner(), 1);
        let refused = || Err(Error::io("reading", std::io::ErrorKind::OutOfMemory.into()));
        assert!(cache.get(some_of(1, 1), refused).is_err());
        assert!(cache.get(some_of(1, 1), || Ok(vec![1])).is_ok(), "what may pass is tried again");
    }

    #[test]
    fn a_panic_reaches_those_who_wait() {
        let cache = TensorCache::new(100);
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            let panics = scope.spawn(|| {
                cache.get(some_of(0, 10), || {
                    barrier.wait();
                    thread::sleep(Duration::from_millis(50));
                    panic!("as the test wishes")
                })
            });
            barrier.wait();
            assert!(cache.get(some_of(0, 10), || Ok(Vec::new())).is_err());
            assert!(panics.join().is_err());
        });
    }
}
