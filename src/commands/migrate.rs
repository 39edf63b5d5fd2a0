//! `bigsmall migrate`.
//!
//! Nothing takes the place of a file before it has been written to disk and read again. What the Python package wrote is first
//! decoded to a file beside the new container: it can be decoded only tensor by tensor, and the encoder reads here and there.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bigsmall_codec::container::{self, EXTENSION, Options, shown_name};
use bigsmall_codec::output::{Attributes, Existing, NewFile, check_replaceable};
use bigsmall_codec::parity::sidecar_path;
use bigsmall_codec::upstream::{HUB_INDEX, HUB_INDEX_BINARY, HubIndex, LOADER_INDEX, ORIGINAL_NAME, UpstreamFile};
use bigsmall_codec::verify::compare_with;
use bigsmall_codec::{Container, Error, ErrorKind, Memory, Original, Stored};
use serde::Serialize;

use super::{containers_in, has_container_name, hub_index, in_container};
use crate::failure::{FAILED, Failure};
use crate::interrupt;
use crate::options::{Force, Report, Threads};
use crate::transfer::{Fate, Start, Transfer};
use crate::tree;
use crate::ui::progress::Meter;
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{self, percent};

/// What is added to the name of a file that is kept.
const BACKUP: &str = ".bak";

const EXAMPLES: &str = "\
Examples:
  bigsmall migrate model.bs
      puts a container of today in the place of model.bs and keeps what was there as model.bs.bak
  bigsmall migrate Llama-3-8B-bigsmall
      every container in and below the directory that is not of today
  bigsmall migrate --dry-run Llama-3-8B-bigsmall
      only says what would be saved
  bigsmall migrate model.bs -o new.bs
      writes new.bs, model.bs stays

Of a directory that the Python package prepared for the Hub, the index becomes one that loaders know. While a file of that
package is migrated, as much disk is needed besides as its original takes.";

/// Make containers of the Python package, or old ones, containers of today
///
/// What the Python package wrote can be decoded only tensor by tensor, and slowly: afterwards it is smaller, and any part of it
/// is read at the speed of the disk. SRC is a container or a directory. Each new container is decoded and compared with
/// what was there, byte for byte, before it takes its place.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container or directory to migrate
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Write here and leave SRC as it is; a directory becomes a directory, all else in it is copied
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,

    /// Write nothing; only say what would be saved
    #[arg(long)]
    dry_run: bool,

    /// Do not keep what was there as SRC.bak
    #[arg(long, conflicts_with = "output")]
    no_backup: bool,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    force: Force,

    #[command(flatten)]
    report: Report,
}

/// A container that was migrated, or could be. Its fields are the result for programs.
#[derive(Serialize)]
struct Migrated {
    file: String,
    /// What was written; null in a dry run.
    output: Option<String>,
    /// Where what was there is now.
    backup: Option<String>,
    original_bytes: u64,
    before_bytes: u64,
    after_bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Json<'a> {
    dry_run: bool,
    files: &'a [Migrated],
    /// What is of today already.
    current: &'a [String],
}

/// What is done to the files.
#[derive(Default)]
struct Results {
    migrated: Vec<Migrated>,
    current: Vec<String>,
    failures: Vec<String>,
}

/// Sizes in bytes.
struct Sizes {
    original: u64,
    before: u64,
    after: u64,
}

/// Migrates.
///
/// # Errors
/// When something could not be migrated; what could be was.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let metadata = tree::source_metadata(&args.source)?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(tree::refuse_oddity(&args.source, &metadata));
    }
    interrupt::watch()?;
    let results = match &args.output {
        Some(output) if !args.dry_run => args.threads.run(|| migrate_to(args, &metadata, output))?,
        _ => {
            let paths = if metadata.is_dir() { containers_in(&args.source)? } else { vec![args.source.clone()] };
            args.threads.run(|| migrate_in_place(args, &paths, metadata.is_dir()))?
        }
    };
    print(args, &results)?;
    match results.failures.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failure::with_code(FAILED, results.failures.join("\n"))),
    }
}

/// Opens a container that is to be migrated; `None` when it is of today.
fn open(path: &Path) -> Result<Option<Stored>, Failure> {
    let stored = Stored::open_protected(path, &Arc::default())?;
    // Patches are never of an old version, and cannot be read without their base.
    if stored.base_record().is_some() {
        return Ok(None);
    }
    stored.check_complete().map_err(|e| e.in_file(path))?;
    let is_current = match &stored {
        Stored::Container(container) => container.version() >= container::version_for(&**container)?,
        _ => false,
    };
    Ok((!is_current).then_some(stored))
}

/// Puts new containers in the place of these, or says what that would save.
///
/// # Errors
/// When it is interrupted. What is wrong with one file does not keep the others from being migrated.
fn migrate_in_place(args: &Args, paths: &[PathBuf], is_directory: bool) -> Result<Results, Failure> {
    let lens = paths.iter().filter_map(|path| Some(open(path).ok()??.len()));
    // Decoded, coded and compared.
    let meter = Meter::new(lens.sum::<u64>() * if args.dry_run { 1 } else { 3 }, args.report.quiet);
    let mut results = Results::default();
    for path in paths {
        meter.set_file(&path.display().to_string());
        match migrate_one(args, path, &meter) {
            Ok(Some(migrated)) => results.migrated.push(migrated),
            Ok(None) => results.current.push(path.display().to_string()),
            Err(failure) if failure.code != FAILED => return Err(failure),
            Err(failure) => results.failures.push(failure.message),
        }
    }
    if is_directory && !args.dry_run && results.failures.is_empty() {
        let directories: HashSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        for directory in directories {
            replace_index(args, directory)?;
        }
    }
    Ok(results)
}

fn migrate_one(args: &Args, path: &Path, meter: &Meter) -> Result<Option<Migrated>, Failure> {
    let start = Instant::now();
    let Some(stored) = open(path)? else { return Ok(None) };
    let mut migrated = Migrated {
        file: path.display().to_string(),
        output: None,
        backup: None,
        original_bytes: stored.len(),
        before_bytes: stored.stored_len(),
        after_bytes: 0,
        seconds: 0.0,
    };
    if args.dry_run {
        migrated.after_bytes = estimate(&stored, path, meter)?;
    } else {
        // A link stays one: what it leads to is replaced.
        let target = fs::canonicalize(path).map_err(|e| Error::io("cannot be read", e).in_file(path))?;
        let backup = (!args.no_backup).then(|| with_suffix(&target, BACKUP));
        if let Some(backup) = &backup {
            check_replaceable(backup, args.force.existing()).map_err(|e| match e.kind() {
                ErrorKind::AlreadyExists => {
                    Failure::new(format!("{e}\n--force replaces it, --no-backup does not need it"))
                }
                _ => e.into(),
            })?;
        }
        let attributes = Attributes::of(&tree::source_metadata(path)?);
        let mut file = NewFile::create(&target, Existing::Replace)?;
        let original = OriginalName::of(path, &stored);
        migrated.after_bytes = convert(&stored, path, &original, &mut file, meter)?.after;
        drop(stored);
        if let Some(backup) = &backup {
            keep(&target, backup, args.force.existing())?;
        }
        file.commit(&attributes)?;
        move_sidecar(&target, backup.as_deref())?;
        migrated.output = Some(path.display().to_string());
        migrated.backup = backup.map(|backup| backup.display().to_string());
    }
    migrated.seconds = start.elapsed().as_secs_f64();
    Ok(Some(migrated))
}

/// The name that a new container records.
struct OriginalName(String);

impl OriginalName {
    /// For the container at `path`.
    fn of(path: &Path, stored: &Stored) -> OriginalName {
        let recorded = stored.original_name();
        OriginalName(match stored {
            Stored::Container(_) => recorded.to_owned(),
            Stored::Upstream(_) => {
                let shown = path.file_name().and_then(|name| shown_name(name, recorded));
                shown.and_then(|name| name.into_string().ok()).unwrap_or_else(|| recorded.to_owned())
            }
        })
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// Gives the file at `path` a second name, so that at no moment there is none under its own.
fn keep(path: &Path, backup: &Path, existing: Existing) -> Result<(), Failure> {
    if existing == Existing::Replace && fs::symlink_metadata(backup).is_ok() {
        fs::remove_file(backup).map_err(|e| Error::io("cannot be replaced", e).in_file(backup))?;
    }
    fs::hard_link(path, backup).map_err(|e| {
        let error = Error::io("what is replaced cannot be kept under this name", e).in_file(backup);
        Failure::new(format!("{error}\n--no-backup does not keep it; -o writes elsewhere"))
    })
}

/// The parity of what was there goes with it: it is of no use to the new container.
fn move_sidecar(path: &Path, backup: Option<&Path>) -> Result<(), Failure> {
    let sidecar = sidecar_path(path);
    let moved = match backup {
        _ if fs::symlink_metadata(&sidecar).is_err() => return Ok(()),
        Some(backup) => fs::rename(&sidecar, sidecar_path(backup)),
        None => fs::remove_file(&sidecar),
    };
    moved.map_err(|e| Error::io("the parity of the old container cannot be put away", e).in_file(&sidecar))?;
    let path = path.display();
    ui::say(&format!("{path}: had parity, which the new container needs anew: bigsmall protect writes it"));
    Ok(())
}

/// Puts the index that loaders know in the place of the Python package's in `directory`, if there is one.
fn replace_index(args: &Args, directory: &Path) -> Result<(), Failure> {
    let path = directory.join(HUB_INDEX);
    if !path.is_file() {
        return Ok(());
    }
    if hub_index::is_needed(&path, &HubIndex::open(&path)?) {
        let file = NewFile::create(&directory.join(LOADER_INDEX), Existing::Refuse)?;
        hub_index::write(&path, &file)?;
        file.commit(&Attributes::of(&tree::source_metadata(&path)?))?;
    }
    for path in [path, directory.join(HUB_INDEX_BINARY)].into_iter().filter(|path| path.exists()) {
        let put_away = match args.no_backup {
            true => fs::remove_file(&path),
            false => fs::rename(&path, with_suffix(&path, BACKUP)),
        };
        put_away.map_err(|e| Error::io("cannot be put away", e).in_file(&path))?;
    }
    Ok(())
}

/// Migrates to somewhere else.
fn migrate_to(args: &Args, metadata: &fs::Metadata, output: &Path) -> Result<Results, Failure> {
    let (source, existing) = (&args.source, args.force.existing());
    let mut results = Results::default();
    let mut total = 0;
    let transfer = if metadata.is_dir() {
        let transfer = Transfer::directory(source, metadata, output, existing, Start::Anew, |file| {
            let path = &file.path;
            if let Some(fate) = hub_index::fate(path)? {
                return Ok(fate);
            }
            let protected = path.with_extension("");
            let sidecar = sidecar_path(&protected) == *path && has_container_name(&protected);
            if sidecar && protected.is_file() && open(&protected)?.is_some() {
                return Ok(Fate::Leave);
            }
            if !has_container_name(path) || !Stored::is_stored(path)? && !sidecar_path(path).exists() {
                return Ok(Fate::Copy);
            }
            match open(path)? {
                Some(stored) => {
                    total += 3 * stored.len();
                    Ok(Fate::Convert(path.file_name().unwrap_or_default().to_owned()))
                }
                None => {
                    results.current.push(path.display().to_string());
                    Ok(Fate::Copy)
                }
            }
        })?;
        if transfer.conversions().next().is_none() && results.current.is_empty() {
            return Err(Failure::new(format!("{}: there is no container (*.{EXTENSION}) in it", source.display())));
        }
        transfer
    } else {
        let Some(stored) = open(source)? else {
            results.current.push(source.display().to_string());
            return Ok(results);
        };
        total += 3 * stored.len();
        let target =
            if output.is_dir() { output.join(source.file_name().unwrap_or_default()) } else { output.to_owned() };
        Transfer::file(source, metadata, &target, existing, Start::Anew)?
    };
    let meter = Meter::new(total + transfer.copies().bytes, args.report.quiet);
    let converted = transfer.run(&meter, |item, file| {
        let path = &item.source;
        let attributes = Attributes::of(&tree::source_metadata(path)?);
        if hub_index::is_hub_index(path) {
            hub_index::write(path, file)?;
            return Ok((None, attributes));
        }
        let changed = || Error::new(ErrorKind::SourceChanged, "the file changed while it was read").in_file(path);
        let stored = open(path)?.ok_or_else(changed)?;
        let original = OriginalName::of(path, &stored);
        Ok((Some(convert(&stored, path, &original, file, &meter)?), attributes))
    })?;
    for converted in converted {
        let Some(Sizes { original, before, after }) = converted.outcome else { continue };
        results.migrated.push(Migrated {
            file: converted.item.source.display().to_string(),
            output: Some(transfer.target_of(converted.item).display().to_string()),
            backup: None,
            original_bytes: original,
            before_bytes: before,
            after_bytes: after,
            seconds: converted.time.as_secs_f64(),
        });
    }
    Ok(results)
}

/// Writes the new container of what is stored at `path` to `file`, and compares what it gives with what was there.
fn convert(
    stored: &Stored,
    path: &Path,
    name: &OriginalName,
    file: &mut NewFile,
    meter: &Meter,
) -> Result<Sizes, Failure> {
    match stored {
        Stored::Container(container) => {
            let after = convert_original(&**container, path, name, file, meter)?;
            let new = Container::from_store(Box::new(file.contents()?))?;
            if new.sha256() != container.sha256() {
                return Err(refused(path, "the original does not have the recorded SHA-256"));
            }
            Ok(Sizes { original: stored.len(), before: stored.stored_len(), after })
        }
        Stored::Upstream(upstream) => {
            let spool = spool(file.target())?;
            upstream.decompress(&spool, meter).map_err(|e| explain(e, path))?;
            let after = convert_original(&spool.contents()?, path, name, file, meter)?;
            Ok(Sizes { original: stored.len(), before: stored.stored_len(), after })
        }
    }
}

/// A file for the time in which the container at `target` is made, on the same file system.
fn spool(target: &Path) -> Result<NewFile, Failure> {
    // What `target` is in may still have another name.
    let directory = target.ancestors().skip(1).find(|directory| directory.is_dir());
    let directory = directory.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = target.file_name().map_or_else(OsString::new, OsStr::to_owned);
    name.push(".original");
    Ok(NewFile::create(&directory.join(name), Existing::Replace)?)
}

fn convert_original(
    original: &dyn Original,
    path: &Path,
    name: &OriginalName,
    file: &mut NewFile,
    meter: &Meter,
) -> Result<u64, Failure> {
    let mut out = BufWriter::with_capacity(1 << 20, &mut *file);
    let summary = container::compress(original, &name.0, &Options::default(), &mut out, meter);
    drop(out);
    let summary = summary
        .map_err(|e| if e.kind() == ErrorKind::Corrupt { explain(e, path) } else { file.name_failure(e).into() })?;
    let new = Container::from_store(Box::new(file.contents()?))?;
    let report = compare_with(&new, original, meter)?;
    match report.is_sound() {
        true => Ok(summary.stored_len),
        false => Err(refused(path, "the new container does not give what the old one gives")),
    }
}

/// How large the new container of `stored` would be, in bytes.
fn estimate(stored: &Stored, path: &Path, meter: &Meter) -> Result<u64, Failure> {
    let compress = |original: &dyn Original| {
        container::compress(original, ORIGINAL_NAME, &Options::default(), &mut io::sink(), meter)
            .map(|summary| summary.stored_len)
            .map_err(|e| explain(e, path))
    };
    match stored {
        Stored::Container(container) => compress(&**container),
        Stored::Upstream(upstream) => {
            // Tensor by tensor, since all of it can be read only so. What every container has is counted once.
            let frame = compress(&Memory::new(Vec::new()))?;
            let mut after = compress(&Memory::new(header(upstream)?))?;
            let mut seen = HashSet::new();
            for tensor in upstream.tensors() {
                let len = tensor.range.end - tensor.range.start;
                if !seen.insert(tensor.place()) {
                    continue;
                }
                let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
                let json = format!(
                    r#"{{"t":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{len}]}}}}"#,
                    tensor.dtype,
                    shape.join(",")
                );
                let mut file = (json.len() as u64).to_le_bytes().to_vec();
                file.extend(json.bytes());
                let alone = compress(&Memory::new(file.clone()))?;
                let start = file.len();
                file.resize(start + len as usize, 0);
                upstream.read_at(tensor.range.start, &mut file[start..]).map_err(|e| explain(e, path))?;
                after += compress(&Memory::new(file))?.saturating_sub(alone);
            }
            Ok(after.max(frame))
        }
    }
}

/// The header of the safetensors file.
fn header(upstream: &UpstreamFile) -> Result<Vec<u8>, Failure> {
    let end = upstream.tensors().iter().map(|tensor| tensor.range.start).min().unwrap_or(upstream.len());
    let mut header = vec![0; end as usize];
    upstream.read_at(0, &mut header)?;
    Ok(header)
}

/// The failure that `error`, met while the container at `path` was decoded, is.
fn explain(error: Error, path: &Path) -> Failure {
    let damaged = error.kind() == ErrorKind::Corrupt;
    let mut failure = Failure::from(in_container(error, path));
    if damaged {
        failure.message += "\nit stays as it is; bigsmall verify says which tensors are lost";
    }
    failure
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::new(format!("{}: {why}; it stays as it is", path.display()))
}

fn print(args: &Args, results: &Results) -> Result<(), Failure> {
    let Results { migrated, current, .. } = results;
    if args.report.json {
        return ui::print_json(&Json { dry_run: args.dry_run, files: migrated, current });
    }
    if args.report.quiet {
        return Ok(());
    }
    let mut text = String::new();
    if !migrated.is_empty() {
        let mut table =
            Table::new(&["file", "original", "before", if args.dry_run { "about" } else { "after" }, "saved"]);
        let mut row = |name: &str, original: u64, before: u64, after: u64| {
            let saved = percent(after, before).map_or("-".to_owned(), |percent| format!("{:.1} %", 100.0 - percent));
            table.row([name.to_owned(), show_size(original), show_size(before), show_size(after), saved]);
        };
        for file in migrated {
            let name = file.output.as_ref().unwrap_or(&file.file);
            row(name, file.original_bytes, file.before_bytes, file.after_bytes);
        }
        if migrated.len() > 1 {
            let sum = |bytes: fn(&Migrated) -> u64| migrated.iter().map(bytes).sum();
            row("total", sum(|file| file.original_bytes), sum(|file| file.before_bytes), sum(|file| file.after_bytes));
        }
        text = table.render("");
    }
    for file in migrated.iter() {
        if let Some(backup) = &file.backup {
            text += &format!("what was there is kept as {backup}\n");
        }
    }
    for file in current {
        text += &format!("{file}: is of today, nothing to do\n");
    }
    ui::print(&ui::printable(&text))
}
