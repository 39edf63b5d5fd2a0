//! Whether it is worth while to look for repetitions.
//!
//! To try Zstandard on a part of a tensor of weights costs more than to code a good part of it, and nearly always in
//! vain. So a few windows are looked at first.

use crate::simd::{Level, at_level};

/// Bytes of a window: as long as two or more elements, so that hardly any comes twice in weights by chance.
const WINDOW: usize = size_of::<u64>();

/// Windows are compared where these bits of their first element are zero. That picks one of 32 of those in noise, and all
/// or none of the copies of each, however far apart they are.
const PICK: u64 = 0x1f;

/// Entries of the table of windows.
const TABLE: usize = 1 << 11;

/// Whether Zstandard might find something in `bytes`, elements of `size` bytes (at most 8): `false` when they look like
/// noise in their low bits and windows of theirs hardly ever come again.
pub(super) fn may_repeat(bytes: &[u8], size: usize) -> bool {
    let mut table = [0u64; TABLE];
    let (mut picked, mut again) = (0, 0);
    let windows = bytes.windows(WINDOW).step_by(size);
    let all = windows.len();
    for window in windows {
        let window = u64::from_le_bytes(window.try_into().expect("a window is as long as a u64"));
        if window & PICK == 0 {
            let entry = &mut table[(window.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE.ilog2())) as usize];
            again += usize::from(*entry == window);
            *entry = window;
            picked += 1;
        }
    }
    // Sparse, rounded or few values are picked far too often or hardly ever; and one window of 50 is less than
    // Zstandard would need.
    picked * 8 > all || picked * 256 < all || again * 50 > picked
}

/// Whether Zstandard might find something in a chunk: the same, in a way that costs next to nothing beside coding it. What
/// begins at multiples of eight bytes alone is looked at, as most rows do.
pub(crate) fn repeats(bytes: &[u8], level: Level) -> bool {
    let words = bytes.as_chunks::<WINDOW>().0;
    // Words are picked by what they are, about half as many as the table has entries.
    let rate = (words.len() / (TABLE / 2)).max(1).ilog2();
    let least = u32::MAX.checked_shr(rate).unwrap_or(0);
    let mut table = [0u64; TABLE];
    let (mut picked, mut again) = (0usize, 0usize);
    let mut picks = [0u8; PICKED_AT_ONCE];
    for start in (0..words.len().saturating_sub(1)).step_by(PICKED_AT_ONCE) {
        let words = &words[start..words.len().min(start + PICKED_AT_ONCE + 1)];
        let (candidates, out) = (&words[..PICKED_AT_ONCE.min(words.len() - 1)], &mut picks);
        at_level!(level, pick(candidates: &[[u8; WINDOW]], least: u32, out: &mut [u8; PICKED_AT_ONCE]));
        for (eight, picks) in picks[..candidates.len().next_multiple_of(8)].as_chunks::<8>().0.iter().enumerate() {
            let mut picks = u64::from_le_bytes(*picks);
            while picks != 0 {
                let at = eight * 8 + picks.trailing_zeros() as usize / 8;
                picks &= picks - 1;
                let [word, next] = [words[at], words[at + 1]].map(u64::from_le_bytes);
                // One word alone would come twice by chance where its elements have few bits.
                let both = word.wrapping_add(next.rotate_left(32));
                let entry =
                    &mut table[(both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - TABLE.ilog2())) as usize];
                again += usize::from(*entry == both);
                *entry = both;
                picked += 1;
            }
        }
    }
    // Few words that come again and again may be picked each time or never.
    let expected = words.len() >> rate;
    again * 50 > picked || picked.abs_diff(expected) * 4 > expected
}

/// Words of which it is told together whether they are picked.
const PICKED_AT_ONCE: usize = 512;

/// Sets the bytes of `picks` to 1 that stand for words with a hash of at most `least`, all others to 0.
#[inline(always)]
fn pick(words: &[[u8; WINDOW]], least: u32, picks: &mut [u8; PICKED_AT_ONCE]) {
    picks[words.len()..].fill(0);
    for (pick, word) in picks.iter_mut().zip(words) {
        let word = u64::from_le_bytes(*word);
        let hash = (word as u32 ^ (word >> 32) as u32).wrapping_mul(0x9e37_79b9);
        *pick = u8::from(hash <= least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all levels say.
    fn repeats(bytes: &[u8]) -> bool {
        let said: Vec<bool> = Level::available().map(|level| super::repeats(bytes, level)).collect();
        assert!(said.iter().all(|&one| one == said[0]));
        said[0]
    }

    /// Numbers that look random.
    fn noise(seed: u64) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(seed), |random| {
            Some(random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407))
        })
        .map(|random| (random >> 33) as u32)
    }

    /// Numbers between -1 and 1, the small ones more frequent.
    fn weights(seed: u64) -> impl Iterator<Item = f32> {
        let unit = |bits: u32| bits as f32 / (1u64 << 30) as f32 - 1.0;
        noise(seed).zip(noise(!seed)).map(move |(a, b)| unit(a) * unit(b) * unit(a ^ b))
    }

    fn bf16(weight: f32) -> [u8; 2] {
        ((weight.to_bits() >> 16) as u16).to_le_bytes()
    }

    #[test]
    fn weights_do_not_repeat() {
        assert!(!may_repeat(&weights(1).take(32 << 10).flat_map(bf16).collect::<Vec<u8>>(), 2));
        assert!(!may_repeat(&weights(2).take(16 << 10).flat_map(f32::to_le_bytes).collect::<Vec<u8>>(), 4));
        assert!(!may_repeat(&noise(3).take(64 << 10).map(|bits| bits as u8).collect::<Vec<u8>>(), 1));
        for len in [1 << 10, 64 << 10, 1 << 20] {
            assert!(!repeats(&weights(1).take(len).flat_map(bf16).collect::<Vec<u8>>()));
            assert!(!repeats(&weights(2).take(len).flat_map(f32::to_le_bytes).collect::<Vec<u8>>()));
            let rounded = weights(3).map(|w| f32::from_bits(w.to_bits() & 0xffff_0000));
            assert!(!repeats(&rounded.take(len).flat_map(f32::to_le_bytes).collect::<Vec<u8>>()));
        }
    }

    #[test]
    fn repeated_rows_do() {
        let row: Vec<[u8; 2]> = weights(1).take(12_000).map(bf16).collect();
        let rows = [&row[..], &row[..]].concat();
        assert!(may_repeat(rows.as_flattened(), 2) && repeats(rows.as_flattened()));
        // A short row, of which perhaps nothing is picked.
        let short = row[..256].repeat(200);
        assert!(repeats(short.as_flattened()));
        // One row of ten.
        let mut rows: Vec<[u8; 2]> = weights(2).take(32_000).map(bf16).collect();
        rows.copy_within(0..3200, 20_000);
        assert!(may_repeat(rows.as_flattened(), 2));
    }

    #[test]
    fn sparse_rounded_and_few_values_may() {
        let sparse = weights(1).zip(noise(5)).map(|(w, bits)| if bits % 4 == 0 { 0.0 } else { w });
        assert!(may_repeat(&sparse.take(32 << 10).flat_map(bf16).collect::<Vec<u8>>(), 2));
        let rounded = weights(2).map(|w| f32::from_bits(w.to_bits() & 0xffff_0000));
        assert!(may_repeat(&rounded.take(16 << 10).flat_map(f32::to_le_bytes).collect::<Vec<u8>>(), 4));
        let few = noise(3).map(|bits| [0.1f32, 0.3, 0.7, -0.9][bits as usize % 4]);
        assert!(may_repeat(&few.take(16 << 10).flat_map(f32::to_le_bytes).collect::<Vec<u8>>(), 4));
    }

    #[test]
    fn next_to_nothing_is_no_trouble() {
        for len in 0..20 {
            may_repeat(&vec![1; len], 2);
            repeats(&vec![1; len]);
        }
    }
}
