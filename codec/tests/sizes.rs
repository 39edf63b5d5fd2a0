//! What real weights take, so that nobody makes them larger unnoticed.

use std::path::Path;

use bigsmall_codec::container::{Mode, Options, compress};
use bigsmall_codec::{Container, Memory, Original};

/// For each tensor of the slices what it may take, in hundredths of a percent of its bytes: 0.05 % more than it takes. When
/// something makes them smaller, lower these.
const LIMITS: [(&str, u64); 7] = [
    ("conv.bf16", 6622),
    ("conv.f32", 6153),
    ("dense.bf16", 6633),
    ("dense.f8_e4m3", 8240),
    ("embedding.bf16", 6576),
    ("embedding.f16", 8474),
    ("embedding.f32", 7054),
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

#[test]
fn real_weights_take_no_more_than_they_did() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slices/slices.safetensors");
    let slices = std::fs::read(path).unwrap();
    let mut too_large = Vec::new();
    for (name, limit) in LIMITS {
        let original = alone(&slices, name);
        for mode in [Mode::Balanced, Mode::Storage, Mode::Inference] {
            let options = Options { mode, chunk_size: mode.chunk_size() };
            let mut container = Vec::new();
            compress(&Memory::new(original.clone()), "t.safetensors", &options, &mut container, &()).unwrap();
            let share = container.len() as u64 * 10_000 / original.len() as u64;
            if share > limit {
                too_large.push(format!("{name}, {mode:?}: {share} ten-thousandths of the original, not {limit}"));
            }
            let container = Container::from_store(Box::new(Memory::new(container))).unwrap();
            let mut decoded = vec![0; original.len()];
            container.read_at(0, &mut decoded).unwrap();
            assert!(decoded == original, "{name}, {mode:?}");
        }
    }
    assert!(too_large.is_empty(), "{too_large:#?}");
}
