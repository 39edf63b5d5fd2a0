//! `bigsmall report`.

mod charts;
mod html;
mod model;
mod page;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bigsmall_codec::scan::{self, Extent};
use bigsmall_codec::{Original as _, PlainFile, Stored};
use clap::builder::NonEmptyStringValueParser;

use super::compress::{WEIGHTS, holds_weights};
use super::has_container_name;
use crate::failure::Failure;
use crate::interrupt;
use crate::options::{Force, Threads};
use crate::text_file;
use crate::tree::{self, Oddities, Tree};
use crate::ui;
use crate::ui::progress::Meter;
use crate::ui::size::{parse_size, show_size};
use model::Model;

const EXAMPLES: &str = "\
Examples:
  bigsmall report model.bs -o report.html
      a page about a container
  bigsmall report Llama-3-8B-bigsmall -o report.html
      one about all containers in and below the directory, as one model
  bigsmall report patch.bs -o report.html
      how much each layer changed, of a patch or another container that holds the difference from a model
  bigsmall report model.safetensors -o report.html
      what to expect of a model that is not compressed yet, as bigsmall scan says it

The page stands for itself: it loads nothing, and can be mailed or put on any server. It has a light and a dark look, which
the reader's system chooses.";

/// Write a page with charts about a model and where its bytes are
///
/// SRC is a container, a .safetensors or .gguf file, or a directory. If there are containers in a directory the page is about them, if not
/// about the files that could be compressed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file or directory to look at
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// The page to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// What stands above it; without it the name of SRC
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    title: Option<String>,

    /// Code about SIZE of each file that is not compressed yet, to know what to expect
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256M")]
    sample: u64,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    force: Force,

    /// Show no progress and no result; only what goes wrong is said
    #[arg(short, long)]
    quiet: bool,
}

/// Bytes of each tensor whose values are looked at, if it has more.
const LOOKED_AT: u64 = 512 << 10;

/// Writes the page.
///
/// # Errors
/// When something cannot be read or the page not written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let paths = sources(&args.source)?;
    bigsmall_codec::output::check_replaceable(&args.output, args.force.existing())?;
    interrupt::watch()?;
    let title = args.title.clone().unwrap_or_else(|| name_of(&args.source));
    let mut model = Model::new(title);
    args.threads.run(|| paths.iter().try_for_each(|path| add(&mut model, path, args)))?;
    let page = page::render(&model);
    text_file::write(&args.output, page.as_bytes(), args.force.existing())?;
    if !args.quiet {
        let tensors = ui::count(model.tensors.len() as u64, "tensor");
        let page = show_size(page.len() as u64);
        ui::print(&format!("{}: {tensors}, a page of {page}\n", args.output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the page is about.
fn sources(source: &Path) -> Result<Vec<PathBuf>, Failure> {
    let metadata = tree::source_metadata(source)?;
    if metadata.is_file() {
        return Ok(vec![source.to_owned()]);
    }
    if !metadata.is_dir() {
        return Err(tree::refuse_oddity(source, &metadata));
    }
    let files: Vec<PathBuf> = Tree::read(source, Oddities::Skip)?.files.into_iter().map(|file| file.path).collect();
    let chosen = |wanted: fn(&Path) -> bool| files.iter().filter(|path| wanted(path)).cloned().collect::<Vec<_>>();
    let containers = chosen(has_container_name);
    let chosen = if containers.is_empty() { chosen(holds_weights) } else { containers };
    match chosen.is_empty() {
        true => Err(Failure::new(format!(
            "{}: there is no container and no {WEIGHTS} in it: nothing to report on",
            source.display()
        ))),
        false => Ok(chosen),
    }
}

/// The last part of a path, or all of one that has none, like `.`.
fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Adds what is in the file at `path`.
fn add(model: &mut Model, path: &Path, args: &Args) -> Result<(), Failure> {
    if Stored::is_stored(path)? {
        let stored = Stored::open(path, &Arc::default())?;
        // Of a difference from another model the index alone tells how much each tensor changed.
        if stored.check_complete().is_err() {
            model.add_stored(&stored, None);
            return Ok(());
        }
        let meter =
            Meter::new(stored.tensors().iter().map(|t| (t.range.end - t.range.start).min(LOOKED_AT)).sum(), args.quiet);
        meter.set_file(&path.display().to_string());
        let values = scan::values(&stored, LOOKED_AT, &meter)?;
        model.add_stored(&stored, Some(values));
    } else {
        let original = PlainFile::open(path)?;
        let meter = Meter::new(original.len().min(args.sample), args.quiet);
        meter.set_file(&path.display().to_string());
        model.add_scan(scan::scan(&original, Extent::Sample(args.sample), &meter)?);
    }
    Ok(())
}
