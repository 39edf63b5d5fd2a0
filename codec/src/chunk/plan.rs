//! Which codec the chunks of a segment get, decided on a sample of it.

mod special;

use super::block::Coder;
use super::differences;
use super::normalise::{self, Normaliser, Piece, Shape};
use super::palette::PalettePlan;
use super::plane::{self, BLOCK_OVERHEAD_BITS, PlanePlan, table_bits};
use super::quantised::{BlockPlan, BlockStatistics};
use super::repetition::{may_repeat, repeats};
use super::scale::Scale;
use super::sparse::SparsePlan;
use super::statistics::{KeyStatistics, count_bytes};
use crate::container::Mode;
use crate::quantised::BlockType;
use crate::rans::Table;
use crate::simd;
use crate::split::Element;

/// A segment shorter than this may do without a table of its own and use its element's shared table.
pub(crate) const MAY_SHARE_TABLE: u64 = 64 << 10;

/// Elements that are looked at to plan how they are normalised: four times as many are worth 0.01 % to 0.02 %.
const PLANNED: usize = 256 << 10;
const PLANNED_STORAGE: usize = 1 << 20;

/// Bytes of the probe that Zstandard is tried on.
const PROBE: usize = 64 << 10;

/// How the chunks of a segment are to be coded.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    coding: PlannedCoding,
    /// Whether Zstandard may be better for some of them.
    try_zstd: bool,
    zstd_level: i32,
    /// Whether they are to be as long as they can be.
    long_chunks: bool,
    /// How much of it a bit of the segment takes with that coding.
    bits_per_bit: f64,
}

/// Chunks are made longer for a repetition if that makes them so many times smaller.
const WORTH_LONG_CHUNKS: f64 = 0.995;

/// What they are to be coded with.
#[derive(Clone, Debug)]
pub(super) enum PlannedCoding {
    /// Nothing.
    Raw,
    /// Zstandard at this level.
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
    /// As a mask and what it leaves.
    Sparse(Box<SparsePlan<Table, Plan>>),
    /// As few values.
    Palette(Box<PalettePlan<Table>>),
    /// As one plane of all bytes.
    Packed(PlanePlan<Table>),
    /// As differences, with Zstandard at this level.
    Differences {
        /// The compression level, 1 to 22.
        level: i32,
    },
    /// As quantised blocks.
    Blocks(Box<BlockPlan<Table>>),
}

/// A [`Plan`] with its tables made ready to encode.
#[derive(Clone, Debug)]
pub(crate) struct ReadyPlan {
    pub(super) coding: Coding,
    pub(super) try_zstd: bool,
    pub(super) zstd_level: i32,
    /// Whether chunks are to be as long as they can be.
    pub(crate) long_chunks: bool,
    /// How much of it a bit of the segment takes.
    pub(crate) bits_per_bit: f64,
}

/// What chunks are coded with.
#[derive(Clone, Debug)]
pub(super) enum Coding {
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
    Sparse(Box<SparsePlan<Coder, ReadyPlan>>),
    Palette(Box<PalettePlan<Coder>>),
    Packed(Box<PlanePlan<Coder>>),
    Differences {
        level: i32,
    },
    Blocks(Box<BlockPlan<Coder>>),
}

impl ReadyPlan {
    /// How the elements are normalised.
    pub(crate) fn scale(&self) -> Option<&Scale> {
        match &self.coding {
            Coding::Scaled { normaliser, .. } => Some(&normaliser.scale),
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

/// The level of Zstandard for all that is not to be as small as can be, and for probes.
pub(super) const FAST_LEVEL: i32 = 3;

/// The level at which `mode` uses Zstandard.
pub(crate) fn zstd_level(mode: Mode) -> i32 {
    match mode {
        Mode::Storage => 19,
        // What is compressed with a lower level is not decompressed faster.
        Mode::Balanced | Mode::Inference => FAST_LEVEL,
    }
}

/// The best of several codings.
struct Best {
    coding: PlannedCoding,
    bits: f64,
}

impl Best {
    fn consider(&mut self, coding: PlannedCoding, bits: f64) {
        if bits < self.bits {
            *self = Best { coding, bits };
        }
    }
}

/// Zstandard may be better for some chunks of a segment if a probe of it takes at most so many times what it takes
/// otherwise.
const MAY_BE_BETTER: f64 = 1.1;

impl Plan {
    /// To use Zstandard at this level, whatever the segment.
    pub(crate) fn zstd(level: i32) -> Plan {
        Plan::new(PlannedCoding::Zstd { level }, level)
    }

    fn new(coding: PlannedCoding, zstd_level: i32) -> Plan {
        Plan { coding, try_zstd: false, zstd_level, long_chunks: false, bits_per_bit: 1.0 }
    }

    /// The plan for a segment. `shared` is what segments of this kind may share.
    pub(crate) fn of(segment: &Sample<'_>, mode: Mode, shared: Shared<'_>) -> Plan {
        let zstd_level = zstd_level(mode);
        if segment.bytes.is_empty() {
            return Plan::new(PlannedCoding::Raw, zstd_level);
        }
        let best = match (segment.element, shared) {
            (Element::Blocks(kind), Shared::Blocks(shared)) => blocks(segment, kind, Some(shared)),
            (Element::Blocks(kind), _) => blocks(segment, kind, None),
            (_, shared) => {
                let mut best = plain(segment, mode, shared.table());
                special::consider(segment, mode, &mut best);
                best
            }
        };
        let probe = plane::middle(segment.bytes, PROBE);
        let element = segment.element;
        // Quantised blocks are alike: where one chunk repeats something, so do others, or it is seen when it comes.
        let may_be_better = if matches!(element, Element::Blocks(_)) { 1.0 } else { MAY_BE_BETTER };
        let mut plan = Plan::new(best.coding, zstd_level);
        plan.bits_per_bit = best.bits / (segment.bytes.len() as f64 * 8.0);
        if element.float_split().is_none() || may_repeat(probe, element.size()) {
            let probed =
                zstd::bulk::compress(probe, zstd_level.min(FAST_LEVEL)).expect("Zstandard compresses any bytes");
            let bits = probed.len() as f64 * 8.0 * segment.bytes.len() as f64 / probe.len() as f64;
            plan.try_zstd = bits < best.bits * may_be_better;
        }
        plan
    }

    /// Makes use of chunks as long as all of `piece`, the beginning of the segment, if repetitions over a longer distance
    /// than those of `chunk_size` bytes have make them worth their slower access.
    pub(crate) fn lengthen_chunks(&mut self, piece: &[u8], chunk_size: usize) {
        if piece.len() > chunk_size && (self.try_zstd || repeats(piece, simd::level())) {
            let level = self.zstd_level.min(FAST_LEVEL);
            let compressed =
                |bytes: &[u8]| zstd::bulk::compress(bytes, level).expect("Zstandard compresses any bytes").len();
            let in_chunks: usize = piece.chunks(chunk_size).map(compressed).sum();
            let at_best = (in_chunks as f64).min(piece.len() as f64 * self.bits_per_bit);
            self.long_chunks = (compressed(piece) as f64) < at_best * WORTH_LONG_CHUNKS;
        }
    }

    /// The plan ready to run, and the tables that the container must store for it.
    pub(crate) fn ready(self, element: Element) -> (ReadyPlan, Vec<Table>) {
        let coder = |table: &Table| Coder::new(table, element.float_split().expect("floats are cut"));
        let mut tables = Vec::new();
        let coding = match self.coding {
            PlannedCoding::Raw => Coding::Raw,
            PlannedCoding::Zstd { level } => Coding::Zstd { level },
            PlannedCoding::Float(table) => {
                let ready = Coding::Float(Box::new(coder(&table)));
                tables.push(table);
                ready
            }
            PlannedCoding::Scaled(normaliser, of_phases) => {
                tables = of_phases;
                Coding::Scaled { normaliser, coders: tables.iter().map(coder).collect() }
            }
            PlannedCoding::Bytes(planes) => {
                Coding::Bytes(planes.into_iter().map(|plane| plane.ready(&mut tables)).collect())
            }
            PlannedCoding::Sparse(plan) => {
                let SparsePlan { filler, mask, kept } = *plan;
                let (kept, of_kept) = kept.ready(element);
                tables = of_kept;
                Coding::Sparse(Box::new(SparsePlan { filler, mask: mask.ready(&mut tables), kept }))
            }
            PlannedCoding::Differences { level } => Coding::Differences { level },
            PlannedCoding::Packed(plan) => Coding::Packed(Box::new(plan.ready(&mut tables))),
            PlannedCoding::Palette(plan) => Coding::Palette(Box::new(plan.ready(&mut tables))),
            PlannedCoding::Blocks(plan) => Coding::Blocks(Box::new(plan.ready(&mut tables))),
        };
        let Plan { try_zstd, zstd_level, long_chunks, bits_per_bit, .. } = self;
        (ReadyPlan { coding, try_zstd, zstd_level, long_chunks, bits_per_bit }, tables)
    }
}

/// What segments of a kind share, which need then not pay for one of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shared<'a> {
    /// Nothing.
    None,
    /// The table that short segments of floats share.
    Table(&'a Table),
    /// How blocks of the type may be coded.
    Blocks(&'a BlockPlan<Table>),
}

impl<'a> Shared<'a> {
    fn table(self) -> Option<&'a Table> {
        match self {
            Shared::Table(table) => Some(table),
            _ => None,
        }
    }
}

/// The best coding of a segment of blocks of this type.
fn blocks(segment: &Sample<'_>, kind: BlockType, shared: Option<&BlockPlan<Table>>) -> Best {
    let Sample { bytes: sample, len, .. } = *segment;
    let mut best = Best { coding: PlannedCoding::Raw, bits: sample.len() as f64 * 8.0 };
    let mut statistics = BlockStatistics::new(kind);
    statistics.add(sample);
    if let Some((plan, bits)) = statistics.fit(len as f64 / sample.len() as f64) {
        best.consider(PlannedCoding::Blocks(Box::new(plan)), bits);
    }
    if let Some(plan) = shared {
        best.consider(PlannedCoding::Blocks(Box::new(plan.clone())), statistics.bits(plan));
    }
    best
}

/// The bits that Zstandard takes for `bytes` at this level, or one that is fast.
fn zstd_bits(bytes: &[u8], level: i32) -> f64 {
    zstd::bulk::compress(bytes, level.min(FAST_LEVEL)).expect("Zstandard compresses any bytes").len() as f64 * 8.0
}

/// The best coding of a segment as floats or as bytes.
fn plain(segment: &Sample<'_>, mode: Mode, shared: Option<&Table>) -> Best {
    let Sample { element, bytes: sample, len, .. } = *segment;
    let scale = len as f64 / sample.len() as f64;
    let mut best = Best { coding: PlannedCoding::Raw, bits: sample.len() as f64 * 8.0 };
    match element.float_split() {
        Some(split) => {
            // Hardly ever better than what is normalised, if that is better at all.
            match normalised(segment, mode) {
                Some((plan, bits)) => best.consider(plan, bits),
                None => {
                    let mut statistics = KeyStatistics::new(split);
                    statistics.add(sample);
                    if let Some(table) = Table::fit(statistics.counts()) {
                        let bits = statistics.bits(&table) + table_bits(&table) / scale + BLOCK_OVERHEAD_BITS;
                        best.consider(PlannedCoding::Float(table), bits);
                    }
                    if let Some(table) = shared.filter(|_| len < MAY_SHARE_TABLE) {
                        let bits = statistics.bits(table) + BLOCK_OVERHEAD_BITS;
                        best.consider(PlannedCoding::Float(table.clone()), bits);
                    }
                }
            }
        }
        None => {
            let level = zstd_level(mode);
            let mut plane = Vec::new();
            let planes = (0..element.size()).map(|position| {
                plane.clear();
                plane.extend(sample[position..].iter().step_by(element.size()));
                PlanePlan::of(&plane, scale, level)
            });
            let (planes, bits): (Vec<_>, Vec<f64>) = planes.unzip();
            best.consider(PlannedCoding::Bytes(planes), bits.iter().sum());
            if element.size() > 1 {
                let probe = plane::middle(sample, PROBE);
                let probe = differences::take(&probe[..probe.len() / element.size() * element.size()], element.size());
                let bits = zstd_bits(&probe, level) * sample.len() as f64 / probe.len() as f64;
                best.consider(PlannedCoding::Differences { level }, bits);
            }
            // Words of quantised weights are bytes that have nothing to do with one another.
            if element.size() > 1 {
                let (packed, bits) = PlanePlan::of_counts(&count_bytes(sample), scale);
                best.consider(PlannedCoding::Packed(packed), bits);
            }
        }
    }
    best
}

/// The plan to normalise a segment of floats, if that pays, and the bits that its sample then takes.
fn normalised(segment: &Sample<'_>, mode: Mode) -> Option<(PlannedCoding, f64)> {
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
    Some((PlannedCoding::Scaled(Box::new(normaliser), tables), bits))
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
