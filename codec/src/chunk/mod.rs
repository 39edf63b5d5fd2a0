//! One chunk: run the codec that its segment's [`Plan`] names, and undo it.

pub(crate) mod block;
pub(crate) mod delta;
mod differences;
mod interleave;
pub(crate) mod normalise;
mod palette;
pub(crate) mod plan;
mod plane;
pub(crate) mod quantised;
mod repetition;
pub(crate) mod scale;
mod sparse;
pub(crate) mod statistics;

use crate::checksum::checksum;
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::split::{Element, Split};
use crate::wire::{Put, Reader};

use block::{Buffers, Scratch};
use delta::Against;
use delta::encode::DeltaCoder;
use interleave::interleave;
use plan::{Coding, FAST_LEVEL, ReadyPlan};
use scale::Scale;

/// How a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One element, repeated.
    Constant,
    /// A Zstandard frame.
    Zstd,
    /// Floats: keys entropy coded, raw bits beside them.
    Float,
    /// Integers: each byte position a plane of its own, entropy coded.
    Bytes,
    /// Floats whose scale is normalised by run and column, then as [`Float`](Codec::Float).
    Scaled,
    /// A mask of the elements that have the most frequent value, and the others as a chunk of their own.
    Sparse,
    /// At most 256 values, and which of them each element has.
    Palette,
    /// Differences of integers to the ones before, in a Zstandard frame.
    Differences,
    /// All bytes alike, whatever the element.
    Packed,
    /// Quantised blocks, their fields taken apart.
    Blocks,
    /// Floats as what changed against a base.
    Delta,
    /// As in the base.
    Unchanged,
}

impl Codec {
    /// The number under which the container stores it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Constant => 1,
            Codec::Zstd => 2,
            Codec::Float => 3,
            Codec::Bytes => 4,
            Codec::Scaled => 5,
            Codec::Sparse => 6,
            Codec::Palette => 7,
            Codec::Differences => 8,
            Codec::Packed => 9,
            Codec::Blocks => 10,
            Codec::Delta => 16,
            Codec::Unchanged => 17,
        }
    }

    /// The codec with the given number.
    pub(crate) fn from_code(code: u8) -> Result<Codec> {
        Ok(match code {
            0 => Codec::Raw,
            1 => Codec::Constant,
            2 => Codec::Zstd,
            3 => Codec::Float,
            4 => Codec::Bytes,
            5 => Codec::Scaled,
            6 => Codec::Sparse,
            7 => Codec::Palette,
            8 => Codec::Differences,
            9 => Codec::Packed,
            10 => Codec::Blocks,
            16 => Codec::Delta,
            17 => Codec::Unchanged,
            _ => return Err(Error::corrupt(format!("codec {code} is unknown"))),
        })
    }

    /// Whether quantised blocks can be stored so.
    fn is_for_blocks(self) -> bool {
        matches!(self, Codec::Raw | Codec::Constant | Codec::Zstd | Codec::Packed | Codec::Blocks | Codec::Unchanged)
    }

    /// Its name, as `info` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Raw => "raw",
            Codec::Constant => "constant",
            Codec::Zstd => "zstd",
            Codec::Float => "float",
            Codec::Bytes => "bytes",
            Codec::Scaled => "scaled",
            Codec::Sparse => "sparse",
            Codec::Palette => "palette",
            Codec::Differences => "differences",
            Codec::Packed => "packed",
            Codec::Blocks => "blocks",
            Codec::Delta => "delta",
            Codec::Unchanged => "unchanged",
        }
    }
}

/// How much larger than the rest of a chunk so far a probe with Zstandard may come out for the whole of it to be tried.
const PROMISING: f64 = 1.5;

/// Bytes of a chunk that Zstandard is tried on first.
const PROBE: usize = 32 << 10;

/// What a chunk may be coded against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base<'a> {
    /// The bytes of the base, and its elements made those of the chunk.
    pub(crate) bytes: &'a [u8],
    pub(crate) elements: &'a [u8],
    /// How; `None` if only chunks that are the same are worth it.
    pub(crate) coder: Option<&'a DeltaCoder>,
}

/// How much smaller than what its plan expects a chunk must be against its base for the plan not to be tried.
const CLEARLY_SMALLER: f64 = 0.75;

/// As [`encode`], against a base if that is smaller.
pub(crate) fn encode_against(
    base: Base<'_>,
    plan: &ReadyPlan,
    element: Element,
    first: u64,
    bytes: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> Codec {
    let size = element.size();
    if bytes.len() > size && bytes[size..] == bytes[..bytes.len() - size] {
        return encode(plan, element, first, bytes, buffers, stored);
    }
    stored.clear();
    stored.put_u64(checksum(base.bytes));
    if base.elements == bytes {
        return Codec::Unchanged;
    }
    let coded =
        base.coder.is_some_and(|coder| delta::encode::encode(coder, bytes, base.elements, &mut buffers.delta, stored));
    if coded && (stored.len() as f64) < CLEARLY_SMALLER * plan.bits_per_bit * bytes.len() as f64 {
        return Codec::Delta;
    }
    let mut plain = std::mem::take(&mut buffers.plain);
    let codec = encode(plan, element, first, bytes, buffers, &mut plain);
    let delta = coded && stored.len() < plain.len();
    if !delta {
        std::mem::swap(stored, &mut plain);
    }
    buffers.plain = plain;
    if delta { Codec::Delta } else { codec }
}

/// Codes `bytes`, a chunk of elements of the given kind (perhaps none), the first of which is number `first` of its segment, and returns
/// how. `stored` is replaced by the coded bytes, which are never more than the bytes themselves.
pub(crate) fn encode(
    plan: &ReadyPlan,
    element: Element,
    first: u64,
    bytes: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> Codec {
    stored.clear();
    if bytes.is_empty() {
        return Codec::Raw;
    }
    let size = element.size();
    if bytes.len() > size && bytes[size..] == bytes[..bytes.len() - size] {
        stored.extend_from_slice(&bytes[..size]);
        return Codec::Constant;
    }
    let mut codec = encode_as_planned(&plan.coding, element, first, bytes, buffers, stored);
    if codec.is_none() || stored.len() >= bytes.len() {
        stored.clear();
        stored.extend_from_slice(bytes);
        codec = Some(Codec::Raw);
    }
    if plan.long_chunks || plan.try_zstd || repetition::repeats(bytes, buffers.level()) {
        codec = zstd_if_smaller(plan, bytes, stored).or(codec);
    }
    codec.expect("it is raw if nothing else")
}

/// Replaces `stored`, a chunk of these `bytes`, by a Zstandard frame if that is smaller.
fn zstd_if_smaller(plan: &ReadyPlan, bytes: &[u8], stored: &mut Vec<u8>) -> Option<Codec> {
    let compress = |bytes, level| zstd::bulk::compress(bytes, level).expect("Zstandard compresses any bytes");
    let probe = plane::middle(bytes, PROBE);
    let promises = |part: usize, of: usize| part as f64 * bytes.len() as f64 <= PROMISING * (stored.len() * of) as f64;
    // A probe does not see what repeats over a longer distance.
    if !plan.long_chunks && !promises(compress(probe, FASTEST_LEVEL).len(), probe.len()) {
        return None;
    }
    let mut best = compress(bytes, FAST_LEVEL);
    // A higher level is not always better, and takes long: only where it is not in vain.
    if plan.zstd_level > FAST_LEVEL && promises(best.len(), bytes.len()) {
        let smaller = compress(bytes, plan.zstd_level);
        if smaller.len() < best.len() {
            best = smaller;
        }
    }
    if best.len() >= stored.len() {
        return None;
    }
    *stored = best;
    Some(Codec::Zstd)
}

/// The level of Zstandard for a probe of a chunk.
const FASTEST_LEVEL: i32 = 1;

/// Appends the coded `bytes` to `stored`; `None` if they are not to be coded, or cannot be as planned.
fn encode_as_planned(
    coding: &Coding,
    element: Element,
    first: u64,
    bytes: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> Option<Codec> {
    let size = element.size();
    match coding {
        Coding::Raw => None,
        Coding::Zstd { level } => {
            *stored = zstd::bulk::compress(bytes, *level).expect("Zstandard compresses any bytes");
            Some(Codec::Zstd)
        }
        Coding::Float(coder) => {
            let split = element.float_split().expect("only floats are planned as floats");
            block::encode(bytes, split, coder, 0, buffers, stored).then_some(Codec::Float)
        }
        Coding::Scaled { normaliser, coders } => {
            normaliser.encode(coders, bytes, first, buffers, stored).then_some(Codec::Scaled)
        }
        Coding::Bytes(planes) => {
            let mut plane = std::mem::take(&mut buffers.plane);
            for (position, plan) in planes.iter().enumerate() {
                plane.clear();
                plane.extend(bytes[position..].iter().step_by(size));
                plan.encode(&plane, buffers, stored);
            }
            buffers.plane = plane;
            Some(Codec::Bytes)
        }
        Coding::Sparse(plan) => {
            plan.encode(element, bytes, buffers, stored);
            Some(Codec::Sparse)
        }
        Coding::Differences { level } => {
            let differences = differences::take(bytes, size);
            *stored = zstd::bulk::compress(&differences, *level).expect("Zstandard compresses any bytes");
            Some(Codec::Differences)
        }
        Coding::Packed(plan) => {
            plan.encode(bytes, buffers, stored);
            Some(Codec::Packed)
        }
        Coding::Blocks(plan) => {
            let Element::Blocks(kind) = element else { unreachable!("only blocks are planned as blocks") };
            quantised::encode(plan, kind, bytes, buffers, stored).then_some(Codec::Blocks)
        }
        Coding::Palette(plan) => plan.encode(size, bytes, buffers, stored).then_some(Codec::Palette),
    }
}

/// What a chunk has in common with the others of its segment, and where it is among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) element: Element,
    /// The tables of the segment.
    pub(crate) tables: &'a [Table],
    /// How the segment is normalised.
    pub(crate) scale: Option<&'a Scale>,
    /// The number of its first element within the segment.
    pub(crate) first: u64,
    /// What it is coded against, if it is.
    pub(crate) against: Option<Against<'a>>,
}

/// Decodes a chunk into `out`, which is as long as it.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when `stored` is not what an encoder writes. `out` then holds
/// unspecified bytes.
pub(crate) fn decode(
    codec: Codec,
    place: Place<'_>,
    stored: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let Place { element, tables, scale, first, against } = place;
    if matches!(element, Element::Blocks(_)) && !codec.is_for_blocks() {
        return Err(Error::corrupt("a chunk of quantised blocks is coded as elements"));
    }
    match codec {
        Codec::Raw => {
            if stored.len() != out.len() {
                return Err(wrong_length(stored.len(), out.len()));
            }
            out.copy_from_slice(stored);
        }
        Codec::Constant => {
            if stored.is_empty() || !out.len().is_multiple_of(stored.len()) {
                return Err(wrong_length(stored.len(), out.len()));
            }
            out.chunks_exact_mut(stored.len()).for_each(|element| element.copy_from_slice(stored));
        }
        Codec::Zstd => plane::decode_zstd(stored, out)?,
        Codec::Float => {
            let split = split_of(element)?;
            let mut reader = Reader::new(stored);
            block::decode(&mut reader, split, tables, out, scratch)?;
            reader.finish()?;
        }
        Codec::Bytes => {
            let size = whole_elements(element, out)?;
            let mut reader = Reader::new(stored);
            let mut planes = std::mem::take(&mut scratch.plane);
            planes.resize(out.len(), 0);
            let decoded = (0..size).try_for_each(|position| {
                let len = out.len() / size;
                plane::decode(&mut reader, tables, &mut planes[position * len..][..len], scratch)
            });
            interleave(&planes, size, out);
            scratch.plane = planes;
            decoded?;
            reader.finish()?;
        }
        Codec::Sparse => {
            whole_elements(element, out)?;
            sparse::decode(&mut Reader::new(stored), place, out, scratch)?;
        }
        Codec::Differences => {
            let size = whole_elements(element, out)?;
            plane::decode_zstd(stored, out)?;
            differences::sum(out, size);
        }
        Codec::Packed => {
            let mut reader = Reader::new(stored);
            plane::decode(&mut reader, tables, out, scratch)?;
            reader.finish()?;
        }
        Codec::Palette => {
            let size = whole_elements(element, out)?;
            let mut reader = Reader::new(stored);
            palette::decode(&mut reader, size, tables, out, scratch)?;
            reader.finish()?;
        }
        Codec::Blocks => {
            whole_elements(element, out)?;
            let Element::Blocks(kind) = element else {
                return Err(Error::corrupt("a chunk of no quantised blocks is coded as such"));
            };
            let mut reader = Reader::new(stored);
            quantised::decode(&mut reader, kind, tables, out, scratch)?;
            reader.finish()?;
        }
        Codec::Scaled => {
            let split = split_of(element)?;
            let scale = scale.ok_or_else(|| Error::corrupt("a chunk is normalised, its segment is not"))?;
            let (mut reader, elements) = (Reader::new(stored), out.len() / element.size());
            let Scratch { codes, quads, columns, .. } = scratch;
            scale.read_runs(&mut reader, Scale::octave(element), first, elements, codes, quads)?;
            columns.prepare(scale, element);
            let column = (first % columns.period() as u64) as usize;
            block::decode_scaled(&mut reader, split, tables, (column, usize::from(scale.phases)), out, scratch)?;
            reader.finish()?;
        }
        Codec::Delta | Codec::Unchanged => {
            let against =
                against.ok_or_else(|| Error::corrupt("a chunk is coded against a base, its segment is not"))?;
            let mut reader = Reader::new(stored);
            let level = scratch.level();
            delta::decode(&mut reader, codec == Codec::Delta, element, &against, out, (level, &mut scratch.delta))?;
            reader.finish()?;
        }
    }
    Ok(())
}

/// How floats are cut.
fn split_of(element: Element) -> Result<Split> {
    element.float_split().ok_or_else(|| Error::corrupt("a chunk of integers is coded as floats"))
}

/// The size of an element.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when `out` is not a number of whole ones.
fn whole_elements(element: Element, out: &[u8]) -> Result<usize> {
    let size = element.size();
    if out.len().is_multiple_of(size) { Ok(size) } else { Err(wrong_length(size, out.len())) }
}

fn wrong_length(have: usize, want: usize) -> Error {
    Error::corrupt(format!("a chunk of {want} bytes cannot come from {have}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::normalise::Shape;
    use super::plan::{Plan, Shared};
    use super::*;
    use crate::container::Mode;
    use crate::simd::Level;
    use proptest::prelude::*;

    const ELEMENTS: [Element; 9] = [
        Element::Bf16,
        Element::F16,
        Element::F32,
        Element::F8E4M3,
        Element::F8E5M2,
        Element::Bytes(1),
        Element::Bytes(2),
        Element::Bytes(4),
        Element::Bytes(8),
    ];

    /// Bytes as they come: noise, few values, weights with narrow exponents, floats with zero low bits, extremes.
    pub(crate) fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let words = |word: BoxedStrategy<u32>| {
            prop::collection::vec(word, 0..3000)
                .prop_map(|w| w.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
        };
        prop_oneof![
            words(any::<u32>().boxed()),
            words((0..4u32).boxed()),
            words((-1f32..1.0).prop_map(f32::to_bits).boxed()),
            words((-1f32..1.0).prop_map(|x| x.to_bits() & 0xffff_0000).boxed()),
            words(
                prop::sample::select(vec![
                    0,
                    f32::NAN.to_bits(),
                    f32::INFINITY.to_bits(),
                    1,
                    0x8000_0000,
                    0xffff_ffff,
                    f32::MIN_POSITIVE.to_bits()
                ])
                .boxed()
            ),
            words((0..70_000u32).boxed()),
            // Mostly zeros, with signs or without; few values; small numbers in half a byte each; rows that come again.
            words(prop_oneof![4 => Just(0), 1 => Just(0x8000_0000), 3 => (-1f32..1.0).prop_map(f32::to_bits)].boxed()),
            words(prop_oneof![9 => Just(0), 1 => any::<u32>()].boxed()),
            words((0..100u32).prop_map(|number| number.wrapping_mul(0x9e37_79b9)).boxed()),
            words(any::<u32>().prop_map(|bits| bits & bits >> 4 & 0x7777_7777).boxed()),
            words(any::<u32>().boxed()).prop_map(|row| row[..row.len().min(600)].repeat(20)),
        ]
    }

    /// A plan made from all of `sample`, and what decodes with it.
    struct Segment {
        element: Element,
        plan: ReadyPlan,
        tables: Vec<Table>,
    }

    impl Segment {
        /// With `columns`, the plan may be to normalise.
        fn planned(element: Element, sample: &[u8], mode: Mode, columns: Option<usize>) -> Segment {
            let elements = (sample.len() / element.size()) as u64;
            let shape = columns.map(|columns| {
                let dims = vec![elements / columns as u64, columns as u64];
                (vec![(0, sample.len())], Shape { elements, dims })
            });
            let shape = shape.filter(|_| element.float_split().is_some());
            let sample =
                plan::Sample { element, bytes: sample, len: sample.len() as u64, chunk_size: 256 << 10, shape };
            let (plan, tables) = Plan::of(&sample, mode, Shared::None).ready(element);
            Segment { element, plan, tables }
        }

        fn encode(&self, first: u64, bytes: &[u8]) -> (Codec, Vec<u8>) {
            let mut stored = vec![1, 2, 3];
            let codec = encode(&self.plan, self.element, first, bytes, &mut Buffers::default(), &mut stored);
            assert!(stored.len() <= bytes.len());
            (codec, stored)
        }

        fn place(&self, first: u64) -> Place<'_> {
            Place { element: self.element, tables: &self.tables, scale: self.plan.scale(), first, against: None }
        }
    }

    fn round_trip(element: Element, mode: Mode, bytes: &[u8], sample: &[u8]) -> Codec {
        let bytes = &bytes[..bytes.len() / element.size() * element.size()];
        let sample = &sample[..sample.len() / element.size() * element.size()];
        let segment = Segment::planned(element, sample, mode, None);
        let (codec, stored) = segment.encode(0, bytes);
        let mut out = vec![0xaa; bytes.len()];
        decode(codec, segment.place(0), &stored, &mut out, &mut Scratch::default()).unwrap();
        assert_eq!(out, bytes);
        codec
    }

    proptest! {
        #[test]
        fn any_chunk_comes_back(element in prop::sample::select(ELEMENTS.to_vec()), bytes in bytes()) {
            round_trip(element, Mode::Balanced, &bytes, &bytes);
        }

        #[test]
        fn a_chunk_unlike_the_sample_comes_back(element in prop::sample::select(ELEMENTS.to_vec()), bytes in bytes(), sample in bytes()) {
            round_trip(element, Mode::Storage, &bytes, &sample);
        }

        #[test]
        fn any_stored_bytes_are_an_error_or_a_chunk(
            element in prop::sample::select(ELEMENTS.to_vec()), bytes in bytes(), stored: Vec<u8>, code in 0..10u8, at: prop::sample::Index, flip: u8,
        ) {
            let bytes = &bytes[..bytes.len() / 8 * 8];
            let segment = Segment::planned(element, bytes, Mode::Balanced, None);
            let mut scratch = Scratch::default();
            let mut out = vec![0; bytes.len()];
            let _ = decode(Codec::from_code(code).unwrap(), segment.place(0), &stored, &mut out, &mut scratch);
            let (codec, mut coded) = segment.encode(0, bytes);
            if !coded.is_empty() {
                let at = at.index(coded.len());
                coded[at] ^= flip;
                let _ = decode(codec, segment.place(0), &coded, &mut out, &mut scratch);
                let _ = decode(codec, segment.place(0), &coded[..at], &mut out, &mut scratch);
                let _ = decode(codec, Place { tables: &[], ..segment.place(0) }, &coded, &mut out, &mut scratch);
            }
        }
    }

    /// A chunk as it is stored, and its length.
    type StoredChunk<'a> = (Codec, Place<'a>, &'a [u8], usize);

    /// Decodes with each level's instructions, one chunk after the other with the same scratch, and expects what the
    /// definition gives: an error, or the same bytes. Returns those.
    fn same_on_every_level(chunks: &[StoredChunk<'_>]) -> Vec<Option<Vec<u8>>> {
        let decode_all = |mut scratch: Scratch| {
            let decode_one = |&(codec, place, stored, len): &StoredChunk<'_>| {
                let mut out = vec![0x55; len];
                decode(codec, place, stored, &mut out, &mut scratch).ok().map(|()| out)
            };
            chunks.iter().map(decode_one).collect::<Vec<_>>()
        };
        let defined = decode_all(Scratch::of_definition());
        for level in Level::available() {
            assert!(decode_all(Scratch::new(level)) == defined, "{level:?} differs from the definition");
        }
        defined
    }

    /// Weights of `rows` rows and `columns` columns, each of them larger or smaller by some factor, as elements of this kind.
    pub(crate) fn scaled_weights(element: Element, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut noise = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 16_777_216.0
        };
        let row_scales: Vec<f32> = (0..rows).map(|_| (4.0 * noise() - 2.0).exp2()).collect();
        let column_scales: Vec<f32> = (0..columns).map(|_| (5.0 * noise() - 2.0).exp2()).collect();
        let mut bytes = Vec::new();
        for row in row_scales {
            for column in &column_scales {
                let weight = ((0..4).map(|_| noise()).sum::<f32>() - 2.0) * row * column * 0.05;
                // As BF16 with more bits, or cut to bits of the same meaning.
                let bits = weight.to_bits();
                match element {
                    Element::F32 => bytes.extend_from_slice(&bits.to_le_bytes()),
                    Element::Bf16 => bytes.extend_from_slice(&((bits >> 16) as u16).to_le_bytes()),
                    Element::F16 => {
                        let magnitude = (bits & 0x7fff_ffff) >> 13;
                        let half = magnitude.saturating_sub(112 << 10).min(0x7bff) as u16;
                        bytes.extend_from_slice(&(half | ((bits >> 16) as u16 & 0x8000)).to_le_bytes());
                    }
                    Element::F8E4M3 => {
                        let magnitude = ((bits & 0x7fff_ffff) >> 20).saturating_sub(114 << 3).min(0x7e) as u8;
                        bytes.push(magnitude | ((bits >> 24) as u8 & 0x80));
                    }
                    _ => {
                        let magnitude = ((bits & 0x7fff_ffff) >> 21).saturating_sub(100 << 2).min(0x7b) as u8;
                        bytes.push(magnitude | ((bits >> 24) as u8 & 0x80));
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn rows_and_columns_of_different_scale_are_normalised() {
        for element in ELEMENTS.into_iter().filter(|element| element.float_split().is_some()) {
            // In chunks of so many quads, the last one cut short: a few, and enough for 2 and 4 streams.
            for (rows, columns, quads) in
                [(300, 128, 30), (70, 400, 30), (900, 20, 30), (40, 1024, 30), (300, 144, 300), (600, 256, 600)]
            {
                let bytes = scaled_weights(element, rows, columns, 7);
                let segment = Segment::planned(element, &bytes, Mode::Balanced, Some(columns));
                assert!(segment.plan.scale().is_some(), "{element:?} {rows} {columns}");
                let plain = Segment::planned(element, &bytes, Mode::Balanced, None);
                let chunk = quads * scale::QUAD;
                let (mut stored, mut plainly_stored) = (0, 0);
                for (number, bytes) in bytes.chunks(chunk * element.size()).enumerate() {
                    let first = (number * chunk) as u64;
                    let (codec, coded) = segment.encode(first, bytes);
                    assert_eq!(codec, Codec::Scaled);
                    let decoded = same_on_every_level(&[(codec, segment.place(first), &coded, bytes.len())]);
                    assert!(decoded[0].as_deref() == Some(bytes), "{element:?} {rows} {columns} {number}");
                    stored += coded.len();
                    plainly_stored += plain.encode(first, bytes).1.len();
                }
                assert!(stored < plainly_stored, "{element:?} {rows} {columns}: {stored} and not {plainly_stored}");
            }
        }
    }

    #[test]
    fn rows_rounded_to_fewer_bits_cost_less() {
        let mut bytes = scaled_weights(Element::F32, 256, 64, 3);
        for row in bytes.chunks_mut(64 * 4).step_by(3) {
            row.as_chunks_mut().0.iter_mut().for_each(|element: &mut [u8; 4]| {
                *element = (u32::from_le_bytes(*element) & !0x1fff).to_le_bytes();
            });
        }
        for columns in [None, Some(64)] {
            let segment = Segment::planned(Element::F32, &bytes, Mode::Balanced, columns);
            let (codec, coded) = segment.encode(0, &bytes);
            assert_eq!(codec == Codec::Scaled, columns.is_some());
            let decoded = same_on_every_level(&[(codec, segment.place(0), &coded, bytes.len())]);
            assert!(decoded[0].as_deref() == Some(&bytes[..]));
            // A third of the elements lacks 13 bits.
            assert!(coded.len() < bytes.len() * 85 / 100 - bytes.len() * 12 / 96, "{} of {}", coded.len(), bytes.len());
        }
    }

    #[test]
    fn every_level_decodes_elements_with_any_number_of_zero_bits() {
        for (element, low_bits) in
            [(Element::Bf16, 5), (Element::F16, 8), (Element::F32, 21), (Element::F8E4M3, 1), (Element::Bytes(1), 3)]
        {
            // The last group is cut short.
            let bytes = scaled_weights(element, 70_001 / 11, 11, 5);
            let sizes = [(1, 5001), (2, 40_001), (4, 69_990)];
            for (zeros, (streams, elements)) in (0..=low_bits).flat_map(|zeros| sizes.map(|size| (zeros, size))) {
                let mut bytes = bytes[..elements * element.size()].to_vec();
                for element in bytes.chunks_mut(element.size()) {
                    let kept = (u32::MAX << zeros).to_le_bytes();
                    element.iter_mut().zip(kept).for_each(|(byte, kept)| *byte &= kept);
                }
                let segment = Segment::planned(element, &bytes, Mode::Balanced, None);
                let (codec, coded) = segment.encode(0, &bytes);
                let decoded = same_on_every_level(&[(codec, segment.place(0), &coded, bytes.len())]);
                assert!(decoded[0].as_deref() == Some(&bytes[..]), "{element:?} {zeros} {elements}");
                assert!(codec != Codec::Float || coded[0] == streams, "{element:?} {zeros} {elements}");
            }
        }
    }

    #[test]
    fn tables_of_one_symbol_are_no_trouble() {
        for (element, like, noise) in [
            (Element::Bf16, 0x3f80, 0x801f),
            (Element::F16, 0x3c00, 0x80ff),
            (Element::F32, 0x3f80_0000, 0x801f_ffff),
            (Element::F8E4M3, 0x38, 0x81),
            (Element::Bytes(1), 0x40, 0x07),
        ] {
            for elements in [3000, 20_000, 70_000] {
                let mut state = 1u64;
                let mut bytes = Vec::new();
                for _ in 0..elements {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let value = like | (state >> 32) as u32 & noise;
                    bytes.extend_from_slice(&value.to_le_bytes()[..element.size()]);
                }
                let segment = Segment::planned(element, &bytes, Mode::Balanced, None);
                assert!(segment.tables.iter().all(|table| table.keys().len() == 1));
                let (codec, coded) = segment.encode(0, &bytes);
                assert!([Codec::Float, Codec::Bytes].contains(&codec), "{element:?} {elements} {codec:?}");
                let decoded = same_on_every_level(&[(codec, segment.place(0), &coded, bytes.len())]);
                assert!(decoded[0].as_deref() == Some(&bytes[..]), "{element:?} {elements}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_level_decodes_as_the_definition_does(
            element in prop::sample::select(ELEMENTS.to_vec()), bytes in bytes(), sample in bytes(), repeat in 1..12usize,
            at: prop::sample::Index, flip: u8, early: bool,
        ) {
            let bytes = bytes.repeat(repeat);
            let bytes = &bytes[..bytes.len() / 8 * 8];
            let sample = if flip & 1 == 0 { bytes } else { &sample[..sample.len() / 8 * 8] };
            let segment = Segment::planned(element, sample, Mode::Balanced, None);
            let (codec, sound) = segment.encode(0, bytes);
            let mut damaged = sound.clone();
            if !damaged.is_empty() {
                // The header and the states are at the front.
                let at = at.index(if early { damaged.len().min(700) } else { damaged.len() });
                damaged[at] ^= flip;
            }
            let cut = &sound[..at.index(sound.len() + 1)];
            // Between them a chunk of the largest elements, for what may be left of them in the scratch.
            let wide_bytes: Vec<u8> = (0..4096u32).flat_map(|i| (0x3f80_0000 ^ i.wrapping_mul(0x9e37_79b9) >> 5).to_le_bytes()).collect();
            let wide_segment = Segment::planned(Element::F32, &wide_bytes, Mode::Balanced, None);
            let (wide_codec, wide_stored) = wide_segment.encode(0, &wide_bytes);
            let wide = (wide_codec, wide_segment.place(0), &wide_stored[..], wide_bytes.len());
            let of = |stored| (codec, segment.place(0), stored, bytes.len());
            let decoded = same_on_every_level(&[of(&sound[..]), wide, of(&damaged[..]), wide, of(cut), of(&sound[..])]);
            prop_assert_eq!(decoded[0].as_deref(), Some(bytes));
        }

        #[test]
        fn every_level_decodes_normalised_chunks_as_the_definition_does(
            element in prop::sample::select(ELEMENTS[..5].to_vec()), rows in 1..200usize, columns in 1..700usize, seed: u64,
            scale_of in (1..5u64, 0..3u32, any::<bool>()), codes in prop::collection::vec(any::<i8>(), 0..50), first in 0..1000u64,
            at: prop::sample::Index, flip: u8, early: bool,
        ) {
            // Whatever plan there is, with another normalisation instead.
            let bytes = scaled_weights(element, rows, columns, seed);
            let (run, log_phases, half_octaves) = scale_of;
            let scale = Scale { run, phases: 1 << log_phases, half_octaves, columns: codes };
            let segment = Segment { element, ..Segment::planned(element, &bytes, Mode::Balanced, Some(columns)) };
            let Coding::Scaled { normaliser, coders } = &segment.plan.coding else { return Ok(()) };
            let normaliser = normaliser.with_scale(scale.clone());
            let coders: Vec<block::Coder> = (0..1 << log_phases).map(|phase| coders[phase % coders.len()].clone()).collect();
            let tables: Vec<Table> = (0..1 << log_phases).map(|phase| segment.tables[phase % segment.tables.len()].clone()).collect();
            let place = Place { element, tables: &tables, scale: Some(&scale), first: first * scale::QUAD as u64, against: None };
            let mut sound = Vec::new();
            if !normaliser.encode(&coders, &bytes, place.first, &mut Buffers::default(), &mut sound) {
                return Ok(());
            }
            let mut damaged = sound.clone();
            let damage = at.index(if early { damaged.len().min(700) } else { damaged.len() });
            damaged[damage] ^= flip;
            let cut = &sound[..at.index(sound.len() + 1)];
            let of = |stored| (Codec::Scaled, place, stored, bytes.len());
            let decoded = same_on_every_level(&[of(&sound[..]), of(&damaged[..]), of(cut), of(&sound[..])]);
            prop_assert_eq!(decoded[0].as_deref(), Some(&bytes[..]));
        }
    }

    #[test]
    fn weights_are_coded_as_floats_and_masks_are_not() {
        let mut state = 1u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let weights: Vec<u8> = (0..20_000).flat_map(|_| (noise() as f32 / 16_777_216.0 - 0.5).to_le_bytes()).collect();
        assert_eq!(round_trip(Element::F32, Mode::Balanced, &weights, &weights), Codec::Float);
        let zeros = vec![0; 4096];
        assert_eq!(round_trip(Element::Bf16, Mode::Balanced, &zeros, &zeros), Codec::Constant);
        let positions: Vec<u8> = (0..4096u64).flat_map(|i| (i % 512).to_le_bytes()).collect();
        assert_eq!(round_trip(Element::Bytes(8), Mode::Balanced, &positions, &positions), Codec::Differences);
        let row: Vec<u8> = weights[..6000].repeat(10);
        assert_eq!(round_trip(Element::F32, Mode::Balanced, &row, &weights), Codec::Zstd);
        let pruned: Vec<u8> = weights.as_chunks().0.iter().flat_map(|w| if w[0] < 99 { *w } else { [0; 4] }).collect();
        for element in [Element::Bf16, Element::F32, Element::Bytes(4), Element::Bytes(8)] {
            assert_eq!(round_trip(element, Mode::Balanced, &pruned, &pruned), Codec::Sparse, "{element:?}");
        }
        let levels: Vec<u8> = weights
            .as_chunks()
            .0
            .iter()
            .flat_map(|w| ((f32::from_le_bytes(*w) * 9.0).round() * 0.1).to_le_bytes())
            .collect();
        assert_eq!(round_trip(Element::F32, Mode::Balanced, &levels, &levels), Codec::Palette);
        let halves: Vec<u8> = (0..80_000).map(|_| (noise() & noise() >> 8 & 0x77) as u8).collect();
        assert_eq!(round_trip(Element::Bytes(4), Mode::Balanced, &halves, &halves), Codec::Packed);
        let quantised: Vec<u8> =
            (0..65_536).map(|_| ((0..4).map(|_| noise() >> 19).sum::<u32>() as u8).wrapping_sub(62)).collect();
        assert_eq!(round_trip(Element::Bytes(1), Mode::Balanced, &quantised, &quantised), Codec::Bytes);
    }

    #[test]
    fn codes_of_codecs_come_back() {
        for codec in (0..10).chain(16..18).map(|code| Codec::from_code(code).unwrap()) {
            assert_eq!(Codec::from_code(codec.code()).unwrap(), codec);
        }
        assert!(Codec::from_code(63).is_err());
    }
}
