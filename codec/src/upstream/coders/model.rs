//! Which symbol a 24-bit number stands for.

use super::quantise::{PRECISION, weights};
use super::table::Counts;
use crate::error::Result;

/// Bits of the number that the table of first guesses is indexed with: 16 KiB of guesses, which stay in the first cache
/// beside what is decoded.
const GUESS_BITS: u32 = 11;

/// A symbol and the numbers that stand for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) symbol: u16,
    /// The first of the numbers.
    pub(super) start: u32,
    /// How many there are.
    pub(super) weight: u32,
}

/// A slice in 64 bits: 24 for the start, 24 for the weight (which is below 2^24 where there are two symbols), 16 for the
/// symbol.
#[derive(Clone, Copy, Debug)]
struct Packed(u64);

impl Packed {
    fn new(slice: Slice) -> Packed {
        Packed(u64::from(slice.start) | u64::from(slice.weight) << 24 | u64::from(slice.symbol) << 48)
    }

    #[inline(always)]
    fn slice(self) -> Slice {
        let mask = (1 << PRECISION) - 1;
        Slice { symbol: (self.0 >> 48) as u16, start: (self.0 & mask) as u32, weight: (self.0 >> 24 & mask) as u32 }
    }

    #[inline(always)]
    fn holds(self, number: u32) -> bool {
        number - self.slice().start < self.slice().weight
    }
}

/// The model of a stream: how the numbers from 0 to 2^24 - 1 are dealt to the symbols.
pub(in crate::upstream) struct Model {
    slices: Vec<Packed>,
    /// For each value of a number's top bits the slice of the smallest such number. Not behind a pointer of its own, which
    /// would be loaded for each symbol.
    guesses: [Packed; 1 << GUESS_BITS],
}

impl Model {
    /// The model that the package makes of these counts, of an alphabet of at least two symbols.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when none can be made.
    pub(in crate::upstream) fn new(counts: &Counts) -> Result<Box<Model>> {
        let mut model =
            Box::new(Model { slices: Vec::with_capacity(counts.counts.len()), guesses: [Packed(0); 1 << GUESS_BITS] });
        let mut start = 0;
        for (symbol, weight) in weights(&counts.counts)?.into_iter().enumerate() {
            let slice = Packed::new(Slice { symbol: symbol as u16, start, weight });
            let first_guess = |number: u32| number.div_ceil(1 << (PRECISION - GUESS_BITS)) as usize;
            model.guesses[first_guess(start)..first_guess(start + weight)].fill(slice);
            model.slices.push(slice);
            start += weight;
        }
        Ok(model)
    }

    /// The slice that `number`, which is below 2^24, lies in.
    #[inline(always)]
    pub(super) fn find(&self, number: u32) -> Slice {
        let guess = self.guesses[(number >> (PRECISION - GUESS_BITS)) as usize];
        if guess.holds(number) { guess.slice() } else { self.search(number, guess).slice() }
    }

    /// As [`find`](Model::find), knowing that it is a slice above `below`.
    #[cold]
    #[inline(never)]
    fn search(&self, number: u32, below: Packed) -> Packed {
        let later = &self.slices[usize::from(below.slice().symbol) + 1..];
        // Most often it is the very next one.
        if later[0].holds(number) {
            return later[0];
        }
        later[later.partition_point(|slice| slice.slice().start <= number) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_symbol() {
        for counts in [vec![0, 0], vec![5, 1, 0, 70_000, 3, 3, 3], (0..512).map(|i| i * i % 1009).collect()] {
            let model = Model::new(&Counts { counts: counts.clone() }).unwrap();
            let mut start = 0;
            for (symbol, weight) in weights(&counts).unwrap().into_iter().enumerate() {
                let expected = Slice { symbol: symbol as u16, start, weight };
                for number in [start, start + weight / 2, start + weight - 1] {
                    assert_eq!(model.find(number), expected);
                }
                start += weight;
            }
        }
    }
}
