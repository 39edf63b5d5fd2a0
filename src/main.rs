//! The command line of bigsmall.
fn main() {}
