//! Which codec the chunks of a segment get, decided on a sample of it.

use super::block::Coder;
use super::differences;
use super::normalise::{self, Normaliser, Piece, Shape};
use super::palette::Palette;
use super::repetition::may_repeat;
use super::scale::Scale;
use super::sparse;
use super::statistics::{KeyStatistics, PATCH_BITS, count_planes};
use crate::container::Mode;
use crate::rans::Table;
use crate::split::{Element, Split};

/// A segment shorter than this may do without a table of its own and use its element's shared table.
pub(crate) const MAY_SHARE_TABLE: u64 = 64 << 10;

/// Elements that are looked at to plan how they are normalised: four times as many are worth 0.01 % to 0.02 %.
const PLANNED: usize = 256 << 10;
const PLANNED_STORAGE: usize = 1 << 20;

/// Bytes of the probe that Zstandard is tried on.
const PROBE: usize = 64 << 10;

/// What a chunk costs beyond its symbols and raw bits: the header, the states, the rounding up of planes.
const BLOCK_OVERHEAD_BITS: f64 = 8.0 * 180.0;

/// How the chunks of a segment are to be coded.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Not at all.
    Raw,
    /// With Zstandard at this level.
    Zstd {
        /// The compression level, 1 to 22.
        level: i32,
    },
    /// As floats, with this table.
    Float(Table),
    /// As floats that are normalised, with a table for each phase.
    Scaled(Box<Normaliser>, Vec<Table>),
    /// As byte planes.
    Bytes(Vec<PlanePlan<Table>>),
    /// As floats of which many are zero: the tables of the masks and of the others.
    Sparse([Table; 2]),
    /// As few values.
    Palette(Palette, PlanePlan<Table>),
    /// As differences, with Zstandard at this level.
    Differences {
        /// The compression level, 1 to 22.
        level: i32,
    },
}

/// How one byte plane is to be coded: `T` is a [`Table`], or a [`Coder`] once it is ready.
#[derive(Clone, Debug)]
pub(crate) enum PlanePlan<T> {
    /// Not at all.
    Raw,
    /// With a table.
    Coded {
        /// The low bits that are stored raw.
        shift: u8,
        /// The number of the table within the segment.
        table: u16,
        /// The table.
        coder: T,
    },
}

impl PlanePlan<Table> {
    /// The plan ready to run; its table is appended to `tables`.
    fn ready(self, tables: &mut Vec<Table>) -> PlanePlan<Coder> {
        match self {
            PlanePlan::Raw => PlanePlan::Raw,
            PlanePlan::Coded { shift, table, coder } => {
                let ready = Coder::new(&coder, Split::of_bytes(shift));
                tables.push(coder);
                PlanePlan::Coded { shift, table, coder: ready }
            }
        }
    }
}

/// A [`Plan`] with its tables made ready to encode.
#[derive(Clone, Debug)]
pub(crate) enum ReadyPlan {
    Raw,
    Zstd {
        level: i32,
    },
    Float(Box<Coder>),
    Scaled {
        normaliser: Box<Normaliser>,
        /// One for each phase.
        coders: Vec<Coder>,
    },
    Bytes(Vec<PlanePlan<Coder>>),
    Sparse(Box<[Coder; 2]>),
    Palette {
        palette: Palette,
        indices: Box<PlanePlan<Coder>>,
    },
    Differences {
        level: i32,
    },
}

impl ReadyPlan {
    /// How the elements are normalised.
    pub(crate) fn scale(&self) -> Option<&Scale> {
        match self {
            ReadyPlan::Scaled { normaliser, .. } => Some(&normaliser.scale),
            _ => None,
        }
    }
}

/// A segment, or a sample of it.
#[derive(Clone, Debug)]
pub(crate) struct Sample<'a> {
    pub(crate) element: Element,
    /// Whole elements, in pieces that lie one behind the other here.
    pub(crate) bytes: &'a [u8],
    /// Bytes of the segment, and of its chunks.
    pub(crate) len: u64,
    pub(crate) chunk_size: u32,
    /// Where the pieces are, and the shape; `None` when it is not to be normalised.
    pub(crate) shape: Option<(Pieces, Shape)>,
}

/// Where in a segment each piece begins, and how long it is, in bytes.
pub(crate) type Pieces = Vec<(u64, usize)>;

/// The level at which `mode` uses Zstandard.
pub(crate) fn zstd_level(mode: Mode) -> i32 {
    match mode {
        Mode::Storage => 19,
        Mode::Balanced => 3,
        Mode::Inference => 1,
    }
}

impl Plan {
    /// The plan for a segment. `shared` is the table that short segments of floats of this kind share.
    pub(crate) fn of(segment: &Sample<'_>, mode: Mode, shared: Option<&Table>) -> Plan {
        let Sample { element, bytes: sample, len, .. } = *segment;
        if sample.is_empty() {
            return Plan::Raw;
        }
        let scale = len as f64 / sample.len() as f64;
        let raw_bits = sample.len() as f64 * 8.0;
        let (mut best, mut best_bits) = (Plan::Raw, raw_bits);
        let mut consider = |plan: Plan, bits: f64| {
            if bits < best_bits {
                (best, best_bits) = (plan, bits);
            }
        };
        match element.float_split() {
            Some(split) => {
                // Hardly ever better than what is normalised, if that is better at all.
                match normalised(segment, mode) {
                    Some((plan, bits)) => consider(plan, bits),
                    None => {
                        let mut statistics = KeyStatistics::new(split);
                        statistics.add(sample);
                        if let Some(table) = Table::fit(statistics.counts()) {
                            let bits = statistics.bits(&table) + table_bits(&table) / scale + BLOCK_OVERHEAD_BITS;
                            consider(Plan::Float(table), bits);
                        }
                        if let Some(table) = shared.filter(|_| len < MAY_SHARE_TABLE) {
                            consider(Plan::Float(table.clone()), statistics.bits(table) + BLOCK_OVERHEAD_BITS);
                        }
                    }
                }
            }
            None => {
                let (planes, bits) = plan_planes(element.size(), sample, scale);
                consider(Plan::Bytes(planes), bits);
            }
        }
        if let Some(split) = element.float_split()
            && let Some((tables, bits)) = sparse::plan(sample, split)
        {
            let table_bits: f64 = tables.iter().map(table_bits).sum();
            consider(Plan::Sparse(tables), bits + table_bits / scale + 2.0 * BLOCK_OVERHEAD_BITS);
        }
        if element.size() > 1
            && let Some(palette) = Palette::of(sample, element.size())
        {
            let mut indices = Vec::new();
            palette.indices(sample, &mut indices);
            let (mut planes, bits) = plan_planes(1, &indices, scale);
            // It is in every chunk.
            let palette_bits =
                palette.stored_len() as f64 * 8.0 * (sample.len() as f64 / segment.chunk_size as f64).ceil();
            consider(Plan::Palette(palette, planes.remove(0)), bits + palette_bits);
        }
        let probe = &sample[sample.len() / 2 - sample.len().min(PROBE) / 2..][..sample.len().min(PROBE)];
        if element.float_split().is_some() && !may_repeat(probe, element.size()) {
            return best;
        }
        let level = zstd_level(mode);
        let probed_bits = |probe: &[u8]| {
            let probed = zstd::bulk::compress(probe, level.min(3)).expect("Zstandard compresses any bytes");
            probed.len() as f64 * 8.0 * sample.len() as f64 / probe.len() as f64
        };
        consider(Plan::Zstd { level }, probed_bits(probe));
        if let Element::Bytes(size @ 2..) = element {
            let size = usize::from(size);
            consider(
                Plan::Differences { level },
                probed_bits(&differences::take(&probe[..probe.len() / size * size], size)),
            );
        }
        best
    }

    /// The plan ready to run, and the tables that the container must store for it.
    pub(crate) fn ready(self, element: Element) -> (ReadyPlan, Vec<Table>) {
        let coder = |table: &Table| Coder::new(table, element.float_split().expect("floats are cut"));
        match self {
            Plan::Raw => (ReadyPlan::Raw, Vec::new()),
            Plan::Zstd { level } => (ReadyPlan::Zstd { level }, Vec::new()),
            Plan::Float(table) => (ReadyPlan::Float(Box::new(coder(&table))), vec![table]),
            Plan::Scaled(normaliser, tables) => {
                (ReadyPlan::Scaled { normaliser, coders: tables.iter().map(coder).collect() }, tables)
            }
            Plan::Bytes(planes) => {
                let mut tables = Vec::new();
                let planes = planes.into_iter().map(|plane| plane.ready(&mut tables)).collect();
                (ReadyPlan::Bytes(planes), tables)
            }
            Plan::Sparse(tables) => {
                let masks = Coder::new(&tables[0], Split::of_bytes(0));
                (ReadyPlan::Sparse(Box::new([masks, coder(&tables[1])])), tables.to_vec())
            }
            Plan::Palette(palette, indices) => {
                let mut tables = Vec::new();
                let indices = Box::new(indices.ready(&mut tables));
                (ReadyPlan::Palette { palette, indices }, tables)
            }
            Plan::Differences { level } => (ReadyPlan::Differences { level }, Vec::new()),
        }
    }
}

/// The plan to normalise a segment of floats, if that pays, and the bits that its sample then takes.
fn normalised(segment: &Sample<'_>, mode: Mode) -> Option<(Plan, f64)> {
    let Sample { element, bytes: mut rest, len, .. } = *segment;
    let (pieces, shape) = segment.shape.as_ref()?;
    let elements = (rest.len() / element.size()) as f64;
    let scale = len as f64 / rest.len() as f64;
    let pieces: Vec<Piece<'_>> = pieces
        .iter()
        .map(|&(at, len)| {
            let (bytes, further) = rest.split_at(len);
            rest = further;
            Piece { first: at / element.size() as u64, bytes }
        })
        .collect();
    let most = if mode == Mode::Storage { PLANNED_STORAGE } else { PLANNED };
    let (normaliser, tables, key_bits) = normalise::plan(element, &pieces, shape, most)?;
    let split = element.float_split().expect("only floats are normalised");
    let raw_bits = f64::from(split.without_zeros(or_of_all(segment.bytes, element.size())).raw_bits());
    let index_bits = tables.iter().map(table_bits).sum::<f64>() + normalise::index_bits(&normaliser);
    let bits = (key_bits + raw_bits) * elements + index_bits / scale + BLOCK_OVERHEAD_BITS;
    Some((Plan::Scaled(Box::new(normaliser), tables), bits))
}

/// The bits that any element of `size` bytes (1, 2 or 4) has, and that no element lacks.
fn or_of_all(bytes: &[u8], size: usize) -> u32 {
    let (words, rest) = bytes.as_chunks();
    let mut any = words.iter().fold(0, |any, word| any | u32::from_le_bytes(*word));
    rest.iter().enumerate().for_each(|(at, &byte)| any |= u32::from(byte) << (8 * at));
    if size <= 2 {
        any |= any >> 16;
    }
    if size == 1 {
        any |= any >> 8;
    }
    any & (u32::MAX >> (32 - 8 * size))
}

/// The bits that a table takes in the index.
fn table_bits(table: &Table) -> f64 {
    let mut wire = Vec::new();
    table.write(&mut wire);
    wire.len() as f64 * 8.0
}

/// How to code each of the `size` byte planes of `sample`, and the bits that it then takes.
fn plan_planes(size: usize, sample: &[u8], scale: f64) -> (Vec<PlanePlan<Table>>, f64) {
    let (mut planes, mut all_bits, mut tables) = (Vec::new(), 0.0, 0);
    for counts in count_planes(size, sample) {
        let (mut best, mut best_bits) = (PlanePlan::Raw, (sample.len() / size) as f64 * 8.0);
        for shift in 0..4u8 {
            let mut keys = vec![0; 256 >> shift];
            counts.iter().enumerate().for_each(|(byte, count)| keys[byte >> shift] += count);
            let Some(table) = Table::fit(&keys) else { continue };
            let (symbol_bits, outside) = table.cost(&keys);
            let bits = symbol_bits
                + (sample.len() / size) as f64 * f64::from(shift)
                + outside as f64 * PATCH_BITS
                + table_bits(&table) / scale
                + BLOCK_OVERHEAD_BITS;
            if bits < best_bits {
                (best, best_bits) = (PlanePlan::Coded { shift, table: tables, coder: table }, bits);
            }
        }
        tables += u16::from(matches!(best, PlanePlan::Coded { .. }));
        planes.push(best);
        all_bits += best_bits;
    }
    (planes, all_bits)
}
