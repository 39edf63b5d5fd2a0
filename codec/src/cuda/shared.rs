//! What the chunks of a container share: frequency tables, the offsets of columns and the tables of contexts, as the kernel wants them.

use std::collections::HashMap;

use crate::chunk::delta::{Delta, tables_of_contexts};
use crate::chunk::scale::Columns;
use crate::container::Segment;
use crate::error::{Error, Result};
use crate::rans::Table;
use crate::rans::table::MAX_SYMBOLS;

/// A table as the kernel has it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct DeviceTable {
    buckets: [u32; MAX_SYMBOLS],
    symbols: [u32; MAX_SYMBOLS],
}

impl DeviceTable {
    fn new(table: &Table) -> DeviceTable {
        let alias = table.alias();
        let mut device = DeviceTable { buckets: [0; MAX_SYMBOLS], symbols: [0; MAX_SYMBOLS] };
        for (bucket, packed) in device.buckets.iter_mut().enumerate() {
            *packed = u32::from(alias.threshold[bucket])
                | u32::from(alias.other[bucket]) << 8
                | u32::from(alias.adjust[bucket]) << 16;
        }
        for ((packed, &key), &frequency) in device.symbols.iter_mut().zip(table.keys()).zip(table.frequencies()) {
            *packed = u32::from(frequency) | u32::from(key) << 16;
        }
        device
    }
}

/// Where what belongs to a segment is among that of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentTables {
    /// The number of its first table.
    pub(super) first_table: u32,
    /// The position of its first column, and how many columns there are, at least one.
    pub(super) first_column: u32,
    pub(super) period: u32,
    /// If it is coded against a base, the position of the tables of its contexts, among the columns.
    pub(super) contexts: Option<u32>,
}

/// The tables and columns of all segments.
#[derive(Debug)]
pub(crate) struct SharedTables {
    pub(super) tables: Vec<DeviceTable>,
    pub(super) columns: Vec<u16>,
    segments: Vec<SegmentTables>,
}

impl SharedTables {
    /// Those of segments that have these tables.
    ///
    /// # Errors
    /// When there are more than a kernel can number.
    pub(super) fn new(tables: &[Table], segments: &[Segment]) -> Result<SharedTables> {
        let too_many = |_| Error::unsupported("it has more tables than a GPU can be given");
        // The one column of segments that are not normalised.
        let mut shared = SharedTables {
            tables: tables.iter().map(DeviceTable::new).collect(),
            columns: vec![0],
            segments: Vec::new(),
        };
        let mut columns = Columns::default();
        let mut contexts = HashMap::<&[u8], u32>::new();
        for segment in segments {
            let first_table = u32::try_from(segment.tables.start).map_err(too_many)?;
            let mut tables = SegmentTables { first_table, first_column: 0, period: 1, contexts: None };
            if let Some(scale) = &segment.scale {
                columns.prepare(scale, segment.element);
                tables.first_column = u32::try_from(shared.columns.len()).map_err(too_many)?;
                tables.period = u32::try_from(columns.period()).map_err(too_many)?;
                shared.columns.extend_from_slice(&columns.offsets()[..columns.period()]);
            }
            if let Some(Delta { thresholds, .. }) = &segment.delta {
                let next = u32::try_from(shared.columns.len()).map_err(too_many)?;
                let position = *contexts.entry(thresholds).or_insert(next);
                if position == next {
                    shared.columns.extend(tables_of_contexts(thresholds).map(u16::from));
                }
                tables.contexts = Some(position);
            }
            shared.segments.push(tables);
        }
        u32::try_from(shared.columns.len().max(shared.tables.len())).map_err(too_many)?;
        Ok(shared)
    }

    /// Those of the segment of that number.
    pub(super) fn of_segment(&self, segment: usize) -> SegmentTables {
        self.segments[segment]
    }
}
