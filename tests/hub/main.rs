//! The commands that talk to the Hugging Face Hub, against a Hub on this machine (`local/`), whose honesty `python.rs` shows.

#[path = "../cli/support.rs"]
mod support;

mod client;
mod faults;
mod local;
mod others;
mod patch;
mod pipeline;
mod pull;
mod push;
mod python;
