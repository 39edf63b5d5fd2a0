//! Rows of a tensor of the base in another order than in what is coded against it.
//!
//! Rotary embeddings turn pairs of elements of each attention head. Some programs have the two of a pair in the halves of a head, some side by
//! side, and GGUF files the other way than what they are made of: rows of the projections of queries and keys are then moved within
//! their heads, and all else about them is the same.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::wire::{Put, Reader};

/// Rows of a head: with two there is nothing to move.
pub(crate) const HEADS: RangeInclusive<u64> = 4..=1024;

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

    /// Whether a tensor of this shape and length is a matrix of whole heads, with rows that are not too long.
    pub(crate) fn fits(self, shape: &[u64], len: u64) -> bool {
        let &[rows, _] = shape else { return false };
        let is_whole =
            HEADS.contains(&self.head) && self.head.is_multiple_of(2) && rows > 0 && rows.is_multiple_of(self.head);
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
    /// However short rows are, `read` is called a few times only, for at most three times as much as is wanted and some rows, since what they
    /// lie in may be decoded for each call.
    pub(crate) fn read_at(
        self,
        row: u64,
        offset: u64,
        buf: &mut [u8],
        read: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let end = offset + buf.len() as u64;
        let head = self.head * row;
        if buf.is_empty() {
            return Ok(());
        }
        if head <= buf.len() as u64 {
            let (from, to) = (offset - offset % head, end.next_multiple_of(head));
            let mut span = vec![0; (to - from) as usize];
            read(from, &mut span)?;
            for at in offset / row..end.div_ceil(row) {
                self.place(row, at, &span, from, offset, buf);
            }
            return Ok(());
        }
        // Two heads at most, and of each what is wanted of either half: those rows that are moved alike.
        let mut span = Vec::new();
        let mut first = offset / row;
        while first * row < end {
            let of_head = first - first % self.head;
            let last = end.div_ceil(row).min(of_head + self.head);
            let half = self.head / 2;
            for part in 0..2 {
                let (start, stop, step) = match self.interleaves {
                    true => (first + part, last, 2),
                    false => ((of_head + part * half).max(first), last.min(of_head + (part + 1) * half), 1),
                };
                if start >= stop {
                    continue;
                }
                let moved = (start..stop).step_by(step);
                let (from, to) = (self.source(start), self.source(stop - 1 - (stop - 1 - start) % step as u64) + 1);
                span.resize(((to - from) * row) as usize, 0);
                read(from * row, &mut span)?;
                moved.for_each(|at| self.place(row, at, &span, from * row, offset, buf));
            }
            first = last;
        }
        Ok(())
    }

    /// Puts the part of row `at` that lies in `buf`, which begins at `offset`, there; `span` has what lies at `from` before rows are moved.
    fn place(self, row: u64, at: u64, span: &[u8], from: u64, offset: u64, buf: &mut [u8]) {
        let (start, end) = ((at * row).max(offset), ((at + 1) * row).min(offset + buf.len() as u64));
        let source = self.source(at) * row + (start - at * row) - from;
        let len = (end - start) as usize;
        buf[(start - offset) as usize..][..len].copy_from_slice(&span[source as usize..][..len]);
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
        assert!(!fits(4, &[], 2) && !fits(4, &[0, 3], 0) && !fits(4, &[8, 3], 9) && !fits(4, &[8, 0], 0));
        assert!(!fits(4, &[8], 8) && !fits(4, &[2, 4, 3], 24), "no matrix");
        assert!(fits(1024, &[1024, 1], 1024) && !fits(1026, &[1026, 1], 1026), "heads that are too long");
    }

    #[test]
    fn short_rows_are_not_read_one_by_one() {
        for (interleaves, len) in [(true, 4096), (false, 4096), (true, 3), (false, 3)] {
            let calls = std::cell::Cell::new(0);
            let read = |_: u64, buf: &mut [u8]| {
                assert!(buf.len() <= 3 * len + 2, "{}", buf.len());
                calls.set(calls.get() + 1);
                Ok(())
            };
            RowOrder { head: 4, interleaves }.read_at(1, 1001, &mut vec![0; len], read).unwrap();
            assert!(calls.get() <= 4);
        }
    }
}
