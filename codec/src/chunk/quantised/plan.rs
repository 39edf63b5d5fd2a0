//! How quantised blocks are to be coded, decided on a sample of a tensor, or of all tensors of a type: what they have in
//! common is enough for tensors that are too short to pay for tables of their own.

use super::fields::Fields;
use super::halves::{HalfPlan, HalfStatistics};
use super::rows::{RowPlan, RowStatistics};
use super::taken::Taken;
use crate::chunk::block::Coder;
use crate::chunk::plane::PlanePlan;
use crate::chunk::statistics::count_bytes;
use crate::quantised::BlockType;
use crate::rans::Table;
use crate::split::Split;

/// How often what occurs in each field of blocks.
#[derive(Clone, Debug)]
pub(crate) struct BlockStatistics {
    kind: BlockType,
    bytes: u64,
    halves: Vec<HalfStatistics>,
    planes: Vec<[u64; 256]>,
    rows: Vec<RowStatistics>,
}

/// How the fields of blocks are coded: `T` is a [`Table`], or a [`Coder`] once it is ready.
#[derive(Clone, Debug)]
pub(crate) struct BlockPlan<T> {
    pub(super) halves: Vec<HalfPlan<T>>,
    /// Parts that are given by no others, bytes, and the places of extremes.
    pub(super) planes: Vec<PlanePlan<T>>,
    /// Parts that are given by others, and quants.
    pub(super) rows: Vec<RowPlan<T>>,
}

/// How the symbols of rows are cut: quants of 8 bits have a sign, and their lowest bit is not coded.
pub(super) fn split_of_quants(bits: u32) -> Split {
    if bits == 8 { Split { width: 8, signed: true, shift: 1, zeros: 0 } } else { Split::of_bytes(0) }
}

impl BlockStatistics {
    /// Of blocks of this type.
    pub(crate) fn new(kind: BlockType) -> BlockStatistics {
        let fields = Fields::of(kind);
        let given = fields.parts.iter().filter(|parts| parts.given.is_some());
        let planes = fields.parts.len() - given.clone().count()
            + fields.bytes.len()
            + usize::from(fields.quants.is_some_and(|quants| quants.extremes.is_some()));
        let rows = given.map(|_| Split::of_bytes(0)).chain(fields.quants.map(|quants| split_of_quants(quants.bits)));
        BlockStatistics {
            kind,
            bytes: 0,
            halves: fields.halves.iter().map(|_| HalfStatistics::default()).collect(),
            planes: vec![[0; 256]; planes],
            rows: rows.map(RowStatistics::new).collect(),
        }
    }

    /// Counts what is in whole blocks that lie side by side.
    pub(crate) fn add(&mut self, blocks: &[u8]) {
        /// Bytes that are taken apart together.
        const AT_ONCE: usize = 256 << 10;
        let size = self.kind.bytes();
        let mut taken = Taken::default();
        for blocks in blocks.chunks(AT_ONCE / size * size) {
            taken.take(self.kind, crate::simd::level(), blocks);
            self.bytes += blocks.len() as u64;
            self.halves.iter_mut().zip(&taken.halves).for_each(|(statistics, halves)| statistics.add(halves));
            for (counts, plane) in self.planes.iter_mut().zip(taken.planes(self.kind)) {
                counts.iter_mut().zip(count_bytes(plane)).for_each(|(all, few)| *all += few);
            }
            for (statistics, rows) in self.rows.iter_mut().zip(taken.rows(self.kind)) {
                statistics.add(rows.symbols, rows.len, rows.classes);
            }
        }
    }

    /// The plan that takes the fewest bits for these, and how many those are, when they are a sample of `scale` times as
    /// much.
    pub(crate) fn fit(&self, scale: f64) -> Option<(BlockPlan<Table>, f64)> {
        let halves = self.halves.iter().map(|statistics| statistics.fit(scale)).collect();
        let planes = self.planes.iter().map(|counts| PlanePlan::of_counts(counts, scale).0).collect();
        let rows = self.rows.iter().map(|statistics| statistics.fit(scale)).collect::<Option<_>>()?;
        let plan = BlockPlan { halves, planes, rows };
        let bits = self.bits(&plan) + plan.table_bits() / scale;
        Some((plan, bits))
    }

    /// The bits that they take as planned, without the tables.
    pub(crate) fn bits(&self, plan: &BlockPlan<Table>) -> f64 {
        let halves = self.halves.iter().zip(&plan.halves).map(|(statistics, plan)| statistics.bits(plan));
        let planes = self.planes.iter().zip(&plan.planes).map(|(counts, plan)| plan.bits(counts));
        let rows = self.rows.iter().zip(&plan.rows).map(|(statistics, plan)| statistics.bits(plan));
        halves.chain(planes).chain(rows).sum()
    }
}

impl BlockPlan<Table> {
    /// The bits that its tables take in the index.
    fn table_bits(&self) -> f64 {
        let halves = self.halves.iter().map(HalfPlan::table_bits);
        let planes = self.planes.iter().map(PlanePlan::table_bits);
        halves.chain(planes).chain(self.rows.iter().map(RowPlan::table_bits)).sum()
    }

    /// The plan ready to run. Its tables are appended to those of the segment.
    pub(crate) fn ready(self, tables: &mut Vec<Table>) -> BlockPlan<Coder> {
        BlockPlan {
            halves: self.halves.into_iter().map(|plan| plan.ready(tables)).collect(),
            planes: self.planes.into_iter().map(|plan| plan.ready(tables)).collect(),
            rows: self.rows.into_iter().map(|plan| plan.ready(tables)).collect(),
        }
    }
}
