//! How a segment is coded against its base, decided on a sample of it.

use super::encode::{DeltaCoder, Measured, octave};
use super::step::{Kind, context, extra_bits};
use super::{CONTEXTS, KEYS, MAX_TABLES, RUN};
use crate::container::Mode;
use crate::rans::Table;
use crate::simd;

/// Elements that are looked at.
const PLANNED: usize = 256 << 10;
const PLANNED_STORAGE: usize = 1 << 20;

/// How often codes and tables are made for one another.
const ROUNDS: usize = 3;

/// Where codes begin, so that those of other chunks have room below.
const LEAST_CODE: i32 = 24;

/// Bits of a table's entry for a key, and of the table itself, in the index.
const BITS_OF_ENTRY: f64 = 13.0;
const BITS_OF_TABLE: f64 = 20.0;

/// How a segment is coded against its base; [`Delta`](super::Delta) has the same, with what only the index knows.
#[derive(Clone, Debug)]
pub(crate) struct DeltaPlan {
    pub(crate) origin: i16,
    pub(crate) thresholds: Vec<u8>,
    /// That of the codes, then those for differences.
    pub(crate) tables: Vec<Table>,
    pub(crate) coder: Box<DeltaCoder>,
    /// How much of it a bit of the sample takes, but for the tables.
    pub(crate) bits_per_bit: f64,
}

/// How often each key occurs in each context.
type Counts = Vec<[u64; KEYS]>;

/// A run of neighbouring contexts that share a table.
struct Shared {
    first: usize,
    counts: [u64; KEYS],
    bits: f64,
}

impl DeltaPlan {
    /// The plan for elements like these, as many of the base; `None` when they are all the same.
    pub(crate) fn of(kind: Kind, bytes: &[u8], base: &[u8], mode: Mode) -> Option<DeltaPlan> {
        let measured = sample(kind, bytes, base, if mode == Mode::Storage { PLANNED_STORAGE } else { PLANNED });
        let octaves: Vec<Option<i32>> = measured
            .runs()
            .map(|(keys, exponents)| keys.iter().any(|&key| key > 0).then(|| octave(keys, exponents)))
            .collect();
        let least = octaves.iter().flatten().min()?;
        let origin = i16::try_from(least - LEAST_CODE).expect("octaves are a few hundred at most");
        let most = KEYS as i32 - 1;
        let mut codes: Vec<u8> = octaves
            .iter()
            .map(|octave| octave.map_or(0, |octave| (octave - i32::from(origin)).clamp(1, most) as u8))
            .collect();
        for round in 1.. {
            let plan = DeltaPlan::with_codes(kind, origin, &measured, &codes);
            if round == ROUNDS {
                return Some(plan);
            }
            for ((keys, exponents), code) in measured.runs().zip(&mut codes) {
                *code = plan.coder.best_code(keys, exponents).expect("there is a code for each run of the sample");
            }
        }
        unreachable!("rounds end");
    }

    /// The plan that is best for runs with these codes.
    fn with_codes(kind: Kind, origin: i16, measured: &Measured, codes: &[u8]) -> DeltaPlan {
        let mut counts: Counts = vec![[0; KEYS]; CONTEXTS];
        let mut counts_of_codes = [0; KEYS];
        let mut bits_beside = 0;
        for ((keys, exponents), &code) in measured.runs().zip(codes) {
            counts_of_codes[usize::from(code)] += 1;
            if code > 0 {
                for (&key, &exponent) in keys.iter().zip(exponents) {
                    counts[context(i32::from(origin) + i32::from(code), exponent.into())][usize::from(key)] += 1;
                    bits_beside += u64::from(extra_bits(key));
                }
            }
        }
        let shared = share(&counts);
        let thresholds = shared[1..].iter().map(|shared| shared.first as u8).collect::<Vec<_>>();
        let mut tables = vec![Table::fit(&counts_of_codes).expect("there are runs")];
        tables.extend(shared.iter().map(|shared| Table::fit(&shared.counts).expect("none is empty")));
        let bits: f64 = shared.iter().map(|shared| bits_of(&shared.counts)).sum::<f64>() + bits_of(&counts_of_codes);
        let all = (measured.keys.len() * kind.size() * 8) as f64;
        let coder = Box::new(DeltaCoder::new(kind, origin, &thresholds, &tables));
        DeltaPlan { origin, thresholds, tables, coder, bits_per_bit: (bits + bits_beside as f64) / all }
    }
}

/// So many elements at most, in pieces of whole runs spread evenly, measured.
fn sample(kind: Kind, bytes: &[u8], base: &[u8], most: usize) -> Measured {
    /// Runs of a piece.
    const PIECE: usize = 16;
    let mut measured = Measured::default();
    let runs = bytes.len() / (RUN * kind.size());
    if runs * RUN <= most {
        measured.measure(kind, bytes, base, simd::level());
        return measured;
    }
    let pieces = most / RUN / PIECE;
    let piece = PIECE * RUN * kind.size();
    let (mut sampled, mut sampled_base) = (Vec::with_capacity(pieces * piece), Vec::with_capacity(pieces * piece));
    for number in 0..pieces {
        let begin = (runs - PIECE) * number / (pieces - 1) * RUN * kind.size();
        sampled.extend_from_slice(&bytes[begin..begin + piece]);
        sampled_base.extend_from_slice(&base[begin..begin + piece]);
    }
    measured.measure(kind, &sampled, &sampled_base, simd::level());
    measured
}

/// Joins neighbouring contexts, the ones first that lose least by it, until all that are left are worth their table.
fn share(counts: &Counts) -> Vec<Shared> {
    let used = counts.iter().enumerate().filter(|(_, counts)| counts.iter().any(|&count| count > 0));
    let mut shared: Vec<Shared> =
        used.map(|(first, counts)| Shared { first, counts: *counts, bits: bits_with_table(counts) }).collect();
    if shared.is_empty() {
        // All runs are like the base, and yet a table there must be.
        let mut counts = [0; KEYS];
        counts[0] = 1;
        return vec![Shared { first: 0, counts, bits: 0.0 }];
    }
    let join = |a: &Shared, b: &Shared| {
        let counts = std::array::from_fn(|key| a.counts[key] + b.counts[key]);
        Shared { first: a.first, bits: bits_with_table(&counts), counts }
    };
    // What each of them would be together with the next.
    let mut joined: Vec<Shared> = shared.windows(2).map(|pair| join(&pair[0], &pair[1])).collect();
    while !joined.is_empty() {
        let lost = |at: usize| joined[at].bits - shared[at].bits - shared[at + 1].bits;
        let at = (0..joined.len()).reduce(|a, b| if lost(b) < lost(a) { b } else { a }).expect("it is not empty");
        if lost(at) > 0.0 && shared.len() <= MAX_TABLES {
            break;
        }
        shared[at] = joined.remove(at);
        shared.remove(at + 1);
        if at > 0 {
            joined[at - 1] = join(&shared[at - 1], &shared[at]);
        }
        if at < joined.len() {
            joined[at] = join(&shared[at], &shared[at + 1]);
        }
    }
    shared
}

/// The bits that keys take which occur so often, with the best table.
fn bits_of(counts: &[u64; KEYS]) -> f64 {
    let total: u64 = counts.iter().sum();
    let bits = |&count: &u64| count as f64 * (total as f64 / count as f64).log2();
    counts.iter().filter(|&&count| count > 0).map(bits).sum()
}

fn bits_with_table(counts: &[u64; KEYS]) -> f64 {
    let entries = counts.iter().filter(|&&count| count > 0).count();
    bits_of(counts) + BITS_OF_TABLE + entries as f64 * BITS_OF_ENTRY
}
