//! What fuzzers share: noise, damage, and running for a while.

#[path = "random.rs"]
mod random;

use std::time::{Duration, Instant, UNIX_EPOCH};

pub use random::Random;

/// Damages `bytes` in one to four places.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let len = bytes.len();
        match random.below(13) {
            0 if len > 0 => bytes.truncate(random.below(len)),
            1 => bytes.extend((0..1 + random.below(20)).map(|_| 0x5a)),
            2 if len > 0 => {
                bytes.remove(random.below(len));
            }
            3 => bytes.insert(random.below(len + 1), random.next() as u8),
            4 if len >= 4 => {
                let at = random.below(len - 3);
                let value = [0, 1, u32::MAX, u32::MAX >> 1, 1 << 16, 65_535, 4096, 1 << 26][random.below(8)];
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            // Headers are at the front, and that is where it gets interesting.
            5 | 6 if len > 0 => bytes[random.below(len.min(24))] = random.next() as u8,
            7 if len > 0 => bytes[random.below(len.min(24))] ^= 1 << random.below(8),
            // States come next.
            8 if len > 0 => bytes[random.below(len.min(700))] ^= 1 << random.below(8),
            9 if len > 0 => bytes[random.below(len)] = [0, 0xff, 0x80, 0x7f][random.below(4)],
            _ if len > 0 => bytes[random.below(len)] ^= 1 << random.below(8),
            _ => {}
        }
    }
}

/// Runs `attempt` with one seed after the other until the time is over, or with the one that is asked for.
pub fn fuzz(target: &str, attempt: impl Fn(&mut Random)) {
    if let Ok(seed) = std::env::var("BIGSMALL_FUZZ_SEED") {
        return attempt(&mut Random(seed.parse().expect("BIGSMALL_FUZZ_SEED is a number")));
    }
    let seconds =
        std::env::var("BIGSMALL_FUZZ_SECONDS").map_or(2, |s| s.parse().expect("BIGSMALL_FUZZ_SECONDS is a number"));
    let (start, mut attempts) = (Instant::now(), 0u64);
    // A long run is worth little if it repeats the short ones.
    let base = if seconds > 2 { UNIX_EPOCH.elapsed().expect("it is later than 1970").as_nanos() as u64 } else { 0 };
    while start.elapsed() < Duration::from_secs(seconds) {
        let seed = base.wrapping_add(attempts);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attempt(&mut Random(seed))));
        assert!(outcome.is_ok(), "target {target} fails with BIGSMALL_FUZZ_SEED={seed}");
        attempts += 1;
    }
    println!("{target}: {attempts} attempts in {seconds} s");
    assert!(attempts > 0);
}
