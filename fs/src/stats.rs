//! What a mount has done: counted in the process that serves it, read by `bigsmall mounts` as an extended attribute of the
//! mount's root.
//!
//! An attribute and neither a file nor a socket: nothing is added to what the mount shows, nothing is left behind by a
//! process that is killed, and whoever may look at the mount may look at this.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::cache::ChunkCache;
use crate::containers::Containers;

/// The attribute of the root that holds [`Stats`] as JSON. It is not listed, so that nobody copies it.
pub const STATS_ATTRIBUTE: &str = "user.bigsmall.stats";

/// What a mount had done at one moment. Counts begin with 0 when it is mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The version of the program that serves the mount.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been mounted.
    pub uptime_seconds: f64,
    /// Files that are open.
    pub open_files: u64,
    /// Reads that the kernel asked for.
    pub reads: u64,
    /// Bytes that it got, of virtual and plain files.
    pub bytes_served: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Parts of chunks that were at hand, or became so while another read decoded them.
    pub cache_hits: u64,
    /// Chunks that were decoded.
    pub chunks_decoded: u64,
    /// Chunks that a GPU decoded before they were asked for.
    #[serde(default)]
    pub chunks_decoded_ahead: u64,
    /// Chunks whose stored bytes are damaged or cannot be read.
    pub chunks_failed: u64,
    /// Chunks of those that were decoded whose stored bytes are damaged and were repaired while they were read.
    pub chunks_healed: u64,
    /// The time that decoding took, that of all threads added up.
    pub decode_seconds: f64,
    /// Bytes of decoded chunks that are kept.
    pub cache_bytes: u64,
    /// The most that may be kept.
    pub cache_capacity: u64,
}

impl Stats {
    /// The part of what was asked for that was at hand, from 0 to 1; `None` before anything was.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.cache_hits + self.chunks_decoded + self.chunks_failed;
        (all > 0).then(|| self.cache_hits as f64 / all as f64)
    }
}

/// Counts reads.
#[derive(Debug)]
pub struct Counting {
    start: Instant,
    reads: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl Counting {
    /// Nothing yet.
    pub fn new() -> Counting {
        let zero = AtomicU64::default;
        Counting { start: Instant::now(), reads: zero(), bytes: zero(), errors: zero() }
    }

    /// Counts a read that gave so many bytes, or failed.
    pub fn read<E>(&self, outcome: &Result<usize, E>) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(len) => self.bytes.fetch_add(*len as u64, Ordering::Relaxed),
            Err(_) => self.errors.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// What has been counted so far, here, in `cache` and in `containers`.
    pub fn stats(&self, cache: &ChunkCache, containers: &Containers, open_files: u64) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = cache.counts();
        let (cache_bytes, cache_capacity) = cache.usage();
        Stats {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.start.elapsed().as_secs_f64(),
            open_files,
            reads: get(&self.reads),
            bytes_served: get(&self.bytes),
            read_errors: get(&self.errors),
            cache_hits: counts.hits,
            chunks_decoded: counts.decoded,
            chunks_decoded_ahead: counts.offered,
            chunks_failed: counts.failed,
            chunks_healed: containers.healed(),
            decode_seconds: counts.decode_time.as_secs_f64(),
            cache_bytes,
            cache_capacity,
        }
    }
}

impl Default for Counting {
    fn default() -> Self {
        Counting::new()
    }
}
