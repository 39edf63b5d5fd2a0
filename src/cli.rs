//! Which commands there are.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

#[cfg(feature = "cuda")]
use crate::commands::gpu_probe;
use crate::commands::{
    apply, benchmark, completions, compress, decompress, diff, doctor, info, man, migrate, mount, mount_helper, mounts,
    protect, repair, report, scan, stat, umount, verify,
};
#[cfg(feature = "hub")]
use crate::commands::{pipeline, pull, push, status};
use crate::failure::Failure;
use crate::ui::{self, colour};

const EXAMPLES: &str = "\
Examples:
  bigsmall scan model.safetensors        say how much smaller it would become, and what is in it
  bigsmall compress model.safetensors    write model.bs, about a third smaller
  bigsmall compress Llama-3-8B           write the directory Llama-3-8B-bigsmall
  bigsmall info model.bs                 say what is in it
  bigsmall stat model.bs                 say how each of its tensors is stored
  bigsmall verify model.bs               read all of it and check every byte
  bigsmall decompress model.bs           write model.safetensors again, byte for byte
  bigsmall apply Llama-3-8B tuned.bs     make the model of a base and a patch
  bigsmall diff Llama-3-8B my-tune       say how two models differ
  bigsmall protect model.bs              write parity, so that damage can be repaired
  bigsmall repair model.bs               repair it
  bigsmall migrate model.bs              make what the Python package wrote one of ours
  bigsmall report model.bs -o page.html  write a page that shows where its bytes are
  bigsmall benchmark model.safetensors   measure how fast it is encoded and decoded here
  bigsmall mount models /mnt/models      show every container in models as its original
  bigsmall mounts                        list what is mounted
  bigsmall umount /mnt/models            end that
  bigsmall doctor                        say what works on this machine

Exit codes:
  0    all is well
  1    verify, repair or protect found damage, diff a difference
  2    the command could not do what it was asked to, or was not called rightly
  129, 130, 143
       it was interrupted by SIGHUP, SIGINT or SIGTERM

bigsmall COMMAND --help says more about a command.";

/// Stores neural-network weights losslessly about a third smaller, and mounts them as the files they were.
#[derive(Debug, Parser)]
#[command(name = "bigsmall", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::Args),
    Compress(compress::Args),
    Decompress(decompress::Args),
    Apply(apply::Args),
    Diff(diff::Args),
    Info(info::Args),
    Stat(stat::Args),
    Verify(verify::Args),
    Protect(protect::Args),
    Repair(repair::Args),
    Migrate(migrate::Args),
    Report(report::Args),
    Benchmark(benchmark::Args),
    Mount(mount::Args),
    Mounts(mounts::Args),
    Umount(umount::Args),
    #[cfg(feature = "hub")]
    Pull(pull::Args),
    #[cfg(feature = "hub")]
    Push(push::Args),
    #[cfg(feature = "hub")]
    Pipeline(pipeline::Args),
    #[cfg(feature = "hub")]
    Status(status::Args),
    Completions(completions::Args),
    Man(man::Args),
    Doctor(doctor::Args),
    #[cfg(feature = "cuda")]
    #[command(hide = true)]
    GpuProbe(gpu_probe::Args),
}

/// All commands and their options, as they are declared.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that `arguments` (the program's name first) ask for.
///
/// # Errors
/// What to say on standard error, and the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode, Failure> {
    let mut arguments = arguments.into_iter().peekable();
    let called_by_mount = |name: &OsString| Path::new(name).file_name() == Some(mount_helper::NAME.as_ref());
    if arguments.next_if(called_by_mount).is_some() {
        return match mount_helper::arguments(arguments)? {
            Some(arguments) => run(arguments),
            None => Ok(ExitCode::SUCCESS),
        };
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match &cli.command {
        Command::Compress(args) => compress::run(args),
        Command::Decompress(args) => decompress::run(args),
        Command::Scan(args) => scan::run(args),
        Command::Apply(args) => apply::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Info(args) => info::run(args),
        Command::Stat(args) => stat::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Protect(args) => protect::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Report(args) => report::run(args),
        Command::Benchmark(args) => benchmark::run(args),
        Command::Mount(args) => mount::run(args),
        Command::Mounts(args) => mounts::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        #[cfg(feature = "hub")]
        Command::Pull(args) => pull::run(args),
        #[cfg(feature = "hub")]
        Command::Push(args) => push::run(args),
        #[cfg(feature = "hub")]
        Command::Pipeline(args) => pipeline::run(args),
        #[cfg(feature = "hub")]
        Command::Status(args) => status::run(args),
        Command::Doctor(args) => doctor::run(args),
        #[cfg(feature = "cuda")]
        Command::GpuProbe(args) => gpu_probe::run(args),
    }
}

/// What clap has to say: help and version on standard output, anything else as every other failure.
fn usage(error: &clap::Error) -> Result<ExitCode, Failure> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = if colour::on(&io::stdout()) { error.render().ansi().to_string() } else { text };
            ui::print(&(text.trim_end().to_owned() + "\n")).map(|()| ExitCode::SUCCESS)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::new(format!("no command given\n\n{}", text.trim_end())))
        }
        _ => Err(Failure::new(text.strip_prefix("error: ").unwrap_or(&text).trim_end())),
    }
}

// It describes the program with all that it has by default.
#[cfg(all(test, feature = "hub"))]
mod reference;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_of_the_commands_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_are_right() {
        fn examples(command: &clap::Command) -> Vec<String> {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let of_this = text.lines().filter(|line| line.starts_with("  bigsmall ")).map(|line| {
                // What it does stands behind it, if not in the next line; and the output may go on to another program.
                line.trim().split("  ").next().expect("a line").split(['>', '|']).next().expect("a line").to_owned()
            });
            of_this.chain(command.get_subcommands().flat_map(examples)).collect()
        }
        let examples = examples(&Cli::command());
        assert!(examples.len() > 60, "only {} were found", examples.len());
        for example in examples {
            let words = example.split_whitespace().map(|word| word.trim_matches('\''));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{example}: {error}");
            }
        }
    }
}
