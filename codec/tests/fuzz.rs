//! Mutation fuzzing of everything that reads stored bytes, as an ordinary test.
//!
//! Sound containers of many kinds are made, taken apart with a reader of the frame of its own (written from
//! `docs/format.md` alone), damaged in one part, and put together again with good checksums, so that the damage gets
//! past them. Contract: whatever the bytes, opening and reading gives an error or some bytes. Never a panic, never a
//! hang, never more memory than a few times the chunk that is asked for. Without good checksums it is always an error
//! or the right bytes.
//!
//! `BIGSMALL_FUZZ_SECONDS` sets how long each target runs (2 seconds unless set); `scripts/fuzz.sh` runs it for long. A failure
//! names its seed; `BIGSMALL_FUZZ_SEED` repeats it. `BIGSMALL_SIMD` chooses the decoder under test.

#[path = "support/fuzz.rs"]
mod fuzz;
#[path = "support/gguf.rs"]
mod gguf;

use std::sync::Arc;

use bigsmall_codec::container::{Mode, Options, compress, compress_patch};
use bigsmall_codec::patch::{Check, Model};
use bigsmall_codec::{ChunkIndex, Container, Memory, Original};
use fuzz::{Random, fuzz, mutate};

const DTYPES: [(&str, usize); 9] = [
    ("BF16", 2),
    ("F16", 2),
    ("F32", 4),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("I8", 1),
    ("I16", 2),
    ("I32", 4),
    ("I64", 8),
];

/// The types of blocks that have a codec of their own in GGUF files: number, bytes of a block, elements of a block.
const BLOCKS: [(u32, usize, u64); 23] = [
    (2, 18, 32),
    (3, 20, 32),
    (6, 22, 32),
    (7, 24, 32),
    (8, 34, 32),
    (10, 84, 256),
    (11, 110, 256),
    (12, 144, 256),
    (13, 176, 256),
    (14, 210, 256),
    (16, 66, 256),
    (17, 74, 256),
    (18, 98, 256),
    (19, 50, 256),
    (20, 18, 32),
    (21, 110, 256),
    (22, 82, 256),
    (23, 136, 256),
    (29, 56, 256),
    (34, 54, 256),
    (35, 66, 256),
    (39, 17, 32),
    (40, 36, 64),
];

/// The number of the codec that stores a chunk as one block.
const FLOAT: u8 = 3;

/// A GGUF file with some tensors of quantised blocks.
fn quantised_model(random: &mut Random) -> Vec<u8> {
    let tensors: Vec<(u32, u64, Vec<u8>)> = (0..1 + random.below(3))
        .map(|_| {
            let (kind, size, elements) = BLOCKS[random.below(BLOCKS.len())];
            let count = [1, 3, 60, 400, 1500][random.below(5)] + random.below(20);
            (kind, elements * count as u64, gguf::blocks(size, count, || random.next()))
        })
        .collect();
    gguf::file(&tensors)
}

/// A file with some tensors of random dtypes and contents: mostly a safetensors file.
fn model(random: &mut Random) -> Vec<u8> {
    if random.below(4) == 0 {
        return quantised_model(random);
    }
    let mut header = String::from("{");
    let mut data = Vec::new();
    // Now and then a tensor with enough elements for blocks of 2 or 4 streams.
    let large = [Some(33_000), Some(66_000)].get(random.below(8)).copied().flatten();
    for number in 0..if large.is_some() { 1 } else { 1 + random.below(4) } {
        // (Floats are first.)
        let (dtype, size) = DTYPES[random.below(if large.is_some() { 6 } else { DTYPES.len() })];
        let columns = [1, 3, 20, 64, 129][random.below(5)];
        let kind = match (large, random.below(3)) {
            (Some(_), 0) => 3,
            (Some(_), 1) => [5, 6, 10][random.below(3)],
            _ => random.below(12),
        };
        // Only what is 16 KiB or longer is normalised.
        let least = if kind == 5 { (16 << 10) / size } else { [1, 7, 33, 500, 3000][random.below(5)] };
        let rows = (large.unwrap_or(least) + random.below(40)).div_ceil(columns);
        let start = data.len();
        for position in 0..rows * columns {
            let element = element(kind, dtype, size, (position / columns, position % columns), random);
            data.extend_from_slice(&element.to_le_bytes()[..size]);
        }
        let comma = if number > 0 { "," } else { "" };
        header += &format!(
            "{comma}\"t{number}\":{{\"dtype\":\"{dtype}\",\"shape\":[{rows},{columns}],\"data_offsets\":[{start},{}]}}",
            data.len()
        );
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// An element of a tensor of the given kind: what each codec is for, and what none is.
fn element(kind: usize, dtype: &str, size: usize, (row, column): (usize, usize), random: &mut Random) -> u64 {
    let noise = random.next();
    // The top byte of each element has few values, as that of a weight has.
    let narrow =
        (noise >> 8 << 8 >> (64 - 8 * size)) | (0x3c - u64::from(noise.trailing_zeros().min(9))) << (8 * size - 8);
    // Rows and columns of different scale.
    let mantissa = match dtype {
        "BF16" => 7,
        "F16" => 10,
        "F32" => 23,
        "F8_E5M2" => 2,
        _ => 3,
    };
    let octaves = 4 + (row * 5 % 7) as u64 + (column * 3 % 5) as u64 + u64::from((noise >> 32).trailing_zeros().min(3));
    let scaled = ((octaves << mantissa) + (noise & ((1 << mantissa) - 1))) | ((noise >> 63) << (8 * size - 1));
    match kind {
        0 => noise,
        1 => 0,
        2 => (row * 31 + column) as u64 % 13 * 0x0101_0101_0101_0101,
        3 => narrow,
        // Mostly alike, now and then something else: patches.
        4 if noise.is_multiple_of(97) => noise,
        4 => 0x3c3c_3c3c_3c3c_3c3c,
        5 => scaled,
        // Rows of fewer bits.
        6 => narrow & if row % 3 == 0 { !0x1fff } else { !0 },
        // Mostly zero.
        7 => {
            // With signs in every other row.
            if noise % 10 < 7 { (noise >> 63 & row as u64 & 1) << (8 * size - 1) } else { narrow }
        }
        // Few values, and differences of few values.
        8 => (noise % 9).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        // Halves of bytes.
        9 => noise & noise >> 4 & 0x7777_7777_7777_7777,
        10 => scaled & if row % 3 == 0 { !0x1fff } else { !0 },
        _ => (row as u64).wrapping_mul(977).wrapping_add(column as u64 * 3 + noise % 2),
    }
}

fn container(original: &[u8], random: &mut Random) -> Vec<u8> {
    let (options, mut out) = (options(original, random), Vec::new());
    compress(&Memory::new(original.to_vec()), "model.safetensors", &options, &mut out, &()).unwrap();
    out
}

/// The patch of an original, and a base of it in which some elements are other ones, most of them by little.
fn patch(original: &[u8], random: &mut Random) -> (Vec<u8>, Model) {
    let mut base = original.to_vec();
    // Behind the header; that of a GGUF file is shorter than its half.
    let data = if original.starts_with(b"GGUF") { original.len() / 2 } else { 8 + u64_at(original, 0) as usize };
    let (often, far) = (1 + random.below(9), random.below(4) == 0);
    for byte in base[data..].iter_mut().step_by(1 + random.below(2)) {
        if random.below(often) == 0 {
            *byte = if far { random.next() as u8 } else { byte.wrapping_add(random.below(3) as u8) };
        }
    }
    let mut model = Model::new("base");
    model.add("base.safetensors", Arc::new(Memory::new(base))).unwrap();
    let (options, mut out) = (options(original, random), Vec::new());
    compress_patch(&Memory::new(original.to_vec()), "model.safetensors", &options, &model, &mut out, &()).unwrap();
    (out, model)
}

fn options(original: &[u8], random: &mut Random) -> Options {
    let mode = [Mode::Storage, Mode::Balanced, Mode::Inference][random.below(3)];
    // Any size, or whole quads of elements, which normalisation needs, or the usual one.
    let (any, quads) = (64 + 8 * random.below(600), 512 * (1 + random.below(9)));
    let usual = if original.len() > 30_000 { 256 << 10 } else { quads };
    let chunk_size = [any, quads, usual, usual][random.below(4)] as u32;
    Options { mode, chunk_size }
}

/// A container in parts: the chunks, and the sections by tag, unpacked.
struct Parts {
    chunks: Vec<Vec<u8>>,
    sections: Vec<([u8; 4], Vec<u8>)>,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn checksum(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}

impl Parts {
    fn of(container: &[u8]) -> Parts {
        let footer = &container[container.len() - 48..];
        let directory = &container[u64_at(footer, 0) as usize..container.len() - 48];
        let mut at = u64_at(directory, 0) as usize;
        let mut sections = Vec::new();
        for entry in directory[8..].chunks_exact(29) {
            let (stored, len) = (u64_at(entry, 5) as usize, u64_at(entry, 13) as usize);
            let bytes = &container[at..at + stored];
            let section = if entry[4] == 1 { zstd::bulk::decompress(bytes, len).unwrap() } else { bytes.to_vec() };
            sections.push((entry[..4].try_into().unwrap(), section));
            at += stored;
        }
        let mut at = 16;
        let entries = &sections.iter().find(|(tag, _)| tag == b"CHNK").unwrap().1;
        let chunks = entries.chunks_exact(12).map(|entry| {
            let len = u32::from_le_bytes(entry[..4].try_into().unwrap()) as usize & 0x3ff_ffff;
            at += len;
            container[at - len..at].to_vec()
        });
        Parts { chunks: chunks.collect(), sections }
    }

    fn section(&mut self, tag: &[u8; 4]) -> &mut Vec<u8> {
        &mut self.sections.iter_mut().find(|(t, _)| t == tag).unwrap().1
    }

    /// Makes the lengths and checksums in the chunks' entries those of the chunks.
    fn mend_chunks(&mut self) {
        let chunks: Vec<(u32, u64)> = self.chunks.iter().map(|chunk| (chunk.len() as u32, checksum(chunk))).collect();
        for (entry, (len, sum)) in self.section(b"CHNK").chunks_exact_mut(12).zip(chunks) {
            let codec = entry[3] & 0xfc;
            entry[..4].copy_from_slice(&len.to_le_bytes());
            entry[3] |= codec;
            entry[4..].copy_from_slice(&sum.to_le_bytes());
        }
    }

    fn join(&self) -> Vec<u8> {
        let mut out = b"\x89BSML\r\n\x1a\x01\0\0\0\0\0\0\0".to_vec();
        self.chunks.iter().for_each(|chunk| out.extend(chunk));
        let mut directory = (out.len() as u64).to_le_bytes().to_vec();
        for (tag, section) in &self.sections {
            directory.extend(tag);
            directory.push(0);
            directory.extend((section.len() as u64).to_le_bytes());
            directory.extend((section.len() as u64).to_le_bytes());
            directory.extend(checksum(section).to_le_bytes());
            out.extend(section);
        }
        let mut footer = (out.len() as u64).to_le_bytes().to_vec();
        footer.extend(checksum(&directory).to_le_bytes());
        footer.extend(((out.len() + directory.len() + 48) as u64).to_le_bytes());
        footer.extend((directory.len() as u32).to_le_bytes());
        footer.extend([1, 0, 0, 0]);
        footer.extend(checksum(&footer).to_le_bytes());
        footer.extend(b"BSML-END");
        out.extend(directory);
        out.extend(footer);
        out
    }
}

/// Chunks that are read at most: more than any sound container here has.
const MOST_CHUNKS: u64 = 20_000;

/// Opens and reads what can be opened and read; the original, if all of it could be.
fn read(container: Vec<u8>) -> Option<Vec<u8>> {
    read_over(container, None)
}

/// The same over a base, if it is a patch of that.
fn read_over(container: Vec<u8>, base: Option<&Model>) -> Option<Vec<u8>> {
    let mut container = Container::from_store(Box::new(Memory::new(container))).ok()?;
    let record = container.base_record().cloned();
    if let Some(base) = base.zip(record).and_then(|(base, record)| base.base_for(&record, Check::Probe, &()).ok()) {
        container = container.with_base(base).ok()?;
    }
    let mut whole = Vec::new();
    let mut sound = true;
    for chunk in (0..container.grid().chunks().min(MOST_CHUNKS)).map(ChunkIndex) {
        let range = container.grid().range(chunk);
        let mut out = vec![0; (range.end - range.start) as usize];
        sound &= container.decode_chunk(chunk, &mut out).is_ok();
        if whole.len() < 1 << 22 {
            whole.extend(out);
        }
    }
    sound.then_some(whole)
}

#[test]
fn the_frame_can_be_read_from_its_specification() {
    let random = &mut Random(1);
    for _ in 0..50 {
        let original = model(random);
        let joined = Parts::of(&container(&original, random)).join();
        assert_eq!(read(joined).unwrap(), original);
    }
}

#[test]
fn damaged_bytes() {
    fuzz("damaged bytes", |random| {
        let original = model(random);
        let sound = container(&original, random);
        let mut damaged = sound.clone();
        mutate(&mut damaged, random);
        if damaged != sound {
            assert!(read(damaged).is_none(), "damage went unnoticed");
        }
    });
}

#[test]
fn damaged_originals() {
    fuzz("damaged originals", |random| {
        let mut original = if random.below(2) == 0 { quantised_model(random) } else { model(random) };
        // Mostly their header.
        let mut rest = original.split_off([300, original.len()][random.below(2)].min(original.len()));
        mutate(&mut original, random);
        original.append(&mut rest);
        let stored = container(&original, random);
        assert!(read(stored).is_some_and(|bytes| original.starts_with(&bytes)), "other bytes come back");
    });
}

#[test]
fn forged_sections() {
    fuzz("forged sections", |random| {
        let original = model(random);
        let mut parts = Parts::of(&container(&original, random));
        for _ in 0..20 {
            let number = random.below(parts.sections.len());
            let sound = parts.sections[number].1.clone();
            mutate(&mut parts.sections[number].1, random);
            read(parts.join());
            parts.sections[number].1 = sound;
        }
    });
}

#[test]
fn forged_chunks() {
    fuzz("forged chunks", |random| {
        let original = model(random);
        let mut parts = Parts::of(&container(&original, random));
        for _ in 0..20 {
            let number = random.below(parts.chunks.len());
            let sound = parts.chunks[number].clone();
            mutate(&mut parts.chunks[number], random);
            parts.mend_chunks();
            read(parts.join());
            parts.chunks[number] = sound;
        }
    });
}

#[test]
fn forged_tables_under_sound_chunks() {
    fuzz("forged tables", |random| {
        let original = model(random);
        let mut parts = Parts::of(&container(&original, random));
        for _ in 0..20 {
            // A table that is sound in itself, but another: one symbol gives a slot to the next.
            let sound = parts.section(b"TABL").clone();
            let table = parts.section(b"TABL");
            if table.len() > 4 {
                let at = 1 + random.below(table.len() - 3);
                table[at] = table[at].wrapping_add(1) & 0x7f;
                table[at + 2] = table[at + 2].wrapping_sub(1) & 0x7f;
            }
            read(parts.join());
            *parts.section(b"TABL") = sound;
        }
    });
}

#[test]
fn forged_patches() {
    fuzz("forged patches", |random| {
        let original = model(random);
        let (sound, base) = patch(&original, random);
        assert!(read_over(sound.clone(), Some(&base)).unwrap() == original);
        let mut parts = Parts::of(&sound);
        for _ in 0..20 {
            let (section, chunk) = (random.below(parts.sections.len()), random.below(parts.chunks.len()));
            let before = (parts.sections[section].1.clone(), parts.chunks[chunk].clone());
            if random.below(2) == 0 {
                mutate(&mut parts.sections[section].1, random);
            } else {
                // Behind the checksum of the base, which would see to it that nothing is decoded.
                let front = parts.chunks[chunk].len().min(8);
                let mut rest = parts.chunks[chunk].split_off(front);
                mutate(&mut rest, random);
                parts.chunks[chunk].extend(rest);
                parts.mend_chunks();
            }
            read_over(parts.join(), Some(&base));
            (parts.sections[section].1, parts.chunks[chunk]) = before;
            parts.mend_chunks();
        }
    });
}

/// Of what is never made nothing is found out.
#[test]
fn the_models_reach_every_codec() {
    let (mut random, mut random_of_patches) = (Random(1), Random(2));
    let mut seen = std::collections::BTreeSet::new();
    // Of blocks that are a chunk each: how many streams they have, and whether some low bits are stored apart.
    let mut blocks = std::collections::BTreeSet::new();
    for round in 0..530 {
        let original = model(&mut random);
        let mut containers = vec![container(&original, &mut random)];
        if round % 4 == 0 {
            containers.push(patch(&original, &mut random_of_patches).0);
        }
        for container in containers {
            let mut parts = Parts::of(&container);
            let chunks = parts.chunks.clone();
            for (chunk, entry) in chunks.iter().zip(parts.section(b"CHNK").chunks_exact(12)) {
                if entry[3] >> 2 == FLOAT {
                    blocks.insert((chunk[0], chunk[3] > 0));
                }
            }
            let container = Container::from_store(Box::new(Memory::new(container))).unwrap();
            seen.extend(container.codec_usage().iter().map(|usage| usage.codec.name()));
        }
    }
    let all = [
        "blocks",
        "bytes",
        "constant",
        "delta",
        "differences",
        "float",
        "packed",
        "palette",
        "raw",
        "scaled",
        "sparse",
        "unchanged",
        "zstd",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    assert_eq!(blocks.iter().map(|block| block.0).collect::<std::collections::BTreeSet<u8>>().len(), 3, "{blocks:?}");
    assert!(blocks.iter().any(|block| block.1), "{blocks:?}");
}
