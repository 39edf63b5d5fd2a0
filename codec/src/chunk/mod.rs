//! One chunk: run the codec that its segment's [`Plan`] names, and undo it.

pub(crate) mod block;
pub(crate) mod plan;
mod repetition;
pub(crate) mod statistics;

use crate::error::{Error, Result};
use crate::rans::Table;
use crate::split::{Element, Split};
use crate::wire::Reader;

use block::{Buffers, Scratch};
use plan::{PlanePlan, ReadyPlan};

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
            _ => return Err(Error::corrupt(format!("codec {code} is unknown"))),
        })
    }

    /// Its name, as `info` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Raw => "raw",
            Codec::Constant => "constant",
            Codec::Zstd => "zstd",
            Codec::Float => "float",
            Codec::Bytes => "bytes",
        }
    }
}

/// The way a byte plane is stored inside a chunk of [`Codec::Bytes`].
mod plane_mode {
    pub(super) const RAW: u8 = 0;
    pub(super) const CONSTANT: u8 = 1;
    pub(super) const CODED: u8 = 2;
}

/// Codes `bytes`, a chunk of elements of the given kind, and returns how. `stored` is replaced by the coded bytes,
/// which are never more than the bytes themselves.
pub(crate) fn encode(
    plan: &ReadyPlan,
    element: Element,
    bytes: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> Codec {
    stored.clear();
    let size = element.size();
    if bytes.len() > size && bytes[size..] == bytes[..bytes.len() - size] {
        stored.extend_from_slice(&bytes[..size]);
        return Codec::Constant;
    }
    let codec = match plan {
        ReadyPlan::Raw => None,
        ReadyPlan::Zstd { level } => {
            *stored = zstd::bulk::compress(bytes, *level).expect("Zstandard compresses any bytes");
            Some(Codec::Zstd)
        }
        ReadyPlan::Float(coder) => {
            let split = element.float_split().expect("only floats are planned as floats");
            block::encode(bytes, split, coder, 0, buffers, stored).then_some(Codec::Float)
        }
        ReadyPlan::Bytes(planes) => {
            let mut plane = std::mem::take(&mut buffers.plane);
            for (position, plan) in planes.iter().enumerate() {
                plane.clear();
                plane.extend(bytes[position..].iter().step_by(size));
                encode_plane(plan, &plane, buffers, stored);
            }
            buffers.plane = plane;
            Some(Codec::Bytes)
        }
    };
    match codec {
        Some(codec) if stored.len() < bytes.len() => codec,
        _ => {
            stored.clear();
            stored.extend_from_slice(bytes);
            Codec::Raw
        }
    }
}

/// Appends one byte plane of a chunk: how it is stored, then that.
fn encode_plane(plan: &PlanePlan<block::Coder>, plane: &[u8], buffers: &mut Buffers, stored: &mut Vec<u8>) {
    if let [first, rest @ ..] = plane
        && rest == &plane[..rest.len()]
    {
        stored.push(plane_mode::CONSTANT);
        stored.push(*first);
        return;
    }
    let start = stored.len();
    if let PlanePlan::Coded { shift, table, coder } = plan {
        stored.push(plane_mode::CODED);
        if block::encode(plane, Split::of_bytes(*shift), coder, *table, buffers, stored)
            && stored.len() - start <= plane.len()
        {
            return;
        }
    }
    stored.truncate(start);
    stored.push(plane_mode::RAW);
    stored.extend_from_slice(plane);
}

/// Decodes a chunk of elements of the given kind into `out`, which is as long as the chunk; `tables` are those of its
/// segment.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when `stored` is not what an encoder writes. `out` then holds
/// unspecified bytes.
pub(crate) fn decode(
    codec: Codec,
    element: Element,
    tables: &[Table],
    stored: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
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
        Codec::Zstd => {
            let len = zstd::bulk::decompress_to_buffer(stored, out)
                .map_err(|e| Error::corrupt(format!("Zstandard refuses a chunk: {e}")))?;
            if len != out.len() {
                return Err(wrong_length(len, out.len()));
            }
        }
        Codec::Float => {
            let split =
                element.float_split().ok_or_else(|| Error::corrupt("a chunk of integers is coded as floats"))?;
            let mut reader = Reader::new(stored);
            block::decode(&mut reader, split, tables, out, scratch)?;
            reader.finish()?;
        }
        Codec::Bytes => {
            let size = element.size();
            if !out.len().is_multiple_of(size) {
                return Err(wrong_length(size, out.len()));
            }
            let mut reader = Reader::new(stored);
            let mut plane = std::mem::take(&mut scratch.plane);
            plane.resize(out.len() / size, 0);
            let decoded = (0..size).try_for_each(|position| {
                decode_plane(&mut reader, tables, &mut plane, scratch)?;
                out[position..].iter_mut().step_by(size).zip(&plane).for_each(|(out, &byte)| *out = byte);
                Ok(())
            });
            scratch.plane = plane;
            decoded?;
            reader.finish()?;
        }
    }
    Ok(())
}

/// Decodes one byte plane of a chunk.
fn decode_plane(reader: &mut Reader<'_>, tables: &[Table], out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
    match reader.u8()? {
        plane_mode::RAW => out.copy_from_slice(reader.take(out.len())?),
        plane_mode::CONSTANT => out.fill(reader.u8()?),
        plane_mode::CODED => block::decode(reader, Split::of_bytes(0), tables, out, scratch)?,
        mode => return Err(Error::corrupt(format!("a byte plane is stored in the unknown way {mode}"))),
    }
    Ok(())
}

fn wrong_length(have: usize, want: usize) -> Error {
    Error::corrupt(format!("a chunk of {want} bytes cannot come from {have}"))
}

#[cfg(test)]
mod tests {
    use super::plan::Plan;
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
        ]
    }

    fn round_trip(element: Element, mode: Mode, bytes: &[u8], sample: &[u8]) -> Codec {
        let bytes = &bytes[..bytes.len() / element.size() * element.size()];
        let (plan, tables) = Plan::of(element, sample, bytes.len() as u64, mode, None).ready();
        let mut stored = Vec::new();
        let codec = encode(&plan, element, bytes, &mut Buffers::default(), &mut stored);
        assert!(stored.len() <= bytes.len());
        let mut out = vec![0xaa; bytes.len()];
        decode(codec, element, &tables, &stored, &mut out, &mut Scratch::default()).unwrap();
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
            let sample = &sample[..sample.len() / 8 * 8];
            round_trip(element, Mode::Storage, &bytes, sample);
        }

        #[test]
        fn any_stored_bytes_are_an_error_or_a_chunk(
            element in prop::sample::select(ELEMENTS.to_vec()), bytes in bytes(), stored: Vec<u8>, code in 0..5u8, at: prop::sample::Index, flip: u8,
        ) {
            let len = bytes.len() / 8 * 8;
            let bytes = &bytes[..len];
            let (plan, tables) = Plan::of(element, bytes, len as u64, Mode::Balanced, None).ready();
            let mut scratch = Scratch::default();
            let mut out = vec![0; len];
            let _ = decode(Codec::from_code(code).unwrap(), element, &tables, &stored, &mut out, &mut scratch);
            let mut coded = Vec::new();
            let codec = encode(&plan, element, bytes, &mut Buffers::default(), &mut coded);
            if !coded.is_empty() {
                let at = at.index(coded.len());
                coded[at] ^= flip;
                let _ = decode(codec, element, &tables, &coded, &mut out, &mut scratch);
                let _ = decode(codec, element, &tables, &coded[..at], &mut out, &mut scratch);
                let _ = decode(codec, element, &[], &coded, &mut out, &mut scratch);
            }
        }
    }

    /// A chunk as it is stored, and its length.
    type StoredChunk<'a> = (Codec, Element, &'a [Table], &'a [u8], usize);

    /// Decodes with each level's instructions, one chunk after the other with the same scratch, and expects what the scalar
    /// definition gives: an error, or the same bytes.
    fn same_on_every_level(chunks: &[StoredChunk<'_>]) {
        let decode_all = |level| {
            let mut scratch = Scratch::new(level);
            let decode_one = |&(codec, element, tables, stored, len): &StoredChunk<'_>| {
                let mut out = vec![0x55; len];
                decode(codec, element, tables, stored, &mut out, &mut scratch).ok().map(|()| out)
            };
            chunks.iter().map(decode_one).collect::<Vec<_>>()
        };
        let defined = decode_all(Level::Scalar);
        for level in Level::available() {
            assert!(decode_all(level) == defined, "{level:?} differs from the definition");
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
            let (plan, tables) = Plan::of(element, sample, bytes.len() as u64, Mode::Balanced, None).ready();
            let mut sound = Vec::new();
            let codec = encode(&plan, element, bytes, &mut Buffers::default(), &mut sound);
            let mut damaged = sound.clone();
            if !damaged.is_empty() {
                // The header and the states are at the front.
                let at = at.index(if early { damaged.len().min(700) } else { damaged.len() });
                damaged[at] ^= flip;
            }
            let cut = &sound[..at.index(sound.len() + 1)];
            // Between them a chunk of the largest elements, for what may be left of them in the scratch.
            let wide: Vec<u8> = (0..4096u32).flat_map(|i| (0x3f80_0000 ^ i.wrapping_mul(0x9e37_79b9) >> 5).to_le_bytes()).collect();
            let (wide_plan, wide_tables) = Plan::of(Element::F32, &wide, wide.len() as u64, Mode::Balanced, None).ready();
            let mut wide_stored = Vec::new();
            let wide_codec = encode(&wide_plan, Element::F32, &wide, &mut Buffers::default(), &mut wide_stored);
            let wide = (wide_codec, Element::F32, &wide_tables[..], &wide_stored[..], wide.len());
            let of = |stored| (codec, element, &tables[..], stored, bytes.len());
            same_on_every_level(&[of(&sound[..]), wide, of(&damaged[..]), wide, of(cut), of(&sound[..])]);
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
        assert_eq!(round_trip(Element::Bytes(8), Mode::Balanced, &positions, &positions), Codec::Zstd);
        let quantised: Vec<u8> =
            (0..65_536).map(|_| ((0..4).map(|_| noise() >> 19).sum::<u32>() as u8).wrapping_sub(62)).collect();
        assert_eq!(round_trip(Element::Bytes(1), Mode::Balanced, &quantised, &quantised), Codec::Bytes);
    }

    #[test]
    fn codes_of_codecs_come_back() {
        for codec in [Codec::Raw, Codec::Constant, Codec::Zstd, Codec::Float, Codec::Bytes] {
            assert_eq!(Codec::from_code(codec.code()).unwrap(), codec);
        }
        assert!(Codec::from_code(63).is_err());
    }
}
