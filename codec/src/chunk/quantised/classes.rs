//! Which class each row of a chunk is in, from what is known before its quants are: scales, minima.
//!
//! Within a row quants are spread about the one that stands for zero, the less the larger the scale is beside the weights
//! around it (for then one weight of the row was far larger than the rest). All arithmetic here is that of IEEE 754 binary32, each
//! operation rounded to nearest even, and of integers.

use std::hint::black_box;

use super::fields::{Classes, Fields, fold};
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
        [scales, minima]: [&[u16]; 2],
        [first, second]: [&[u8]; 2],
        classes: &mut Vec<u8>,
    ) {
        let fields = Fields::of(kind);
        let rows = if fields.parts.is_empty() { scales.len() } else { first.len() };
        self.scales.resize(rows, 0.0);
        self.minima.resize(rows, 0.0);
        self.logs.resize(rows, 0);
        classes.resize(rows, 0);
        let (rows, classes) = (&mut *self, &mut classes[..]);
        macro_rules! of_all {
            ($($kind:ident)*) => {
                match kind {
                    $(BlockType::$kind => at_level!(
                        level,
                        of_rows::<{ BlockType::$kind.number() }>(
                            scales: &[u16], minima: &[u16], first: &[u8], second: &[u8], rows: &mut RowScales, classes: &mut [u8]
                        )
                    ),)*
                    _ => classes.fill(0),
                }
            };
        }
        of_all!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NVFP4);
    }
}

/// [`RowScales::classes`] for the type with a number.
#[inline(always)]
fn of_rows<const KIND: u8>(
    scales: &[u16],
    minima: &[u16],
    first: &[u8],
    second: &[u8],
    rows: &mut RowScales,
    classes: &mut [u8],
) {
    let kind = const { super::kind_of(KIND) };
    let Some(quants) = (const { Fields::of(super::kind_of(KIND)).quants }) else { return };
    let RowScales { scales: of_rows, minima: minima_of_rows, logs } = rows;
    match kind {
        BlockType::MXFP4 => logs.iter_mut().zip(first).for_each(|(log, &part)| *log = i32::from(part) << 10),
        BlockType::NVFP4 => logs.iter_mut().zip(first).for_each(|(log, &part)| *log = i32::from(part) << 7),
        BlockType::Q2_K => {
            of_parts::<16>(first, scales, i32::from, of_rows);
            of_parts::<16>(second, minima, i32::from, minima_of_rows);
        }
        BlockType::Q4_K | BlockType::Q5_K => {
            of_parts::<8>(first, scales, i32::from, of_rows);
            of_parts::<8>(second, minima, i32::from, minima_of_rows);
        }
        BlockType::Q6_K => of_parts::<16>(first, scales, |part| i32::from(fold(part) as i8), of_rows),
        BlockType::Q3_K => of_parts::<16>(first, scales, |part| i32::from(part) - 32, of_rows),
        BlockType::IQ4_XS => of_parts::<8>(first, scales, |part| i32::from(part) - 32, of_rows),
        _ => {
            of_rows.iter_mut().zip(scales).for_each(|(scale, &half)| *scale = value(half));
            if matches!(quants.classes, Classes::Zero) {
                minima_of_rows.iter_mut().zip(minima).for_each(|(minimum, &half)| *minimum = -value(half));
            }
        }
    }
    if !matches!(kind, BlockType::MXFP4 | BlockType::NVFP4) {
        // The bits of a float grow like its logarithm.
        logs.iter_mut().zip(&*of_rows).for_each(|(log, scale)| *log = ((scale.to_bits() & 0x7fff_ffff) >> 13) as i32);
    }
    match quants.classes {
        Classes::Scale { shift } => beside_neighbours::<16>(logs, shift, classes),
        Classes::Zero => {
            beside_neighbours::<4>(logs, COARSE, classes);
            add_zeros(of_rows, minima_of_rows, ZEROS as f32 / (1u32 << quants.bits) as f32, classes);
        }
    }
}

/// Sets `out` to each part, of which blocks have `EACH`, times the half of its block.
#[inline(always)]
fn of_parts<const EACH: usize>(parts: &[u8], halves: &[u16], signed: fn(u8) -> i32, out: &mut [f32]) {
    let blocks = out.as_chunks_mut::<EACH>().0.iter_mut().zip(parts.as_chunks::<EACH>().0).zip(halves);
    for ((out, parts), &half) in blocks {
        // What the compiler knows nothing of keeps it from taking the same part of many blocks together, by gathering.
        let half = black_box(value(half));
        out.iter_mut().zip(parts).for_each(|(out, &part)| *out = half * signed(part) as f32);
    }
}

/// The bits of a step of the scale beside [`Classes::Zero`].
const COARSE: u32 = 8;

/// Sets each class to how much larger a logarithm is than the mean of its neighbours, in `STEPS` steps of `shift` bits about
/// the middle.
#[inline(always)]
fn beside_neighbours<const STEPS: i32>(logs: &[i32], shift: u32, classes: &mut [u8]) {
    let (whole, rest) = logs.as_chunks::<NEIGHBOURS>();
    let (whole_classes, rest_classes) = classes.as_chunks_mut::<NEIGHBOURS>();
    for (logs, classes) in whole.iter().zip(whole_classes) {
        // As above.
        of_neighbours::<STEPS>(logs, black_box(logs.iter().sum::<i32>() / NEIGHBOURS as i32), shift, classes);
    }
    if !rest.is_empty() {
        of_neighbours::<STEPS>(rest, rest.iter().sum::<i32>() / rest.len() as i32, shift, rest_classes);
    }
}

/// The classes of neighbours whose logarithms have this mean.
#[inline(always)]
fn of_neighbours<const STEPS: i32>(logs: &[i32], mean: i32, shift: u32, classes: &mut [u8]) {
    for (class, log) in classes.iter_mut().zip(logs) {
        *class = (((log - mean) >> shift) + STEPS / 2).clamp(0, STEPS - 1) as u8;
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
