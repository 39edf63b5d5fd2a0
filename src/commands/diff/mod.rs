//! `bigsmall diff`.

mod groups;
mod report;

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bigsmall_codec::Progress;
use bigsmall_codec::container::{self, Options};
use bigsmall_codec::diff::{Compared, Comparison};
use bigsmall_codec::output::{Attributes, NewFile, check_replaceable};
use bigsmall_codec::patch::Model;

use super::compress::recorded_name;
use super::tensors_of;
use crate::base::{BaseArgs, Bases, open_model, open_original};
use crate::failure::Failure;
use crate::interrupt;
use crate::options::{Force, Report, Threads};
use crate::tree;
use crate::ui;
use crate::ui::progress::{Meter, Quiet};
use report::{Json, Side};

/// The exit code where the models differ, as `diff` has it.
const DIFFERENT: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  bigsmall diff base.safetensors tuned.safetensors
      tensors that were added, removed or changed, and by how much, layer by layer
  bigsmall diff Llama-3-8B Llama-3-8B-tuned.packed
      model directories, compressed or not, however they are divided into files
  bigsmall diff --base base.bs base.bs patch.bs
      what a patch changes; --base says where to look for the bases of patches
  bigsmall diff --patch tuned-patch.bs base.safetensors tuned.safetensors
      also writes what changed, to be applied with bigsmall apply
  bigsmall diff --json a.bs b.bs
      the same for programs, tensor by tensor

Exit codes: 0 all tensors are the same, 1 they differ, 2 there was trouble.";

/// Say how two models differ
///
/// A and B are files that hold tensors (.safetensors, .gguf, their containers, patches) or directories of such files.
/// Tensors are matched by name over the whole model; those that were renamed are found if it is clear which they are.
/// How far weights have moved is counted in steps from one value of their dtype to the next, units in the last place.
/// Metadata, order and division into files are not compared.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The model before
    #[arg(value_name = "A")]
    before: PathBuf,

    /// The model after
    #[arg(value_name = "B")]
    after: PathBuf,

    #[command(flatten)]
    base: BaseArgs,

    /// Also write the patch that makes B of A; B is a file
    ///
    /// The same as bigsmall compress B --delta-from A -o PATCH.
    #[arg(long, value_name = "PATCH")]
    patch: Option<PathBuf>,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    report: Report,
}

/// Compares.
///
/// # Errors
/// When either cannot be read.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(patch) = &args.patch {
        check_replaceable(patch, args.force.existing())?;
    }
    interrupt::watch()?;
    let open = |path: &Path| open_model(path, &args.base.bases, args.report.quiet);
    let (before, after) = (open(&args.before)?, open(&args.after)?);
    let (tensors_before, tensors_after) = (tensors_of(&before)?, tensors_of(&after)?);
    let comparison = Comparison::of(&tensors_before, &tensors_after)?;
    let meter = Meter::new(comparison.bytes(), args.report.quiet);
    let compared = args.threads.run(|| {
        let compared = comparison.run(&meter)?;
        if let Some(patch) = &args.patch {
            write_patch(args, &before, patch, &Quiet(&meter))?;
        }
        Ok(compared)
    });
    drop(meter);
    let compared = compared?;
    let same = compared.iter().all(Compared::is_same);
    let sides = [Side::of(&args.before, &before), Side::of(&args.after, &after)];
    if args.report.json {
        ui::print_json(&Json::of(same, &sides, &compared))?;
    } else if !args.report.quiet {
        ui::print(&report::describe(&sides, &compared))?;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

/// Writes the file B as a patch of the model A.
fn write_patch(args: &Args, before: &Model, patch: &Path, progress: &dyn Progress) -> Result<(), Failure> {
    let metadata = tree::source_metadata(&args.after)?;
    if !metadata.is_file() {
        return Err(Failure::new(format!(
            "{}: is no file, so there is no one patch of it\nbigsmall compress --delta-from writes one for each file",
            args.after.display()
        )));
    }
    let (source, name) = open_original(&args.after, &Bases::open(&args.base.bases, true)?)?;
    let name = name.unwrap_or_else(|| recorded_name(&args.after));
    let mut file = NewFile::create(patch, args.force.existing())?;
    let mut out = BufWriter::with_capacity(1 << 20, &mut file);
    let written = container::compress_patch(&*source, &name, &Options::default(), before, &mut out, progress);
    drop(out);
    written.map_err(|e| file.name_failure(e))?;
    Ok(file.commit(&Attributes::of(&metadata))?)
}
