//! `bigsmall completions`.

use std::process::ExitCode;

use clap_complete::{Shell, generate};

use crate::cli;
use crate::failure::Failure;
use crate::ui;

const EXAMPLES: &str = "\
Examples:
  bigsmall completions bash > ~/.local/share/bash-completion/completions/bigsmall
  bigsmall completions zsh > ~/.zfunc/_bigsmall
      for a directory of $fpath, before compinit is called
  bigsmall completions fish > ~/.config/fish/completions/bigsmall.fish
  source <(bigsmall completions bash)
      for this shell alone";

/// Write what a shell needs to complete commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Writes it to standard output.
///
/// # Errors
/// As [`ui::print()`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut cli::command(), "bigsmall", &mut script);
    ui::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
