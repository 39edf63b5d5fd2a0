//! The command line of bigsmall.
mod ui;
fn main() {}
