//! Deciding how a segment is normalised: a pass of sums over a sample, a formula, and the exact cost of the few best.
//!
//! Magnitudes are, roughly, logarithms of weights. What the elements of a run, or of a column, have in common is their mean
//! less that of all. How far such means vary beyond what chance makes of them tells what knowing them is worth; the formula
//! for that was fitted to exhaustive searches over real models (`docs/research.md`). All quantities are in octaves and bits
//! an element unless said otherwise.

use super::magnitudes::{BLOCK, Clamp, add_clamped, block_sums, upper_magnitudes};
use super::{Buffers, Normaliser};
use crate::chunk::scale::{MAX_PHASES, QUAD, Scale};
use crate::chunk::statistics::{KeyStatistics, PATCH_BITS};
use crate::rans::Table;
use crate::rans::table::MAX_SYMBOLS;
use crate::simd;
use crate::split::Element;

/// A part of a segment: where its first element is, a multiple of [`QUAD`], and its elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) first: u64,
    pub(crate) bytes: &'a [u8],
}

/// What is known of a segment beside its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// All elements of the segment.
    pub(crate) elements: u64,
    /// The lengths of the dimensions of the tensor, the last one in elements of the segment.
    pub(crate) dims: Vec<u64>,
}

/// Elements that are looked at together: some runs, even of long rows.
const PART: usize = 128 * QUAD;

/// Elements from which the exact cost of a candidate is taken.
const SAMPLED: std::ops::RangeInclusive<usize> = 8 << 10..=64 << 10;

/// Rows from which the means of columns are taken, about.
const COLUMN_ROWS: u64 = 1024;

/// The most columns: more would make the index large and could hardly pay.
const MAX_COLUMNS: u64 = 1 << 16;

/// A table in the index, in bits: an average.
const TABLE_BITS: f64 = 1100.0;

/// What knowing the offsets of runs or columns is worth, when they vary by `variance` beyond chance, are known up to `error`
/// (a variance too), and rounded to `unit`.
fn gain(variance: f64, error: f64, unit: f64) -> f64 {
    0.2 * (1.0 + 1.8 * variance).log2() - 0.69 * variance * error / (variance + error) - 0.69 * unit * unit / 12.0
}

/// The entropy of a normal variable of this variance that is rounded to `unit`.
fn entropy(variance: f64, unit: f64) -> f64 {
    0.5 * (1.0 + 17.08 * variance / (unit * unit)).log2()
}

/// How far a mean can be trusted that varies by `variance` beyond chance, and by `error` by chance.
fn trust(variance: f64, error: f64) -> f64 {
    if variance > 0.0 { variance / (variance + error) } else { 0.0 }
}

fn mean_square(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>() / values.len().max(1) as f64
}

/// How the segment of which `pieces` are a part (or all) is best normalised, the tables of its phases, and how many bits the
/// keys of an element then take; `None` when it is better left as it is. About `most` elements are looked at.
pub(crate) fn plan(
    element: Element,
    pieces: &[Piece<'_>],
    shape: &Shape,
    most: usize,
) -> Option<(Normaliser, Vec<Table>, f64)> {
    let parts = thinned(element, pieces, most);
    let sample = Sample::new(element, pieces, &parts, shape)?;
    let mut candidates = sample.candidates();
    let nothing = sample.cost(None);
    let costs: Vec<f64> = candidates.iter().map(|candidate| sample.cost(Some(candidate))).collect();
    let best = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).filter(|&best| costs[best] < nothing)?;
    let normaliser = candidates.swap_remove(best);
    let (tables, bits) = fit_tables(&normaliser, &parts)?;
    Some((normaliser, tables, bits))
}

/// Parts of the pieces, evenly spread, of about `most` elements together.
fn thinned<'a>(element: Element, pieces: &[Piece<'a>], most: usize) -> Vec<Piece<'a>> {
    let size = element.size();
    let elements: usize = pieces.iter().map(|piece| piece.bytes.len() / size).sum();
    let stride = elements.div_ceil(most).max(1);
    let parts = pieces.iter().flat_map(|piece| {
        let parts = piece.bytes.chunks(PART * size).enumerate();
        parts.map(|(part, bytes)| Piece { first: piece.first + (part * PART) as u64, bytes })
    });
    parts.step_by(stride).collect()
}

/// The sample and its sums.
struct Sample<'a> {
    element: Element,
    shape: &'a Shape,
    /// All that is at hand.
    all: &'a [Piece<'a>],
    /// The first element of each part that is looked at, and the magnitudes of all.
    pieces: Vec<(u64, Vec<u16>)>,
    /// Steps of an octave.
    octave: f64,
    clamp: Clamp,
    /// The mean of the clamped magnitudes above the clamp's lower end, in steps.
    mean: f64,
    /// The variance of magnitudes.
    variance: f64,
    /// For each piece the sums of its blocks.
    sums: Vec<Vec<u32>>,
}

/// The columns of a period: how much the mean of each differs from that of all.
struct ColumnMeans {
    means: Vec<f64>,
    variance: f64,
    error: f64,
}

/// A way to normalise, and what the formula expects of it.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    score: f64,
    /// Runs, and the number of phases.
    runs: Option<(RunMeans, u8)>,
    columns: Option<&'a ColumnMeans>,
}

/// The best candidate of each kind.
#[derive(Clone, Copy, Default)]
struct Best<'a> {
    runs: Option<Candidate<'a>>,
    columns: Option<Candidate<'a>>,
    both: Option<Candidate<'a>>,
}

impl<'a> Best<'a> {
    /// Keeps `candidate` if it is better than nothing and than the best so far.
    fn consider(&mut self, candidate: Candidate<'a>) {
        let kind = match (candidate.runs, candidate.columns) {
            (_, None) => &mut self.runs,
            (None, _) => &mut self.columns,
            (Some(_), Some(_)) => &mut self.both,
        };
        if candidate.score > kind.map_or(0.0, |best| best.score) {
            *kind = Some(candidate);
        }
    }
}

/// The runs of a length, and how much the mean of each differs from that of all, but for what its columns differ by.
#[derive(Clone, Copy)]
struct RunMeans {
    /// In elements.
    run: u64,
    variance: f64,
    error: f64,
}

impl<'a> Sample<'a> {
    /// `None` when all elements are zero.
    fn new(element: Element, all: &'a [Piece<'a>], parts: &[Piece<'_>], shape: &'a Shape) -> Option<Sample<'a>> {
        let level = simd::level();
        let octave = Scale::octave(element);
        let pieces: Vec<(u64, Vec<u16>)> = parts
            .iter()
            .map(|piece| {
                let mut magnitudes = Vec::new();
                upper_magnitudes(element, piece.bytes, level, &mut magnitudes);
                (piece.first, magnitudes)
            })
            .collect();
        let count: usize = pieces.iter().map(|(_, magnitudes)| magnitudes.len()).sum();
        let few = || pieces.iter().flat_map(|(_, magnitudes)| magnitudes.iter().step_by((count / 4096).max(1)));
        let (sum, taken) = few().filter(|&&m| m > 0).fold((0.0, 0.0), |(sum, n), &m| (sum + f64::from(m), n + 1.0));
        if taken == 0.0 {
            return None;
        }
        let middle = (sum / taken) as i32;
        let reach = 8 * i32::from(octave);
        let clamp = Clamp { low: (middle - reach).max(0) as u16, high: (middle + reach).min(0x7fff) as u16 };
        let clamped = |m: u16| f64::from(m.clamp(clamp.low, clamp.high));
        let squares = few().map(|&m| (clamped(m) - sum / taken).powi(2)).sum::<f64>();
        let variance = squares / few().count() as f64 / f64::from(octave).powi(2);
        let sums: Vec<Vec<u32>> = pieces
            .iter()
            .map(|(_, magnitudes)| {
                let mut sums = Vec::new();
                block_sums(magnitudes, clamp, level, &mut sums);
                sums
            })
            .collect();
        let total: u64 = sums.iter().flatten().map(|&sum| u64::from(sum)).sum();
        let mean = total as f64 / count as f64;
        Some(Sample { element, shape, all, pieces, octave: f64::from(octave), clamp, mean, variance, sums })
    }

    /// The elements that are looked at.
    fn len(&self) -> usize {
        self.pieces.iter().map(|(_, magnitudes)| magnitudes.len()).sum()
    }

    /// Numbers of columns that the shape offers, ascending.
    fn periods(&self) -> Vec<u64> {
        let mut periods = Vec::new();
        let mut period = 1u64;
        for &dim in self.shape.dims.iter().skip(1).rev() {
            period = period.saturating_mul(dim);
            let rows = self.shape.elements.checked_div(period).unwrap_or(0);
            if (8..=MAX_COLUMNS).contains(&period) && rows >= 16 && !periods.contains(&period) {
                periods.push(period);
            }
        }
        periods
    }

    /// The sums of the columns of a period over about [`COLUMN_ROWS`] rows, and how many elements each is of.
    fn column_sums(&self, period: u64) -> (Vec<u32>, Vec<u32>) {
        let columns = period as usize;
        let (mut sums, mut begun) = (vec![0; columns], vec![0i32; columns + 1]);
        let size = self.element.size();
        let rows = self.all.iter().map(|piece| (piece.bytes.len() / size) as u64).sum::<u64>() / period;
        let stride = (rows / COLUMN_ROWS).max(1);
        let level = simd::level();
        let mut row = 0;
        for piece in self.all {
            let mut rest = piece.bytes;
            let mut column = (piece.first % period) as usize;
            while !rest.is_empty() {
                let (this, further) = rest.split_at(rest.len().min((columns - column) * size));
                if row % stride == 0 {
                    let end = column + this.len() / size;
                    add_clamped(self.element, this, self.clamp, level, &mut sums[column..end]);
                    begun[column] += 1;
                    begun[end] -= 1;
                }
                row += 1;
                column = 0;
                rest = further;
            }
        }
        let counts = begun[..columns].iter().scan(0, |rows, &change| {
            *rows += change;
            Some(*rows as u32)
        });
        (sums, counts.collect())
    }

    /// What the columns of a period differ by, given the sums of those of a multiple of it.
    fn column_means(&self, period: u64, (sums, counts): &(Vec<u32>, Vec<u32>)) -> ColumnMeans {
        let columns = period as usize;
        let (mut sum, mut count) = (vec![0u64; columns], vec![0u64; columns]);
        for (column, (&s, &c)) in sums.iter().zip(counts).enumerate() {
            sum[column % columns] += u64::from(s);
            count[column % columns] += u64::from(c);
        }
        let used = count.iter().sum::<u64>().max(1) as f64;
        let mean = sum.iter().sum::<u64>() as f64 / used;
        let of_column = |(&sum, &count): (&u64, &u64)| {
            if count == 0 { 0.0 } else { (sum as f64 / count as f64 - mean) / self.octave }
        };
        let means: Vec<f64> = sum.iter().zip(&count).map(of_column).collect();
        let all = mean_square(&means);
        let error = self.variance * columns as f64 / used;
        ColumnMeans { means, variance: (all - error).max(0.0), error }
    }

    /// What runs of so many elements differ by, when their columns differ by `columns` (or not at all).
    fn run_means(&self, run: u64, columns: Option<&ColumnMeans>) -> RunMeans {
        let period = columns.map_or(1, |columns| columns.means.len() as u64);
        let mut sums = vec![0.0];
        if let Some(columns) = columns {
            sums.extend(columns.means.iter().scan(0.0, |sum, mean| {
                *sum += mean;
                Some(*sum)
            }));
        } else {
            sums.push(0.0);
        }
        let upto = |at: u64| (at / period) as f64 * sums[period as usize] + sums[(at % period) as usize];
        let (mut squares, mut runs) = (0.0, 0.0);
        for ((first, magnitudes), block_sums) in self.pieces.iter().zip(&self.sums) {
            let end = first + magnitudes.len() as u64;
            let mut start = *first;
            while start < end {
                let stop = ((start / run + 1) * run).min(end);
                let blocks = (start - first) as usize / BLOCK..((stop - first) as usize).div_ceil(BLOCK);
                let sum: u64 = block_sums[blocks].iter().map(|&sum| u64::from(sum)).sum();
                let len = (stop - start) as f64;
                let mean = (sum as f64 / len - self.mean) / self.octave - (upto(stop) - upto(start)) / len;
                squares += mean * mean;
                runs += 1.0;
                start = stop;
            }
        }
        let all: f64 = squares / f64::max(runs, 1.0);
        let of_columns = columns.map_or(0.0, |columns| columns.variance + columns.error);
        let error = (self.variance - all - of_columns).max(0.3) / run as f64;
        RunMeans { run, variance: (all - error).max(0.0), error }
    }

    /// The best way to normalise runs, that for columns, and that for both, as the formula has it, where it sees a gain.
    fn candidates(&self) -> Vec<Normaliser> {
        let elements = self.shape.elements as f64;
        let periods = self.periods();
        let sums = periods.last().map(|&longest| self.column_sums(longest));
        let all_columns: Vec<ColumnMeans> = periods
            .iter()
            .zip(std::iter::repeat(&sums))
            .filter_map(|(&period, sums)| Some(self.column_means(period, sums.as_ref()?)))
            .filter(|columns| columns.variance >= 0.01)
            .collect();
        let row = self.shape.dims.last().copied().unwrap_or(0);
        let mut lengths = vec![QUAD as u64];
        if row > QUAD as u64 && row.is_multiple_of(QUAD as u64) && row <= 4096 {
            lengths.push(row);
        }
        lengths.retain(|&run| self.shape.elements >= 4 * run);

        let mut best = Best::default();
        for columns in std::iter::once(None).chain(all_columns.iter().map(Some)) {
            let of_columns = columns.map_or(0.0, |columns| {
                let bits = entropy(columns.variance + columns.error, 1.0) * columns.means.len() as f64 / elements;
                gain(columns.variance, columns.error, 1.0) - bits
            });
            if columns.is_some() {
                best.consider(Candidate { score: of_columns, runs: None, columns });
            }
            for runs in lengths.iter().map(|&run| self.run_means(run, columns)).filter(|runs| runs.variance >= 0.003) {
                for phases in [1, 2, MAX_PHASES as u8].into_iter().filter(|&phases| f64::from(phases) <= self.octave) {
                    let unit = 1.0 / f64::from(phases);
                    let code_bits = entropy(runs.variance, unit) / runs.run as f64;
                    let more_tables = f64::from(phases - 1) * TABLE_BITS / elements;
                    let score = gain(runs.variance, runs.error, unit) - code_bits + of_columns - more_tables;
                    best.consider(Candidate { score, runs: Some((runs, phases)), columns });
                }
            }
        }
        [best.runs, best.columns, best.both]
            .into_iter()
            .flatten()
            .flat_map(|best| {
                let units: &[bool] = if best.columns.is_some() { &[false, true] } else { &[false] };
                units.iter().map(move |&half_octaves| self.normaliser(best, half_octaves))
            })
            .collect()
    }

    fn normaliser(&self, Candidate { runs, columns, .. }: Candidate<'_>, half_octaves: bool) -> Normaliser {
        let (run, trusted, phases) = match runs {
            Some((runs, phases)) => (runs.run, trust(runs.variance, runs.error), phases),
            None => (self.shape.elements.next_multiple_of(QUAD as u64), 0.0, 1),
        };
        let codes = columns.map_or(Vec::new(), |columns| {
            let per_octave = if half_octaves { 2.0 } else { 1.0 } * trust(columns.variance, columns.error);
            columns.means.iter().map(|mean| (mean * per_octave).round() as i8).collect()
        });
        let scale = Scale { run: run / QUAD as u64, phases, half_octaves, columns: codes };
        Normaliser::new(self.element, scale, self.clamp, self.mean, trusted)
    }

    /// The exact cost of keys, tables and codes on blocks scattered over the sample, in bits an element.
    fn cost(&self, normaliser: Option<&Normaliser>) -> f64 {
        let split = self.element.float_split().expect("only floats are normalised");
        let shift = u32::from(split.shift) - if split.width == 32 { 16 } else { 0 };
        let mask = if split.width == 8 { 0x7f } else { 0x7fff };
        let keys = 1usize << split.key_bits();
        let phases = normaliser.map_or(1, |normaliser| usize::from(normaliser.scale.phases));
        let mut counts = vec![0u32; keys * phases];
        let (len, mut counted) = (self.len(), 0usize);
        let wanted = (len / 16).clamp(*SAMPLED.start(), *SAMPLED.end());
        let stride = (len / wanted).max(1);
        let (mut codes, mut quads, mut all_codes) =
            (Vec::new(), Vec::new(), std::collections::BTreeMap::<i32, u32>::new());
        let mut number = 0usize;
        for ((first, magnitudes), sums) in self.pieces.iter().zip(&self.sums) {
            if let Some(normaliser) = normaliser {
                codes.clear();
                if normaliser.trust > 0.0 {
                    normaliser.find_codes(*first, magnitudes.len(), sums, &mut codes);
                    codes.iter().for_each(|&code| *all_codes.entry(code).or_default() += 1);
                } else {
                    codes.resize(normaliser.scale.runs(*first, magnitudes.len()), 0);
                }
                normaliser.scale.quads_of(self.octave as u16, *first, magnitudes.len(), &codes, &mut quads);
            }
            for (at, block) in magnitudes.chunks(BLOCK).enumerate() {
                // One of each `stride` blocks, not always the same.
                let (round, turn) = (number / stride, number % stride);
                number += 1;
                if turn != (round.wrapping_mul(0x9e37) >> 3) % stride {
                    continue;
                }
                counted += block.len();
                match normaliser {
                    None => block.iter().for_each(|&m| counts[usize::from(m >> shift)] += 1),
                    Some(normaliser) => {
                        let quad = quads[at * BLOCK / QUAD];
                        let counts = &mut counts[usize::from(quad.phase) * keys..][..keys];
                        let period = normaliser.columns.period();
                        let mut column = ((first + (at * BLOCK) as u64) % period as u64) as usize;
                        for &m in block {
                            let y =
                                m.wrapping_sub(quad.offset).wrapping_sub(normaliser.columns.offsets()[column]) & mask;
                            counts[usize::from(y >> shift)] += 1;
                            column += 1;
                            if column == period {
                                column = 0;
                            }
                        }
                    }
                }
            }
        }
        let bits: f64 = counts.chunks_exact(keys).map(cost_of_keys).sum();
        // The codes of runs are stored in as many bits as the usual ones have.
        let runs: u32 = all_codes.values().sum();
        let code_bits =
            if runs > 0 { (all_codes.len() as f64).log2().ceil() * f64::from(runs) / len as f64 } else { 0.0 };
        let columns = normaliser.map_or(0.0, |normaliser| column_bits(&normaliser.scale.columns));
        bits / counted.max(1) as f64 + code_bits + (columns + phases as f64 * TABLE_BITS) / self.shape.elements as f64
    }
}

/// The bits of keys that occur so often, coded with a table of their own.
fn cost_of_keys(counts: &[u32]) -> f64 {
    /// What rounding frequencies costs for each symbol.
    const ROUNDING_BITS: f64 = 0.72;
    let mut used: Vec<u32> = counts.iter().copied().filter(|&count| count > 0).collect();
    used.sort_unstable_by(|a, b| b.cmp(a));
    let (kept, outside) = used.split_at(used.len().min(MAX_SYMBOLS));
    let total: f64 = kept.iter().map(|&count| f64::from(count)).sum();
    let symbols: f64 = kept.iter().map(|&count| f64::from(count) * (total / f64::from(count)).log2()).sum();
    let outside: f64 = outside.iter().map(|&count| f64::from(count)).sum();
    symbols + outside * (PATCH_BITS + 4.0) + kept.len() as f64 * ROUNDING_BITS
}

/// The bits that a normaliser takes in the index, its tables left out, about.
pub(crate) fn index_bits(normaliser: &Normaliser) -> f64 {
    column_bits(&normaliser.scale.columns) + 32.0
}

/// The bits of the codes of columns in the index, about.
fn column_bits(codes: &[i8]) -> f64 {
    let mut counts = [0u32; 256];
    codes.iter().for_each(|&code| counts[usize::from(code as u8)] += 1);
    let total = codes.len() as f64;
    let bits = counts.iter().filter(|&&count| count > 0);
    bits.map(|&count| f64::from(count) * (total / f64::from(count)).log2() + 6.0).sum()
}

/// The tables of the phases, fitted to normalised pieces, and the bits that the keys of an element then take; `None` when
/// there are no elements.
fn fit_tables(normaliser: &Normaliser, pieces: &[Piece<'_>]) -> Option<(Vec<Table>, f64)> {
    let split = normaliser.element.float_split().expect("only floats are normalised");
    let size = split.size();
    let (mut buffers, mut stored) = (Buffers::default(), Vec::new());
    let mut statistics = vec![KeyStatistics::new(split); usize::from(normaliser.scale.phases)];
    let (mut counted, mut code_bytes) = (0, 0);
    let mut of_phase = vec![Vec::new(); statistics.len()];
    for piece in pieces {
        stored.clear();
        normaliser.normalise(piece.bytes, piece.first, simd::level(), &mut buffers, &mut stored);
        code_bytes += stored.len();
        counted += piece.bytes.len() / size;
        for (quad, elements) in buffers.quads.iter().zip(buffers.elements.chunks(QUAD * size)) {
            of_phase[usize::from(quad.phase)].extend_from_slice(elements);
        }
    }
    statistics.iter_mut().zip(&of_phase).for_each(|(statistics, bytes)| statistics.add(bytes));
    // A phase that does not occur in the sample may still occur elsewhere.
    let all: Vec<u64> =
        (0..1usize << split.key_bits()).map(|key| statistics.iter().map(|of| of.counts()[key]).sum()).collect();
    let fallback = Table::fit(&all)?;
    let mut bits = code_bytes as f64 * 8.0;
    let tables = statistics
        .iter()
        .map(|statistics| match Table::fit(statistics.counts()) {
            Some(table) => {
                let (symbols, outside) = table.cost(statistics.counts());
                bits += symbols + outside as f64 * PATCH_BITS;
                table
            }
            None => fallback.clone(),
        })
        .collect();
    Some((tables, bits / counted as f64))
}
