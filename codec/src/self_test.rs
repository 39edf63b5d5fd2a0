//! Whether what decodes here decodes rightly: containers that are made on the spot, of all kinds of floats in awkward
//! sizes, decoded in every way that there is and compared with what they were made from.

use crate::Memory;
use crate::chunk;
use crate::chunk::block::Scratch;
use crate::container::{Container, Mode, Options, compress};
use crate::error::{Error, Result};
use crate::original::{ChunkIndex, Original};
use crate::simd::{self, Level};

/// One way to decode, tried.
#[derive(Debug)]
pub struct Trial {
    /// Which it was.
    pub name: String,
    /// Bytes that it decoded.
    pub bytes: u64,
    /// What was wrong, if anything was.
    pub error: Option<Error>,
}

/// The names of the vector instructions that the codec can use here, the slowest first, and the one that it uses.
pub fn vector_instructions() -> (Vec<&'static str>, &'static str) {
    (Level::available().map(Level::name).collect(), simd::level().name())
}

/// Tries each kind of vector instructions that the processor has.
pub fn try_processor() -> Vec<Trial> {
    let samples = samples();
    let levels = Level::available().map(|level| {
        let tried = samples.as_ref().map_err(|error| Error::corrupt(error.to_string())).and_then(|samples| {
            samples.iter().try_fold(0, |bytes, sample| decode_at(level, sample).map(|len| bytes + len))
        });
        Trial::of(format!("processor, {}", level.name()), tried)
    });
    levels.collect()
}

/// Tries a GPU with one container, which takes every function of its driver that is ever used.
#[cfg(feature = "cuda")]
pub fn try_gpu_once(gpu: &crate::cuda::Gpu) -> Trial {
    let tried = sample(DTYPES[0]).and_then(|sample| compare(&gpu.decoding(&sample.container), &sample.original));
    Trial::of(gpu.facts().name.clone(), tried)
}

/// Tries a GPU with the same containers as a processor, and with the golden files.
#[cfg(feature = "cuda")]
pub fn try_gpu(gpu: &crate::cuda::Gpu) -> Vec<Trial> {
    let mut trials = Vec::new();
    match samples() {
        Ok(samples) => trials.extend(samples.iter().map(|sample| {
            let tried = compare(&gpu.decoding(&sample.container), &sample.original);
            Trial::of(format!("{}, {}", gpu.facts().name, sample.name), tried)
        })),
        Err(error) => trials.push(Trial::of(gpu.facts().name.clone(), Err(error))),
    }
    for (name, stored) in crate::cuda::GOLDEN {
        let tried = Container::from_store(Box::new(Memory::new(stored.to_vec()))).and_then(|container| {
            let mut expected = vec![0; container.len() as usize];
            container.read_at(0, &mut expected)?;
            compare(&gpu.decoding(&container), &expected)
        });
        trials.push(Trial::of(format!("{}, {name}", gpu.facts().name), tried));
    }
    trials
}

impl Trial {
    fn of(name: String, tried: Result<u64>) -> Trial {
        match tried {
            Ok(bytes) => Trial { name, bytes, error: None },
            Err(error) => Trial { name, bytes: 0, error: Some(error) },
        }
    }
}

/// A container and what it was made from.
pub(crate) struct Sample {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "all of them are one trial of a processor"))]
    pub(crate) name: &'static str,
    pub(crate) container: Container,
    pub(crate) original: Vec<u8>,
}

/// Dtypes with the bytes of an element and the bits of its mantissa.
const DTYPES: [(&str, usize, u32); 6] =
    [("BF16", 2, 7), ("F16", 2, 10), ("F32", 4, 23), ("F8_E4M3", 1, 3), ("F8_E5M2", 1, 2), ("I8", 1, 0)];

/// Elements of tensors: around a group, a quad, a vector of planes; enough for blocks of 1, 2 and 4 streams.
const SIZES: [usize; 8] = [1, 31, 33, 129, 4097, 9000, 33_001, 70_003];

pub(crate) fn samples() -> Result<Vec<Sample>> {
    DTYPES.into_iter().map(sample).collect()
}

fn sample((dtype, size, mantissa): (&'static str, usize, u32)) -> Result<Sample> {
    let (mut header, mut data, mut noise) = (String::from("{"), Vec::new(), 1u64);
    for (number, elements) in SIZES.into_iter().enumerate() {
        let start = data.len();
        for position in 0..elements {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let octave = u64::from((noise >> 40).trailing_zeros().min(5)) + (position / 1000 % 3) as u64 + 4;
            // Rows of different scale, some of fewer bits, and now and then anything at all.
            let element = match position % 5000 {
                4999 => noise >> 32,
                _ => octave << mantissa | (noise >> 32 & ((1 << mantissa) - 1)) | (noise >> 63) << (8 * size - 1),
            };
            let kept = if size == 4 && position / 300 % 4 == 0 { !0xfff } else { !0 };
            data.extend_from_slice(&(element & kept).to_le_bytes()[..size]);
        }
        let comma = if number > 0 { "," } else { "" };
        header += &format!(
            r#"{comma}"{number}":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[{start},{}]}}"#,
            data.len()
        );
    }
    // Not a multiple of anything, so that no tensor is aligned.
    header.push('}');
    header.push_str(&" ".repeat(8 - header.len() % 8 + 3));
    let original = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let options = Options { mode: Mode::Balanced, chunk_size: Mode::Balanced.chunk_size() };
    let mut stored = Vec::new();
    compress(&Memory::new(original.clone()), "self-test.safetensors", &options, &mut stored, &())?;
    let container = Container::from_store(Box::new(Memory::new(stored)))?;
    Ok(Sample { name: dtype, container, original })
}

/// Decodes all chunks with the instructions of a level.
fn decode_at(level: Level, sample: &Sample) -> Result<u64> {
    let (container, mut scratch) = (&sample.container, Scratch::new(level));
    for chunk in (0..container.grid().chunks()).map(ChunkIndex) {
        let range = container.grid().range(chunk);
        let (codec, place, stored) = container.stored_chunk(chunk)?;
        let mut out = vec![0; (range.end - range.start) as usize];
        chunk::decode(codec, place, &stored, &mut out, &mut scratch)?;
        if out != sample.original[range.start as usize..range.end as usize] {
            return Err(wrong(range.start));
        }
    }
    Ok(container.len())
}

/// Compares what comes of `decoded` with `original`.
#[cfg(feature = "cuda")]
fn compare(decoded: &dyn crate::stream::Windows, original: &[u8]) -> Result<u64> {
    let mut end = 0;
    decoded.windows(&(), &mut |mut window| {
        if let Some(lost) = window.lost.pop() {
            return Err(lost.error);
        }
        let expected = &original[window.range.start as usize..window.range.end as usize];
        end = window.range.end;
        if window.bytes == expected { Ok(()) } else { Err(wrong(window.range.start)) }
    })?;
    if end == original.len() as u64 { Ok(end) } else { Err(wrong(end)) }
}

fn wrong(at: u64) -> Error {
    Error::corrupt(format!("the bytes from {at} on came out wrong"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Codec;
    use crate::wire::Reader;

    #[test]
    fn this_processor_passes_with_all_kinds_of_instructions() {
        let trials = try_processor();
        assert_eq!(trials.len(), vector_instructions().0.len());
        for trial in trials {
            assert!(trial.error.is_none() && trial.bytes > 1 << 20, "{trial:?}");
        }
    }

    #[test]
    fn samples_have_chunks_that_a_block_codes_in_all_numbers_of_streams() {
        let mut streams = std::collections::BTreeSet::new();
        for sample in samples().unwrap() {
            for chunk in (0..sample.container.grid().chunks()).map(ChunkIndex) {
                let (codec, place, stored) = sample.container.stored_chunk(chunk).unwrap();
                let range = sample.container.grid().range(chunk);
                let elements = (range.end - range.start) as usize / place.element.size();
                let mut reader = Reader::new(&stored);
                match (codec, place.scale) {
                    (Codec::Float, _) => {}
                    (Codec::Scaled, Some(scale)) => {
                        scale.read_packed_runs(&mut reader, place.first, elements).unwrap();
                    }
                    _ => continue,
                }
                streams.insert(reader.u8().unwrap());
            }
        }
        assert_eq!(streams.into_iter().collect::<Vec<_>>(), [1, 2, 4]);
    }
}
