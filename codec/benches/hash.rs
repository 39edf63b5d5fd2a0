//! How fast hashes are taken, in GB/s on one core.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench hash -- [--quick] [--json FILE]
//! ```

mod support;

use std::hint::black_box;

use bigsmall_codec::bench::{implementations, md5_lanes};
use md5::{Digest, Md5};
use serde_json::json;
use sha2::Sha256;
use support::{Settings, speed};

/// Bytes of a message, which stays in the cache, and how many there are.
const MESSAGE: usize = 64 << 10;
const LANES: usize = 16;

fn main() {
    let mut settings = Settings::read();
    let messages = vec![[7; MESSAGE]; LANES];
    let lanes: [&[u8]; LANES] = std::array::from_fn(|lane| &messages[lane][..]);
    let mut names = vec!["MD5, one stream".to_owned(), "SHA-256".to_owned(), "XXH3".to_owned()];
    let mut runs: Vec<Box<dyn FnMut() + '_>> = vec![
        Box::new(|| messages.iter().for_each(|message| _ = black_box(Md5::digest(message)))),
        Box::new(|| messages.iter().for_each(|message| _ = black_box(Sha256::digest(message)))),
        Box::new(|| messages.iter().for_each(|message| _ = black_box(twox_hash::XxHash3_64::oneshot(message)))),
    ];
    for implementation in implementations() {
        names.push(format!("MD5, {LANES} streams, {implementation}"));
        runs.push(Box::new(move || _ = black_box(md5_lanes(implementation, black_box(lanes)))));
    }
    let times = settings.best_of(&mut runs);
    println!("{:<33}{:>7}", "hashing", "GB/s");
    for (name, time) in names.iter().zip(times) {
        let speed = speed(MESSAGE * LANES, time);
        println!("{name:<33}{speed:>7.2}");
        settings.record(&json!({ "bench": "hash", "implementation": name, "gb_s": speed }));
    }
}
