//! The entropy coders of the Python package: three, over two kinds of tables.
//!
//! [`AnsStream`] and [`RangeStream`] read 32-bit words and need a [`Model`], which is computed from stored counts in
//! floating point. [`RansStream`] reads 16-bit pieces with frequencies that are stored as they are.
//!
//! Each symbol has to wait for the one before, so that the processor is idle most of the time. Where two streams are at
//! hand, [`decode_both`] decodes them in turn: the second costs next to nothing.

pub(super) mod ans;
pub(super) mod model;
pub(super) mod quantise;
pub(super) mod range;
pub(super) mod rans;
pub(super) mod table;

pub(super) use ans::AnsStream;
pub(super) use model::Model;
pub(super) use range::RangeStream;
pub(super) use rans::RansStream;
pub(super) use table::{Counts, Width};

use crate::error::{Error, Result};

/// A coded stream that is being decoded.
pub(super) trait Stream<'a>: Clone {
    /// Says which symbol comes next.
    type Table;

    /// The table of a stream of `symbols` symbols that occur as often as `counts` says. `log2_total` matters to
    /// [`RansStream`] alone: its frequencies add up to two to the power of that.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the counts are not those of so many symbols.
    fn table(counts: &Counts, symbols: usize, log2_total: u32) -> Result<Box<Self::Table>>;

    /// Begins to decode `code`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is no such stream.
    fn new(code: &'a [u8]) -> Result<Self>;

    /// The next symbol. Of a stream that is damaged or at its end, any symbol of the table.
    fn next(&mut self, table: &Self::Table) -> u16;

    /// Fails when what was decoded cannot have been what was coded.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt).
    fn finish(self) -> Result<()>;
}

/// Where a decoded symbol goes.
pub(super) trait Slot: Copy + Default {
    /// A slot with this symbol, which is below the size of the alphabet that the caller chose the type for.
    fn of(symbol: u16) -> Self;
}

impl Slot for u8 {
    #[inline(always)]
    fn of(symbol: u16) -> u8 {
        symbol as u8
    }
}

impl Slot for u16 {
    #[inline(always)]
    fn of(symbol: u16) -> u16 {
        symbol
    }
}

/// Little-endian.
impl Slot for [u8; 2] {
    #[inline(always)]
    fn of(symbol: u16) -> [u8; 2] {
        symbol.to_le_bytes()
    }
}

/// Decodes all of a stream into `out`.
// A function of its own, since registers decide how fast it is.
#[inline(never)]
pub(super) fn decode<'a, S: Stream<'a>, T: Slot>(mut stream: S, table: &S::Table, out: &mut [T]) -> Result<()> {
    out.iter_mut().for_each(|slot| *slot = T::of(stream.next(table)));
    stream.finish()
}

/// Decodes as many symbols of two streams as the slots that come with each, which are equally many.
#[inline(never)]
pub(super) fn decode_both<'a, S: Stream<'a>, A: Slot, B: Slot>(
    (one, one_table, one_out): (&mut S, &S::Table, &mut [A]),
    (other, other_table, other_out): (&mut S, &S::Table, &mut [B]),
) {
    debug_assert_eq!(one_out.len(), other_out.len());
    // Copies of their own stay in registers.
    let (mut first, mut second) = (one.clone(), other.clone());
    for (a, b) in one_out.iter_mut().zip(other_out) {
        *a = A::of(first.next(one_table));
        *b = B::of(second.next(other_table));
    }
    (*one, *other) = (first, second);
}

/// The words of a coded stream.
fn words(code: &[u8]) -> Result<&[[u8; 4]]> {
    match code.as_chunks() {
        (words, []) => Ok(words),
        _ => Err(Error::corrupt(format!("a coded stream of {} bytes is not made of 32-bit words", code.len()))),
    }
}
