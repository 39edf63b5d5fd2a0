//! Tables made ready to decode, kept for the next chunk.

use crate::rans::Table;

/// So many tables are kept: a chunk of integers of 8 bytes has one for each of them.
const KEPT: usize = 8;

/// The tables that were used last, each with what a decoder makes of it.
///
/// A table is recognised by its contents. Comparing takes some nanoseconds, making one ready up to some microseconds,
/// and all chunks of a tensor have the same.
#[derive(Debug)]
pub(super) struct Prepared<T> {
    kept: Vec<(Table, T)>,
    current: usize,
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Prepared { kept: Vec::new(), current: 0 }
    }
}

impl<T> Prepared<T> {
    /// Makes `table` the current one.
    pub(super) fn prepare(&mut self, table: &Table, make_ready: impl FnOnce(&Table) -> T) -> &T {
        if let Some(at) = self.kept.iter().position(|(kept, _)| kept == table) {
            self.current = at;
        } else {
            let ready = (table.clone(), make_ready(table));
            if self.kept.len() < KEPT {
                self.current = self.kept.len();
                self.kept.push(ready);
            } else {
                // The one after the current one was made longest ago, if they come in turn.
                self.current = (self.current + 1) % KEPT;
                self.kept[self.current] = ready;
            }
        }
        self.current()
    }

    /// The table that was prepared last.
    ///
    /// # Panics
    /// When none was.
    pub(super) fn current(&self) -> &T {
        &self.kept[self.current].1
    }
}
