//! Scale normalisation: what rows and columns of a tensor differ in is taken out of the exponents, so that few tables
//! fit all of it.
//!
//! Weights of one row, or of one column, are often larger than those of the next by some factor. On the magnitude of a
//! float (its bits but the sign), which grows by one *octave* where the value doubles, a factor is an offset. Elements are
//! therefore coded as if their magnitude were smaller, modulo the range of magnitudes, by an offset that is made of two
//! parts: one for the *run* of elements that they are in, one for their column.
//!
//! An offset that is no whole number of octaves smears the density of mantissas, which steps by half at each octave, over
//! the alphabet. So the offset of a run is rounded down to octaves, and what is left, its *phase*, chooses one of up to
//! four tables, each for magnitudes that are a part of an octave larger.
//!
//! Offsets are multiples of half an octave. All dtypes keep that in the upper 16 bits of an element (or in its 8), so that
//! all arithmetic here is in 16 bits: a *step* is the lowest of them.

use crate::error::{Error, Result};
use crate::rans::LANES;
use crate::split::Element;
use crate::wire::{Put, Reader};

/// The elements of four groups: runs are multiples of them, and chunks begin at multiples of them.
pub(crate) const QUAD: usize = 4 * LANES;

/// The most phases, and so tables, that there are.
pub(crate) const MAX_PHASES: usize = 4;

/// The largest width of a run's code in a chunk.
const MAX_CODE_BITS: u8 = 8;

/// How the elements of a segment are normalised; the codes of its runs are in its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Quads of a run, at least 1. Runs are counted from the segment's first element.
    pub(crate) run: u64,
    /// 1, 2 or 4: the code of a run counts octaves divided by this.
    pub(crate) phases: u8,
    /// Whether the codes of columns count halves of octaves, not whole ones.
    pub(crate) half_octaves: bool,
    /// The code of each column: element `i` of the segment is in column `i` modulo their number. None at all is the same
    /// as one that is 0.
    pub(crate) columns: Vec<i8>,
}

/// What is done to the magnitudes of a quad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuadScale {
    /// What was taken from them, in steps, modulo 2^16.
    pub(crate) offset: u16,
    /// The number of their table.
    pub(crate) phase: u8,
}

/// The codes of a chunk's runs as they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedRuns<'a> {
    /// Bits of a packed code, at most 8.
    pub(crate) bits: u8,
    /// What is added to each.
    pub(crate) base: i32,
    /// The codes, the first in the lowest bits.
    pub(crate) codes: &'a [u8],
}

impl Scale {
    /// Steps of an octave.
    ///
    /// # Panics
    /// When the elements are no floats.
    pub(crate) fn octave(element: Element) -> u16 {
        match element {
            Element::Bf16 | Element::F32 => 1 << 7,
            Element::F16 => 1 << 10,
            Element::F8E4M3 => 1 << 3,
            Element::F8E5M2 => 1 << 2,
            Element::Bytes(_) | Element::Blocks(_) => panic!("integers are not normalised"),
        }
    }

    /// Steps of a column's code.
    pub(crate) fn column_unit(&self, element: Element) -> u16 {
        Scale::octave(element) >> u32::from(self.half_octaves)
    }

    /// The number of the run, of those that a chunk which begins at element `first` has a share in, that its quad is in.
    fn run_of(&self, first: u64, quad: usize) -> usize {
        let first = first / QUAD as u64;
        ((first + quad as u64) / self.run - first / self.run) as usize
    }

    /// How many runs the quads of a chunk of so many elements, the first of them number `first`, are in.
    pub(crate) fn runs(&self, first: u64, elements: usize) -> usize {
        match elements.div_ceil(QUAD) {
            0 => 0,
            quads => self.run_of(first, quads - 1) + 1,
        }
    }

    /// What is done to a quad whose run has this code.
    fn quad_scale(&self, octave: u16, code: i32) -> QuadScale {
        let phases = i32::from(self.phases);
        QuadScale { offset: (code.div_euclid(phases) * i32::from(octave)) as u16, phase: code.rem_euclid(phases) as u8 }
    }

    /// Fills `quads` with what is done to each quad of such a chunk, whose runs have these codes.
    pub(crate) fn quads_of(&self, octave: u16, first: u64, elements: usize, codes: &[i32], quads: &mut Vec<QuadScale>) {
        quads.clear();
        let count = elements.div_ceil(QUAD);
        let mut run = self.run - first / QUAD as u64 % self.run;
        for &code in codes {
            let left = count - quads.len();
            let len = usize::try_from(run).map_or(left, |run| run.min(left));
            quads.extend(std::iter::repeat_n(self.quad_scale(octave, code), len));
            run = self.run;
        }
        assert_eq!(quads.len(), count, "there is a code for each run");
    }

    /// Takes the codes of the runs of such a chunk off the front of `reader`, and leaves them as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when there are too few, or they are too wide.
    pub(crate) fn read_packed_runs<'a>(
        &self,
        reader: &mut Reader<'a>,
        first: u64,
        elements: usize,
    ) -> Result<PackedRuns<'a>> {
        let bits = reader.u8()?;
        if bits > MAX_CODE_BITS {
            return Err(Error::corrupt(format!("the runs of a chunk have codes of {bits} bits")));
        }
        let base = i32::from(reader.u16()? as i16);
        let codes = reader.take((self.runs(first, elements) * usize::from(bits)).div_ceil(8))?;
        Ok(PackedRuns { bits, base, codes })
    }

    /// Takes the codes of the runs of such a chunk off the front of `reader` and fills `quads` with what is done to each
    /// quad. `codes` is memory to work in.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when there are too few, or they are too wide.
    pub(crate) fn read_runs(
        &self,
        reader: &mut Reader<'_>,
        octave: u16,
        first: u64,
        elements: usize,
        codes: &mut Vec<i32>,
        quads: &mut Vec<QuadScale>,
    ) -> Result<()> {
        let packed = self.read_packed_runs(reader, first, elements)?;
        let runs = self.runs(first, elements);
        codes.clear();
        codes.extend(unpack(packed.codes, packed.bits).take(runs).map(|code| packed.base + i32::from(code)));
        codes.resize(runs, packed.base);
        self.quads_of(octave, first, elements, codes, quads);
        Ok(())
    }
}

/// The codes of `bits` bits (at most 8) in `packed`, the first in the lowest bits; none if they have no bits.
fn unpack(packed: &[u8], bits: u8) -> impl Iterator<Item = u8> {
    let bits = usize::from(bits);
    let codes = (packed.len() * 8).checked_div(bits).unwrap_or(0);
    (0..codes).map(move |number| {
        let at = number * bits;
        let two = u16::from(packed[at / 8]) | packed.get(at / 8 + 1).map_or(0, |&next| u16::from(next) << 8);
        (two >> (at % 8)) as u8 & (u8::MAX >> (8 - bits))
    })
}

/// Appends the codes of a chunk's runs to `out`, and makes of those that differ most from the others what is stored for
/// them: the nearest that fits.
pub(crate) fn write_runs(codes: &mut [i32], out: &mut Vec<u8>) {
    let (base, bits) = window(codes);
    out.push(bits);
    out.put_u16(base as u16);
    let last = (1 << bits) - 1;
    let (mut pending, mut pending_bits) = (0u32, 0);
    for code in codes {
        let offset = (*code - base).clamp(0, last);
        *code = base + offset;
        pending |= (offset as u32) << pending_bits;
        pending_bits += u32::from(bits);
        if pending_bits >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            pending_bits -= 8;
        }
    }
    if pending_bits > 0 {
        out.push(pending as u8);
    }
}

/// The least code that is stored, and the bits of a code: few outliers are not worth a bit of all others.
fn window(codes: &[i32]) -> (i32, u8) {
    let mut sorted = codes.to_vec();
    sorted.sort_unstable();
    let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else { return (0, 0) };
    // An outlier that is off by `d` codes costs its elements about as many bits as a whole run has elements times d^2
    // times a small factor: in doubt it is far more than a bit. So one run of 64 may be outside.
    let outside = codes.len() / 64;
    let trimmed = |bits: u8| {
        let width = 1i32 << bits;
        let within =
            |low: i32| sorted.partition_point(|&code| code < low + width) - sorted.partition_point(|&code| code < low);
        let best = (least..=most).max_by_key(|&low| (within(low), std::cmp::Reverse(low))).unwrap_or(least);
        (best, codes.len() - within(best))
    };
    (0..=MAX_CODE_BITS)
        .map(|bits| (bits, trimmed(bits)))
        .find(|&(bits, (_, missing))| bits == MAX_CODE_BITS || missing <= outside)
        .map(|(bits, (base, _))| (base.clamp(i32::from(i16::MIN), i32::from(i16::MAX)), bits))
        .expect("the last one is always found")
}

/// The offsets of columns, made ready to be added to any group of elements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    codes: Vec<i8>,
    unit: u16,
    /// One for each column, and as many more as a group that begins in the last one reaches.
    offsets: Vec<u16>,
    period: usize,
}

impl Columns {
    /// Makes them those of `scale`, if they are not already.
    pub(crate) fn prepare(&mut self, scale: &Scale, element: Element) {
        let unit = scale.column_unit(element);
        if self.period > 0 && self.unit == unit && self.codes == scale.columns {
            return;
        }
        self.codes.clone_from(&scale.columns);
        self.unit = unit;
        self.period = scale.columns.len().max(1);
        self.offsets.clear();
        let offset =
            |column: usize| scale.columns.get(column).map_or(0, |&code| i32::from(code) * i32::from(unit)) as u16;
        self.offsets.extend((0..self.period).map(offset));
        for at in self.period..self.period + LANES {
            self.offsets.push(self.offsets[at - self.period]);
        }
    }

    /// How many there are; the offsets repeat after so many elements.
    pub(crate) fn period(&self) -> usize {
        self.period
    }

    /// The offsets, in steps modulo 2^16, of the period and of [`LANES`] further elements.
    pub(crate) fn offsets(&self) -> &[u16] {
        &self.offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scale(run: u64, phases: u8) -> Scale {
        Scale { run, phases, half_octaves: false, columns: Vec::new() }
    }

    proptest! {
        #[test]
        fn runs_come_back(
            run in 1..9u64, log_phases in 0..3u32, first_quad in 0..1000u64, elements in 0..4000usize, spread in 1..400i32,
            noise in prop::collection::vec(any::<u16>(), 40), base in -300..300i32,
        ) {
            let (scale, first) = (scale(run, 1 << log_phases), first_quad * QUAD as u64);
            let runs = scale.runs(first, elements);
            let mut codes: Vec<i32> = (0..runs).map(|r| base + i32::from(noise[r % 40]) % spread).collect();
            let mut wire = Vec::new();
            write_runs(&mut codes, &mut wire);
            let mut reader = Reader::new(&wire);
            let (mut read, mut quads, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            scale.read_runs(&mut reader, 128, first, elements, &mut read, &mut quads).unwrap();
            reader.finish().unwrap();
            prop_assert_eq!(&read, &codes);
            scale.quads_of(128, first, elements, &codes, &mut expected);
            prop_assert_eq!(quads.len(), elements.div_ceil(QUAD));
            prop_assert_eq!(quads, expected);
        }
    }

    #[test]
    fn quads_know_their_run() {
        let scale = scale(3, 4);
        // The chunk begins with the last quad of a run.
        let codes = [-5, 0, 7];
        let mut quads = Vec::new();
        scale.quads_of(128, 2 * QUAD as u64, 5 * QUAD + 1, &codes, &mut quads);
        let phases: Vec<u8> = quads.iter().map(|quad| quad.phase).collect();
        assert_eq!(phases, [3, 0, 0, 0, 3, 3]);
        let octaves: Vec<i16> = quads.iter().map(|quad| quad.offset as i16 / 128).collect();
        assert_eq!(octaves, [-2, 0, 0, 0, 1, 1]);
        assert_eq!(scale.runs(2 * QUAD as u64, 5 * QUAD + 1), 3);
        assert_eq!(scale.runs(0, 0), 0);
    }

    #[test]
    fn few_outliers_are_cut_off() {
        let mut codes = vec![3; 200];
        codes[..60].fill(4);
        codes[7] = 100;
        let mut wire = Vec::new();
        write_runs(&mut codes, &mut wire);
        assert_eq!(wire.len(), 3 + 200 / 8);
        assert_eq!(codes[7], 4);
        assert_eq!(codes.iter().filter(|&&code| code == 3).count(), 140);
    }

    #[test]
    fn columns_go_round() {
        let columns = vec![1, -1, 2];
        let scale = Scale { run: 1, phases: 1, half_octaves: true, columns };
        let mut ready = Columns::default();
        ready.prepare(&scale, Element::Bf16);
        assert_eq!((ready.period(), ready.offsets().len()), (3, 3 + LANES));
        assert_eq!(ready.offsets()[..5], [64, 0u16.wrapping_sub(64), 128, 64, 0u16.wrapping_sub(64)]);
        ready.prepare(&Scale { columns: Vec::new(), ..scale }, Element::Bf16);
        assert_eq!((ready.period(), ready.offsets()), (1, &[0; 1 + LANES][..]));
    }
}
