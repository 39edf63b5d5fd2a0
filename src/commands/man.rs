//! `bigsmall man`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bigsmall_codec::output::check_replaceable;
use clap_mangen::Man;

use crate::cli;
use crate::failure::Failure;
use crate::options::Force;
use crate::text_file;

const EXAMPLES: &str = "\
Examples:
  bigsmall man ~/.local/share/man/man1
      for this user; man bigsmall-compress then shows a page
  bigsmall man --force /usr/local/share/man/man1
      for all, in the place of those of another version";

/// Write the man pages: bigsmall(1) and one for each command
///
/// The directory is made if it is not there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to write them
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    #[command(flatten)]
    force: Force,
}

/// Writes them.
///
/// # Errors
/// When a page exists already or cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let cannot = |path: &Path, e: std::io::Error| Failure::new(format!("{}: cannot write it: {e}", path.display()));
    fs::create_dir_all(&args.directory).map_err(|e| cannot(&args.directory, e))?;
    let mut whole = cli::command();
    whole.build();
    let commands: Vec<clap::Command> = whole.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect();
    let mut pages = vec![("bigsmall".to_owned(), whole)];
    pages.extend(commands.into_iter().map(|command| {
        let name = format!("bigsmall-{}", command.get_name());
        (name.clone(), command.display_name(name))
    }));
    let pages = pages.into_iter().map(|(name, command)| (args.directory.join(format!("{name}.1")), Man::new(command)));
    let pages: Vec<(PathBuf, Man)> = pages.collect();
    pages.iter().try_for_each(|(path, _)| check_replaceable(path, args.force.existing()))?;
    for (path, page) in &pages {
        let mut text = Vec::new();
        page.render(&mut text).map_err(|e| cannot(path, e))?;
        text_file::write(path, &text, args.force.existing())?;
    }
    Ok(ExitCode::SUCCESS)
}
