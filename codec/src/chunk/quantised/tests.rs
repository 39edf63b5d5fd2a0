//! Blocks that come back, and those that an encoder does not write.

use super::fields::{put_together, take_apart};
use super::*;
use crate::chunk::plan::{Plan, ReadyPlan, Sample, Shared};
use crate::chunk::{self, Codec, Place};
use crate::container::Mode;
use crate::split::Element;
use crate::wire::Put;
use proptest::prelude::*;

/// Weights about zero, the same whatever the machine: sums of uniform numbers.
fn weights(count: usize, mut seed: u64) -> impl Iterator<Item = f32> {
    (0..count).map(move |_| {
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        uniform() + uniform() + uniform() + uniform()
    })
}

/// A positive float as a half, rounded down.
fn half(value: f32) -> u16 {
    (value * f32::powi(2.0, -112)).to_bits().wrapping_shr(13) as u16
}

/// So many blocks of the type, as if weights had been quantised.
pub(crate) fn blocks(kind: BlockType, count: usize, seed: u64) -> Vec<u8> {
    let fields = Fields::of(kind);
    let mut noise = weights(usize::MAX, seed ^ 0x5555);
    let mut noise_of = |range: u32| ((noise.next().expect("there is enough") + 2.0) * 1e6) as u32 % range;
    let mut all = Vec::new();
    let mut values = weights(count * kind.elements(), seed);
    for _ in 0..count {
        let mut block: Vec<u8> = (0..kind.bytes()).map(|_| noise_of(256) as u8 & noise_of(256) as u8).collect();
        let scales = [half(0.01 + noise_of(100) as f32 / 3000.0), half(0.02 + noise_of(100) as f32 / 2000.0)];
        for (field, scale) in fields.halves.iter().zip(scales) {
            let scale = if field.flipped { scale | 0x8000 } else { scale };
            block[field.at..field.at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if let Some(layout) = fields.quants {
            let most = f32::from(u8::try_from((1u32 << layout.bits) - 1).unwrap());
            let parts: Vec<u8> = fields
                .parts
                .iter()
                .flat_map(|parts| vec![0; parts.per_block])
                .map(|_: u8| 8 + noise_of(8) as u8)
                .collect();
            let mut quants: Vec<u8> = values
                .by_ref()
                .take(kind.elements())
                .map(|value| ((value / 4.0 + 0.5) * most) as u8)
                .map(|quant| if layout.bits == 8 { quant.wrapping_sub(128) } else { quant })
                .collect();
            if layout.extremes.is_some() {
                let place = noise_of(32) as usize;
                quants[place] = if layout.bits < 8 { 0 } else { [127, 129][noise_of(2) as usize] };
            }
            if layout.bits == 8 {
                quants.iter_mut().for_each(|quant| *quant = fields::fold(*quant));
            }
            put(kind, &mut block, &parts, &quants);
        }
        all.extend(block);
    }
    all
}

macro_rules! for_kind {
    ($kind:expr, $name:ident($($argument:expr),*)) => {
        for_kind!($kind, $name($($argument),*), Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NVFP4)
    };
    ($kind:expr, $name:ident $arguments:tt, $($all:ident)*) => {
        match $kind {
            $(BlockType::$all => $name::<{ BlockType::$all.number() }> $arguments,)*
            _ => unreachable!("it has no quants"),
        }
    };
}

fn put(kind: BlockType, block: &mut [u8], parts: &[u8], quants: &[u8]) {
    for_kind!(kind, put_together(block, parts, quants));
}

fn take(kind: BlockType, block: &[u8], parts: &mut [u8], quants: &mut [u8]) {
    for_kind!(kind, take_apart(block, parts, quants));
}

/// A plan made from all of `sample`, and its tables.
fn planned(kind: BlockType, sample: &[u8]) -> (ReadyPlan, Vec<Table>) {
    let element = Element::Blocks(kind);
    let sample = Sample { element, bytes: sample, len: sample.len() as u64, chunk_size: 1 << 18, shape: None };
    Plan::of(&sample, Mode::Balanced, Shared::None).ready(element)
}

fn encoded(kind: BlockType, plan: &ReadyPlan, bytes: &[u8], level: Level) -> (Codec, Vec<u8>) {
    let mut stored = Vec::new();
    let codec = chunk::encode(plan, Element::Blocks(kind), 0, bytes, &mut Buffers::new(level), &mut stored);
    assert!(stored.len() <= bytes.len());
    (codec, stored)
}

fn decoded(
    kind: BlockType,
    tables: &[Table],
    (codec, stored): (Codec, &[u8]),
    len: usize,
    scratch: &mut block::Scratch,
) -> Result<Vec<u8>> {
    let mut out = vec![0xaa; len];
    let place = Place { element: Element::Blocks(kind), tables, scale: None, first: 0, against: None };
    chunk::decode(codec, place, stored, &mut out, scratch).map(|()| out)
}

/// Encodes and decodes with all that the processor has, and gives how it was stored.
fn round_trip(kind: BlockType, sample: &[u8], bytes: &[u8]) -> (Codec, usize) {
    let (plan, tables) = planned(kind, sample);
    let (codec, stored) = encoded(kind, &plan, bytes, Level::Scalar);
    let definition = std::iter::once(block::Scratch::of_definition());
    for mut scratch in definition.chain(Level::available().map(block::Scratch::new)) {
        // The second time with memory that was used before.
        for _ in 0..2 {
            assert!(decoded(kind, &tables, (codec, &stored), bytes.len(), &mut scratch).unwrap() == bytes, "{kind:?}");
        }
    }
    for level in Level::available() {
        assert!(encoded(kind, &plan, bytes, level) == (codec, stored.clone()), "{kind:?} {level:?}");
    }
    (codec, stored.len())
}

#[test]
fn fields_are_taken_apart_and_put_together() {
    let mut noise = weights(usize::MAX, 7).map(|value| (value * 1e6) as i32 as u8);
    for kind in BlockType::ALL.into_iter().filter(|&kind| Fields::of(kind).quants.is_some()) {
        let fields = Fields::of(kind);
        let (mut parts, mut quants) =
            (vec![0; fields.parts.iter().map(|parts| parts.per_block).sum()], vec![0; kind.elements()]);
        for _ in 0..20 {
            let block: Vec<u8> = noise.by_ref().take(kind.bytes()).collect();
            take(kind, &block, &mut parts, &mut quants);
            let bits = fields.quants.unwrap().bits;
            assert!(quants.iter().all(|&quant| u32::from(quant) < 1 << bits));
            let mut again = vec![0; kind.bytes()];
            fields
                .halves
                .iter()
                .for_each(|half| again[half.at..half.at + 2].copy_from_slice(&block[half.at..half.at + 2]));
            put(kind, &mut again, &parts, &quants);
            assert_eq!(again, block, "{kind:?}");
        }
    }
}

#[test]
fn each_byte_of_a_block_is_in_one_field() {
    for kind in BlockType::ALL.into_iter().filter(|&kind| Fields::of(kind).quants.is_none()) {
        let fields = Fields::of(kind);
        let mut ranges: Vec<_> =
            fields.byte_ranges().chain(fields.halves.iter().map(|half| half.at..half.at + 2)).collect();
        ranges.sort_by_key(|range| range.start);
        let mut end = 0;
        for range in ranges {
            assert_eq!(range.start, end, "{kind:?}");
            end = range.end;
        }
        assert_eq!(end, kind.bytes(), "{kind:?}");
    }
}

#[test]
fn quantised_weights_become_smaller_and_come_back() {
    for kind in BlockType::ALL {
        let bytes = blocks(kind, (200 << 10) / kind.bytes(), 1);
        let (codec, stored) = round_trip(kind, &bytes, &bytes);
        assert_eq!(codec, Codec::Blocks, "{kind:?}");
        assert!(stored < bytes.len() * 97 / 100, "{kind:?}: {stored} of {}", bytes.len());
        // Any number of blocks, with a plan made for others.
        for count in [1, 2, 7, 33, 500] {
            round_trip(kind, &bytes, &blocks(kind, count, 2));
        }
    }
}

#[test]
fn blocks_without_an_extreme_come_back() {
    for kind in [BlockType::Q4_0, BlockType::Q5_0, BlockType::Q8_0] {
        let sample = blocks(kind, 3000, 3);
        let mut bytes = blocks(kind, 3000, 4);
        for (number, block) in bytes.chunks_exact_mut(kind.bytes()).enumerate() {
            // All zeros, or quants in the middle alone.
            match number % 600 {
                0 => block.fill(0),
                1..4 => block[2..].iter_mut().for_each(|byte| *byte = *byte & 0x33 | 0x11),
                _ => {}
            }
        }
        assert_eq!(round_trip(kind, &sample, &bytes).0, Codec::Blocks, "{kind:?}");
        assert_eq!(round_trip(kind, &bytes, &bytes).0, Codec::Blocks, "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn anything_comes_back(kind in prop::sample::select(&BlockType::ALL[..]), seed: u64, noise in chunk::tests::bytes(), mixed: bool) {
        let mut bytes = noise[..noise.len() / kind.bytes() * kind.bytes()].to_vec();
        if mixed {
            bytes.extend(blocks(kind, 300, seed));
        }
        round_trip(kind, &blocks(kind, 300, seed ^ 1), &bytes);
        round_trip(kind, &bytes, &bytes);
    }

    #[test]
    fn damage_is_an_error_or_some_bytes(
        kind in prop::sample::select(&BlockType::ALL[..]),
        seed: u64,
        at in any::<prop::sample::Index>(),
        with in 1..=255u8,
        cut: bool,
    ) {
        let bytes = blocks(kind, 700, seed);
        let (plan, tables) = planned(kind, &bytes);
        let (codec, mut stored) = encoded(kind, &plan, &bytes, Level::Scalar);
        let at = at.index(stored.len());
        stored[at] ^= with;
        if cut {
            stored.truncate(at);
        }
        let all: Vec<Option<Vec<u8>>> = Level::available()
            .map(|level| decoded(kind, &tables, (codec, &stored), bytes.len(), &mut block::Scratch::new(level)).ok())
            .collect();
        prop_assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "all levels say the same");
    }
}

/// A chunk of two blocks of Q8_0 with everything as it is: halves, extremes, one table of rows, which is `table`.
fn chunk_of_q8_0(extremes: [u8; 2], rows: &[u8], table: &[u8]) -> Result<Vec<u8>> {
    let table = Table::read(&mut Reader::new(table)).unwrap();
    let mut stored = vec![0, 1, 2, 3, 4, 0];
    stored.extend(extremes);
    stored.extend(rows);
    // One stream with no words, shift 0, nothing but the state that it ends in.
    let mut block = vec![1, 0, 0, 0, 0, 0, 0, 0];
    block.put_u32(0);
    (0..32).for_each(|_| block.put_u32(1 << 16));
    // Signs, two groups: as much as the states carry.
    stored.extend(block);
    decoded(BlockType::Q8_0, &[table], (Codec::Blocks, &stored), 68, &mut block::Scratch::default())
}

#[test]
fn what_no_encoder_writes_is_refused() {
    // A symbol alone takes no bits: the quants are all 3.
    let only = |key: u8| [1, key, 0x80, 0x20];
    let out = chunk_of_q8_0([5, 1 << 5 | 31], &[1], &only(3)).unwrap();
    let mut expected = [3; 68];
    (expected[0], expected[1], expected[34], expected[35]) = (0x80, 0, 0x81, 1);
    (expected[2 + 5], expected[34 + 2 + 31]) = (127, 129);
    assert_eq!(out.len(), expected.len());
    assert_eq!(out[2..34], expected[2..34]);
    assert_eq!(out[36..], expected[36..]);
    assert!(chunk_of_q8_0([5, 3 << 5], &[1], &only(3)).is_err(), "there is no third extreme");
    assert!(chunk_of_q8_0([5, 5], &[0], &only(3)).is_err(), "no table");
    assert!(chunk_of_q8_0([5, 5], &[17], &only(3)).is_err(), "17 tables");
    assert!(chunk_of_q8_0([5, 5], &[2, 9], &only(3)).is_err(), "the segment has one table");
    assert!(chunk_of_q8_0([5, 5], &[2, 0], &only(3)).is_err(), "the first table has no class");
    assert!(chunk_of_q8_0([5, 5], &[3, 9, 9], &only(3)).is_err(), "the second table has no class");
    assert!(chunk_of_q8_0([5, 5], &[2, 64], &only(3)).is_err(), "there is no class 64");
    assert!(chunk_of_q8_0([5, 5], &[1], &only(127)).is_ok());
    assert!(chunk_of_q8_0([5, 5], &[1], &[1, 0x80, 1, 0x80, 0x20]).is_err(), "a key of 128");
}

#[test]
fn blocks_are_coded_as_blocks_and_nothing_else_is() {
    let bytes = [0; 36];
    for codec in [Codec::Bytes, Codec::Sparse, Codec::Palette, Codec::Differences, Codec::Float, Codec::Scaled] {
        assert!(decoded(BlockType::Q4_0, &[], (codec, &bytes), 36, &mut block::Scratch::default()).is_err());
    }
    let place = Place { element: Element::Bytes(2), tables: &[], scale: None, first: 0, against: None };
    assert!(chunk::decode(Codec::Blocks, place, &bytes, &mut [0; 36], &mut block::Scratch::default()).is_err());
}
