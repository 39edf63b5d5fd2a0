//! Chunks of few distinct values: the values, and for each element the number of its own.
//!
//! Codebooks, masks, weights that were quantised and turned into floats again. The values are those of the whole segment,
//! the most frequent first, so that numbers mean the same in all its chunks and frequent ones are small; a chunk may add
//! some.

use super::block::{Buffers, Coder, Scratch};
use super::plane::{self, PlanePlan};
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::wire::{Put, Reader};

/// The most values that a palette has: as many as a byte can number.
const MOST: usize = 256;

/// Entries of the table in which values are looked up: few enough collisions with all values in it.
const ENTRIES: usize = 4 * MOST;

/// Values with the order in which they were added.
#[derive(Clone, Debug)]
pub(super) struct Palette {
    values: Vec<u64>,
    /// The number of the value that belongs there, plus one; by linear probing.
    entries: Vec<u16>,
}

impl Palette {
    fn new() -> Palette {
        Palette { values: Vec::new(), entries: vec![0; ENTRIES] }
    }

    fn of(values: &[u64]) -> Palette {
        let mut palette = Palette::new();
        values.iter().for_each(|&value| {
            palette.number(value);
        });
        palette
    }

    /// The number of `value`, which is added if it is new; `None` when there is no room for it.
    #[inline]
    fn number(&mut self, value: u64) -> Option<u8> {
        let mut at = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ENTRIES.ilog2())) as usize;
        loop {
            match self.entries[at] {
                0 if self.values.len() == MOST => return None,
                0 => {
                    self.values.push(value);
                    self.entries[at] = self.values.len() as u16;
                    return Some((self.values.len() - 1) as u8);
                }
                number if self.values[usize::from(number) - 1] == value => return Some((number - 1) as u8),
                _ => at = (at + 1) % ENTRIES,
            }
        }
    }

    /// Appends the numbers of the elements of `size` bytes that `bytes` are to `numbers`; `false` when there are too many
    /// values.
    fn number_all(&mut self, size: usize, bytes: &[u8], numbers: &mut Vec<u8>) -> bool {
        match size {
            1 => self.number_all_of::<1>(bytes, numbers),
            2 => self.number_all_of::<2>(bytes, numbers),
            4 => self.number_all_of::<4>(bytes, numbers),
            _ => self.number_all_of::<8>(bytes, numbers),
        }
    }

    fn number_all_of<const SIZE: usize>(&mut self, bytes: &[u8], numbers: &mut Vec<u8>) -> bool {
        numbers.reserve(bytes.len() / SIZE);
        let mut last = (0, None);
        for element in bytes.as_chunks::<SIZE>().0 {
            let mut value = [0; 8];
            value[..SIZE].copy_from_slice(element);
            let value = u64::from_le_bytes(value);
            if last.1.is_none() || last.0 != value {
                last = (value, self.number(value));
            }
            let Some(number) = last.1 else { return false };
            numbers.push(number);
        }
        true
    }
}

/// How the chunks of a segment are stored: `T` is a [`Table`], or a [`Coder`] once it is ready.
#[derive(Clone, Debug)]
pub(crate) struct PalettePlan<T> {
    palette: Palette,
    numbers: PlanePlan<T>,
}

impl PalettePlan<Table> {
    /// The plan for a segment of elements of `size` bytes in chunks of `chunk_size`, of which `sample` is a part and the
    /// whole `scale` times more, and the bits that the sample then takes; `None` when there are too many values.
    pub(super) fn of(
        size: usize,
        sample: &[u8],
        scale: f64,
        chunk_size: u32,
        level: i32,
    ) -> Option<(PalettePlan<Table>, f64)> {
        let (mut found, mut numbers) = (Palette::new(), Vec::new());
        if !found.number_all(size, sample, &mut numbers) {
            return None;
        }
        let mut counts = [0u64; MOST];
        numbers.iter().for_each(|&number| counts[usize::from(number)] += 1);
        // Sorting is stable: equally frequent ones stay in the order of their first occurrence.
        let mut order: Vec<usize> = (0..found.values.len()).collect();
        order.sort_by_key(|&number| std::cmp::Reverse(counts[number]));
        let mut number_of = [0; MOST];
        order.iter().enumerate().for_each(|(new, &old)| number_of[old] = new as u8);
        numbers.iter_mut().for_each(|number| *number = number_of[usize::from(*number)]);
        let palette = Palette::of(&order.iter().map(|&number| found.values[number]).collect::<Vec<_>>());
        let (numbers, bits) = PlanePlan::of(&numbers, scale, level);
        // Each chunk has it.
        let chunks = sample.len().div_ceil(chunk_size as usize);
        let palette_bits = (palette.values.len() * size * 8 * chunks) as f64;
        Some((PalettePlan { palette, numbers }, bits + palette_bits))
    }

    /// The plan ready to run. Its table is appended to those of the segment.
    pub(super) fn ready(self, tables: &mut Vec<Table>) -> PalettePlan<Coder> {
        PalettePlan { palette: self.palette, numbers: self.numbers.ready(tables) }
    }
}

impl PalettePlan<Coder> {
    /// Appends `bytes`, elements of `size` bytes, to `stored`. Returns `false`, with `stored` in an unspecified state beyond
    /// its old end, when they have too many values.
    pub(super) fn encode(&self, size: usize, bytes: &[u8], buffers: &mut Buffers, stored: &mut Vec<u8>) -> bool {
        let mut palette = self.palette.clone();
        let mut numbers = std::mem::take(&mut buffers.plane);
        numbers.clear();
        let few = palette.number_all(size, bytes, &mut numbers);
        if few {
            stored.put_u16(palette.values.len() as u16);
            palette.values.iter().for_each(|value| stored.extend_from_slice(&value.to_le_bytes()[..size]));
            self.numbers.encode(&numbers, buffers, stored);
        }
        buffers.plane = numbers;
        few
    }
}

/// Decodes a chunk of elements of `size` bytes, which `out` is long enough for.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not one that an encoder writes.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    size: usize,
    tables: &[Table],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let count = usize::from(reader.u16()?);
    if count > MOST {
        return Err(Error::corrupt(format!("a palette has {count} values")));
    }
    let values = reader.take(count * size)?;
    let mut numbers = std::mem::take(&mut scratch.plane);
    numbers.resize(out.len() / size, 0);
    let decoded = plane::decode(reader, tables, &mut numbers, scratch).and_then(|()| {
        if !numbers.is_empty() && usize::from(numbers.iter().fold(0, |most, &number| most.max(number))) >= count {
            return Err(Error::corrupt(format!("an element has a value that its palette of {count} lacks")));
        }
        match size {
            1 => look_up::<1>(values, &numbers, out),
            2 => look_up::<2>(values, &numbers, out),
            4 => look_up::<4>(values, &numbers, out),
            _ => look_up::<8>(values, &numbers, out),
        }
        Ok(())
    });
    scratch.plane = numbers;
    decoded
}

fn look_up<const SIZE: usize>(values: &[u8], numbers: &[u8], out: &mut [u8]) {
    // As long as a number can be, so that none need be checked.
    let mut all = [[0; SIZE]; MOST];
    all.iter_mut().zip(values.as_chunks().0).for_each(|(entry, value)| *entry = *value);
    for (element, &number) in out.as_chunks_mut().0.iter_mut().zip(numbers) {
        *element = all[usize::from(number)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{self, Codec, Place};
    use crate::split::Element;

    fn decoded(stored: &[u8]) -> Result<Vec<u8>> {
        let mut out = vec![0; 6];
        let place = Place { element: Element::F16, tables: &[], scale: None, first: 0, against: None };
        chunk::decode(Codec::Palette, place, stored, &mut out, &mut Scratch::default())?;
        Ok(out)
    }

    #[test]
    fn numbers_become_values_and_forged_ones_are_refused() {
        // Two values, and a plane that is stored as it is.
        let sound = [2, 0, 10, 11, 20, 21, 0, 1, 0, 1];
        assert_eq!(decoded(&sound).unwrap(), [20, 21, 10, 11, 20, 21]);
        assert!(decoded(&[2, 0, 10, 11, 20, 21, 0, 1, 2, 1]).is_err(), "there is no value 2");
        assert!(decoded(&[&sound[..], &[0]].concat()).is_err());
        assert!(decoded(&[&[1, 1][..], &[0; 514], &[1, 0]].concat()).is_err(), "257 values");
        for len in 0..sound.len() {
            assert!(decoded(&sound[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_palette_holds_as_many_values_as_it_can() {
        let mut palette = Palette::new();
        // All in one place of the table that they are looked up in.
        let values: Vec<u64> = (0..MOST as u64).map(|number| number << 32 << 24).collect();
        for (number, &value) in values.iter().enumerate() {
            assert_eq!(palette.number(value), Some(number as u8));
        }
        assert_eq!(palette.number(1), None);
        assert_eq!(palette.number(values[77]), Some(77));
    }

    #[test]
    fn a_chunk_may_add_values_until_there_are_too_many() {
        let sample: Vec<u8> = (0..2000u32).flat_map(|i| (i % 100 * 1000).to_le_bytes()).collect();
        let (plan, _) = PalettePlan::of(4, &sample, 1.0, 1 << 18, 3).unwrap();
        let mut tables = Vec::new();
        let plan = plan.ready(&mut tables);
        for (values, fits) in [(100u32, true), (256, true), (257, false)] {
            let chunk: Vec<u8> = (0..3000u32).flat_map(|i| (i % values * 1000).to_le_bytes()).collect();
            let mut stored = Vec::new();
            assert_eq!(plan.encode(4, &chunk, &mut Buffers::default(), &mut stored), fits);
            if fits {
                let mut out = vec![0; chunk.len()];
                decode(&mut Reader::new(&stored), 4, &tables, &mut out, &mut Scratch::default()).unwrap();
                assert!(out == chunk);
            }
        }
    }
}
