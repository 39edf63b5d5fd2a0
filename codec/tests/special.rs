//! Tensors that are no ordinary weights: never much larger than they are, and never larger than Zstandard makes them.

use bigsmall_codec::container::{Mode, Options, compress};
use bigsmall_codec::{Container, Memory, Original};

/// Elements of each tensor: two chunks and a half of the largest.
const ELEMENTS: usize = 160 << 10;

/// What a file of one tensor takes beside its chunks, in bytes: preamble, index, footer.
const FIXED: usize = 700;

/// Noise (Vigna's SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    /// Like a weight.
    fn weight(&mut self) -> f32 {
        ((0..8).map(|_| self.unit()).sum::<f32>() - 4.0) * 0.03
    }
}

fn bf16(weight: f32) -> [u8; 2] {
    ((weight.to_bits() >> 16) as u16).to_le_bytes()
}

fn tensor(element: impl FnMut(usize) -> Vec<u8>) -> Vec<u8> {
    (0..ELEMENTS).flat_map(element).collect()
}

/// Name, dtype and bytes.
fn tensors() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut r = Random(7);
    let few: Vec<f32> = (0..256).map(|_| r.weight()).collect();
    let mut all = Vec::new();
    for (name, kept) in [("a tenth pruned", 0.9), ("half pruned", 0.5), ("nine tenths pruned", 0.1)] {
        all.push((name, "BF16", tensor(|_| if r.unit() < kept { bf16(r.weight()).to_vec() } else { vec![0; 2] })));
        all.push((name, "F32", tensor(|_| if r.unit() < kept { r.weight() } else { 0.0 }.to_le_bytes().to_vec())));
    }
    for (name, values) in [("2 values", 2), ("5 values", 5), ("60 values", 60), ("256 values", 256)] {
        all.push((name, "F32", tensor(|_| few[r.next() as usize % values].to_le_bytes().to_vec())));
        all.push((name, "BF16", tensor(|_| bf16(few[r.next() as usize % values]).to_vec())));
    }
    let cut = |weight: f32, bits: u32| (weight.to_bits() >> bits << bits).to_le_bytes().to_vec();
    all.push(("BF16 inside", "F32", tensor(|_| cut(r.weight(), 16))));
    all.push(("F16 inside", "F32", tensor(|_| cut(r.weight(), 13))));
    all.push(("rounded rows", "F32", tensor(|i| cut(r.weight(), if i / 256 % 3 == 0 { 13 } else { 0 }))));
    all.push(("quantised", "I8", tensor(|_| vec![(r.weight() * 500.0) as i8 as u8])));
    all.push((
        "packed in 4 bits",
        "U8",
        tensor(|_| vec![((r.weight() * 40.0) as i8 as u8 & 15) | (r.next() as u8 & 7) << 4]),
    ));
    all.push(("scales", "F8_E8M0", tensor(|_| vec![120u8.wrapping_add_signed((r.weight() * 30.0) as i8)])));
    all.push(("doubles", "F64", tensor(|_| (f64::from(r.weight()) * 1.000_000_1).to_le_bytes().to_vec())));
    all.push(("floats in doubles", "F64", tensor(|_| f64::from(r.weight()).to_le_bytes().to_vec())));
    all.push(("complex", "C64", tensor(|_| [r.weight(), r.weight()].map(f32::to_le_bytes).concat())));
    all.push(("positions", "I64", tensor(|i| (i as u64 % 512).to_le_bytes().to_vec())));
    all.push(("a count", "I32", tensor(|i| (i as u32).to_le_bytes().to_vec())));
    all.push(("token numbers", "I64", tensor(|_| (r.next() % 50_000).to_le_bytes().to_vec())));
    all.push(("a causal mask", "BOOL", tensor(|i| vec![u8::from(i % 400 <= i / 400)])));
    all.push((
        "a causal mask",
        "F32",
        tensor(|i| if i % 400 <= i / 400 { 0.0 } else { f32::NEG_INFINITY }.to_le_bytes().to_vec()),
    ));
    all.push(("not a number", "F32", tensor(|_| f32::NAN.to_le_bytes().to_vec())));
    all.push(("noise", "U8", tensor(|_| vec![r.next() as u8])));
    all.push(("noise", "F32", tensor(|_| (r.next() as u32).to_le_bytes().to_vec())));
    all.push(("noise", "BF16", tensor(|_| (r.next() as u16).to_le_bytes().to_vec())));
    all
}

fn file(dtype: &str, data: &[u8], size: usize) -> Vec<u8> {
    let elements = data.len() / size;
    let header = format!(
        "{{\"t\":{{\"dtype\":\"{dtype}\",\"shape\":[{},256],\"data_offsets\":[0,{}]}}}}",
        elements / 256,
        data.len()
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

#[test]
fn never_much_larger_than_they_are_nor_than_zstandard_makes_them() {
    let mut worst = Vec::new();
    for (name, dtype, data) in tensors() {
        let original = file(dtype, &data, data.len() / ELEMENTS);
        for mode in [Mode::Balanced, Mode::Storage, Mode::Inference] {
            let options = Options { mode, chunk_size: mode.chunk_size() };
            let mut container = Vec::new();
            compress(&Memory::new(original.clone()), "t.safetensors", &options, &mut container, &()).unwrap();
            // In chunks of the same size: that is what makes random access possible.
            let zstandard: usize = data
                .chunks(mode.chunk_size() as usize)
                .map(|chunk| zstd::bulk::compress(chunk, 3).unwrap().len())
                .sum();
            let limit = zstandard.min(original.len()) + original.len() / 1000 + FIXED;
            if container.len() > limit {
                worst.push(format!("{name}, {dtype}, {mode:?}: {} bytes, at most {limit}", container.len()));
            }
            let container = Container::from_store(Box::new(Memory::new(container))).unwrap();
            let mut decoded = vec![0; original.len()];
            container.read_at(0, &mut decoded).unwrap();
            assert!(decoded == original, "{name}, {dtype}, {mode:?}");
        }
    }
    assert!(worst.is_empty(), "{worst:#?}");
}
