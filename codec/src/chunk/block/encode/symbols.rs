//! From elements to symbols: cut the key out of each and look it up.

use crate::rans::{Symbol, Table};
use crate::simd::Level;
use crate::split::Split;

/// Stands for the symbol of a key that the table lacks.
pub(super) const OUTSIDE: Symbol = Symbol::MAX;

/// The symbol of each key.
#[derive(Clone, Debug)]
pub(super) struct SymbolMap {
    /// For each key up to the table's largest its symbol or [`OUTSIDE`]; the last entry is for all larger keys.
    symbols: Vec<Symbol>,
}

impl SymbolMap {
    pub(super) fn new(table: &Table) -> SymbolMap {
        let keys = table.keys();
        let largest = keys.last().map_or(0, |&key| usize::from(key));
        let mut symbols = vec![OUTSIDE; largest + 2];
        for (symbol, &key) in keys.iter().enumerate() {
            symbols[usize::from(key)] = symbol as Symbol;
        }
        SymbolMap { symbols }
    }

    /// Replaces `out` by the symbol, or [`OUTSIDE`], of each element of `bytes`. Returns the bits that any element has.
    pub(super) fn map(&self, bytes: &[u8], split: Split, _level: Level, out: &mut Vec<Symbol>) -> u32 {
        match split.width {
            8 => self.map_of(bytes, split, out, |element: [u8; 1]| u32::from(element[0])),
            16 => self.map_of(bytes, split, out, |element| u32::from(u16::from_le_bytes(element))),
            32 => self.map_of(bytes, split, out, u32::from_le_bytes),
            width => unreachable!("elements of {width} bits are not split"),
        }
    }

    fn map_of<const SIZE: usize>(
        &self,
        bytes: &[u8],
        split: Split,
        out: &mut Vec<Symbol>,
        load: impl Fn([u8; SIZE]) -> u32,
    ) -> u32 {
        let larger = self.symbols.len() - 1;
        let mut any = 0;
        out.clear();
        out.extend(bytes.as_chunks().0.iter().map(|&element| {
            let element = load(element);
            any |= element;
            self.symbols[usize::from(split.key(element)).min(larger)]
        }));
        any
    }
}
