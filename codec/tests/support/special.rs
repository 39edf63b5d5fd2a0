//! Tensors of the kinds that are not plain weights: pruned, quantised, rounded, repeated, masks, tables, noise.
//!
//! All are made from weights that the caller brings (real ones, or noise with their distribution) and from a seed, so that
//! they are the same every time.

#[path = "random.rs"]
mod random;

pub use random::Random;

/// Columns of all matrices: so many elements are a row.
pub const COLUMNS: usize = 384;

/// A tensor to compress.
#[derive(Debug)]
pub struct Input {
    pub name: String,
    pub dtype: &'static str,
    /// How many elements it has; those of less than a byte are counted as such.
    pub elements: usize,
    pub bytes: Vec<u8>,
}

impl Input {
    fn new<const N: usize>(
        name: impl Into<String>,
        dtype: &'static str,
        elements: impl IntoIterator<Item = [u8; N]>,
    ) -> Input {
        let bytes: Vec<u8> = elements.into_iter().flatten().collect();
        Input { name: name.into(), dtype, elements: bytes.len() / N, bytes }
    }

    fn f32(name: impl Into<String>, elements: impl IntoIterator<Item = f32>) -> Input {
        Input::new(name, "F32", elements.into_iter().map(f32::to_le_bytes))
    }

    fn bf16(name: impl Into<String>, elements: impl IntoIterator<Item = f32>) -> Input {
        Input::new(name, "BF16", elements.into_iter().map(|x| bf16(x).to_le_bytes()))
    }

    fn bytes(name: impl Into<String>, dtype: &'static str, elements: impl IntoIterator<Item = u8>) -> Input {
        Input::new(name, dtype, elements.into_iter().map(|byte| [byte]))
    }

    /// A safetensors file with this tensor alone.
    pub fn file(&self) -> Vec<u8> {
        // Rows where there are whole ones, as in a model.
        let shape = match self.elements % COLUMNS {
            0 => format!("{},{COLUMNS}", self.elements / COLUMNS),
            _ => self.elements.to_string(),
        };
        let mut header = format!(
            r#"{{"t":{{"dtype":"{}","shape":[{shape}],"data_offsets":[0,{}]}}}}"#,
            self.dtype,
            self.bytes.len()
        );
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&self.bytes);
        file
    }
}

impl Random {
    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }
}

/// Noise with the distribution of weights: nearly normal, each row of [`COLUMNS`] with a scale of its own.
pub fn made_up_weights(rows: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut weights = Vec::with_capacity(rows * COLUMNS);
    for _ in 0..rows {
        let scale = 0.02 * (1.5 * random.unit()).exp2();
        weights.extend((0..COLUMNS).map(|_| ((0..8).map(|_| random.unit()).sum::<f32>() - 4.0) * scale));
    }
    weights
}

fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The nearest F16, for numbers below 1 whose subnormals may be cut off.
fn f16(x: f32) -> u16 {
    let magnitude = ((x.to_bits() & 0x7fff_ffff) + 0x0fff) >> 13;
    magnitude.saturating_sub(112 << 10) as u16 | (x.to_bits() >> 16) as u16 & 0x8000
}

/// The same as F32 again.
fn f16_in_f32(x: f32) -> f32 {
    let half = f16(x);
    let magnitude = u32::from(half & 0x7fff);
    let magnitude = if magnitude == 0 { 0 } else { (magnitude + (112 << 10)) << 13 };
    f32::from_bits(magnitude | u32::from(half & 0x8000) << 16)
}

/// A float with so few bits that all its numbers can be listed.
struct SmallFloat {
    exponent_bits: u32,
    mantissa_bits: u32,
}

impl SmallFloat {
    /// The magnitude with these bits.
    fn magnitude(&self, bits: u32) -> f32 {
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        let (exponent, mantissa) = (bits >> self.mantissa_bits, bits & ((1 << self.mantissa_bits) - 1));
        let scale = ((exponent.max(1)) as f32 - bias as f32 - self.mantissa_bits as f32).exp2();
        (mantissa + if exponent > 0 { 1 << self.mantissa_bits } else { 0 }) as f32 * scale
    }

    /// The bits of the nearest number, the sign above the others, for those that are not too large.
    fn nearest(&self, x: f32) -> u8 {
        let bits = self.exponent_bits + self.mantissa_bits;
        // Magnitudes are in the order of their bits.
        let (mut low, mut high) = (0, (1 << bits) - 2);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.magnitude(middle) <= x.abs() { low = middle } else { high = middle }
        }
        let nearest = if self.magnitude(high) - x.abs() < x.abs() - self.magnitude(low) { high } else { low };
        (nearest | u32::from(x.is_sign_negative()) << bits) as u8
    }
}

const E4M3: SmallFloat = SmallFloat { exponent_bits: 4, mantissa_bits: 3 };
const E5M2: SmallFloat = SmallFloat { exponent_bits: 5, mantissa_bits: 2 };
const E2M3: SmallFloat = SmallFloat { exponent_bits: 2, mantissa_bits: 3 };
const E2M1: SmallFloat = SmallFloat { exponent_bits: 2, mantissa_bits: 1 };

/// The largest magnitude.
fn most(weights: &[f32]) -> f32 {
    weights.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()))
}

/// The magnitude below which so great a part of `weights` is.
fn quantile(weights: &[f32], part: f64) -> f32 {
    let mut magnitudes: Vec<f32> = weights.iter().map(|x| x.abs()).collect();
    magnitudes.sort_unstable_by(f32::total_cmp);
    magnitudes[((magnitudes.len() - 1) as f64 * part) as usize]
}

/// Four bits of each, two in a byte, the first in the low half.
fn nibbles(elements: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let elements: Vec<u8> = elements.into_iter().collect();
    elements.chunks_exact(2).map(|pair| pair[0] & 15 | pair[1] << 4).collect()
}

/// Each quantised to integers of at most `largest`, in groups of so many with a scale.
fn quantised(weights: &[f32], group: usize, largest: f32) -> Vec<i8> {
    let of_group = |group: &[f32]| {
        let scale = most(group) / largest;
        group.iter().map(|x| (x / scale).round() as i8).collect::<Vec<_>>()
    };
    weights.chunks(group).flat_map(of_group).collect()
}

/// All of them. `weights` are whole rows of [`COLUMNS`].
pub fn inputs(weights: &[f32]) -> Vec<Input> {
    let mut inputs = pruned(weights);
    inputs.extend(rounded(weights));
    inputs.extend(integers(weights));
    inputs.extend(palettes(weights));
    inputs.extend(repeated(weights));
    inputs.extend(tables_and_masks(weights.len()));
    inputs.extend(noise(weights));
    inputs
}

/// With zeros.
fn pruned(weights: &[f32]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for percent in [1, 10, 50, 90, 99] {
        let least = quantile(weights, f64::from(percent) / 100.0);
        let keep = |x: &f32| if x.abs() < least { 0.0 } else { *x };
        inputs.push(Input::bf16(format!("pruned {percent} %"), weights.iter().map(keep)));
        inputs.push(Input::f32(format!("pruned {percent} %"), weights.iter().map(keep)));
    }
    let least = quantile(weights, 0.5);
    let signed = |x: &f32| if x.abs() < least { 0.0f32.copysign(*x) } else { *x };
    inputs.push(Input::bf16("pruned 50 %, zeros with signs", weights.iter().map(signed)));
    inputs.push(Input::f32("pruned 50 %, zeros with signs", weights.iter().map(signed)));
    let two_of_four: Vec<f32> = weights
        .chunks(4)
        .flat_map(|four| {
            let middle = quantile(four, 0.5);
            four.iter().map(move |&x| if x.abs() <= middle { 0.0 } else { x }).collect::<Vec<_>>()
        })
        .collect();
    inputs.push(Input::bf16("2 of 4", two_of_four));
    let mut random = Random(1);
    let rows = weights.chunks(COLUMNS).flat_map(|row| {
        let keep = random.below(2) == 0;
        row.iter().map(move |&x| if keep { x } else { 0.0 })
    });
    inputs.push(Input::bf16("half of the rows pruned", rows));
    let int8 = quantised(weights, COLUMNS, 127.0).into_iter().zip(weights);
    inputs.push(Input::bytes("pruned 50 %", "I8", int8.map(|(q, x)| if x.abs() < least { 0 } else { q as u8 })));
    inputs.push(Input::bf16(
        "one row of 20 used",
        weights.iter().enumerate().map(|(i, &x)| if (i / COLUMNS).is_multiple_of(20) { x } else { 0.0 }),
    ));
    inputs
}

/// In more bits than they need, or in few.
fn rounded(weights: &[f32]) -> Vec<Input> {
    let of_f32 = |x: f32| f64::from(x).to_le_bytes();
    let scale = 448.0 / most(weights);
    vec![
        Input::f32("BF16 inside", weights.iter().map(|&x| f32::from_bits(u32::from(bf16(x)) << 16))),
        Input::f32("F16 inside", weights.iter().map(|&x| f16_in_f32(x))),
        Input::new("F32 inside", "F64", weights.iter().map(|&x| of_f32(x))),
        Input::new("BF16 inside", "F64", weights.iter().map(|&x| of_f32(f32::from_bits(u32::from(bf16(x)) << 16)))),
        Input::new("of their own", "F64", weights.iter().map(|&x| (f64::from(x) * std::f64::consts::PI).to_le_bytes())),
        Input { elements: weights.len() / 2, ..Input::f32("", weights.iter().copied()) }.renamed("weights", "C64"),
        Input::bytes("straight cast", "F8_E4M3", weights.iter().map(|&x| E4M3.nearest(x))),
        Input::bytes("straight cast", "F8_E5M2", weights.iter().map(|&x| E5M2.nearest(x))),
        Input::bytes("largest is 448", "F8_E4M3", weights.iter().map(|x| E4M3.nearest(x * scale))),
    ]
}

impl Input {
    fn renamed(self, name: &str, dtype: &'static str) -> Input {
        Input { name: name.into(), dtype, ..self }
    }
}

/// Quantised weights and their scales.
fn integers(weights: &[f32]) -> Vec<Input> {
    let int8 = quantised(weights, COLUMNS, 127.0);
    let int4 = quantised(weights, 32, 7.0);
    let unsigned = || int4.iter().map(|&q| (q + 8) as u8);
    let in_words = |bytes: Vec<u8>| Input { elements: bytes.len() / 4, ..Input::bytes("", "I32", bytes) };
    let mut inputs = vec![
        Input::bytes("8 bits, a scale a row", "I8", int8.iter().map(|&q| q as u8)),
        Input::bytes("8 bits, zero at 128", "U8", int8.iter().map(|&q| (q as u8) ^ 0x80)),
        Input::bytes("4 bits, two a byte", "U8", nibbles(unsigned())),
        in_words(nibbles(unsigned())).renamed("4 bits, eight a word", "I32"),
        Input::bytes(
            "4 bits, a scale a row",
            "U8",
            nibbles(quantised(weights, COLUMNS, 7.0).iter().map(|&q| (q + 8) as u8)),
        ),
        Input::bytes("4 bits, one a byte", "I8", int4.iter().map(|&q| q as u8)),
    ];
    // Packed along columns, as GPTQ does: the eight of a word are of one column.
    let transposed: Vec<u8> = unsigned().collect();
    let down = |i: usize| (i / (8 * COLUMNS) * 8 + i % 8) * COLUMNS + i / 8 % COLUMNS;
    let whole = transposed.len() / (8 * COLUMNS) * (8 * COLUMNS);
    inputs
        .push(in_words(nibbles((0..whole).map(|i| transposed[down(i)]))).renamed("4 bits, eight a word, down", "I32"));
    let of_blocks = |small: &SmallFloat, largest: f32, block: usize| {
        let encode = |block: &[f32]| {
            let exponent = (most(block) / largest).log2().ceil();
            (block.iter().map(|x| small.nearest(x / exponent.exp2())).collect::<Vec<u8>>(), (exponent + 127.0) as u8)
        };
        let (elements, scales): (Vec<_>, Vec<u8>) = weights.chunks(block).map(encode).unzip();
        (elements.concat(), scales)
    };
    let (mxfp4, scales) = of_blocks(&E2M1, 6.0, 32);
    inputs.push(Input::bytes("MXFP4, two a byte", "U8", nibbles(mxfp4.iter().copied())));
    inputs.push(Input { elements: mxfp4.len(), ..Input::bytes("MX blocks", "F4", nibbles(mxfp4)) });
    inputs.push(Input::bytes("scales of MX blocks", "F8_E8M0", scales));
    let (mxfp6, _) = of_blocks(&E2M3, 7.5, 32);
    let packed = mxfp6.chunks_exact(4).flat_map(|four| {
        let word = four.iter().rev().fold(0, |word, &bits| word << 6 | u32::from(bits));
        [word as u8, (word >> 8) as u8, (word >> 16) as u8]
    });
    inputs.push(Input { elements: mxfp6.len() / 4 * 4, ..Input::bytes("MX blocks", "F6_E2M3", packed) });
    let mean = weights.iter().map(|x| x.abs()).sum::<f32>() / weights.len() as f32;
    let ternary: Vec<u8> = weights.iter().map(|x| ((x / mean).round().clamp(-1.0, 1.0) + 1.0) as u8).collect();
    let fours = ternary.chunks_exact(4).map(|four| four[0] | four[1] << 2 | four[2] << 4 | four[3] << 6);
    inputs.push(Input::bytes("ternary, four a byte", "U8", fours));
    let fives = ternary.chunks_exact(5).map(|five| five.iter().rev().fold(0, |byte, trit| byte * 3 + trit));
    inputs.push(Input::bytes("ternary, five a byte", "U8", fives));
    let bits = weights.chunks_exact(8).map(|eight| eight.iter().fold(0, |byte, x| byte << 1 | u8::from(*x > 0.0)));
    inputs.push(Input::bytes("signs, eight a byte", "U8", bits));
    let normal = [
        -1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407,
        0.5626, 0.723, 1.0,
    ];
    let nf4 = weights.chunks(64).flat_map(|block| {
        let most = most(block);
        let nearest = move |x: &f32| {
            (0..16u8).min_by(|&a, &b| {
                let distance = |level: u8| (normal[usize::from(level)] - x / most).abs();
                distance(a).total_cmp(&distance(b))
            })
        };
        block.iter().map(nearest).map(|level| level.expect("there are 16")).collect::<Vec<_>>()
    });
    inputs.push(Input::bytes("NF4, two a byte", "U8", nibbles(nf4)));
    inputs
}

/// Few distinct values.
fn palettes(weights: &[f32]) -> Vec<Input> {
    let mut inputs = Vec::new();
    let most = most(weights);
    for count in [2, 3, 5, 16, 64, 100, 256] {
        // Levels of a codebook that was learned: the means of equally many weights.
        let mut sorted = weights.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let levels: Vec<f32> = sorted
            .chunks(weights.len().div_ceil(count))
            .map(|level| level.iter().sum::<f32>() / level.len() as f32)
            .collect();
        let nearest = |x: &f32| {
            let after = levels.partition_point(|level| level < x).min(levels.len() - 1);
            let before = after.saturating_sub(1);
            if x - levels[before] < levels[after] - x { levels[before] } else { levels[after] }
        };
        inputs.push(Input::f32(format!("codebook of {count}"), weights.iter().map(nearest)));
        inputs.push(Input::bf16(format!("codebook of {count}"), weights.iter().map(nearest)));
    }
    let of_tensor = |largest: f32| weights.iter().map(move |x| (x / most * largest).round() * (most / largest));
    inputs.push(Input::f32("as if of 8 bits", of_tensor(127.0)));
    inputs.push(Input::bf16("as if of 4 bits", of_tensor(7.0)));
    inputs.push(Input::new("as if of 4 bits", "F64", of_tensor(7.0).map(|x| f64::from(x).to_le_bytes())));
    let mut random = Random(2);
    let mut norm = || if random.below(500) == 0 { 1.0 + random.unit() } else { 1.0 };
    inputs.push(Input::f32("ones, but for one of 500", (0..weights.len()).map(|_| norm())));
    inputs
}

/// Exact repetitions.
fn repeated(weights: &[f32]) -> Vec<Input> {
    let rows: Vec<&[f32]> = weights.chunks(COLUMNS).collect();
    let mut random = Random(3);
    let mut any_of = |count: usize| rows[random.below(count)];
    let few: Vec<f32> = (0..rows.len()).flat_map(|_| any_of(8)).copied().collect();
    let some: Vec<f32> = (0..rows.len()).flat_map(|i| if i % 3 == 0 { any_of(40) } else { rows[i] }).copied().collect();
    let tail: Vec<f32> = rows
        .iter()
        .enumerate()
        .flat_map(|(i, row)| if i > rows.len() * 7 / 10 { rows[0] } else { row })
        .copied()
        .collect();
    let half = &weights[..weights.len() / 2];
    let slices = [half, half].concat();
    let quarter = [&weights[..weights.len() / 8]; 8].concat();
    let hole: Vec<f32> = weights
        .iter()
        .enumerate()
        .map(|(i, &x)| if i > weights.len() / 3 && i < weights.len() / 2 { 0.0 } else { x })
        .collect();
    let mut inputs =
        vec![Input::f32("8 rows again and again", few.iter().copied()), Input::bf16("8 rows again and again", few)];
    inputs.push(Input::bf16("a third of the rows of 40", some));
    inputs.push(Input::bf16("the last 30 % one row", tail));
    inputs.push(Input::f32("twice the same half", slices.iter().copied()));
    inputs.push(Input::bf16("twice the same half", slices));
    inputs.push(Input::f32("eight times the same", quarter.iter().copied()));
    inputs.push(Input::bf16("eight times the same", quarter));
    inputs.push(Input::bf16("a sixth in the middle zero", hole));
    inputs
}

/// Positions, masks, indices.
fn tables_and_masks(len: usize) -> Vec<Input> {
    let side = len.isqrt() / 8 * 8;
    let mask = || (0..side * side).map(move |i| i % side <= i / side);
    let mut random = Random(4);
    let mut zipf = |most: f32| (most.powf(random.unit().powi(2)) - 1.0) as u32;
    let ids: Vec<u32> = (0..len / 2).map(|_| zipf(30_000.0)).collect();
    let window = 12i64.min((len as f64).sqrt() as i64 / 12);
    let relative = (0..window.pow(4)).map(|i| {
        let (a, b) = (i / (window * window), i % (window * window));
        ((a / window - b / window + window - 1) * (2 * window - 1) + a % window - b % window + window - 1).to_le_bytes()
    });
    let sinusoid = |i: usize| {
        let (row, column) = (i / COLUMNS, i % COLUMNS);
        let angle = row as f64 * 10_000f64.powf(-((column / 2 * 2) as f64) / COLUMNS as f64);
        (if column % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
    };
    let cosine = |i: usize| {
        let (row, column) = (i / 64, i % 64);
        (row as f64 * 10_000f64.powf(-((column % 32) as f64) / 32.0)).cos() as f32
    };
    let mut random = Random(5);
    let mut offset = 0;
    let mut offsets = || {
        offset += random.below(200) as i64;
        offset.to_le_bytes()
    };
    vec![
        Input::new("positions", "I64", (0..len as i64 / 8).map(i64::to_le_bytes)),
        Input::new("positions of 512, repeated", "I64", (0..len as i64 / 8).map(|i| (i % 512).to_le_bytes())),
        Input::new("positions", "I32", (0..len as i32 / 4).map(i32::to_le_bytes)),
        Input::new("relative positions of windows", "I64", relative),
        Input::new("groups of 128", "I32", (0..len as i32 / 4).map(|i| (i / 128).to_le_bytes())),
        Input::new("ascending offsets", "I64", (0..len / 8).map(|_| offsets())),
        Input::new("token ids", "I64", ids.iter().map(|&id| i64::from(id).to_le_bytes())),
        Input::new("token ids", "I32", ids.iter().map(|&id| id.to_le_bytes())),
        Input::new("token ids", "U16", ids.iter().map(|&id| (id as u16).to_le_bytes())),
        Input::f32("sinusoidal positions", (0..len).map(sinusoid)),
        Input::bf16("sinusoidal positions", (0..len).map(sinusoid)),
        Input::f32("rotary cosines", (0..len / 2).map(cosine)),
        Input::bytes("causal mask", "BOOL", mask().map(u8::from)),
        Input::f32("causal mask, 0 and 1", mask().map(|seen| f32::from(u8::from(seen)))),
        Input::f32("causal mask, 0 and -inf", mask().map(|seen| if seen { 0.0 } else { f32::NEG_INFINITY })),
        Input::bf16("causal mask, 0 and least", mask().map(|seen| if seen { 0.0 } else { -3.39e38 })),
        Input::bytes("random mask", "BOOL", ids.iter().map(|&id| (id & 1) as u8)),
    ]
}

/// What nothing can be done about, or everything.
fn noise(weights: &[f32]) -> Vec<Input> {
    let mut random = Random(6);
    let bytes: Vec<u8> = (0..weights.len() / 4).flat_map(|_| random.next().to_le_bytes()).collect();
    let of = |dtype, size: usize| Input {
        name: "random bytes".into(),
        dtype,
        elements: bytes.len() / size,
        bytes: bytes.clone(),
    };
    let text = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs, ";
    let words: Vec<&[u8]> = text.split_inclusive(' ').map(str::as_bytes).collect();
    let mut prose = Vec::new();
    while prose.len() < weights.len() {
        prose.extend_from_slice(words[random.below(words.len())]);
    }
    vec![
        of("U8", 1),
        of("BF16", 2),
        of("F16", 2),
        of("F32", 4),
        of("F8_E4M3", 1),
        of("I64", 8),
        of("F64", 8),
        Input::f32("all NaN", weights.iter().map(|_| f32::NAN)),
        Input::f32(
            "NaN with payloads",
            bytes.as_chunks().0.iter().map(|&word| f32::from_bits(u32::from_le_bytes(word) | 0x7fc0_0000)),
        ),
        Input::bf16("zeros", weights.iter().map(|_| 0.0)),
        Input::bytes("words", "U8", prose),
        Input::bf16("weights, for comparison", weights.iter().copied()),
        Input::f32("weights, for comparison", weights.iter().copied()),
    ]
}
