//! Safetensors files of made-up weights, and what training makes of them.

use std::sync::Arc;

use bigsmall_codec::container::compress_patch;
use bigsmall_codec::patch::{Check, Model};
use bigsmall_codec::{Container, Memory, Options, Original};

/// A generator of noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Between -1 and 1, more often near 0.
    fn signed(&mut self) -> f32 {
        (0..3).map(|_| self.next() as f32 / u32::MAX as f32).sum::<f32>() / 1.5 - 1.0
    }
}

/// Weights of rows of different scale.
pub fn weights(elements: usize, seed: u64) -> Vec<f32> {
    let mut noise = Noise(seed);
    (0..elements).map(|at| noise.signed() * 0.1 * 2f32.powi((at / 500 % 5) as i32)).collect()
}

/// The same weights after some training: every one moved by about `rate`, but for a part that is frozen.
pub fn tuned(weights: &[f32], rate: f32, seed: u64) -> Vec<f32> {
    let mut noise = Noise(seed);
    let frozen = weights.len() / 5..weights.len() / 3;
    let moved = weights.iter().enumerate().map(|(at, weight)| {
        let step = noise.signed() * rate * if at / 900 % 2 == 0 { 1.0 } else { 4.0 };
        if frozen.contains(&at) { *weight } else { weight + step }
    });
    moved.collect()
}

/// Weights as elements of this dtype, rounded towards zero.
pub fn elements(dtype: &str, weights: &[f32]) -> Vec<u8> {
    let cut = |weight: f32, exponent_bits: u32, mantissa_bits: u32| -> u32 {
        let bits = weight.to_bits();
        let bias = (1 << (exponent_bits - 1)) - 1;
        let magnitude = (bits & 0x7fff_ffff) >> (23 - mantissa_bits);
        let magnitude = magnitude.saturating_sub((127 - bias) << mantissa_bits);
        magnitude.min((1 << (exponent_bits + mantissa_bits)) - 2) | bits >> 31 << (exponent_bits + mantissa_bits)
    };
    let all = weights.iter();
    match dtype {
        "BF16" => all.flat_map(|w| (cut(*w, 8, 7) as u16).to_le_bytes()).collect(),
        "F16" => all.flat_map(|w| (cut(*w, 5, 10) as u16).to_le_bytes()).collect(),
        "F32" => all.flat_map(|w| w.to_bits().to_le_bytes()).collect(),
        "F8_E4M3" => all.map(|w| cut(*w, 4, 3) as u8).collect(),
        "F8_E5M2" => all.map(|w| cut(*w, 5, 2) as u8).collect(),
        "I32" => all.flat_map(|w| ((w * 1000.0) as i32).to_le_bytes()).collect(),
        "U8" => all.map(|w| (w * 20.0) as u8).collect(),
        other => panic!("{other} is not made"),
    }
}

pub struct Tensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn new(name: &str, dtype: &'static str, shape: &[usize], weights: &[f32]) -> Tensor {
        let elements = shape.iter().product::<usize>();
        let bytes = self::elements(dtype, &weights[..elements]);
        Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
    }
}

/// A safetensors file of these tensors, one behind the other.
pub fn file(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for Tensor { name, dtype, shape, bytes } in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let end = data.len();
        header
            .push(format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"));
    }
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A model of these files.
pub fn model(files: &[Arc<dyn Original>]) -> Model {
    let mut model = Model::new("base-model");
    for (number, file) in files.iter().enumerate() {
        model.add(&format!("model-{number}.safetensors"), file.clone()).unwrap();
    }
    model
}

pub fn memory(bytes: &[u8]) -> Arc<dyn Original> {
    Arc::new(Memory::new(bytes.to_vec()))
}

/// The patch that makes `tuned` of the model.
pub fn patch(tuned: &[u8], base: &Model, options: &Options) -> Vec<u8> {
    let mut patch = Vec::new();
    compress_patch(&Memory::new(tuned.to_vec()), "tuned.safetensors", options, base, &mut patch, &()).unwrap();
    patch
}

pub fn open(patch: &[u8]) -> Container {
    Container::from_store(Box::new(Memory::new(patch.to_vec()))).unwrap()
}

/// The patch over a base out of this model, or as it is if it is none.
pub fn over(patch: Container, base: &Model) -> Container {
    let Some(record) = patch.base_record() else { return patch };
    let base = base.base_for(record, Check::Md5, &()).unwrap();
    patch.with_base(base).unwrap()
}

pub fn contents(original: &dyn Original) -> Vec<u8> {
    let mut bytes = vec![0; original.len() as usize];
    original.read_at(0, &mut bytes).unwrap();
    bytes
}
