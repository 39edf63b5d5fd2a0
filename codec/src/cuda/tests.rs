//! The kernels and what is around them, without a device: the kernels run on the processor under sanitizers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::driver::{DeviceMemory, Driver, bytes_of};
use super::emulated::{EmulatedDriver, Emulator, Launch};
use super::job::{DECODED, Job, is_decoded};
use super::pipeline::{Pipeline, Sizes};
use super::shared::SharedTables;
use super::{Gpu, OnGpu};
use crate::checksum::checksum;
use crate::chunk::block::Scratch;
use crate::chunk::delta::encode::{Buffers, encode_in};
use crate::chunk::delta::plan::DeltaPlan;
use crate::chunk::delta::{Against, Delta, Kind, elements_of_base};
use crate::chunk::tests::scaled_weights;
use crate::chunk::{self, Codec, Place};
use crate::container::{Container, Mode, Options, Segment, compress};
use crate::error::{ErrorKind, Result};
use crate::original::{ChunkIndex, Memory, Original, PlainFile};
use crate::patch::{Check, Model};
use crate::self_test;
use crate::simd::Level;
use crate::split::Element;
use crate::verify::{verify, verify_decoded};

const PLENTY: u64 = 1 << 40;

/// A batch of a few chunks.
const SMALL: Sizes = Sizes { output: 256 << 10, jobs: 3 };

/// All that a container holds, decoded with a driver, and the chunks that could not be.
fn decode(driver: &Arc<dyn Driver>, container: &Container, sizes: Sizes) -> Result<(Vec<u8>, Vec<u64>)> {
    let (mut bytes, mut lost) = (Vec::new(), Vec::new());
    Pipeline::new(driver, container, sizes)?.run_from(ChunkIndex(0), &(), &mut |window| {
        assert_eq!(window.range.start, bytes.len() as u64);
        bytes.extend_from_slice(window.bytes);
        lost.extend(window.lost.iter().map(|lost| lost.chunk.0));
        Ok(())
    })?;
    Ok((bytes, lost))
}

fn driver() -> (Arc<EmulatedDriver>, Arc<dyn Driver>) {
    let emulated = Arc::new(EmulatedDriver::new(PLENTY));
    (Arc::clone(&emulated), emulated)
}

fn sizes() -> Sizes {
    Sizes::for_memory(PLENTY).unwrap()
}

/// The chunks of a container that the kernel is for.
fn chunks_of_the_kernel(container: &Container) -> u64 {
    (0..container.grid().chunks()).filter(|&chunk| is_decoded(container.chunk_storage(ChunkIndex(chunk)).0)).count()
        as u64
}

fn golden(version: &str) -> Vec<Container> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version);
    let paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.iter().map(|path| Container::open(path).unwrap()).collect()
}

/// A container of weights of this kind, with rows and columns of different scale.
fn weights(element: Element, rows: usize, columns: usize, mode: Mode) -> (Vec<u8>, Container) {
    let dtype = match element {
        Element::Bf16 => "BF16",
        Element::F16 => "F16",
        Element::F32 => "F32",
        Element::F8E4M3 => "F8_E4M3",
        Element::F8E5M2 => "F8_E5M2",
        Element::Bytes(_) | Element::Blocks(_) => unreachable!("they are no weights"),
    };
    let data = scaled_weights(element, rows, columns, 7);
    // A byte more than a multiple of 8, so that no element is aligned in the file.
    let header = format!(
        "{:<113}",
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":[{rows},{columns}],"data_offsets":[0,{}]}}}}"#, data.len())
    );
    let original = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    (original.clone(), compressed(original, &Options { mode, chunk_size: 64 << 10 }))
}

fn compressed(original: Vec<u8>, options: &Options) -> Container {
    let mut container = Vec::new();
    compress(&Memory::new(original), "model.safetensors", options, &mut container, &()).unwrap();
    Container::from_store(Box::new(Memory::new(container))).unwrap()
}

const FLOATS: [Element; 5] = [Element::Bf16, Element::F16, Element::F32, Element::F8E4M3, Element::F8E5M2];

#[test]
fn golden_files_come_out_as_they_were_and_no_chunk_is_refused() {
    let mut files = 0;
    for (version, sizes) in [("1.0", sizes()), ("1.1", sizes()), ("1.1", SMALL)] {
        for container in golden(version) {
            let mut expected = vec![0; container.len() as usize];
            container.read_at(0, &mut expected).unwrap();
            let sizes = Sizes { output: sizes.output.max(container.grid().longest_chunk() as usize), ..sizes };
            let (emulated, driver) = driver();
            let (bytes, lost) = decode(&driver, &container, sizes).unwrap();
            assert!(bytes == expected && lost.is_empty(), "{}", container.original_name());
            assert_eq!(emulated.in_use(), (0, 0));
            assert_eq!(emulated.done().1, chunks_of_the_kernel(&container));
            files += 1;
        }
    }
    assert_eq!(files, 8);
}

#[test]
fn the_golden_patch_comes_out_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut model = Model::new("base");
    model.add("kinds", Arc::new(PlainFile::open(&folder.join("originals/kinds.safetensors")).unwrap())).unwrap();
    let patch = Container::open(&folder.join("1.2-patch/patch.bs")).unwrap();
    let (_, alone) = driver();
    let (_, lost) = decode(&alone, &patch, sizes()).unwrap();
    assert!(!lost.is_empty(), "without its base");
    let base = model.base_for(patch.base_record().unwrap(), Check::Md5, &()).unwrap();
    let patch = patch.with_base(base).unwrap();
    let mut expected = vec![0; patch.len() as usize];
    patch.read_at(0, &mut expected).unwrap();
    for sizes in [sizes(), Sizes { output: patch.grid().longest_chunk() as usize, ..SMALL }] {
        let (emulated, driver) = driver();
        let (bytes, lost) = decode(&driver, &patch, sizes).unwrap();
        assert!(bytes == expected && lost.is_empty());
        assert_eq!(emulated.done().1, chunks_of_the_kernel(&patch));
    }
}

#[test]
fn floats_of_all_kinds_come_out_as_they_were_wherever_they_lie() {
    for element in FLOATS {
        for (rows, columns, mode) in [(300, 129, Mode::Balanced), (90, 700, Mode::Inference)] {
            let (original, container) = weights(element, rows, columns, mode);
            let (emulated, driver) = driver();
            let (bytes, lost) = decode(&driver, &container, sizes()).unwrap();
            assert!(bytes == original && lost.is_empty(), "{element:?} {rows} {columns}");
            assert_eq!(emulated.done().1, chunks_of_the_kernel(&container));
            assert!(emulated.done().1 > 0, "{element:?} {rows} {columns}");
        }
    }
    // Patches, sparse fields, blocks of each number of streams, integers.
    for sample in self_test::samples().unwrap() {
        let (emulated, driver) = driver();
        let (bytes, lost) = decode(&driver, &sample.container, sizes()).unwrap();
        assert!(bytes == sample.original && lost.is_empty(), "{}", sample.name);
        assert_eq!(emulated.done().1, chunks_of_the_kernel(&sample.container));
    }
}

#[test]
fn what_is_left_on_the_device_is_all_that_is_written_there() {
    let (original, container) = weights(Element::Bf16, 300, 400, Mode::Balanced);
    let end = original.len() as u64;
    for (range, shift) in
        [(0..end, 0), (121..end, 0), (121..end, 1), (130..end - 9, 3), (200_000..200_001, 5), (70..70, 0)]
    {
        let (emulated, driver) = driver();
        let len = (range.end - range.start) as usize;
        let memory = DeviceMemory::new(&driver, len + 32).unwrap();
        let pipeline = Pipeline::new(&driver, &container, SMALL).unwrap();
        // SAFETY: the memory is longer by 32 bytes, and nobody else uses it.
        unsafe { pipeline.run_to_device(range.clone(), memory.address + 16 + shift, &()) }.unwrap();
        let bytes = emulated.memory(memory.address, len + 32);
        let (front, rest) = bytes.split_at(16 + shift as usize);
        let (there, behind) = rest.split_at(len);
        assert!(there == &original[range.start as usize..range.end as usize], "{range:?} {shift}");
        // What the driver fills memory with.
        assert!(front.iter().chain(behind).all(|&byte| byte == 0xee), "{range:?} {shift}");
    }
}

#[test]
fn damaged_chunks_are_lost_as_without_a_device_and_nothing_else_is() {
    let (original, container) = weights(Element::F32, 200, 300, Mode::Balanced);
    let mut stored = vec![0; container.stored_len() as usize];
    container.store().read_at(0, &mut stored).unwrap();
    let victim = &container.index().chunks[2];
    stored[victim.offset as usize + 700] ^= 4;
    let damaged = Container::from_store(Box::new(Memory::new(stored))).unwrap();
    let (_, driver) = driver();
    let (bytes, lost) = decode(&driver, &damaged, sizes()).unwrap();
    let [chunk] = lost[..] else { panic!("{lost:?}") };
    let range = damaged.grid().range(ChunkIndex(chunk));
    let mut expected = original;
    expected[range.start as usize..range.end as usize].fill(0);
    assert!(bytes == expected);
    let found = verify_decoded(&damaged, &OnGpu { driver: &driver, container: &damaged }, &()).unwrap();
    assert_eq!(found, verify(&damaged, &()).unwrap());
    assert!(!found.is_sound());
}

#[test]
fn a_driver_that_fails_at_any_time_gets_everything_back() {
    let (original, container) = weights(Element::F8E4M3, 200, 129, Mode::Balanced);
    for calls in (0..10_000).step_by(7) {
        let emulated = Arc::new(EmulatedDriver::failing_after(PLENTY, calls));
        let driver: Arc<dyn Driver> = Arc::clone(&emulated) as _;
        let decoded = decode(&driver, &container, SMALL);
        assert_eq!(emulated.in_use(), (0, 0), "{calls}");
        match decoded {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Device, "{calls}"),
            Ok((bytes, lost)) => {
                assert!(bytes == original && lost.is_empty());
                assert!(calls > 30, "there is much to ask of a driver");
                return;
            }
        }
    }
    panic!("it never ends");
}

#[test]
fn memory_is_taken_as_there_is() {
    assert!(Sizes::for_memory(1 << 20).is_err());
    assert_eq!(Sizes::for_memory(PLENTY).unwrap(), Sizes::for_memory(4 << 30).unwrap());
    for free in [400 << 20, 500 << 20, 1 << 30, 80 << 30] {
        let Ok(Sizes { output, jobs }) = Sizes::for_memory(free) else { panic!("{free}") };
        assert!(((8 << 20)..=(32 << 20)).contains(&output) && jobs > 0);
        // Three lanes with input, bases and output.
        assert!(3 * 3 * output as u64 <= free / 4, "{free}");
    }
}

/// A small, fast, repeatable source of noise (Vigna's SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Chunks to be made worse: with and without normalisation, of 1 to 4 streams, with patches and a sparse field.
fn victims() -> Vec<Container> {
    let mut containers: Vec<Container> =
        self_test::samples().unwrap().into_iter().map(|sample| sample.container).collect();
    containers.extend(FLOATS.map(|element| weights(element, 80, 129, Mode::Balanced).1));
    containers
}

/// Short chunks, which are quick to decode, of what the kernel is for.
fn short_chunks(container: &Container) -> Vec<ChunkIndex> {
    let short = |chunk: &ChunkIndex| {
        let range = container.grid().range(*chunk);
        range.end - range.start < 40_000 && is_decoded(container.chunk_storage(*chunk).0)
    };
    (0..container.grid().chunks()).map(ChunkIndex).filter(short).take(4).collect()
}

/// Adds the elements of a chunk's base, if it has one, to the input; gives where they are.
fn add_base(input: &mut Vec<u8>, place: Place<'_>) -> u32 {
    let at = input.len() as u32;
    if let Some(against) = place.against {
        let mut converted = Vec::new();
        input.extend_from_slice(elements_of_base(place.element, &against, &mut converted));
    }
    at
}

#[test]
fn whatever_is_stored_the_kernel_and_the_processor_agree() {
    let (mut emulator, mut state, mut refused, mut decoded) = (Emulator::start(), 1, Vec::new(), Vec::new());
    for container in victims() {
        let index = container.index();
        let shared = SharedTables::new(&index.tables, &index.segments).unwrap();
        let (mut input, mut jobs, mut expected, mut out) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
        for chunk in short_chunks(&container) {
            let (codec, place, sound) = container.stored_chunk(chunk).unwrap();
            let range = container.grid().range(chunk);
            let len = (range.end - range.start) as usize;
            let mut base = Vec::new();
            let against = container.against(chunk, &mut base).unwrap();
            let place = Place { against, ..place };
            let base_at = add_base(&mut input, place);
            for turn in 0..12 {
                let mut stored = sound.clone();
                // Half of the damage is in the header and the states, some of it is a saturated number.
                let reach = if turn % 2 == 0 { stored.len().min(700) } else { stored.len() };
                let at = (random(&mut state) % reach as u64) as usize;
                match turn {
                    0 => {}
                    1..=8 => stored[at] ^= 1 << (random(&mut state) % 8),
                    9 => stored[at..].iter_mut().take(2).for_each(|byte| *byte = 0xff),
                    10 => stored[at] = 0,
                    _ => stored.truncate(at),
                }
                let mut bytes = vec![0; len];
                let result = chunk::decode(codec, place, &stored, &mut bytes, &mut Scratch::new(Level::Scalar));
                // Stored chunks begin anywhere.
                input.extend(std::iter::repeat_n(0x77, turn % 5));
                let tables = shared.of_segment(container.grid().locate(chunk).0);
                match Job::new(codec, place, tables, (input.len() as u32, &stored), base_at, (out, len as u32)) {
                    Ok(job) => {
                        jobs.push(job);
                        expected.push((codec, result.is_ok().then_some(bytes)));
                        input.extend_from_slice(&stored);
                        out += len as u64 + turn as u64 % 3;
                    }
                    Err(_) => assert!(result.is_err(), "only the processor decodes it"),
                }
            }
        }
        let launch = Launch {
            input: &input,
            output: &vec![0x55; out as usize],
            jobs: bytes_of(&jobs),
            tables: bytes_of(&shared.tables),
            columns: bytes_of(&shared.columns),
            seed: state,
        };
        let (statuses, output) = emulator.run(launch);
        for ((job, status), (codec, expected)) in jobs.iter().zip(statuses).zip(expected) {
            let bytes = &output[job.out as usize..][..job.len as usize];
            match expected {
                Some(expected) => assert!(status == DECODED && bytes == expected, "{job:?} {status}"),
                None => assert!(status != DECODED, "{job:?}"),
            }
            if status == DECODED { &mut decoded } else { &mut refused }.push(codec);
        }
    }
    for codec in [Codec::Float, Codec::Scaled, Codec::Delta] {
        let [refused, decoded] = [&refused, &decoded].map(|all| all.iter().filter(|&&one| one == codec).count());
        assert!(refused > 10 && decoded > 10, "{codec:?}: {refused} refused, {decoded} decoded");
    }
}

#[test]
fn differences_in_each_number_of_streams_come_out_as_they_were() {
    let (element, mut emulator, mut state) = (Element::Bf16, Emulator::start(), 5);
    // The last run is cut.
    let base: Vec<u8> = (0..5003).flat_map(|_| (0x3f80 | random(&mut state) as u16 & 0x7f).to_le_bytes()).collect();
    let change = |(at, half): (usize, &[u8; 2])| {
        let change = if (at / 128).is_multiple_of(3) { 0 } else { random(&mut state) as u16 & (0xff >> (at / 700)) };
        u16::from_le_bytes(*half).wrapping_add(change).to_le_bytes()
    };
    let bytes: Vec<u8> = base.as_chunks().0.iter().enumerate().flat_map(change).collect();
    let plan = DeltaPlan::of(Kind::of(element).unwrap(), &bytes, &base, Mode::Balanced).unwrap();
    let thresholds = plan.thresholds.clone();
    let delta = Delta { offset: 0, element, origin: plan.origin, thresholds, tables: 0..plan.tables.len() };
    let segment = Segment {
        range: 0..bytes.len() as u64,
        element,
        chunk_size: 1 << 20,
        first_chunk: 0,
        tables: 0..0,
        scale: None,
        delta: Some(delta.clone()),
    };
    let shared = SharedTables::new(&plan.tables, &[segment]).unwrap();
    let against = Against { delta: &delta, tables: &plan.tables, base: &base };
    let place = Place { element, tables: &[], scale: None, first: 0, against: Some(against) };
    for streams in [1, 2, 4, 8] {
        let mut stored = checksum(&base).to_le_bytes().to_vec();
        assert!(encode_in(streams, &plan.coder, &bytes, &base, &mut Buffers::default(), &mut stored));
        let mut out = vec![0; bytes.len()];
        chunk::decode(Codec::Delta, place, &stored, &mut out, &mut Scratch::new(Level::Scalar)).unwrap();
        assert!(out == bytes, "{streams} on the processor");
        let mut input = stored.clone();
        let base_at = add_base(&mut input, place);
        let tables = shared.of_segment(0);
        let job = Job::new(Codec::Delta, place, tables, (0, &stored), base_at, (0, out.len() as u32)).unwrap();
        let (jobs, before) = ([job], vec![0x55; out.len()]);
        let launch = Launch {
            input: &input,
            output: &before,
            jobs: bytes_of(&jobs),
            tables: bytes_of(&shared.tables),
            columns: bytes_of(&shared.columns),
            seed: streams as u64,
        };
        let (statuses, output) = emulator.run(launch);
        assert_eq!(statuses, [DECODED], "{streams}");
        assert!(output == bytes, "{streams}");
    }
}

#[test]
fn whatever_a_job_says_the_kernel_keeps_to_its_memory() {
    let (mut emulator, mut state) = (Emulator::start(), 99);
    let containers = victims();
    for container in containers.iter().step_by(2) {
        let index = container.index();
        let shared = SharedTables::new(&index.tables, &index.segments).unwrap();
        for chunk in short_chunks(container) {
            let (codec, place, stored) = container.stored_chunk(chunk).unwrap();
            let range = container.grid().range(chunk);
            let len = (range.end - range.start) as u32;
            let tables = shared.of_segment(container.grid().locate(chunk).0);
            let mut base = Vec::new();
            let place = Place { against: container.against(chunk, &mut base).unwrap(), ..place };
            let mut input = stored.clone();
            let base_at = add_base(&mut input, place);
            let sound = Job::new(codec, place, tables, (0, &stored), base_at, (0, len)).unwrap();
            // One at a time, so that it is known what it may write to.
            for _ in 0..25 {
                let mut words: Vec<u32> =
                    bytes_of(&[sound]).as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
                for _ in 0..1 + random(&mut state) % 2 {
                    let at = (random(&mut state) % words.len() as u64) as usize;
                    let value = random(&mut state);
                    words[at] = match value % 4 {
                        0 => u32::MAX,
                        1 => (value >> 32) as u32 & 0xff,
                        2 => words[at] ^ 1 << (value >> 32 & 31),
                        _ => (value >> 32) as u32,
                    };
                }
                let (out, forged_len) = (u64::from(words[0]) | u64::from(words[1]) << 32, words[2]);
                let jobs: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
                let before = vec![0x55; len as usize + 100];
                let (tables, columns) = (bytes_of(&shared.tables), bytes_of(&shared.columns));
                let launch = Launch { input: &input, output: &before, jobs: &jobs, tables, columns, seed: state };
                let (_, after) = emulator.run(launch);
                let end = out.saturating_add(forged_len.into());
                let outside = (0u64..).zip(&after).filter(|&(at, _)| at < out || at >= end);
                assert!(outside.map(|(_, byte)| byte).all(|&byte| byte == 0x55), "{out} {forged_len}");
            }
        }
    }
}

#[test]
fn jobs_have_no_padding() {
    // As in `kernels/job.cuh`: a number of 64 bits, then 40 of 32.
    assert_eq!(size_of::<Job>(), 8 + 40 * 4);
}

#[test]
fn without_a_driver_there_is_an_error_and_with_one_the_gpu_is_tried() {
    match Gpu::open(0) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Device),
        Ok(gpu) => {
            for trial in self_test::try_gpu(&gpu) {
                assert!(trial.error.is_none(), "{trial:?}");
            }
        }
    }
}
