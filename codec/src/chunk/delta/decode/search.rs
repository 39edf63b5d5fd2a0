//! Tables in which vectors search for the key of a slot, instead of looking it up among all slots.
//!
//! The slots of a table are in the order of keys, so that the key of a slot is found by comparing it with where keys begin. That is a tree of
//! four ways: the keys of a table are in *quads* of up to four, these in nodes of up to four quads, and a table has up to four nodes.
//! Which of the four it is follows from three comparisons that do not depend on one another. All numbers of all tables of a segment fit
//! in a few vector registers, where the elements of a vector look them up each in its own table; that takes less time than gathers from
//! memory, which moreover would be more than the first cache holds.
//!
//! A *bound* is where a key begins in slots, less one, shifted left by four: a slot shifted by as much is above the bound
//! if it is not below the beginning. The low four bits say which key it is, as the difference to the first key of its quad.

use crate::chunk::delta::{CONTEXTS, MAX_TABLES};
use crate::rans::Table;

/// Keys of a quad, quads of a node, nodes of a table.
const WAYS: usize = 4;

/// The most quads of all tables together.
pub(super) const MAX_QUADS: usize = 128;

/// Bits of a bound below the slot.
const BELOW: u32 = 4;

/// What the bits below can say at most.
const LARGEST_STEP: u16 = (1 << BELOW) - 1;

/// The bound of what does not begin before the slots end.
const END: u16 = u16::MAX;

/// Numbers that are loaded into a register at once.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Numbers<const COUNT: usize>(pub(super) [u16; COUNT]);

/// The tables for differences of a segment.
#[derive(Debug)]
pub(super) struct Search {
    /// The table for each context.
    pub(super) tables: Numbers<CONTEXTS>,
    /// By table: the bounds of its nodes but the first.
    pub(super) nodes: [Numbers<{ 2 * MAX_TABLES }>; WAYS - 1],
    /// By node and table (`16 * node + table`): the bounds of its quads but the first, and the number of that.
    pub(super) quads: [Numbers<{ WAYS * MAX_TABLES }>; WAYS - 1],
    pub(super) first_quad: Numbers<{ WAYS * MAX_TABLES }>,
    /// By quad: the bounds of its keys, and the one of what follows.
    pub(super) keys: [Numbers<MAX_QUADS>; WAYS + 1],
    /// By quad: its first key.
    pub(super) first_key: Numbers<MAX_QUADS>,
    /// Whether there are more quads than fit in two registers.
    pub(super) is_wide: bool,
}

/// Some neighbouring keys of a table: each with where it begins; and where the last one ends.
struct Quad {
    keys: Vec<(u16, u16)>,
    end: u16,
}

/// The bound of what begins at this slot, the key of which is so far above the first of its quad.
fn bound(begin: u16, above: u16) -> u16 {
    begin.wrapping_sub(1) << BELOW | above
}

impl Search {
    /// With the tables for differences; `None` when there are too many of them, or of their keys.
    pub(super) fn new(tables: &[Table], tables_of_contexts: &[u8; CONTEXTS]) -> Option<Box<Search>> {
        if tables.len() > MAX_TABLES {
            return None;
        }
        let mut search = Box::new(Search {
            tables: Numbers(tables_of_contexts.map(u16::from)),
            nodes: [Numbers([END; 2 * MAX_TABLES]); WAYS - 1],
            quads: [Numbers([END; WAYS * MAX_TABLES]); WAYS - 1],
            first_quad: Numbers([0; WAYS * MAX_TABLES]),
            keys: [Numbers([END; MAX_QUADS]); WAYS + 1],
            first_key: Numbers([0; MAX_QUADS]),
            is_wide: false,
        });
        let mut number = 0;
        for (table, quads) in tables.iter().map(quads_of).enumerate() {
            if quads.len() > WAYS * WAYS || number + quads.len() > MAX_QUADS {
                return None;
            }
            for (at, quad) in quads.iter().enumerate() {
                search.add(table, at, number + at, quad);
            }
            number += quads.len();
        }
        search.is_wide = number > MAX_QUADS / 2;
        Some(search)
    }

    /// Adds the quad that is number `at` of its table and number `number` of all.
    fn add(&mut self, table: usize, at: usize, number: usize, quad: &Quad) {
        let (node, within) = (at / WAYS, at % WAYS);
        let (first_key, begin) = quad.keys[0];
        let place = node * MAX_TABLES + table;
        if within > 0 {
            self.quads[within - 1].0[place] = bound(begin, 0);
        } else {
            self.first_quad.0[place] = number as u16;
            if node > 0 {
                self.nodes[node - 1].0[table] = bound(begin, 0);
            }
        }
        self.first_key.0[number] = first_key;
        for (way, keys) in self.keys.iter_mut().enumerate() {
            let key = quad.keys.get(way);
            keys.0[number] = key.map_or(bound(quad.end, LARGEST_STEP), |&(key, begin)| bound(begin, key - first_key));
        }
    }
}

/// The keys of a table in quads.
fn quads_of(table: &Table) -> Vec<Quad> {
    let mut quads: Vec<Quad> = Vec::new();
    let mut begin = 0;
    for (&key, &frequency) in table.keys().iter().zip(table.frequencies()) {
        let end = begin + frequency;
        match quads.last_mut() {
            Some(quad) if quad.keys.len() < WAYS && key - quad.keys[0].0 <= LARGEST_STEP => {
                quad.keys.push((key, begin));
                quad.end = end;
            }
            _ => quads.push(Quad { keys: vec![(key, begin)], end }),
        }
        begin = end;
    }
    quads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rans::table::tests::counts;
    use proptest::prelude::*;

    impl Search {
        /// What vectors do to each element: the key that a slot belongs to, where it begins, and its frequency.
        fn look_up(&self, table: usize, slot: u16) -> (u16, u16, u16) {
            let shifted = slot << BELOW;
            let above = |bounds: [u16; WAYS - 1]| bounds.iter().filter(|&&bound| bound < shifted).count();
            let node = above(self.nodes.map(|nodes| nodes.0[table]));
            let place = node * MAX_TABLES + table;
            let quad = usize::from(self.first_quad.0[place]) + above(self.quads.map(|quads| quads.0[place]));
            let bounds = self.keys.map(|keys| keys.0[quad]);
            let way = above([bounds[1], bounds[2], bounds[3]]);
            let begin = (bounds[way] >> BELOW).wrapping_add(1) % 4096;
            let frequency = (bounds[way + 1] >> BELOW).wrapping_sub(bounds[way] >> BELOW) % 4096;
            (self.first_key.0[quad] + bounds[way] % 16, begin, frequency)
        }
    }

    proptest! {
        #[test]
        fn every_slot_is_found(all in prop::collection::vec(counts(), 1..=MAX_TABLES)) {
            let tables: Vec<Table> = all.iter().filter_map(|counts| Table::fit(counts)).collect();
            let quads: Vec<usize> = tables.iter().map(|table| quads_of(table).len()).collect();
            let search = Search::new(&tables, &[0; CONTEXTS]);
            let is_small = quads.iter().sum::<usize>() <= MAX_QUADS && quads.iter().all(|&quads| quads <= WAYS * WAYS);
            prop_assert_eq!(search.is_some(), is_small);
            let Some(search) = search else { return Ok(()) };
            for (number, table) in tables.iter().enumerate() {
                let mut begin = 0;
                for (&key, &frequency) in table.keys().iter().zip(table.frequencies()) {
                    for slot in begin..begin + frequency {
                        // A frequency of all slots is 0 in so many bits.
                        prop_assert_eq!(search.look_up(number, slot), (key, begin, frequency % 4096));
                    }
                    begin += frequency;
                }
            }
        }
    }
}
