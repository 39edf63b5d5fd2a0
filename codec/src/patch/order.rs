//! Rows of a tensor of the base in another order than in what is coded against it.
//!
//! Rotary embeddings turn pairs of elements of each attention head. Some programs have the two of a pair in the halves of a head, some side by
//! side, and GGUF files the other way than what they are made of: rows of the projections of queries and keys are then moved within
//! their heads, and all else about them is the same.

use crate::error::{Error, Result};
use crate::wire::{Put, Reader};

/// The fewest rows of a head: with two there is nothing to move.
const FEWEST_ROWS: u64 = 4;

/// The longest row in bytes: whole rows are read, however little of them is wanted.
const LONGEST_ROW: u64 = 1 << 20;

/// How rows of a base are moved within each attention head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOrder {
    /// Rows of a head, an even number.
    pub head: u64,
    /// Whether the halves of a head come to be interleaved: its first row, the first of its second half, its second row, and so on. Else
    /// what is interleaved in the base comes to be halves.
    pub interleaves: bool,
}

impl RowOrder {
    /// The row of the base that comes to be row `row`.
    pub(crate) fn source(self, row: u64) -> u64 {
        let (first, within, half) = (row - row % self.head, row % self.head, self.head / 2);
        first + if self.interleaves { within % 2 * half + within / 2 } else { within % half * 2 + within / half }
    }

    /// Whether a tensor of this shape and length has whole heads, and rows that are not too long.
    pub(crate) fn fits(self, shape: &[u64], len: u64) -> bool {
        let rows = shape.first().copied().unwrap_or(0);
        let is_whole =
            self.head >= FEWEST_ROWS && self.head.is_multiple_of(2) && rows > 0 && rows.is_multiple_of(self.head);
        is_whole && len.is_multiple_of(rows) && (1..=LONGEST_ROW).contains(&(len / rows))
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.put_varint(self.head);
        out.push(u8::from(self.interleaves));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<RowOrder> {
        let head = reader.varint()?;
        let interleaves = match reader.u8()? {
            0 => false,
            1 => true,
            other => return Err(Error::corrupt(format!("rows of the base are moved in the unknown way {other}"))),
        };
        Ok(RowOrder { head, interleaves })
    }

    /// Fills `buf` with what lies at `offset` once rows of `row` bytes are moved; `read` reads what lies at an offset before they are.
    ///
    /// Of each head what is wanted of either half is read at once, since what they lie in may be decoded for each read.
    pub(crate) fn read_at(
        self,
        row: u64,
        offset: u64,
        buf: &mut [u8],
        read: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let end = offset + buf.len() as u64;
        let (mut rows, mut span) = (Vec::new(), Vec::new());
        let mut first = offset / row;
        while first * row < end {
            // So many rows of one head.
            let last = end.div_ceil(row).min(first - first % self.head + self.head);
            rows.resize(((last - first) * row) as usize, 0);
            let half = self.head / 2;
            for part in 0..2 {
                // Those that are moved alike: every other one, or those of a half.
                let (start, step) = match self.interleaves {
                    true => (first + part, 2),
                    false => ((first - first % self.head + part * half).max(first), 1),
                };
                let stop =
                    if self.interleaves { last } else { last.min(first - first % self.head + (part + 1) * half) };
                if start >= stop {
                    continue;
                }
                let moved: Vec<u64> = (start..stop).step_by(step).collect();
                let (from, to) = (self.source(moved[0]), self.source(moved[moved.len() - 1]) + 1);
                span.resize(((to - from) * row) as usize, 0);
                read(from * row, &mut span)?;
                for &at in &moved {
                    let (to, from) = ((at - first) * row, (self.source(at) - from) * row);
                    rows[to as usize..][..row as usize].copy_from_slice(&span[from as usize..][..row as usize]);
                }
            }
            let (from, to) = ((first * row).max(offset), (last * row).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&rows[(from - first * row) as usize..(to - first * row) as usize]);
            first = last;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_interleaved_and_back() {
        let interleaves = RowOrder { head: 6, interleaves: true };
        assert_eq!((6..12).map(|row| interleaves.source(row)).collect::<Vec<_>>(), [6, 9, 7, 10, 8, 11]);
        let back = RowOrder { head: 6, interleaves: false };
        assert!((0..18).all(|row| back.source(interleaves.source(row)) == row));
    }

    #[test]
    fn any_range_is_read_as_all_of_it_is() {
        const ROW: u64 = 5;
        let base: Vec<u8> = (0..36 * ROW).map(|at| at as u8).collect();
        for interleaves in [true, false] {
            let order = RowOrder { head: 12, interleaves };
            assert!(order.fits(&[36, 5], 180));
            let all: Vec<u8> =
                (0..36).flat_map(|row| base[(order.source(row) * ROW) as usize..][..ROW as usize].to_vec()).collect();
            for start in 0..all.len() {
                for len in [0, 1, 4, 5, 7, 11, 60, 61, 100, 180] {
                    let end = (start + len).min(all.len());
                    let mut buf = vec![0xaa; end - start];
                    order
                        .read_at(ROW, start as u64, &mut buf, |at, buf| {
                            buf.copy_from_slice(&base[at as usize..][..buf.len()]);
                            Ok(())
                        })
                        .unwrap();
                    assert_eq!(buf, all[start..end], "{start} {end} {interleaves}");
                }
            }
        }
    }

    #[test]
    fn heads_are_whole() {
        let fits = |head, shape: &[u64], len| RowOrder { head, interleaves: true }.fits(shape, len);
        assert!(fits(4, &[8, 3], 48));
        assert!(!fits(3, &[9, 3], 27) && !fits(2, &[8, 3], 24) && !fits(0, &[8, 3], 24) && !fits(6, &[8, 3], 24));
        assert!(fits(4, &[8, 1 << 20], 8 << 20) && !fits(4, &[8, 2 << 20], 16 << 20), "rows that are too long");
        assert!(!fits(4, &[], 2) && !fits(4, &[0, 3], 0) && !fits(4, &[8], 9) && !fits(4, &[8, 0], 0));
    }
}
