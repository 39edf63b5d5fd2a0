//! `bigsmall compress`.

use std::ffi::OsString;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bigsmall_codec::container::{self, EXTENSION, Mode, Options, Summary};
use bigsmall_codec::original::MAX_CHUNK_SIZE;
use bigsmall_codec::output::{Attributes, KeptJournal, NewFile};
use bigsmall_codec::parity::Share;
use bigsmall_codec::patch::Model;
use bigsmall_codec::{Container, Original, PlainFile, Progress, Stored};
use serde::Serialize;

use super::auto_delta::{Choice, JsonChoice};
use super::protect::{self, DEFAULT_PERCENT, Protected, may_write_sidecar, parse_share, protect};
use super::{auto_delta, has_container_name, in_place};
use crate::base::{Bases, open_original};
use crate::failure::Failure;
use crate::interrupt;
use crate::options::{Force, Report, Threads};
use crate::search::Places;
use crate::transfer::{self, Conversion, Converted, Copied, Fate, Item, Start, Transfer};
use crate::tree;
use crate::ui::progress::{Meter, Quiet};
use crate::ui::size::{parse_size, show_size};
use crate::ui::table::Table;
use crate::ui::{self, percent};

/// The extensions of the files that are compressed in a directory.
const SAFETENSORS: &str = "safetensors";
const GGUF: &str = "gguf";

/// How messages call those files.
pub(super) const WEIGHTS: &str = ".safetensors or .gguf file";

/// Whether a file in a directory is one of those that are compressed.
pub fn holds_weights(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SAFETENSORS || extension == GGUF)
}

/// The longest name of an original that a container records, in bytes.
const LONGEST_NAME: usize = 255;

const EXAMPLES: &str = "\
Examples:
  bigsmall compress model.safetensors
      writes model.bs beside it
  bigsmall compress model.safetensors -o /backup/model.bs
      writes it there
  bigsmall compress Llama-3-8B
      writes the directory Llama-3-8B-bigsmall: a .bs for each .safetensors and .gguf, and a copy of the rest
  bigsmall compress --ecc model.safetensors
      writes model.bs.ecc as well: any tenth of model.bs may then be lost
  bigsmall compress --resume Llama-3-8B
      goes on from where an interrupted run got to; if this one is interrupted, the next can
  bigsmall compress --in-place Llama-3-8B
      puts a .bs in the place of each of those, once it has been compared with it
  bigsmall compress --hf-cache ~/.cache/huggingface/hub
      does so in the cache of Hugging Face, to be mounted with --hf-cache
  bigsmall compress ~/.cache/huggingface/hub/models--gpt2/snapshots/607a30d7 -o gpt2
      takes a model out of the cache of Hugging Face, whose links are followed

  bigsmall compress my-tune --delta-from Llama-3-8B -o my-tune-patch
      writes only what changed, for those who have Llama-3-8B, compressed or not
  bigsmall compress my-tune --auto-delta --base-dir /models
      does so with the model in /models or in the cache of Hugging Face that saves most, if one does
The original stays, but for --in-place and --hf-cache. Whatever it is, it comes back byte for byte:
also a safetensors or GGUF file that breaks the rules, or a file of another kind, which only becomes
less small.";

/// Compress a file or a model directory
///
/// SRC is a file, or a directory with .safetensors or .gguf files in it or below it. Nothing that exists is
/// overwritten without --force, and what cannot be finished leaves nothing behind. A new file has the permissions and the time of
/// modification of the one that it was made from.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file or directory to compress
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Where to write; without it x.bs for x.safetensors or x.gguf, DIR-bigsmall for a directory DIR, beside it
    ///
    /// When SRC is a file and OUT a directory that exists, the container goes into it.
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,

    /// Put each container in the place of its original, which is removed
    ///
    /// Before it is, every byte that the container decodes to is compared with it. In a directory all .safetensors and
    /// .gguf files are replaced, except symbolic links and files that have several names (hard links); what would not get smaller is left as it is.
    #[arg(long, conflicts_with_all = ["output", "force"])]
    in_place: bool,

    /// As --in-place, for a cache of the Hugging Face Hub: SRC or what is below it
    ///
    /// Every file that begins as a safetensors or GGUF file does is replaced by its container, which gets the same name: files of the
    /// cache are named by hashes. The option of the same name of `bigsmall mount` shows them as they were.
    #[arg(long, conflicts_with_all = ["output", "force"])]
    hf_cache: bool,

    /// Store only what changed against BASE: a file or directory, compressed or not, wherever its tensors lie in it
    ///
    /// The result is a patch, which is of use only with BASE: bigsmall apply and decompress --base make SRC of the two again.
    /// SRC may then be compressed as well. If BASE is itself a patch, give also what that was made of, with --base.
    #[arg(long, visible_alias = "base", value_name = "BASE", conflicts_with_all = ["in_place", "hf_cache"])]
    delta_from: Vec<PathBuf>,

    /// As --delta-from, with the base that is found and saves most, if one does
    ///
    /// It is looked for in the cache of Hugging Face, among models that were seen before, and where --base-dir says. Models are
    /// compared by some thousand of their weights. What was seen is remembered in bigsmall/models.json in the user's cache
    /// directory, which may be deleted.
    #[arg(long, conflicts_with_all = ["delta_from", "in_place", "hf_cache"])]
    auto_delta: bool,

    /// Look for a base in DIR and below it as well; several times if need be
    #[arg(long = "base-dir", value_name = "DIR", requires = "auto_delta")]
    base_dirs: Vec<PathBuf>,

    #[command(flatten)]
    mode: ModeArgs,

    /// Cut the original into chunks of SIZE, the unit of decoding: a multiple of 8 from 64 bytes to 8M
    ///
    /// Small chunks make small random reads cheaper and the container larger. Without this: 256K, with --storage 1M.
    #[arg(long, value_name = "SIZE", value_parser = parse_chunk_size)]
    chunk_size: Option<u32>,

    /// Write parity beside each container, from which damage can be repaired: PERCENT of its size, 10 by default
    ///
    /// The same as bigsmall protect does afterwards.
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true,
          default_missing_value = DEFAULT_PERCENT, value_parser = parse_share)]
    ecc: Option<Share>,

    /// Go on from where an interrupted run with the same SRC and OUT got to, and leave what is done if this one fails
    ///
    /// What was done is taken over only if it provably is what this run would write: the result is the same as that of a run without
    /// interruption. If the source has changed since, or the base or the options, its container is begun anew. Without this option what an
    /// interrupted run has left is removed.
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    report: Report,
}

/// What to optimise for.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct ModeArgs {
    /// Make it as small as can be
    #[arg(long)]
    storage: bool,

    /// Make it small and fast; this is the default
    #[arg(long)]
    balanced: bool,

    /// Make it as fast to decode as can be
    #[arg(long)]
    inference: bool,
}

impl ModeArgs {
    pub(super) fn mode(self) -> Mode {
        match self {
            ModeArgs { storage: true, .. } => Mode::Storage,
            ModeArgs { inference: true, .. } => Mode::Inference,
            _ => Mode::Balanced,
        }
    }
}

fn parse_chunk_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    u32::try_from(size)
        .ok()
        .filter(|size| (Options::MIN_CHUNK_SIZE..=MAX_CHUNK_SIZE).contains(size) && size.is_multiple_of(8))
        .ok_or_else(|| {
            format!("{size} bytes is not a multiple of 8 from {} to {MAX_CHUNK_SIZE}", Options::MIN_CHUNK_SIZE)
        })
}

impl Args {
    fn start(&self) -> Start {
        if self.resume { Start::Resume } else { Start::Anew }
    }
}

/// Compresses.
///
/// # Errors
/// When it may not or cannot be done.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mode = args.mode.mode();
    let options = Options { mode, chunk_size: args.chunk_size.unwrap_or(mode.chunk_size()) };
    if args.in_place || args.hf_cache {
        return run_in_place(args, &options);
    }
    let transfer = plan(args)?;
    interrupt::watch()?;
    let bases = Bases::open(&args.delta_from, args.report.quiet)?;
    bases.identify_first()?;
    let total = transfer.conversions().map(|item| item.source_len).sum::<u64>() + transfer.copies().bytes;
    let meter = Meter::new(total, args.report.quiet);
    let existing = args.force.existing();
    if args.ecc.is_some() {
        transfer.conversions().try_for_each(|item| may_write_sidecar(&transfer.target_of(item), existing))?;
    }
    let choices = match args.auto_delta {
        true => {
            let sources: Vec<PathBuf> = transfer.conversions().map(|item| item.source.clone()).collect();
            let places = Places { directories: &args.base_dirs, remember: true };
            auto_delta::choose(&args.source, &sources, places, &Quiet(&meter))?
        }
        false => Vec::new(),
    };
    let results = args.threads.run(|| {
        let compression = Compression { options: &options, bases: &bases, choices: &choices, meter: &meter };
        let results = transfer.run_resumable(&meter, compression)?;
        let targets = results.iter().map(|result| transfer.target_of(result.item));
        let share = args.ecc.iter();
        let protected = share.flat_map(|&share| targets.clone().map(move |target| (target, share)));
        // The containers are complete and have their names: an interruption leaves them, unprotected.
        let protected = protected.map(|(target, share)| protect(&target, share, existing, &Quiet(&meter)));
        let protected = protected.collect::<Result<Vec<_>, _>>()?;
        Ok((results, protected))
    });
    drop(meter);
    let (results, protected) = results?;
    let files = results.iter().map(|Converted { item, outcome, time }| Shown {
        source: &item.source,
        container: transfer.target_of(item),
        original_len: outcome.original_len,
        stored_len: outcome.stored_len,
        resumed_len: outcome.kept_len,
        sha256: outcome.sha256,
        time: *time,
    });
    show(args.report, &files.collect::<Vec<_>>(), transfer.copies(), protected, &choices)?;
    let useless = results.iter().filter(|result| bases.first().is_some() && !result.outcome.is_patch);
    for Converted { item, .. } in useless {
        let path = ui::printable(&item.source.display().to_string());
        eprintln!("bigsmall: {path}: has nothing in common with the base; it was compressed without");
    }
    Ok(ExitCode::SUCCESS)
}

/// Compresses in place.
fn run_in_place(args: &Args, options: &Options) -> Result<ExitCode, Failure> {
    let kind = if args.hf_cache { in_place::Kind::Recognised } else { in_place::Kind::Named };
    let candidates = in_place::candidates(&args.source, kind)?;
    interrupt::watch()?;
    let existing = args.force.existing();
    if args.ecc.is_some() {
        candidates.iter().try_for_each(|candidate| may_write_sidecar(&candidate.target, existing))?;
    }
    let meter = Meter::new(candidates.iter().map(|candidate| candidate.len).sum(), args.report.quiet);
    let outcome = args.threads.run(|| {
        let (mut results, mut parity) = (Vec::new(), Vec::new());
        for candidate in &candidates {
            meter.set_file(&candidate.path.to_string_lossy());
            let replaced = in_place::replace(candidate, options, args.start(), &meter)?;
            if let (Some(share), Some(container)) = (args.ecc, &replaced.container) {
                parity.push(protect(container, share, existing, &Quiet(&meter))?);
            }
            results.push(replaced);
        }
        Ok((results, parity))
    });
    drop(meter);
    let (results, parity) = outcome?;
    let files = results.iter().map(|result| Shown {
        source: &result.source,
        container: result.container.clone().unwrap_or_else(|| result.source.clone()),
        original_len: result.original_len,
        // What was left takes what it took.
        stored_len: if result.container.is_some() { result.stored_len } else { result.original_len },
        resumed_len: result.resumed_len,
        sha256: result.sha256,
        time: result.time,
    });
    show(args.report, &files.collect::<Vec<_>>(), Copied::default(), parity, &[])?;
    Ok(ExitCode::SUCCESS)
}

/// What is to become what.
fn plan(args: &Args) -> Result<Transfer, Failure> {
    let (source, existing) = (&args.source, args.force.existing());
    let metadata = tree::source_metadata(source)?;
    if metadata.is_file() {
        if args.delta_from.is_empty() {
            refuse_container(source)?;
        }
        let target = file_target(source, args.output.as_deref());
        Transfer::file(source, &metadata, &target, existing, args.start())
    } else if metadata.is_dir() {
        plan_directory(args, &metadata)
    } else {
        Err(tree::refuse_oddity(source, &metadata))
    }
}

fn plan_directory(args: &Args, metadata: &Metadata) -> Result<Transfer, Failure> {
    let source = &args.source;
    let target = match &args.output {
        Some(output) => output.clone(),
        None => transfer::sibling(source, |mut name| {
            name.push("-bigsmall");
            name
        })?,
    };
    let is_patch = !args.delta_from.is_empty();
    let transfer = Transfer::directory(source, metadata, &target, args.force.existing(), args.start(), |file| {
        if is_patch && has_container_name(&file.path) && Stored::is_stored(&file.path)? {
            return Ok(Fate::Convert(file.path.file_name().expect("a file has a name").to_owned()));
        }
        if !holds_weights(&file.path) {
            return Ok(Fate::Copy);
        }
        if !is_patch {
            refuse_container(&file.path)?;
        }
        Ok(Fate::Convert(container_name(&file.path)))
    })?;
    if transfer.conversions().next().is_none() {
        return Err(Failure::new(format!("{}: there is no {WEIGHTS} in it: nothing to compress", source.display())));
    }
    Ok(transfer)
}

/// Fails when the file at `path` is a container already.
pub(super) fn refuse_container(path: &Path) -> Result<(), Failure> {
    if Container::is_container(path)? {
        return Err(Failure::new(format!("{}: is a bigsmall container already", path.display())));
    }
    if Stored::is_stored(path)? {
        return Err(Failure::new(format!(
            "{}: is a container of the Python package\nbigsmall migrate makes it one of ours",
            path.display()
        )));
    }
    Ok(())
}

/// Where the container of the file `source` goes.
fn file_target(source: &Path, output: Option<&Path>) -> PathBuf {
    match output {
        Some(directory) if directory.is_dir() => directory.join(container_name(source)),
        Some(file) => file.to_owned(),
        None => source.with_file_name(container_name(source)),
    }
}

/// The name of the container of the file `source`: its own with another extension, or, for a GGUF beside a safetensors file which
/// would get the same, with one more.
pub fn container_name(source: &Path) -> OsString {
    container_name_among(source, Path::is_file)
}

/// The same, where `exists` says which files there are.
pub(crate) fn container_name_among(source: &Path, exists: impl Fn(&Path) -> bool) -> OsString {
    let is_second =
        source.extension().is_some_and(|extension| extension == GGUF) && exists(&source.with_extension(SAFETENSORS));
    let name = if is_second { source.file_name() } else { source.file_stem() };
    let mut name = name.expect("a file has a name").to_owned();
    name.push(".");
    name.push(EXTENSION);
    name
}

/// The name of the file `source` as the container records it: in Unicode and not too long. What has to be changed is at
/// its beginning; the extension is what matters.
pub(crate) fn recorded_name(source: &Path) -> String {
    let name = source.file_name().expect("a file has a name").to_string_lossy();
    let start = (0..name.len()).find(|&start| name.is_char_boundary(start) && name.len() - start <= LONGEST_NAME);
    name[start.unwrap_or(0)..].to_owned()
}

/// How a container is made from a file.
struct Compression<'a> {
    options: &'a Options,
    /// What patches are to be made of, if they are.
    bases: &'a Bases,
    /// The bases that were found instead.
    choices: &'a [Choice],
    meter: &'a Meter,
}

impl Compression<'_> {
    /// What a file is to be a patch of, if it is.
    fn base_of(&self, item: &Item) -> Option<&Model> {
        auto_delta::base_of(self.choices, &item.source).unwrap_or(self.bases).first().map(|base| &**base)
    }

    /// A file, and the name that is recorded of it. If it is to be a patch, it may be compressed.
    fn open(&self, item: &Item) -> Result<(Box<dyn Original>, String), Failure> {
        let (source, name) = match self.base_of(item) {
            Some(_) => open_original(&item.source, self.bases)?,
            None => (Box::new(PlainFile::open(&item.source)?) as Box<dyn Original>, None),
        };
        Ok((source, name.unwrap_or_else(|| recorded_name(&item.source))))
    }
}

impl Conversion for Compression<'_> {
    type Outcome = Summary;

    fn convert(&mut self, item: &Item, file: &mut NewFile) -> Result<(Summary, Attributes), Failure> {
        let metadata = tree::source_metadata(&item.source)?;
        let (source, name) = self.open(item)?;
        let base = self.base_of(item);
        let summary = container::compress_file(&*source, &name, self.options, base, file, self.meter)?;
        Ok((summary, Attributes::of(&metadata)))
    }

    fn finished(&mut self, item: &Item, place: &Path, journal: &KeptJournal) -> Option<Summary> {
        let (source, name) = self.open(item).ok()?;
        let base = self.base_of(item);
        let summary = container::finished(&*source, &name, self.options, base, place, journal, &Quiet(self.meter));
        summary.inspect(|_| self.meter.advance(item.source_len))
    }
}

/// The result for programs.
#[derive(Serialize)]
struct Json {
    files: Vec<JsonFile>,
    copied_files: u64,
    copied_bytes: u64,
    total: JsonTotal,
    /// The sidecars; empty without `--ecc`.
    parity: Vec<Protected>,
    /// What was found for each model; empty without `--auto-delta`.
    bases: Vec<JsonChoice>,
}

#[derive(Serialize)]
struct JsonFile {
    source: String,
    /// The source itself where it was left, since it would not get smaller in place.
    container: String,
    original_bytes: u64,
    container_bytes: u64,
    /// Of the original, those that an interrupted run had coded; 0 without `--resume`.
    resumed_bytes: u64,
    sha256: String,
    seconds: f64,
}

#[derive(Serialize)]
struct JsonTotal {
    original_bytes: u64,
    container_bytes: u64,
    seconds: f64,
}

/// What is said of a file that was compressed.
struct Shown<'a> {
    source: &'a Path,
    container: PathBuf,
    original_len: u64,
    stored_len: u64,
    /// Bytes of the original that an earlier run had coded.
    resumed_len: u64,
    sha256: [u8; 32],
    time: Duration,
}

fn show(
    report: Report,
    files: &[Shown<'_>],
    copied: Copied,
    parity: Vec<Protected>,
    choices: &[Choice],
) -> Result<(), Failure> {
    let total = JsonTotal {
        original_bytes: files.iter().map(|file| file.original_len).sum(),
        container_bytes: files.iter().map(|file| file.stored_len).sum(),
        seconds: files.iter().map(|file| file.time).sum::<Duration>().as_secs_f64(),
    };
    if report.json {
        let files = files.iter().map(|file| JsonFile {
            source: file.source.display().to_string(),
            container: file.container.display().to_string(),
            original_bytes: file.original_len,
            container_bytes: file.stored_len,
            resumed_bytes: file.resumed_len,
            sha256: ui::hex(&file.sha256),
            seconds: file.time.as_secs_f64(),
        });
        let Copied { files: copied_files, bytes: copied_bytes } = copied;
        let bases = choices.iter().map(Choice::json).collect();
        return ui::print_json(&Json { files: files.collect(), copied_files, copied_bytes, total, parity, bases });
    }
    if report.quiet {
        return Ok(());
    }
    let mut table = Table::new(&["file", "original", "compressed", "saved", "speed"]);
    for file in files {
        let name = file.container.display().to_string();
        table.row(row(name, file.original_len, file.stored_len, file.time.as_secs_f64()));
    }
    if files.len() > 1 {
        table.row(row("total".to_owned(), total.original_bytes, total.container_bytes, total.seconds));
    }
    let resumed = files.iter().filter(|file| file.resumed_len > 0).map(|file| {
        let (name, len) = (file.container.display(), show_size(file.resumed_len));
        format!("{name}: {len} of {} had been done before\n", show_size(file.original_len))
    });
    let resumed: String = resumed.collect();
    let parity = if parity.is_empty() { String::new() } else { "\n".to_owned() + &protect::describe(&parity) };
    ui::print(&(auto_delta::describe(choices) + &table.render("") + &copied.to_string() + &resumed + &parity))
}

fn row(name: String, original: u64, compressed: u64, seconds: f64) -> [String; 5] {
    let saved = percent(compressed, original).map_or("-".to_owned(), |percent| format!("{:.1} %", 100.0 - percent));
    [name, show_size(original), show_size(compressed), saved, ui::speed(original, seconds)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn containers_are_named_after_the_stem() {
        let name = |source: &str| container_name(Path::new(source)).into_string().unwrap();
        assert_eq!(name("dir.d/model.safetensors"), "model.bs");
        assert_eq!(name("model-v1.5.gguf"), "model-v1.5.bs");
        assert_eq!(name("README"), "README.bs");
        assert_eq!(name(".safetensors"), ".safetensors.bs");
    }

    #[test]
    fn any_name_can_be_recorded() {
        assert_eq!(recorded_name(Path::new("a/модель.safetensors")), "модель.safetensors");
        assert_eq!(recorded_name(Path::new(OsStr::from_bytes(b"\xff.gguf"))), "\u{fffd}.gguf");
        let long = recorded_name(Path::new(OsStr::from_bytes(&[&[0xff; 243][..], b".safetensors"].concat())));
        assert!(long.len() <= LONGEST_NAME && long.ends_with("\u{fffd}.safetensors"), "{long}");
    }

    #[test]
    fn chunk_sizes_are_checked() {
        assert_eq!(parse_chunk_size("256K"), Ok(256 << 10));
        assert_eq!(parse_chunk_size("8M"), Ok(8 << 20));
        for size in ["0", "63", "65", "8388616", "5G", "x"] {
            assert!(parse_chunk_size(size).is_err(), "{size}");
        }
    }
}
