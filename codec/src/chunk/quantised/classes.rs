//! Which class each row of a chunk is in, from what is known before its quants are: scales, minima.
//!
//! Within a row quants are spread about the one that stands for zero, the less the larger the scale is beside the weights
//! around it (for then one weight of the row was far larger than the rest). All arithmetic here is that of IEEE 754 binary32, each
//! operation rounded to nearest even, and of integers.

use super::fields::{Classes, Fields};
use crate::quantised::BlockType;
use crate::simd::{Level, at_level};

/// How many classes there can be.
pub(super) const CLASSES: usize = 64;

/// Rows whose scales are compared.
const NEIGHBOURS: usize = 16;

/// Classes of the zero.
const ZEROS: i32 = 16;

/// What a half stands for: binary16, but that its largest exponent is one like the others.
#[inline(always)]
fn value(half: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(half & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | u32::from(half & 0x8000) << 16)
}

/// The scale of each row, and its minimum where there is one.
#[derive(Debug, Default)]
pub(super) struct RowScales {
    scales: Vec<f32>,
    minima: Vec<f32>,
    logs: Vec<i32>,
}

impl RowScales {
    /// Fills `classes` with those of the rows of a chunk, whose halves (of all blocks, the first ones first) and parts are these.
    pub(super) fn classes(
        &mut self,
        kind: BlockType,
        level: Level,
        halves: [&[u16]; 2],
        parts: [&[u8]; 2],
        classes: &mut Vec<u8>,
    ) {
        let Some(quants) = Fields::of(kind).quants else { return };
        self.set(kind, halves, parts);
        let RowScales { scales, minima, logs } = self;
        let logs = &mut logs[..];
        classes.clear();
        classes.resize(logs.len(), 0);
        let classes = &mut classes[..];
        match quants.classes {
            Classes::Scale { shift } => {
                at_level!(level, beside_neighbours::<16>(logs: &mut [i32], shift: u32, classes: &mut [u8]));
            }
            Classes::Zero => {
                let shift = COARSE;
                at_level!(level, beside_neighbours::<4>(logs: &mut [i32], shift: u32, classes: &mut [u8]));
                let step = ZEROS as f32 / (1u32 << quants.bits) as f32;
                let (scales, minima) = (&scales[..], &minima[..]);
                at_level!(level, add_zeros(scales: &[f32], minima: &[f32], step: f32, classes: &mut [u8]));
            }
        }
    }

    /// Takes the scales, their logarithms and the minima of all rows from halves and parts.
    fn set(&mut self, kind: BlockType, [scales, minima]: [&[u16]; 2], [first, second]: [&[u8]; 2]) {
        self.scales.clear();
        self.minima.clear();
        self.logs.clear();
        let per_block = Fields::of(kind).parts.first().map_or(1, |parts| parts.per_block);
        let of_part = |parts: &[u8], halves: &[u16], signed: fn(u8) -> i32, out: &mut Vec<f32>| {
            for (parts, &half) in parts.chunks_exact(per_block).zip(halves) {
                let half = value(half);
                out.extend(parts.iter().map(|&part| half * signed(part) as f32));
            }
        };
        match kind {
            BlockType::MXFP4 => self.logs.extend(first.iter().map(|&part| i32::from(part) << 10)),
            BlockType::NVFP4 => self.logs.extend(first.iter().map(|&part| i32::from(part) << 7)),
            BlockType::Q4_1 | BlockType::Q5_1 => {
                self.scales.extend(scales.iter().map(|&half| value(half)));
                self.minima.extend(minima.iter().map(|&half| -value(half)));
            }
            BlockType::Q2_K | BlockType::Q4_K | BlockType::Q5_K => {
                of_part(first, scales, i32::from, &mut self.scales);
                of_part(second, minima, i32::from, &mut self.minima);
            }
            BlockType::Q6_K => {
                of_part(first, scales, |part| i32::from(super::fields::fold(part) as i8), &mut self.scales);
            }
            BlockType::Q3_K | BlockType::IQ4_XS => {
                of_part(first, scales, |part| i32::from(part) - 32, &mut self.scales);
            }
            _ => self.scales.extend(scales.iter().map(|&half| value(half))),
        }
        // The bits of a float grow like its logarithm.
        self.logs.extend(self.scales.iter().map(|scale| ((scale.to_bits() & 0x7fff_ffff) >> 13) as i32));
    }
}

/// The bits of a step of the scale beside [`Classes::Zero`].
const COARSE: u32 = 8;

/// Sets each class to how much larger a logarithm is than the mean of its neighbours, in `STEPS` steps of `shift` bits about
/// the middle.
#[inline(always)]
fn beside_neighbours<const STEPS: i32>(logs: &mut [i32], shift: u32, classes: &mut [u8]) {
    for (logs, classes) in logs.chunks_mut(NEIGHBOURS).zip(classes.chunks_mut(NEIGHBOURS)) {
        let mean = logs.iter().sum::<i32>() / logs.len() as i32;
        for (class, log) in classes.iter_mut().zip(logs) {
            *class = (((*log - mean) >> shift) + STEPS / 2).clamp(0, STEPS - 1) as u8;
        }
    }
}

/// Adds to each class, below 4, four times that of the element that stands for zero, one of 16 steps.
#[inline(always)]
fn add_zeros(scales: &[f32], minima: &[f32], step: f32, classes: &mut [u8]) {
    for ((class, scale), minimum) in classes.iter_mut().zip(scales).zip(minima) {
        // (What is no number becomes 0, what is too large the largest.)
        *class += 4 * ((minimum / scale * step) as i32).clamp(0, ZEROS - 1) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(kind: BlockType, halves: [&[u16]; 2], parts: [&[u8]; 2]) -> Vec<u8> {
        let all: Vec<Vec<u8>> = Level::available()
            .map(|level| {
                let mut classes = vec![9];
                RowScales::default().classes(kind, level, halves, parts, &mut classes);
                classes
            })
            .collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "all levels give the same classes");
        all[0].clone()
    }

    #[test]
    fn halves_are_what_they_stand_for() {
        assert_eq!([0x3c00, 0xc000, 1, 0x8000, 0x7bff].map(value), [1.0, -2.0, f32::powi(2.0, -24), 0.0, 65504.0]);
        assert_eq!(value(0x7c00), 65536.0);
    }

    #[test]
    fn a_scale_is_compared_with_those_around_it() {
        // 1, but for one that is 2, 1024 more: the mean is 64 more than those of the others.
        let mut halves = [0x3c00; 16];
        halves[3] = 0x4000;
        let mut expected = [7; 16];
        expected[3] = 15;
        assert_eq!(classes(BlockType::Q8_0, [&halves, &[]], [&[], &[]]), expected);
        // The sign is no matter, and the next 16 are by themselves.
        let more = [halves.map(|half| half | 0x8000).to_vec(), vec![0x1234]].concat();
        assert_eq!(classes(BlockType::Q8_0, [&more, &[]], [&[], &[]]), [&expected[..], &[8]].concat());
    }

    #[test]
    fn the_zero_is_where_scale_and_minimum_say() {
        // A scale of 1: minima of 0, 7.5, 15 and beyond; no scale, with and without a minimum.
        let (scales, minima) = ([0x3c00, 0x3c00, 0x3c00, 0x3c00, 0, 0], [0, 0xc780, 0xcb80, 0xd000, 0xbc00, 0]);
        let all = classes(BlockType::Q4_1, [&scales, &minima], [&[], &[]]);
        assert_eq!(all.iter().map(|class| class / 4).collect::<Vec<_>>(), [0, 7, 15, 15, 15, 0]);
        // Those of five bits have as many classes.
        let all = classes(BlockType::Q5_1, [&scales, &minima], [&[], &[]]);
        assert_eq!(all.iter().map(|class| class / 4).collect::<Vec<_>>(), [0, 3, 7, 15, 15, 0]);
        // 2 * 3 times and 1 * 20 less: 3.33.
        let (first, second) = ([3; 8], [20; 8]);
        assert_eq!(classes(BlockType::Q4_K, [&[0x4000], &[0x3c00]], [&first, &second]), [4 * 3 + 2; 8]);
    }
}
