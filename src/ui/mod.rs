//! What people see: sizes, progress, tables.

pub mod size;
