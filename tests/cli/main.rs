//! The command line as its users meet it: the built program, its files, what it says and how it exits.
//!
//! What is printed is under test to the letter. The texts of `--help` are in `help/`; with `BIGSMALL_BLESS=1` in the
//! environment the tests write them anew instead of comparing.

mod auto_delta;
mod benchmark;
mod diff;
mod directories;
mod doctor;
#[cfg(feature = "cuda")]
mod driver;
mod files;
#[cfg(feature = "cuda")]
mod gpu;
mod in_place;
mod inspection;
mod interruption;
mod patches;
mod report;
mod scan;
mod shells;
mod stat;
mod support;
mod upstream;
mod words;
