//! What real weights take, so that nobody makes them larger unnoticed.

use std::path::Path;

use bigsmall_codec::container::{Mode, Options, compress};
use bigsmall_codec::{Container, Memory, Original};

const MODES: [Mode; 3] = [Mode::Storage, Mode::Balanced, Mode::Inference];

/// For each tensor of the slices what it may take in each of the modes, in % of a file with nothing else in it: about 0.05
/// more than it takes. When something makes them smaller, lower these: the test says what they take now.
#[rustfmt::skip]
const LIMITS: [(&str, [f64; 3]); 11] = [
    ("conv.bf16",         [66.23, 66.23, 66.23]),
    ("conv.f32",          [61.54, 61.54, 61.54]),
    ("dense.bf16",        [66.33, 66.33, 66.33]),
    ("dense.bf16_in_f32", [33.33, 33.33, 33.33]),
    ("dense.f16",         [85.24, 85.24, 85.24]),
    ("dense.f8_e4m3",     [82.41, 82.41, 82.41]),
    ("dense.f8_e5m2",     [70.12, 70.12, 70.12]),
    ("dense.i8",          [92.12, 92.12, 92.12]),
    ("embedding.bf16",    [65.77, 65.77, 65.77]),
    ("embedding.f16",     [84.74, 84.74, 84.74]),
    ("embedding.f32",     [70.55, 70.55, 70.55]),
];

/// A file with one tensor of `file`.
fn alone(file: &[u8], name: &str) -> Vec<u8> {
    let header_len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&file[8..8 + header_len]).unwrap();
    let mut tensor = header[name].take();
    let offset = |at: usize| tensor["data_offsets"][at].as_u64().unwrap() as usize;
    let data = &file[8 + header_len..][offset(0)..offset(1)];
    tensor["data_offsets"] = serde_json::json!([0, data.len()]);
    let header = serde_json::json!({ name: tensor }).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// What `original` takes in a mode, in %; it must come back.
fn taken(original: &[u8], mode: Mode) -> f64 {
    let options = Options { mode, chunk_size: mode.chunk_size() };
    let mut container = Vec::new();
    compress(&Memory::new(original.to_vec()), "t.safetensors", &options, &mut container, &()).unwrap();
    let percent = container.len() as f64 * 100.0 / original.len() as f64;
    let container = Container::from_store(Box::new(Memory::new(container))).unwrap();
    let mut decoded = vec![0; original.len()];
    container.read_at(0, &mut decoded).unwrap();
    assert!(decoded == original, "{mode:?}: other bytes came back");
    percent
}

#[test]
fn real_weights_take_no_more_than_they_did() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slices/slices.safetensors");
    let slices = std::fs::read(path).unwrap();
    let mut wrong = String::new();
    for (name, limits) in LIMITS {
        let original = alone(&slices, name);
        let percents = MODES.map(|mode| taken(&original, mode));
        if percents.iter().zip(limits).any(|(&percent, limit)| percent > limit) {
            wrong += &format!("\n{name} takes {percents:.2?}, and may take {limits:?}");
        }
    }
    assert!(wrong.is_empty(), "too much, in % of the original, in the modes {MODES:?}:{wrong}");
}
