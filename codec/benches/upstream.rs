//! How fast files of the Python package are decoded: `fp32_se_ac` and `bf16_se_rans`, of made-up weights.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench upstream
//! ```
//!
//! GB/s of the original on one thread: the tensor decoded and compared with its MD5, as the mount and every command has it, and decoded
//! alone.

#[path = "../tests/support/upstream.rs"]
mod support;

use std::time::{Duration, Instant};

use bigsmall_codec::bench::upstream_weights;
use bigsmall_codec::upstream::UpstreamFile;
use bigsmall_codec::{Memory, Original};
use constriction::stream::Encode;
use constriction::stream::model::DefaultContiguousCategoricalEntropyModel;
use constriction::stream::queue::DefaultRangeEncoder;
use constriction::stream::stack::DefaultAnsCoder;
use md5::{Digest, Md5};
use serde_json::Value;
use support::{Parts, Stored};

/// Elements of a tensor: a matrix of 2048 by 2048.
const ELEMENTS: usize = 4 << 20;

const ALPHABET: usize = 512;

/// How long each is measured.
const TIME: Duration = Duration::from_secs(3);

fn main() {
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    // Something like a normal distribution.
    let weights: Vec<f32> = (0..ELEMENTS).map(|_| (noise() + noise() + noise() + noise()) * 0.05).collect();
    let wide: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let short: Vec<u8> = weights.iter().flat_map(|weight| ((weight.to_bits() >> 16) as u16).to_le_bytes()).collect();
    println!("{:<16}{:>10}{:>10}", "", "with MD5", "decoding");
    measure("float32", "fp32_se_ac", fp32_se_ac(&weights), &wide);
    measure("bfloat16", "bf16_se_rans", bf16_se_rans(&weights), &short);
}

fn measure(dtype: &str, codec: &str, blob: Vec<u8>, original: &[u8]) {
    let mut parts = Parts::of(&Stored::new(dtype, &[ELEMENTS as u64], codec, Value::Null, blob).file());
    let alone = parts.file();
    let hash: String = Md5::digest(original).iter().map(|byte| format!("{byte:02x}")).collect();
    parts.tensors()[0]["md5"] = hash.into();
    println!("{codec:<16}{:>10.3}{:>10.3}", speed(parts.file(), original), speed(alone, original));
}

/// GB/s of decoding the only tensor of a file, which is kept nowhere in between.
fn speed(file: Vec<u8>, original: &[u8]) -> f64 {
    let memory = Memory::new(file);
    let (mut best, start) = (f64::INFINITY, Instant::now());
    let mut bytes = vec![0; original.len()];
    while start.elapsed() < TIME {
        let file = UpstreamFile::from_store(Box::new(memory.clone()), &[], &Default::default()).expect("it is sound");
        let range = file.tensors()[0].range.clone();
        let begun = Instant::now();
        file.read_at(range.start, &mut bytes).expect("it is sound");
        best = best.min(begun.elapsed().as_secs_f64());
    }
    assert!(bytes == original, "it came out wrong");
    original.len() as f64 / best / 1e9
}

/// A table, as it stands before a stream, and the model of its counts.
fn table(symbols: &[usize], alphabet: usize, wide: bool) -> (Vec<u8>, DefaultContiguousCategoricalEntropyModel) {
    let mut counts = vec![0u32; alphabet];
    symbols.iter().for_each(|&symbol| counts[symbol] += 1);
    let used: Vec<usize> = (0..alphabet).filter(|&symbol| counts[symbol] > 0).collect();
    let mut out = Vec::new();
    let mut put = |number: usize| match wide {
        true => out.extend((number as u16).to_le_bytes()),
        false => out.push(number as u8),
    };
    put(used.len());
    used.iter().for_each(|&symbol| put(symbol));
    used.iter().for_each(|&symbol| out.extend(counts[symbol].to_le_bytes()));
    let weights = upstream_weights(&counts).expect("they are honest counts");
    let model = DefaultContiguousCategoricalEntropyModel::from_nonzero_fixed_point_probabilities(weights, false);
    (out, model.expect("they add up to what they should"))
}

/// Bytes after their number.
fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn bytes_of(words: Vec<u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn fp32_se_ac(weights: &[f32]) -> Vec<u8> {
    let symbols: Vec<usize> = weights.iter().map(|weight| (weight.to_bits() >> 23) as usize).collect();
    let mut out = (weights.len() as u32).to_le_bytes().to_vec();
    let (table, model) = table(&symbols, ALPHABET, true);
    out.extend(table);
    let mut coder = DefaultRangeEncoder::new();
    coder.encode_iid_symbols(&symbols, &model).expect("all symbols are possible");
    put_sized(&mut out, &bytes_of(coder.into_compressed().expect("it is in memory")));
    for shift in [0, 8, 16] {
        let mask = if shift == 16 { 0x7f } else { 0xff };
        let plane: Vec<u8> = weights.iter().map(|weight| (weight.to_bits() >> shift) as u8 & mask).collect();
        put_sized(&mut out, &zstd::bulk::compress(&plane, 3).expect("Zstandard compresses any bytes"));
    }
    out
}

fn bf16_se_rans(weights: &[f32]) -> Vec<u8> {
    let ans = |symbols: &[usize], model: &DefaultContiguousCategoricalEntropyModel| {
        let mut coder = DefaultAnsCoder::new();
        coder.encode_iid_symbols_reverse(symbols, model).expect("all symbols are possible");
        bytes_of(coder.into_compressed().expect("it is in memory"))
    };
    let symbols: Vec<usize> = weights.iter().map(|weight| (weight.to_bits() >> 23) as usize).collect();
    let mut out = (weights.len() as u32).to_le_bytes().to_vec();
    let (se_table, model) = table(&symbols, ALPHABET, true);
    out.extend(se_table);
    put_sized(&mut out, &ans(&symbols, &model));
    let mut buckets = vec![Vec::new(); ALPHABET / 2];
    for (weight, symbol) in weights.iter().zip(&symbols) {
        buckets[symbol % (ALPHABET / 2)].push((weight.to_bits() >> 16 & 0x7f) as usize);
    }
    let used: Vec<usize> = (0..buckets.len()).filter(|&exponent| !buckets[exponent].is_empty()).collect();
    let mut records = (used.len() as u32).to_le_bytes().to_vec();
    used.iter().for_each(|&exponent| records.extend((exponent as u16).to_le_bytes()));
    for exponent in used {
        let bucket = &buckets[exponent];
        records.extend((bucket.len() as u32).to_le_bytes());
        let (mantissa_table, model) = table(bucket, 128, false);
        records.extend(mantissa_table);
        put_sized(&mut records, &ans(bucket, &model));
    }
    put_sized(&mut out, &records);
    out
}
