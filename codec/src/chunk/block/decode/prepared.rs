//! Tables made ready to decode, kept for the next chunk.

use crate::rans::Table;

/// So many sets of tables are kept: a chunk of integers of 8 bytes has one for each of them.
const KEPT: usize = 8;

/// The sets of tables that were used last, each with what a decoder makes of it.
///
/// A set is recognised by its contents. Comparing takes some nanoseconds, making a table ready up to some microseconds,
/// and all chunks of a tensor have the same.
#[derive(Debug)]
pub(super) struct Prepared<T> {
    kept: Vec<(Vec<Table>, Vec<T>)>,
    current: usize,
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Prepared { kept: Vec::new(), current: 0 }
    }
}

impl<T> Prepared<T> {
    /// Makes `tables` the current ones.
    pub(super) fn prepare(&mut self, tables: &[Table], make_ready: impl FnMut(&Table) -> T) {
        if let Some(at) = self.kept.iter().position(|(kept, _)| kept == tables) {
            self.current = at;
            return;
        }
        let ready = (tables.to_vec(), tables.iter().map(make_ready).collect());
        if self.kept.len() < KEPT {
            self.current = self.kept.len();
            self.kept.push(ready);
        } else {
            // The one after the current one was made longest ago, if they come in turn.
            self.current = (self.current + 1) % KEPT;
            self.kept[self.current] = ready;
        }
    }

    /// The tables that were prepared last.
    ///
    /// # Panics
    /// When none were.
    pub(super) fn current(&self) -> &[T] {
        &self.kept[self.current].1
    }
}
