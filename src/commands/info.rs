//! `bigsmall info`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bigsmall_codec::patch::{self, BaseRecord};
use bigsmall_codec::{Original, Stored, StoredUsage};
use serde::Serialize;

use super::containers_in;
use crate::failure::{FAILED, Failure};
use crate::tree;
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{self, count, percent};

const EXAMPLES: &str = "\
Examples:
  bigsmall info model.bs
  bigsmall info Llama-3-8B-bigsmall
      every container in and below the directory, and all together
  bigsmall info --json model.bs
      the same for programs, with exact numbers

It reads a container's index, whose checksums it checks, and not the weights: bigsmall verify does that. The .bs files
of the Python package are containers too. Of a patch it says what base it needs; delta and unchanged
are the codecs of chunks that are coded against that, or are as there.";

/// Say what is in a container
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container or directory to look at
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Give the result as JSON, with exact numbers
    #[arg(long)]
    json: bool,
}

/// The result for programs.
#[derive(Serialize)]
struct Json {
    containers: Vec<Info>,
    total: Total,
}

/// What is said about one container.
#[derive(Serialize)]
struct Info {
    file: String,
    format: Format,
    format_version: String,
    /// Not recorded by the Python package, as the next ones are not.
    original_name: Option<String>,
    sha256: Option<String>,
    chunk_size: Option<u32>,
    /// Chunks of the original, and how many of them are stored: equal tensors share theirs.
    chunks: Option<u64>,
    stored_chunks: Option<u64>,
    /// Only of a patch.
    base: Option<Base>,
    #[serde(flatten)]
    contents: Total,
}

/// What a patch says about its base.
#[derive(Serialize)]
struct Base {
    name: String,
    fingerprint: String,
    files: u64,
    bytes: u64,
    /// The tensors that the patch needs, with the MD5s that they must have.
    tensors: Vec<BaseTensor>,
}

#[derive(Serialize)]
struct BaseTensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    bytes: u64,
    md5: String,
}

/// Who wrote a container.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Bigsmall,
    /// The Python package.
    Python,
}

/// What containers add up to.
#[derive(Default, Serialize)]
struct Total {
    original_bytes: u64,
    container_bytes: u64,
    tensors: u64,
    dtypes: BTreeMap<String, Dtype>,
    /// Bytes of originals that are of no tensor: headers, gaps, files that are no safetensors.
    other_bytes: u64,
    codecs: BTreeMap<String, CodecShare>,
}

#[derive(Default, Serialize)]
struct Dtype {
    tensors: u64,
    bytes: u64,
}

#[derive(Default, Serialize)]
struct CodecShare {
    /// Chunks, or tensors where the Python package wrote them.
    chunks: u64,
    original_bytes: u64,
    stored_bytes: u64,
}

/// Tells.
///
/// # Errors
/// When something cannot be read, after what can be read was told.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let metadata = tree::source_metadata(&args.source)?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(tree::refuse_oddity(&args.source, &metadata));
    }
    let paths = if metadata.is_dir() { containers_in(&args.source)? } else { vec![args.source.clone()] };
    let (mut containers, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        match Stored::open(&path, &Arc::default()) {
            Ok(stored) => containers.push(info(&path, &stored)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !containers.is_empty() {
        let total = total(&containers);
        if args.json {
            ui::print_json(&Json { containers, total })?;
        } else {
            ui::print(&describe(&containers, &total, metadata.is_dir()))?;
        }
    }
    if errors.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::with_code(FAILED, errors.join("\n"))) }
}

fn info(path: &Path, stored: &Stored) -> Info {
    let mut contents = Total {
        original_bytes: stored.len(),
        container_bytes: stored.stored_len(),
        other_bytes: stored.len(),
        ..Total::default()
    };
    for tensor in stored.tensors() {
        let bytes = tensor.range.end - tensor.range.start;
        contents.tensors += 1;
        let dtype = contents.dtypes.entry(tensor.dtype.to_owned()).or_default();
        dtype.tensors += 1;
        dtype.bytes += bytes;
        contents.other_bytes -= bytes;
    }
    for StoredUsage { codec, pieces, original_len, stored_len } in stored.codec_usage() {
        contents
            .codecs
            .insert(codec, CodecShare { chunks: pieces, original_bytes: original_len, stored_bytes: stored_len });
    }
    let file = path.display().to_string();
    match stored {
        Stored::Container(container) => Info {
            file,
            format: Format::Bigsmall,
            format_version: container.version().to_string(),
            original_name: Some(container.original_name().to_owned()),
            sha256: Some(ui::hex(container.sha256())),
            chunk_size: Some(container.chunk_size()),
            chunks: Some(container.grid().chunks()),
            stored_chunks: Some(container.stored_chunks()),
            base: container.base_record().map(base),
            contents,
        },
        Stored::Upstream(upstream) => Info {
            file,
            format: Format::Python,
            format_version: upstream.version().to_string(),
            original_name: None,
            sha256: None,
            chunk_size: None,
            chunks: None,
            stored_chunks: None,
            base: None,
            contents,
        },
    }
}

fn base(record: &BaseRecord) -> Base {
    let tensor = |tensor: &patch::BaseTensor| BaseTensor {
        name: tensor.name.clone(),
        dtype: tensor.dtype.clone(),
        shape: tensor.shape.clone(),
        bytes: tensor.len,
        md5: ui::hex(&tensor.md5),
    };
    Base {
        name: record.name.clone(),
        fingerprint: record.fingerprint.to_string(),
        files: record.files,
        bytes: record.len,
        tensors: record.tensors.iter().map(tensor).collect(),
    }
}

fn total(containers: &[Info]) -> Total {
    let mut total = Total::default();
    for Info { contents, .. } in containers {
        total.original_bytes += contents.original_bytes;
        total.container_bytes += contents.container_bytes;
        total.tensors += contents.tensors;
        total.other_bytes += contents.other_bytes;
        for (name, dtype) in &contents.dtypes {
            let sum = total.dtypes.entry(name.clone()).or_default();
            sum.tensors += dtype.tensors;
            sum.bytes += dtype.bytes;
        }
        for (name, share) in &contents.codecs {
            let sum = total.codecs.entry(name.clone()).or_default();
            sum.chunks += share.chunks;
            sum.original_bytes += share.original_bytes;
            sum.stored_bytes += share.stored_bytes;
        }
    }
    total
}

/// The result for people.
fn describe(containers: &[Info], total: &Total, directory: bool) -> String {
    match containers {
        [container] if !directory => describe_container(container),
        _ => {
            let mut table = Table::new(&["file", "original", "compressed", "ratio", "tensors"]);
            let mut row = |name: &str, contents: &Total| {
                table.row([
                    name.to_owned(),
                    show_size(contents.original_bytes),
                    show_size(contents.container_bytes),
                    ratio(contents.container_bytes, contents.original_bytes),
                    contents.tensors.to_string(),
                ]);
            };
            containers.iter().for_each(|container| row(&container.file, &container.contents));
            row("total", total);
            table.render("") + &describe_contents(total)
        }
    }
}

fn describe_container(info: &Info) -> String {
    let Total { original_bytes, container_bytes, tensors, .. } = info.contents;
    let size = format!("{} ({original_bytes} bytes)", show_size(original_bytes));
    let mut lines = vec![
        (
            "original",
            match &info.original_name {
                Some(name) => format!("{name}, {size}"),
                None => size,
            },
        ),
        ("container", format!("{} ({container_bytes} bytes)", show_size(container_bytes))),
        ("ratio", ratio(container_bytes, original_bytes)),
        (
            "format",
            match info.format {
                Format::Bigsmall => info.format_version.clone(),
                Format::Python => {
                    format!("{} of the Python package; bigsmall migrate makes it ours", info.format_version)
                }
            },
        ),
    ];
    if let (Some(chunks), Some(stored_chunks), Some(chunk_size)) = (info.chunks, info.stored_chunks, info.chunk_size) {
        let shared = match chunks - stored_chunks {
            0 => String::new(),
            shared => format!(", {shared} of them stored once for several tensors"),
        };
        lines.push(("chunks", format!("{chunks} of {chunk_size} bytes or less{shared}")));
    }
    lines.push(("tensors", tensors.to_string()));
    lines.extend(info.sha256.clone().map(|sha256| ("SHA-256", sha256)));
    if let Some(base) = &info.base {
        let Base { name, fingerprint, files, bytes, tensors } = base;
        lines.push(("patch of", format!("{name}, {} ({bytes} bytes) in {}", show_size(*bytes), count(*files, "file"))));
        lines.push(("base ID", fingerprint.clone()));
        let needed = tensors.iter().map(|tensor| tensor.bytes).sum();
        lines.push(("needed", format!("{} of it, {}", count(tensors.len() as u64, "tensor"), show_size(needed))));
    }
    let mut text = format!("{}\n", info.file);
    for (name, value) in lines {
        text += &format!("  {name:<9}  {value}\n");
    }
    ui::printable(&text) + &describe_contents(&info.contents)
}

/// The tables of dtypes and codecs.
fn describe_contents(contents: &Total) -> String {
    let mut dtypes = Table::new(&["dtype", "tensors", "original", "share"]);
    let share = |bytes| percent(bytes, contents.original_bytes).map_or("-".to_owned(), |share| format!("{share:.1} %"));
    for (name, dtype) in &contents.dtypes {
        dtypes.row([name.clone(), dtype.tensors.to_string(), show_size(dtype.bytes), share(dtype.bytes)]);
    }
    let other = contents.other_bytes;
    dtypes.row(["(no tensor)".to_owned(), "-".to_owned(), show_size(other), share(other)]);
    let mut codecs = Table::new(&["codec", "chunks", "original", "compressed", "ratio"]);
    for (name, share) in &contents.codecs {
        codecs.row([
            name.clone(),
            share.chunks.to_string(),
            show_size(share.original_bytes),
            show_size(share.stored_bytes),
            ratio(share.stored_bytes, share.original_bytes),
        ]);
    }
    format!("\n{}\n{}", dtypes.render("  "), codecs.render("  "))
}

/// What part of the original's size the compressed size is.
fn ratio(compressed: u64, original: u64) -> String {
    percent(compressed, original).map_or("-".to_owned(), |percent| format!("{percent:.2} %"))
}
