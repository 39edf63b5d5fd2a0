//! The keys that registers can hold the symbols of.

use super::OUTSIDE;
use crate::rans::{Symbol, Table};

/// Keys of a window.
pub(super) const WINDOW: usize = 128;

/// The symbols of [`WINDOW`] keys in a row, of which the last key is followed by the first: small integers of both signs
/// have their keys at both ends.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The first of them.
    pub(super) base: u16,
    pub(super) symbols: [Symbol; WINDOW],
    /// The most frequent key outside: the zeros of a sparse tensor lie far from all other keys. One of the window where
    /// there is none.
    pub(super) other: (u16, Symbol),
    /// Whether the table has still more keys.
    pub(super) is_part: bool,
}

impl Window {
    /// The window that holds the most frequent keys of a table; `last` is the largest key that there can be.
    pub(super) fn new(table: &Table, last: u16) -> Window {
        let (keys, frequencies) = (table.keys(), table.frequencies());
        let distance = |from: usize, to: usize| usize::from(keys[to % keys.len()].wrapping_sub(keys[from]) & last);
        // Of windows that begin at a key: `end` is the first key outside, counted on beyond the last.
        let (mut best, mut most, mut end, mut inside) = (0, 0, 0, 0);
        for first in 0..keys.len() {
            while end < first + keys.len() && distance(first, end) < WINDOW {
                inside += u32::from(frequencies[end % keys.len()]);
                end += 1;
            }
            if inside > most {
                (best, most) = (first, inside);
            }
            inside -= u32::from(frequencies[first]);
        }
        let mut symbols = [OUTSIDE; WINDOW];
        let mut others = Vec::new();
        for number in 0..keys.len() {
            match symbols.get_mut(distance(best, number)) {
                Some(symbol) => *symbol = number as Symbol,
                None => others.push(number),
            }
        }
        let other = others.iter().copied().max_by_key(|&number| frequencies[number]).unwrap_or(best);
        Window { base: keys[best], symbols, other: (keys[other], other as Symbol), is_part: others.len() > 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(keys: &[(usize, u64)], bits: u32) -> Window {
        let mut counts = vec![0; 1 << bits];
        keys.iter().for_each(|&(key, count)| counts[key] = count);
        Window::new(&Table::fit(&counts).unwrap(), ((1u32 << bits) - 1) as u16)
    }

    #[test]
    fn it_holds_the_most_frequent_keys() {
        let window = window(&[(0, 30), (400, 10), (500, 10), (520, 15), (600, 20), (628, 1)], 10);
        assert_eq!((window.base, window.other, window.is_part), (500, (0, 0), true));
        assert_eq!((window.symbols[0], window.symbols[20], window.symbols[100]), (2, 3, 4));
        assert_eq!(window.symbols.iter().filter(|&&symbol| symbol != OUTSIDE).count(), 3);
    }

    #[test]
    fn it_goes_round() {
        let window = window(&[(0, 9), (31, 5), (230, 4), (255, 7)], 8);
        assert_eq!((window.base, window.other, window.is_part), (230, (230, 2), false));
        assert_eq!((window.symbols[0], window.symbols[25], window.symbols[26], window.symbols[57]), (2, 3, 0, 1));
    }

    #[test]
    fn it_may_be_larger_than_all_keys() {
        let window = window(&[(5, 9), (3, 9)], 3);
        assert_eq!((window.symbols[0], window.symbols[2]), (0, 1));
        assert!(!window.is_part);
    }
}
