//! Round trips of chunks, and every level against the definition.

use super::decode::Scratch;
use super::plan::DeltaPlan;
use super::step::tests::FLOATS;
use super::*;
use crate::checksum::checksum;
use crate::chunk::delta;
use crate::container::Mode;
use crate::simd::Level;
use crate::wire::{Put, Reader};
use proptest::prelude::*;

/// A source of noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
}

/// A base of so many elements, and elements of which each differs by up to `2^octaves`, more in some runs than in others, and in
/// some not at all.
fn pair(element: Element, count: usize, octaves: u32, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let kind = Kind::of(element).unwrap();
    let mut noise = Noise(seed);
    let (mut base, mut bytes) = (Vec::new(), Vec::new());
    for at in 0..count {
        let exponent = noise.next().trailing_zeros().min(6) + (at / 500 % 3) as u32;
        let bias = (1 << (kind.width - kind.mantissa - 2)) - 1;
        let magnitude = (bias - exponent.min(bias)) << kind.mantissa | noise.next() & ((1 << kind.mantissa) - 1);
        let before = magnitude | noise.next() >> 31 << (kind.width - 1);
        let size = noise.next() >> 8 & ((1u32 << octaves) - 1);
        let difference = match at / RUN % 4 {
            0 => 0,
            1 => (size >> 2) as i32,
            _ => size as i32 - (1 << octaves >> 1),
        };
        base.extend_from_slice(&before.to_le_bytes()[..kind.size()]);
        bytes.extend_from_slice(&kind.moved(before, difference).to_le_bytes()[..kind.size()]);
    }
    (base, bytes)
}

struct Segment {
    element: Element,
    plan: DeltaPlan,
    delta: Delta,
}

impl Segment {
    fn planned(element: Element, bytes: &[u8], base: &[u8]) -> Option<Segment> {
        let plan = DeltaPlan::of(Kind::of(element).unwrap(), bytes, base, Mode::Balanced)?;
        let (thresholds, tables) = (plan.thresholds.clone(), 0..plan.tables.len());
        let delta = Delta { offset: 0, element, origin: plan.origin, thresholds, tables };
        delta.check(element).unwrap();
        Some(Segment { element, plan, delta })
    }

    /// What every level makes of a chunk: the same.
    fn encode(&self, bytes: &[u8], base: &[u8]) -> Option<Vec<u8>> {
        let at_level = |level| {
            let mut stored = Vec::new();
            stored.put_u64(checksum(base));
            let mut buffers = encode::Buffers::new(level);
            // With memory that another chunk was coded in.
            encode::encode(
                &self.plan.coder,
                &bytes[..bytes.len() / 16 * 8],
                &base[..base.len() / 16 * 8],
                &mut buffers,
                &mut Vec::new(),
            );
            encode::encode(&self.plan.coder, bytes, base, &mut buffers, &mut stored).then_some(stored)
        };
        let defined = at_level(Level::Scalar);
        for level in Level::available() {
            assert!(at_level(level) == defined, "{level:?} differs from the definition");
        }
        defined
    }

    fn decode(&self, stored: &[u8], base: &[u8], level: Level, scratch: &mut Scratch) -> Result<Vec<u8>> {
        let mut out = vec![0x55; base.len()];
        let against = Against { delta: &self.delta, tables: &self.plan.tables, base };
        let mut reader = Reader::new(stored);
        delta::decode(&mut reader, true, self.element, &against, &mut out, (level, scratch))?;
        reader.finish()?;
        Ok(out)
    }

    /// What every level makes of a chunk: the same.
    fn decode_on_every_level(&self, stored: &[u8], base: &[u8]) -> Option<Vec<u8>> {
        let defined = self.decode(stored, base, Level::Scalar, &mut Scratch::default()).ok();
        for level in Level::available() {
            let decoded = self.decode(stored, base, level, &mut Scratch::default()).ok();
            assert!(decoded == defined, "{level:?} differs from the definition");
        }
        defined
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chunks_come_back_on_every_level(
        element in prop::sample::select(FLOATS.to_vec()),
        count in prop_oneof![0..3000usize, Just(33_000), Just(66_001)], octaves in 0..31u32, seed: u64,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 3),
    ) {
        let octaves = octaves % (element.size() as u32 * 8);
        let (base, bytes) = pair(element, count, octaves, seed);
        let Some(segment) = Segment::planned(element, &bytes, &base) else {
            prop_assert!(bytes == base);
            return Ok(());
        };
        let stored = segment.encode(&bytes, &base).unwrap();
        prop_assert!(segment.decode_on_every_level(&stored, &base).as_ref() == Some(&bytes));
        for (at, flip) in damage {
            let mut damaged = stored.clone();
            // Behind the checksum of the base.
            let at = 8 + at.index(damaged.len() - 8);
            damaged[at] ^= flip;
            segment.decode_on_every_level(&damaged, &base);
            segment.decode_on_every_level(&stored[..at], &base);
        }
    }

    #[test]
    fn a_chunk_unlike_the_sample_comes_back_or_is_not_coded(
        element in prop::sample::select(FLOATS.to_vec()), octaves in 0..31u32, planned in 1..31u32, seed: u64,
    ) {
        let bits = element.size() as u32 * 8;
        let (base, bytes) = pair(element, 2000, planned % bits, seed);
        let Some(segment) = Segment::planned(element, &bytes, &base) else { return Ok(()) };
        let (base, bytes) = pair(element, 5000, octaves % bits, seed + 1);
        if let Some(stored) = segment.encode(&bytes, &base) {
            prop_assert!(segment.decode_on_every_level(&stored, &base).as_ref() == Some(&bytes));
        }
    }
}

#[test]
fn elements_far_apart_that_no_table_knows_are_listed() {
    let (base, bytes) = pair(Element::Bf16, 200_000, 3, 1);
    let segment = Segment::planned(Element::Bf16, &bytes, &base).unwrap();
    let mut strange = bytes.clone();
    // In runs of which something changed anyhow; more than 65,535 elements apart.
    for at in [300, 100_000, 199_999] {
        strange[2 * at + 1] ^= 0xc0;
    }
    let stored = segment.encode(&strange, &base).unwrap();
    assert_eq!(segment.decode_on_every_level(&stored, &base), Some(strange));
}

#[test]
fn forged_tables_are_refused() {
    let (base, bytes) = pair(Element::F8E4M3, 3000, 3, 1);
    let mut segment = Segment::planned(Element::F8E4M3, &bytes, &base).unwrap();
    let stored = segment.encode(&bytes, &base).unwrap();
    // One that has a key of a larger difference than elements can have, and one of codes that there are not.
    for (number, key) in [(1, 30), (0, 128)] {
        let mut counts = vec![0; key + 1];
        counts[key] = 1;
        let sound = std::mem::replace(&mut segment.plan.tables[number], Table::fit(&counts).unwrap());
        assert_eq!(segment.decode_on_every_level(&stored, &base), None);
        segment.plan.tables[number] = sound;
    }
    assert_eq!(segment.decode_on_every_level(&stored, &base), Some(bytes));
    // As many tables as thresholds ask for.
    segment.delta.thresholds.pop();
    assert_eq!(segment.decode_on_every_level(&stored, &base), None);
}
