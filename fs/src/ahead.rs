//! Decoding ahead of who reads a file from start to end, on a GPU.
//!
//! Only where that was asked for. A file that is read in sequence for a while gets a thread, which has the device decode what comes next
//! and lays it into the cache, as far as there is room. Nobody waits for that thread: a read finds what it has laid there, or decodes as it
//! would without it. It ends with the file, when the reader has gone elsewhere, and when the device fails.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bigsmall_codec::{ChunkIndex, Device, Original, Stored};
use lru::LruCache;

use crate::cache::{ChunkCache, FileId, Offer};
use crate::containers::Opened;

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

/// Where the reader of a file is.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// The end of what it has read.
    end: u64,
    /// Bytes in sequence before that.
    in_sequence: u64,
    /// When it got on last.
    when: Instant,
    /// Whether there is a thread that decodes ahead of it.
    has_thread: bool,
}

/// What decodes ahead.
pub struct Ahead {
    device: Device,
    cache: Arc<ChunkCache>,
    readers: Mutex<LruCache<FileId, Reader>>,
}

impl Ahead {
    /// Has `device` decode into `cache`.
    pub fn new(device: Device, cache: Arc<ChunkCache>) -> Arc<Ahead> {
        Arc::new(Ahead { device, cache, readers: Mutex::new(LruCache::new(FILES)) })
    }

    /// That the bytes from `offset` on were read, so many; starts the device when that is worth it.
    pub fn was_read(self: &Arc<Self>, opened: &Opened, offset: u64, len: u64) {
        let Some(Stored::Container(container)) = opened.original.stored() else { return };
        let start = {
            let mut readers = self.readers();
            let reader = readers.get_or_insert_mut(opened.id, || Reader::at(offset));
            reader.was_read(offset, len);
            let worth = reader.in_sequence >= IN_SEQUENCE && container.len().saturating_sub(reader.end) >= LEAST_LEFT;
            if !worth || reader.has_thread {
                return;
            }
            reader.has_thread = true;
            reader.end
        };
        let Some(first) = container.grid().chunk_at(start) else { return };
        let (ahead, file) = (Arc::clone(self), opened.clone());
        let decode = move || {
            ahead.decode(&file, first);
            if let Some(reader) = ahead.readers().peek_mut(&file.id) {
                (reader.has_thread, reader.in_sequence) = (false, 0);
            }
        };
        if let Err(error) = thread::Builder::new().name("ahead".to_owned()).spawn(decode) {
            tracing::warn!("cannot start a thread that decodes ahead: {error}");
        }
    }

    /// Decodes a file from that chunk on.
    fn decode(&self, file: &Opened, first: ChunkIndex) {
        let Some(stored) = file.original.stored() else { return };
        let decoded = self.device.decode_ahead(stored, first, &mut |chunk, bytes| self.lay(file, chunk, bytes));
        if let Err(error) = decoded {
            tracing::warn!("a GPU that was to decode ahead failed, and the processor goes on: {error}");
        }
    }

    /// Lays a chunk into the cache as soon as there is room; whether to go on.
    fn lay(&self, file: &Opened, chunk: ChunkIndex, bytes: &[u8]) -> bool {
        let end = file.original.grid().range(chunk).end;
        loop {
            let Some(reader) = self.readers().peek(&file.id).copied() else { return false };
            if end <= reader.end {
                // The reader was faster.
                return true;
            }
            match self.cache.offer(file.id, chunk, bytes) {
                Offer::Taken => return true,
                Offer::Full if reader.when.elapsed() > PATIENCE => return false,
                Offer::Full => thread::sleep(POLL),
            }
        }
    }

    fn readers(&self) -> MutexGuard<'_, LruCache<FileId, Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn at(offset: u64) -> Reader {
        Reader { end: offset, in_sequence: 0, when: Instant::now(), has_thread: false }
    }

    fn was_read(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        if offset > self.end + SLACK || end + SLACK < self.end {
            *self = Reader { has_thread: self.has_thread, ..Reader::at(offset) };
        }
        if end > self.end {
            self.in_sequence += end - self.end;
            (self.end, self.when) = (end, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_in_sequence_until_it_jumps() {
        let mut reader = Reader::at(0);
        for at in [0, 2, 1, 3] {
            reader.was_read(at << 20, 1 << 20);
        }
        assert_eq!((reader.end, reader.in_sequence), (4 << 20, 4 << 20));
        reader.was_read(1 << 20, 1 << 20);
        assert_eq!((reader.end, reader.in_sequence), (4 << 20, 4 << 20), "again");
        reader.was_read(100 << 20, 1 << 20);
        assert_eq!((reader.end, reader.in_sequence), (101 << 20, 1 << 20), "elsewhere");
        reader.was_read(0, 100);
        assert_eq!((reader.end, reader.in_sequence), (100, 100), "back");
    }
}
