//! Where the raw bits of an element go, cut so that vectors can put them there.

use crate::split::Split;
use crate::split::planes::fields;

/// Adjacent bits of a field that stay adjacent in the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which of the [`fields`] it belongs to.
    pub(super) field: usize,
    /// The width of that field.
    pub(super) width: usize,
    /// The position of its lowest bit in the field.
    pub(super) from: usize,
    /// The position of its lowest bit in the element.
    pub(super) to: usize,
    /// How many bits it has.
    pub(super) bits: usize,
}

/// Cuts the raw bits of `split` into pieces of which none has bits in two *parts* of an element, of `part` bits each.
pub(super) fn for_each_piece(split: Split, part: usize, mut piece: impl FnMut(Piece)) {
    let stored = usize::from(split.shift - split.zeros);
    for (index, field) in fields(split.raw_bits()).enumerate() {
        let end = field.at + field.width;
        let mut at = field.at;
        while at < end {
            let (to, limit) = if at < stored {
                (at + usize::from(split.zeros), end.min(stored))
            } else {
                (usize::from(split.width) - 1, end)
            };
            let bits = (limit - at).min(part - to % part);
            piece(Piece { field: index, width: field.width, from: at - field.at, to, bits });
            at += bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::tests::splits;
    use proptest::prelude::*;

    /// The most pieces that raw bits are cut into where an element is taken as bytes: three of a field of 16 bits, two of
    /// each other but the last, which has one bit, and the sign.
    const MAX_PIECES: usize = 11;

    proptest! {
        #[test]
        fn pieces_put_the_raw_bits_where_the_split_does(split in splits(), raw: u32, wide: bool) {
            let raw = raw & ((1u64 << split.raw_bits()) - 1) as u32;
            let part = if wide { 16 } else { 8 };
            let fields: Vec<_> = fields(split.raw_bits()).collect();
            let (mut element, mut pieces) = (0, 0);
            for_each_piece(split, part, |piece| {
                let field = fields[piece.field];
                assert_eq!(field.width, piece.width);
                assert_eq!(piece.to / part, (piece.to + piece.bits - 1) / part);
                let bits = raw >> (field.at + piece.from) & ((1 << piece.bits) - 1);
                element |= bits << piece.to;
                pieces += 1;
            });
            prop_assert_eq!(element, split.join(0, raw));
            prop_assert!(pieces <= MAX_PIECES);
        }
    }
}
