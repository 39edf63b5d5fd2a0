//! What a scan says, held to what [`compress`](crate::container::compress) does.

use super::*;
use crate::container;
use crate::original::Memory;

/// Real weights of each kind of float.
const REAL_WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/minilm-slice.safetensors");

/// A safetensors file of these tensors: name, dtype, bytes of an element, bytes.
fn file(tensors: &[(String, &str, usize, Vec<u8>)]) -> Memory {
    let mut entries = Vec::new();
    let mut data = Vec::new();
    for (name, dtype, size, bytes) in tensors {
        let (start, end, elements) = (data.len(), data.len() + bytes.len(), bytes.len() / size);
        let shape = if elements % 256 == 0 { format!("{},256", elements / 256) } else { elements.to_string() };
        entries
            .push(format!("{name:?}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}"));
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}", entries.join(","));
    Memory::new([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat())
}

/// Numbers like weights in BF16: `spread` octaves of exponents.
fn weights(len: usize, seed: u64, spread: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..len / 2).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let exponent = 120 - ((state >> 32) as u32).trailing_zeros().min(spread) as u16;
        (state as u16 & 0x807f | exponent << 7).to_le_bytes()
    });
    words.flatten().collect()
}

fn really(source: &Memory, mode: Mode) -> f64 {
    let mut out = Vec::new();
    container::compress(source, "x", &options(mode), &mut out, &()).unwrap();
    out.len() as f64
}

/// Points of the original between what is expected and what is, and those that were said to be possible.
fn off(scan: &Scan, source: &Memory) -> [(f64, f64); 3] {
    let points = 100.0 / source.len() as f64;
    std::array::from_fn(|mode| {
        let expected = scan.containers[mode];
        ((expected.bytes - really(source, MODES[mode])) * points, expected.error() * points)
    })
}

#[test]
fn all_of_real_weights_is_foretold_to_a_tenth_of_a_point() {
    let source = Memory::new(std::fs::read(REAL_WEIGHTS).unwrap());
    for extent in [Extent::Everything, Extent::Sample(64 << 20)] {
        let scan = scan(&source, extent, &()).unwrap();
        for (off, _) in off(&scan, &source) {
            assert!(off.abs() < 0.1, "{extent:?}: {off}");
        }
        assert_eq!(scan.tensors.len(), 7);
        assert_eq!(scan.coded, source.len());
    }
}

#[test]
fn a_sample_foretells_the_whole_within_its_bounds() {
    // Twelve layers, each a little different, two of them equal; and something large that changes in the middle.
    let mut tensors: Vec<(String, &str, usize, Vec<u8>)> = (0..12)
        .map(|layer| {
            let name = format!("layers.{layer}.weight");
            (name, "BF16", 2, weights(512 << 10, if layer == 7 { 3 } else { layer }, 4 + layer as u32 % 5))
        })
        .collect();
    tensors[7].3 = tensors[3].3.clone();
    let large = [weights(9 << 20, 100, 4), weights(9 << 20, 101, 9)].concat();
    tensors.push(("large".to_owned(), "BF16", 2, large));
    let source = file(&tensors);
    let scan = scan(&source, Extent::Sample(8 << 20), &()).unwrap();
    assert!(scan.coded < source.len() / 2, "{} of {}", scan.coded, source.len());
    for (off, bound) in off(&scan, &source) {
        assert!(off.abs() < 0.3 && bound < 0.6 && off.abs() <= bound, "{off} with bound {bound}");
    }
    assert_eq!(scan.tensors[7].twin, Some(3));
    assert_eq!((scan.tensors[7].stored[0].bytes, scan.tensors[7].print), (0.0, scan.tensors[3].print));
    assert!(scan.tensors[0].stored[0].bytes > 0.0);
    let chunks: f64 = scan.tensors.iter().map(|tensor| tensor.stored[0].bytes).sum();
    assert!(chunks < scan.containers[0].bytes && chunks > 0.99 * scan.containers[0].bytes);
}

#[test]
fn rows_that_were_rounded_are_not_missed() {
    // As of embeddings that were hardly trained: of the first twentieth the low 13 bits are zero.
    let (high, low) = (weights(12 << 20, 1, 4), weights(12 << 20, 2, 4));
    let elements = high.as_chunks::<2>().0.iter().zip(low.as_chunks::<2>().0).enumerate();
    let bytes = elements.flat_map(|(at, (high, low))| {
        let low = u16::from_le_bytes(*low).wrapping_mul(0x9e37);
        let low = if at < (6 << 20) / 20 { low & 0xe000 } else { low };
        [low.to_le_bytes(), *high].concat()
    });
    let source = file(&[("embeddings".to_owned(), "F32", 4, bytes.collect())]);
    let scan = scan(&source, Extent::Sample(4 << 20), &()).unwrap();
    assert!(scan.coded < source.len() / 3, "{} of {}", scan.coded, source.len());
    for (off, bound) in off(&scan, &source) {
        assert!(off.abs() < 0.5 && bound < 1.0 && off.abs() <= bound, "{off} with bound {bound}");
    }
}

#[test]
fn what_is_no_model_is_foretold_too() {
    let text = "All that is known of a file may be its bytes. ".repeat(40_000).into_bytes();
    for bytes in [Vec::new(), b"x".to_vec(), text, weights(3 << 20, 5, 3)] {
        let source = Memory::new(bytes);
        let scan = scan(&source, Extent::Sample(1 << 20), &()).unwrap();
        assert!(scan.tensors.is_empty());
        let expected = scan.containers[0];
        let off = (expected.bytes - really(&source, Mode::Balanced)).abs();
        assert!(off < 0.003 * source.len() as f64 + 300.0, "{} bytes: {off}", source.len());
    }
}
