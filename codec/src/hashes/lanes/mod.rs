//! MD5 of several messages at once.
//!
//! MD5 is one long chain of dependent steps: a processor that hashes one message has most of its units idle. Here a
//! vector holds the same word of the states of [`LANES`] messages, which are then hashed in the time of one (after
//! "multi-buffer" hashing, S. Gueron and V. Krasnov, "Simultaneous hashing of multiple messages", 2012). The crate
//! `md-5` is the definition.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::simd::Level;

/// Messages that are hashed at once.
pub(crate) const LANES: usize = 16;

/// Bytes that MD5 takes at a time.
pub(crate) const BLOCK: usize = 64;

/// The states of all lanes: for each of the four words of a state that of each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct States([[u32; LANES]; 4]);

impl States {
    /// What every message begins with (RFC 1321, 3.3).
    pub(crate) const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

    pub(crate) fn new() -> States {
        States(Self::INITIAL.map(|word| [word; LANES]))
    }

    /// The state of one lane.
    pub(crate) fn lane(&self, lane: usize) -> [u32; 4] {
        self.0.map(|words| words[lane])
    }

    pub(crate) fn set_lane(&mut self, lane: usize, state: [u32; 4]) {
        self.0.iter_mut().zip(state).for_each(|(words, word)| words[lane] = word);
    }

    /// Takes whole blocks, equally many for each lane. A lane that has nothing to hash is given any bytes: its state
    /// then means nothing.
    pub(crate) fn update(&mut self, messages: [&[u8]; LANES], level: Level) {
        let len = messages[0].len();
        assert!(len.is_multiple_of(BLOCK) && messages.iter().all(|message| message.len() == len));
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only given where the processor has what it stands for.
            Level::Avx512 | Level::Avx512Vbmi2 => unsafe { avx512::update(&mut self.0, messages) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { avx2::update(&mut self.0, messages) },
            _ => {
                for (lane, message) in messages.into_iter().enumerate() {
                    let mut state = self.lane(lane);
                    md5::block_api::compress(&mut state, message.as_chunks().0);
                    self.set_lane(lane, state);
                }
            }
        }
    }
}

/// The words of a block in the order in which each of the four rounds takes them: from `.0` on in steps of `.1`.
#[cfg(target_arch = "x86_64")]
const ORDER: [(usize, usize); 4] = [(0, 1), (1, 5), (5, 3), (0, 7)];

/// ⌊2^32 |sin(i + 1)|⌋ (RFC 1321, 3.4).
#[cfg(target_arch = "x86_64")]
const SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8,
    0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340,
    0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87,
    0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c,
    0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039,
    0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92,
    0xffeff47d, 0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb,
    0xeb86d391,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_hash_as_the_definition_does() {
        let mut random = 1u64;
        let messages: Vec<Vec<u8>> = (0..LANES)
            .map(|_| {
                let byte = |_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (random >> 56) as u8
                };
                (0..100 * BLOCK).map(byte).collect()
            })
            .collect();
        for level in Level::available() {
            for blocks in [0, 1, 2, 100] {
                let mut states = States::new();
                states.set_lane(3, [1, 2, 3, 4]);
                let mut expected: Vec<[u32; 4]> = (0..LANES).map(|lane| states.lane(lane)).collect();
                assert_eq!((expected[2], expected[3]), (States::INITIAL, [1, 2, 3, 4]));
                for _ in 0..2 {
                    states.update(std::array::from_fn(|lane| &messages[lane][..blocks * BLOCK]), level);
                    for (expected, message) in expected.iter_mut().zip(&messages) {
                        md5::block_api::compress(expected, message[..blocks * BLOCK].as_chunks().0);
                    }
                }
                let found: Vec<[u32; 4]> = (0..LANES).map(|lane| states.lane(lane)).collect();
                assert_eq!(found, expected, "{blocks} blocks, {level:?}");
            }
        }
    }
}
