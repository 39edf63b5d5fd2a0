//! Tables: plain text, the same on a terminal and in a pipe.

use super::printable;

/// Between two columns.
const GAP: &str = "  ";

/// Rows of cells under a heading. The first column holds names, the others numbers unless they are said to hold words.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// The columns of words.
    words: Vec<usize>,
}

impl Table {
    /// A table with these headings and no rows.
    pub fn new(headings: &[&str]) -> Table {
        Table::with_words(headings, &[])
    }

    /// The same, in which these columns hold words too, the first one counted as 0.
    pub fn with_words(headings: &[&str], columns: &[usize]) -> Table {
        let words = [&[0], columns].concat();
        Table { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()], words }
    }

    /// Adds a row, which has as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| printable(&cell).replace('\n', "\\n")).collect();
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    /// The table as lines, each with `indent` before it: words to the left, numbers to the right.
    pub fn render(&self, indent: &str) -> String {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                line += if column == 0 { "" } else { GAP };
                line += &if self.words.contains(&column) { cell.clone() + &padding } else { padding + cell };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_to_the_left_and_numbers_to_the_right() {
        let mut table = Table::new(&["file", "size"]);
        table.row(["größe.bs".to_owned(), "1 B".to_owned()]);
        table.row(["a\nb\x1b".to_owned(), "12.5 MB".to_owned()]);
        table.row(["x".to_owned(), String::new()]);
        let expected = ["  file           size", "  größe.bs        1 B", "  a\\nb\\u{1b}  12.5 MB", "  x", ""];
        assert_eq!(table.render("  ").split('\n').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn words_may_stand_between_numbers() {
        let mut table = Table::with_words(&["name", "codec", "size"], &[1]);
        table.row(["a", "raw", "1000 B"].map(str::to_owned));
        table.row(["bias", "scaled", "1 B"].map(str::to_owned));
        assert_eq!(table.render(""), "name  codec     size\na     raw     1000 B\nbias  scaled     1 B\n");
    }
}
