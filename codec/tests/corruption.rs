//! Every flipped bit and every saturated byte of small containers.
//!
//! The contract: a container in which anything has changed is refused when it is opened, or when the chunk that is damaged
//! is decoded; `verify` never calls it sound; whatever is decoded without an error is right. Nothing panics.

#[path = "support/gguf.rs"]
mod gguf;

use std::io::Cursor;

use bigsmall_codec::container::{Mode, compress};
use bigsmall_codec::verify::verify;
use bigsmall_codec::{ChunkIndex, Container, Memory, Options, Original};

/// Something like weights in BF16, then bytes that repeat, then noise: chunks of all codecs.
fn original(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut bytes = Vec::new();
    for i in 0..len / 2 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = (state >> 40) as u16;
        let value = match i * 8 / len {
            0 | 1 => noise & 0x807f | (0x3c00 + (noise >> 9 & 0x180)),
            2 => (i % 5) as u16,
            _ => noise,
        };
        bytes.extend(value.to_le_bytes());
    }
    let tensor = |name: &str, dtype: &str, range: std::ops::Range<usize>| {
        let size = if dtype == "BF16" { 2 } else { 1 };
        format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
            range.len() / size,
            range.start,
            range.end
        )
    };
    let (half, end) = (len / 4 * 2, bytes.len());
    let header = format!("{{{},{}}}", tensor("a", "BF16", 0..half), tensor("b", "U8", half..end));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()
}

/// Holds a damaged container to the contract. Gives whether it could be opened.
fn hold(original: &[u8], damaged: Vec<u8>, what: &str) -> bool {
    let Ok(container) = Container::from_store(Box::new(Memory::new(damaged))) else { return false };
    assert!(!verify(&container, &()).unwrap().is_sound(), "{what}: not seen");
    assert!(container.len() < 1 << 30, "{what}: a forged length");
    for number in 0..container.grid().chunks() {
        let range = container.grid().range(ChunkIndex(number));
        let mut chunk = vec![0; (range.end - range.start) as usize];
        if container.decode_chunk(ChunkIndex(number), &mut chunk).is_ok() {
            let range = range.start as usize..range.end as usize;
            assert!(original.get(range) == Some(&chunk[..]), "{what}: wrong bytes in chunk {number}");
        }
    }
    true
}

#[test]
fn every_flipped_bit_and_saturated_byte_is_seen_and_gives_no_wrong_bytes() {
    for (len, mode) in [(0, Mode::Balanced), (600, Mode::Balanced), (2400, Mode::Storage), (2400, Mode::Inference)] {
        every_damage_is_seen(&original(len), "model.safetensors", &Options { mode, chunk_size: 512 });
    }
}

#[test]
fn so_it_is_in_quantised_blocks() {
    let mut state = 1u64;
    let noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 32
    };
    let original = gguf::file(&[(8, 32 * 60, gguf::blocks(34, 60, noise))]);
    every_damage_is_seen(&original, "model.gguf", &Options { chunk_size: 2048, ..Options::default() });
}

/// Holds every damage of the container of `original` to the contract.
fn every_damage_is_seen(original: &[u8], name: &str, options: &Options) {
    // Where each takes long, under AddressSanitizer, a script asks for one byte in so many.
    let step = std::env::var("BIGSMALL_CORRUPTION_STEP").map_or(1, |step| step.parse().expect("a number"));
    let mut container = Cursor::new(Vec::new());
    compress(&Memory::new(original.to_vec()), name, options, &mut container, &()).unwrap();
    let container = container.into_inner();
    let sound = Container::from_store(Box::new(Memory::new(container.clone()))).unwrap();
    assert!(verify(&sound, &()).unwrap().is_sound(), "the test itself is sound");
    let what = format!("{} bytes of {name}, {:?}", original.len(), options.mode);
    let mut opened = 0;
    for at in (0..container.len()).step_by(step) {
        let values = (0..8).map(|bit| container[at] ^ 1 << bit).chain([0, 0xff]);
        for value in values.filter(|&value| value != container[at]) {
            let mut damaged = container.clone();
            damaged[at] = value;
            opened += usize::from(hold(original, damaged, &format!("{what}: byte {at} is {value}")));
        }
    }
    assert!(opened > 0, "damage to chunks does not prevent that the container is opened");
    for end in (0..container.len()).step_by(step) {
        hold(original, container[..end].to_vec(), &format!("{what}: cut to {end}"));
    }
    hold(original, [&container[..], b"\0"].concat(), "a byte more");
}
