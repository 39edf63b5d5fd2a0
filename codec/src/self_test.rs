//! Whether what decodes here decodes rightly: containers that are made on the spot, of all kinds of floats in awkward
//! sizes, decoded in every way that there is and compared with what they were made from.

use std::sync::Arc;

use crate::Memory;
use crate::chunk;
use crate::chunk::Place;
use crate::chunk::block::Scratch;
use crate::container::{Container, Mode, Options, compress, compress_patch};
use crate::error::{Error, Result};
use crate::original::{ChunkIndex, Original};
use crate::patch::{Check, Model};
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
    trials.push(Trial::of(format!("{}, golden 1.2 patch", gpu.facts().name), golden_patch(gpu)));
    trials
}

/// Has a GPU decode the golden patch.
#[cfg(feature = "cuda")]
fn golden_patch(gpu: &crate::cuda::Gpu) -> Result<u64> {
    let (patch, base) = crate::cuda::GOLDEN_PATCH;
    let memory = |bytes: &[u8]| Memory::new(bytes.to_vec());
    let mut model = Model::new("golden");
    model.add("golden.safetensors", Arc::new(Container::from_store(Box::new(memory(base)))?))?;
    let patch = Container::from_store(Box::new(memory(patch)))?;
    let record = patch.base_record().ok_or_else(|| Error::corrupt("the golden patch has no base"))?;
    let base = model.base_for(record, Check::Probe, &())?;
    let patch = patch.with_base(base)?;
    let mut expected = vec![0; patch.len() as usize];
    patch.read_at(0, &mut expected)?;
    compare(&gpu.decoding(&patch), &expected)
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

/// Dtypes of patches, with the same, and whether the base is of F32.
const PATCHES: [(&str, Dtype, bool); 4] = [
    ("patch of BF16", DTYPES[0], false),
    ("patch of F32", DTYPES[2], false),
    ("patch of F8_E4M3", DTYPES[3], false),
    ("patch of BF16 over F32", DTYPES[0], true),
];

/// A dtype, with the bytes of an element and the bits of its mantissa.
type Dtype = (&'static str, usize, u32);

/// Dtypes of which there are containers.
const DTYPES: [Dtype; 6] =
    [("BF16", 2, 7), ("F16", 2, 10), ("F32", 4, 23), ("F8_E4M3", 1, 3), ("F8_E5M2", 1, 2), ("I8", 1, 0)];

/// Elements of tensors: around a group, a quad, a vector of planes; enough for blocks of 1, 2 and 4 streams.
const SIZES: [usize; 8] = [1, 31, 33, 129, 4097, 9000, 33_001, 70_003];

pub(crate) fn samples() -> Result<Vec<Sample>> {
    DTYPES.into_iter().map(sample).chain(PATCHES.into_iter().map(patch)).collect()
}

/// The next number of a sequence that looks like noise.
fn next(noise: &mut u64) -> u64 {
    *noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *noise
}

/// The elements of tensors.
fn tensors((_, size, mantissa): Dtype) -> Vec<Vec<u64>> {
    let mut noise = 1;
    let mut element = |position: usize| {
        let noise = next(&mut noise);
        let octave = u64::from((noise >> 40).trailing_zeros().min(5)) + (position / 1000 % 3) as u64 + 4;
        // Rows of different scale, some of fewer bits, and now and then anything at all.
        let element = match position % 5000 {
            4999 => noise >> 32,
            _ => octave << mantissa | (noise >> 32 & ((1 << mantissa) - 1)) | (noise >> 63) << (8 * size - 1),
        };
        let kept = if size == 4 && (position / 300).is_multiple_of(4) { !0xfff } else { !0 };
        element & kept & (u64::MAX >> (64 - 8 * size))
    };
    SIZES.into_iter().map(|elements| (0..elements).map(&mut element).collect()).collect()
}

/// A safetensors file of tensors.
fn file((dtype, size, _): Dtype, tensors: &[Vec<u64>]) -> Vec<u8> {
    let (mut header, mut data) = (String::from("{"), Vec::new());
    for (number, elements) in tensors.iter().enumerate() {
        let start = data.len();
        elements.iter().for_each(|element| data.extend_from_slice(&element.to_le_bytes()[..size]));
        let (comma, count) = (if number > 0 { "," } else { "" }, elements.len());
        header += &format!(
            r#"{comma}"{number}":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[{start},{}]}}"#,
            data.len()
        );
    }
    // Not a multiple of anything, so that no tensor is aligned.
    header.push('}');
    header.push_str(&" ".repeat(8 - header.len() % 8 + 3));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

const OPTIONS: Options = Options { mode: Mode::Balanced, chunk_size: 256 << 10 };

fn sample(dtype: Dtype) -> Result<Sample> {
    let original = file(dtype, &tensors(dtype));
    let mut stored = Vec::new();
    compress(&Memory::new(original.clone()), "self-test.safetensors", &OPTIONS, &mut stored, &())?;
    let container = Container::from_store(Box::new(Memory::new(stored)))?;
    Ok(Sample { name: dtype.0, container, original })
}

/// A patch over its base, from which it differs by more in some runs than in others, and in some not at all.
fn patch((name, dtype, wide_base): (&'static str, Dtype, bool)) -> Result<Sample> {
    let tuned = tensors(dtype);
    let mut noise = 2;
    let mut moved = |(position, &element): (usize, &u64)| {
        let noise = next(&mut noise);
        let width = 8 * dtype.1;
        let change = match (position / 100 % 4, position % 3001) {
            (_, 3000) => noise >> (64 - width),
            (0, _) => 0,
            (row, _) => noise >> (64 - row * width / 6),
        };
        let element = element ^ change;
        // The other bits of a longer element are rounded away, or up.
        if wide_base { element << 16 | (noise & 0xffff) } else { element }
    };
    let before: Vec<Vec<u64>> =
        tuned.iter().map(|tensor| tensor.iter().enumerate().map(&mut moved).collect()).collect();
    let base = file(if wide_base { DTYPES[2] } else { dtype }, &before);
    let mut model = Model::new("self-test-base");
    model.add("self-test-base.safetensors", Arc::new(Memory::new(base)))?;
    let original = file(dtype, &tuned);
    let mut stored = Vec::new();
    compress_patch(&Memory::new(original.clone()), "self-test.safetensors", &OPTIONS, &model, &mut stored, &())?;
    let container = Container::from_store(Box::new(Memory::new(stored)))?;
    let record = container.base_record().ok_or_else(|| Error::corrupt("the base was of no use to a patch"))?;
    let base = model.base_for(record, Check::Probe, &())?;
    Ok(Sample { name, container: container.with_base(base)?, original })
}

/// Decodes all chunks with the instructions of a level.
fn decode_at(level: Level, sample: &Sample) -> Result<u64> {
    let (container, mut scratch, mut base) = (&sample.container, Scratch::new(level), Vec::new());
    for chunk in (0..container.grid().chunks()).map(ChunkIndex) {
        let range = container.grid().range(chunk);
        let (codec, place, stored) = container.stored_chunk(chunk)?;
        let place = Place { against: container.against(chunk, &mut base)?, ..place };
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
