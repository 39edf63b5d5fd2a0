//! Rows of symbols, each coded with the table of its class: rows of one table lie together, whatever their order in the
//! chunk, so that a decoder changes tables a few times in a chunk and not with each row.

use super::classes::CLASSES;
use crate::chunk::block::{self, Buffers, Coder, Scratch};
use crate::chunk::plane::{BLOCK_OVERHEAD_BITS, table_bits};
use crate::chunk::scale::{QUAD, QuadScale};
use crate::chunk::statistics::PATCH_BITS;
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::simd::{Level, at_level};
use crate::split::Split;
use crate::wire::Reader;

/// The most tables of a chunk's rows. More are not worth their place in the index.
const MOST_TABLES: usize = 16;

/// Keys that symbols can have: without a sign they are below 128, so that a decoder may take bytes with and without one alike.
const KEYS: usize = 128;

/// How often each key occurs in each class.
#[derive(Clone, Debug)]
pub(super) struct RowStatistics {
    split: Split,
    counts: Vec<[u64; KEYS]>,
}

impl RowStatistics {
    /// Of symbols cut by `split`.
    pub(super) fn new(split: Split) -> RowStatistics {
        RowStatistics { split, counts: vec![[0; KEYS]; CLASSES] }
    }

    /// Counts rows of `row` symbols, each in its class.
    pub(super) fn add(&mut self, symbols: &[u8], row: usize, classes: &[u8]) {
        for (symbols, &class) in symbols.chunks_exact(row).zip(classes) {
            let counts = &mut self.counts[usize::from(class) % CLASSES];
            symbols.iter().for_each(|&symbol| counts[usize::from(self.split.key(symbol.into())) % KEYS] += 1);
        }
    }

    fn symbols(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// The fewest bits that these take with tables of their own, each of which is paid for by `scale` times as much; `None`
    /// when there are no symbols.
    pub(super) fn fit(&self, scale: f64) -> Option<RowPlan<Table>> {
        let mut groups: Vec<(usize, [u64; KEYS], f64)> =
            self.counts.iter().enumerate().map(|(class, counts)| (class, *counts, entropy(counts, scale))).collect();
        groups.retain(|(_, counts, _)| counts.iter().any(|&count| count > 0));
        let joined = |a: &[u64; KEYS], b: &[u64; KEYS]| std::array::from_fn(|key| a[key] + b[key]);
        let mut costs: Vec<f64> = groups
            .windows(2)
            .map(|pair| entropy(&joined(&pair[0].1, &pair[1].1), scale) - pair[0].2 - pair[1].2)
            .collect();
        // Neighbours that lose least by sharing a table do so, the first of several, as long as that pays or there are too many.
        while let Some(at) = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]))
            && (costs[at] < 0.0 || groups.len() > MOST_TABLES)
        {
            let (_, counts, _) = groups.remove(at + 1);
            costs.remove(at);
            groups[at].1 = joined(&groups[at].1, &counts);
            groups[at].2 = entropy(&groups[at].1, scale);
            for pair in at.saturating_sub(1)..(at + 1).min(costs.len()) {
                let together = joined(&groups[pair].1, &groups[pair + 1].1);
                costs[pair] = entropy(&together, scale) - groups[pair].2 - groups[pair + 1].2;
            }
        }
        let table = |counts| Table::fit(counts).expect("each has symbols").with_two_symbols();
        let tables = groups.iter().map(|(_, counts, _)| table(counts)).collect();
        let firsts = groups.iter().skip(1).map(|&(class, ..)| class as u8).collect();
        (!groups.is_empty()).then_some(RowPlan { split: self.split, firsts, number: 0, tables })
    }

    /// The bits that they take as planned, without the tables.
    pub(super) fn bits(&self, plan: &RowPlan<Table>) -> f64 {
        let tables = plan.tables_of_classes();
        let raw = f64::from(self.split.raw_bits()) * self.symbols() as f64;
        let of_class = |(counts, &table): (&[u64; KEYS], &u8)| {
            let (bits, outside) = plan.tables[usize::from(table)].cost(counts);
            bits + outside as f64 * PATCH_BITS
        };
        raw + BLOCK_OVERHEAD_BITS + self.counts.iter().zip(&tables).map(of_class).sum::<f64>()
    }
}

/// The bits of symbols that occur so often, their table included.
fn entropy(counts: &[u64; KEYS], scale: f64) -> f64 {
    /// About what a symbol takes in a stored table.
    const SYMBOL_BITS: f64 = 16.0;
    let all: u64 = counts.iter().sum();
    let (mut bits, mut symbols) = (all as f64 * (all.max(1) as f64).log2(), 0);
    for &count in counts.iter().filter(|&&count| count > 0) {
        bits -= count as f64 * (count as f64).log2();
        symbols += 1;
    }
    bits + SYMBOL_BITS * f64::from(symbols) / scale
}

/// How rows are coded: `T` is a [`Table`], or a [`Coder`] once it is ready.
#[derive(Clone, Debug)]
pub(super) struct RowPlan<T> {
    pub(super) split: Split,
    /// The first class of each table but the first.
    firsts: Vec<u8>,
    /// The number of the first table within the segment.
    number: u16,
    tables: Vec<T>,
}

impl<T> RowPlan<T> {
    fn tables_of_classes(&self) -> [u8; CLASSES] {
        tables_of_classes(&self.firsts)
    }
}

impl RowPlan<Table> {
    /// The bits that the tables take in the index.
    pub(super) fn table_bits(&self) -> f64 {
        self.tables.iter().map(table_bits).sum()
    }

    /// The plan ready to run. Its tables are appended to those of the segment.
    pub(super) fn ready(self, tables: &mut Vec<Table>) -> RowPlan<Coder> {
        let number = tables.len() as u16;
        let coders = self.tables.iter().map(|table| Coder::new(table, self.split)).collect();
        tables.extend(self.tables);
        RowPlan { split: self.split, firsts: self.firsts, number, tables: coders }
    }
}

impl RowPlan<Coder> {
    /// Appends rows of `row` symbols, each in its class, to `stored`. Returns `false`, with `stored` in an unspecified state
    /// beyond its old end, when too many of them are missing in their tables.
    pub(super) fn encode(
        &self,
        symbols: &[u8],
        row: usize,
        classes: &[u8],
        order: &mut Order,
        buffers: &mut Buffers,
        stored: &mut Vec<u8>,
    ) -> bool {
        stored.push(self.tables.len() as u8);
        stored.extend_from_slice(&self.firsts);
        order.sort(&self.firsts, row, classes, buffers.level());
        let mut sorted = vec![0; symbols.len()];
        for (symbols, &position) in symbols.chunks_exact(row).zip(&order.positions) {
            sorted[position as usize..][..row].copy_from_slice(symbols);
        }
        let mut spans: Vec<(&Coder, usize)> = Vec::new();
        let mut left = sorted.len();
        for quads in order.quads.chunk_by(|a, b| a.phase == b.phase) {
            let len = left.min(quads.len() * QUAD);
            spans.push((&self.tables[usize::from(quads[0].phase)], len));
            left -= len;
        }
        block::encode_spans(&sorted, self.split, &spans, self.number, buffers, stored)
    }
}

/// Decodes rows of `row` symbols cut by `split`, each in its class, into `sorted`; where each of them is there, `order` says
/// then.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not what an encoder writes.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    tables: &[Table],
    (split, row, classes): (Split, usize, &[u8]),
    order: &mut Order,
    sorted: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let count = usize::from(reader.u8()?);
    if !(1..=MOST_TABLES).contains(&count) {
        return Err(Error::corrupt(format!("rows have {count} tables, not 1 to {MOST_TABLES}")));
    }
    let firsts = reader.take(count - 1)?;
    if firsts.first() == Some(&0)
        || firsts.last().is_some_and(|&last| usize::from(last) >= CLASSES)
        || !firsts.is_sorted_by(|a, b| a < b)
    {
        return Err(Error::corrupt("the classes of rows are not in order"));
    }
    order.sort(firsts, row, classes, scratch.level());
    block::decode_quads(reader, split, tables, (&order.quads, count), sorted, scratch)
}

/// The number of the table of each class, when all but the first table begin with these.
fn tables_of_classes(firsts: &[u8]) -> [u8; CLASSES] {
    let mut tables = [0; CLASSES];
    for &first in firsts {
        tables[usize::from(first)..].iter_mut().for_each(|table| *table += 1);
    }
    tables
}

/// The order of rows by their tables.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Where each row begins among the sorted symbols.
    pub(super) positions: Vec<u32>,
    /// The table of each quad: that of the row which its first symbol is in.
    quads: Vec<QuadScale>,
}

/// Rows are walked through in so many parts of a chunk in turn: where a row goes depends on where the one before of its table
/// went.
const WALKS: usize = 8;

impl Order {
    /// Sorts rows of `row` symbols, each of the class with this number, below [`CLASSES`], those of one table in the order that they
    /// have. All tables but the first begin with these classes.
    fn sort(&mut self, firsts: &[u8], row: usize, classes: &[u8], level: Level) {
        let (positions, quads) = (&mut self.positions, &mut self.quads);
        at_level!(
            level,
            sort(firsts: &[u8], row: usize, classes: &[u8], positions: &mut Vec<u32>, quads: &mut Vec<QuadScale>)
        );
    }
}

/// [`Order::sort`].
#[inline(always)]
fn sort(firsts: &[u8], row: usize, classes: &[u8], positions: &mut Vec<u32>, quads: &mut Vec<QuadScale>) {
    let tables = tables_of_classes(firsts);
    let each = classes.len() / WALKS / AT_ONCE * AT_ONCE;
    let part = |walk: usize| walk * each..if walk < WALKS - 1 { (walk + 1) * each } else { classes.len() };
    let parts: [&[u8]; WALKS] = std::array::from_fn(|walk| &classes[part(walk)]);
    // How many rows of each part have one of the first so many tables.
    let mut until = [[0; WALKS]; MOST_TABLES + 1];
    for (until, &first) in until[1..].iter_mut().zip(firsts) {
        *until = parts.map(|part| count_below(part, first));
    }
    until[1 + firsts.len()..].fill(parts.map(|part| part.len() as u32));
    let (mut next, mut end) = ([[0u32; MOST_TABLES]; WALKS], 0);
    quads.clear();
    for table in 0..=firsts.len() {
        for (walk, next) in next.iter_mut().enumerate() {
            next[table] = end;
            end += (until[table + 1][walk] - until[table][walk]) * row as u32;
        }
        quads.resize((end as usize).div_ceil(QUAD), QuadScale { offset: 0, phase: table as u8 });
    }
    positions.resize(classes.len(), 0);
    let mut take = |walk: usize, class: u8| {
        let next = &mut next[walk][usize::from(tables[usize::from(class) % CLASSES]) % MOST_TABLES];
        let position = *next;
        *next += row as u32;
        position
    };
    for at in 0..each {
        for walk in 0..WALKS {
            positions[walk * each + at] = take(walk, classes[walk * each + at]);
        }
    }
    for at in WALKS * each..classes.len() {
        positions[at] = take(WALKS - 1, classes[at]);
    }
}

/// Classes that are counted together: few enough for a byte, and whole vectors.
const AT_ONCE: usize = 64;

/// How many of these classes are below one.
#[inline(always)]
fn count_below(classes: &[u8], below: u8) -> u32 {
    let count = |classes: &[u8]| u32::from(classes.iter().map(|&class| u8::from(class < below)).sum::<u8>());
    let (whole, rest) = classes.as_chunks::<AT_ONCE>();
    whole.iter().map(|classes| count(classes)).sum::<u32>() + count(rest)
}
