//! The command line of bigsmall.

#![forbid(unsafe_code)]

mod base;
mod cli;
mod commands;
mod failure;
mod gpu;
#[cfg(feature = "hub")]
mod hub;
mod interrupt;
mod logging;
mod options;
mod search;
mod text_file;
mod transfer;
mod tree;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(code) => code,
        Err(failure) => {
            ui::say(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}
