//! From elements to symbols: cut the key out of each and look it up.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod window;

use crate::rans::{LANES, Symbol, Table};
use crate::simd::Level;
use crate::split::Split;

/// Stands for the symbol of a key that the table lacks.
pub(super) const OUTSIDE: Symbol = Symbol::MAX;

/// The symbol of each key.
#[derive(Clone, Debug)]
pub(super) struct SymbolMap {
    /// For each key up to the table's largest its symbol or [`OUTSIDE`]; the last entry is for all larger keys.
    symbols: Vec<Symbol>,
    #[cfg(target_arch = "x86_64")]
    window: window::Window,
}

impl SymbolMap {
    /// For elements cut by `split`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_variables, reason = "only vectors look into a window of keys")
    )]
    pub(super) fn new(table: &Table, split: Split) -> SymbolMap {
        let keys = table.keys();
        let largest = keys.last().map_or(0, |&key| usize::from(key));
        let mut symbols = vec![OUTSIDE; largest + 2];
        for (symbol, &key) in keys.iter().enumerate() {
            symbols[usize::from(key)] = symbol as Symbol;
        }
        SymbolMap {
            symbols,
            #[cfg(target_arch = "x86_64")]
            window: window::Window::new(table, split.last_key()),
        }
    }

    /// The symbol of one key.
    fn symbol(&self, key: u16) -> Symbol {
        self.symbols[usize::from(key).min(self.symbols.len() - 1)]
    }

    /// Finds the symbol, or [`OUTSIDE`], of each element of `bytes`; `symbols` is as long. Returns the bits that any
    /// element has.
    pub(super) fn map(&self, bytes: &[u8], split: Split, level: Level, symbols: &mut [Symbol]) -> u32 {
        assert_eq!(bytes.len(), symbols.len() * usize::from(split.width / 8));
        let whole = symbols.len() / LANES * LANES;
        let (symbols, rest) = symbols.split_at_mut(whole);
        let (bytes, rest_bytes) = bytes.split_at(whole * usize::from(split.width / 8));
        let any = match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only given where the processor has what it stands for.
            Level::Avx512 | Level::Avx512Vbmi2 => unsafe { avx512::map(self, bytes, split, symbols) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { avx2::map(self, bytes, split, symbols) },
            _ => self.map_scalar(bytes, split, symbols),
        };
        any | self.map_scalar(rest_bytes, split, rest)
    }

    /// Looks up the symbols of those elements of `group` that are in the set `lanes`.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn look_up(&self, split: Split, group: &[u8], mut lanes: u32, symbols: &mut [Symbol; LANES]) {
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            symbols[lane] = self.symbol(split.key(split.element(group, lane)));
            lanes &= lanes - 1;
        }
    }

    /// The definition, one after the other.
    fn map_scalar(&self, bytes: &[u8], split: Split, symbols: &mut [Symbol]) -> u32 {
        match split.width {
            8 => self.map_of(bytes, split, symbols, |element: [u8; 1]| u32::from(element[0])),
            16 => self.map_of(bytes, split, symbols, |element| u32::from(u16::from_le_bytes(element))),
            32 => self.map_of(bytes, split, symbols, u32::from_le_bytes),
            width => unreachable!("elements of {width} bits are not split"),
        }
    }

    fn map_of<const SIZE: usize>(
        &self,
        bytes: &[u8],
        split: Split,
        symbols: &mut [Symbol],
        load: impl Fn([u8; SIZE]) -> u32,
    ) -> u32 {
        let mut any = 0;
        for (&element, symbol) in bytes.as_chunks().0.iter().zip(symbols) {
            let element = load(element);
            any |= element;
            *symbol = self.symbol(split.key(element));
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rans::table::tests::counts;
    use crate::split::tests::splits;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_level_finds_the_symbols_of_the_table(
            split in splits(), counts in counts(), rotate: u16, stretch in 1..9usize, bytes in prop::collection::vec(any::<u8>(), 0..3000),
            keys in prop::collection::vec(any::<prop::sample::Index>(), 0..3000),
        ) {
            // Keys anywhere, close together and far apart.
            let all = 1usize << split.key_bits();
            let mut spread = vec![0; all];
            counts.iter().enumerate().for_each(|(key, &count)| spread[(key * stretch + usize::from(rotate)) % all] += count);
            let Some(table) = Table::fit(&spread) else { return Ok(()) };
            let map = SymbolMap::new(&table, split);
            // Random elements, and such with keys that the table has.
            let size = usize::from(split.width / 8);
            let mut elements = bytes[..bytes.len() / size * size].to_vec();
            for key in keys {
                let element = split.join(*key.get(table.keys()), 0);
                elements.extend_from_slice(&element.to_le_bytes()[..size]);
            }
            for level in Level::available() {
                let mut symbols = vec![1; elements.len() / size];
                let any = map.map(&elements, split, level, &mut symbols);
                let mut expected = 0;
                for (position, &symbol) in symbols.iter().enumerate() {
                    let element = split.element(&elements, position);
                    expected |= element;
                    let found = table.keys().iter().position(|&key| key == split.key(element));
                    prop_assert_eq!(symbol, found.map_or(OUTSIDE, |symbol| symbol as Symbol), "{:?}", level);
                }
                prop_assert_eq!(any, expected);
            }
        }
    }
}
