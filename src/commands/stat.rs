//! `bigsmall stat`.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bigsmall_codec::{Original, Stored, StoredTensor, StoredTensorUsage};
use clap::ValueEnum;
use serde::Serialize;

use super::containers_in;
use crate::failure::{FAILED, Failure};
use crate::tree;
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{self, csv, percent};

const EXAMPLES: &str = "\
Examples:
  bigsmall stat model.bs
      every tensor, in the order of the file
  bigsmall stat model.bs --sort saved --reverse
      those first that became smaller by the most bytes
  bigsmall stat model.bs --tensor layers.0. --sort name
      the tensors of one layer, by name
  bigsmall stat --csv Llama-3-8B-bigsmall > tensors.csv
      all tensors of all containers in and below the directory, for a spreadsheet

It reads a container's index, and not the weights. Bits per weight are those that an element takes in the container; of
a dtype of blocks each of the elements in a block counts. Of equal tensors one is stored, and the others take nothing.";

/// Say how each tensor of a container is stored
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The container or directory to look at
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Only tensors whose names contain SUBSTRING
    #[arg(long, value_name = "SUBSTRING")]
    tensor: Option<String>,

    /// Sort by this, the smallest first; without it, tensors are in the order of the file
    #[arg(long, value_name = "COLUMN")]
    sort: Option<Column>,

    /// The other way round
    #[arg(long)]
    reverse: bool,

    /// Give the result as JSON, with exact numbers
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Give the result as comma-separated values, with exact numbers
    #[arg(long)]
    csv: bool,
}

/// What tensors are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Column {
    /// The name
    Name,
    /// Bytes in the original
    Size,
    /// What is stored as part of the original
    Ratio,
    /// Bytes saved
    Saved,
}

/// The result for programs.
#[derive(Serialize)]
struct Json {
    tensors: Vec<Row>,
    total: Total,
}

/// A tensor.
#[derive(Serialize)]
struct Row {
    file: String,
    name: String,
    dtype: String,
    shape: Vec<u64>,
    codecs: Vec<Codec>,
    original_bytes: u64,
    stored_bytes: u64,
    /// What is stored as part of the original; null for an empty tensor, as the bits.
    ratio: Option<f64>,
    bits_per_weight: Option<f64>,
    /// The tensor of the same file with the same bytes that is stored in its place.
    same_as: Option<String>,
}

#[derive(Serialize)]
struct Codec {
    codec: String,
    original_bytes: u64,
    stored_bytes: u64,
}

/// All tensors that are told of, and the containers that they are in.
#[derive(Default, Serialize)]
struct Total {
    tensors: u64,
    original_bytes: u64,
    stored_bytes: u64,
    /// Of the containers: what is in them besides tensors too.
    container_original_bytes: u64,
    container_bytes: u64,
}

/// Tells.
///
/// # Errors
/// When something cannot be read, after what can be read was told; when no tensor is called so.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let metadata = tree::source_metadata(&args.source)?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(tree::refuse_oddity(&args.source, &metadata));
    }
    let paths = if metadata.is_dir() { containers_in(&args.source)? } else { vec![args.source.clone()] };
    let (mut rows, mut total, mut errors) = (Vec::new(), Total::default(), Vec::new());
    for path in &paths {
        match Stored::open(path, &Arc::default()) {
            Ok(stored) => {
                total.container_original_bytes += stored.len();
                total.container_bytes += stored.stored_len();
                rows.extend(rows_of(&path.display().to_string(), &stored));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.len() < paths.len() {
        if let Some(part) = &args.tensor {
            rows.retain(|row| row.name.contains(part));
            if rows.is_empty() {
                errors.push(format!("{}: it has no tensor with {part:?} in its name", args.source.display()));
            }
        }
        if let Some(column) = args.sort {
            rows.sort_by(|a, b| compare(column, a, b));
        }
        if args.reverse {
            rows.reverse();
        }
        for row in &rows {
            total.tensors += 1;
            total.original_bytes += row.original_bytes;
            total.stored_bytes += row.stored_bytes;
        }
        show(args, rows, total, metadata.is_dir())?;
    }
    if errors.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::with_code(FAILED, errors.join("\n"))) }
}

fn rows_of(file: &str, stored: &Stored) -> Vec<Row> {
    let (tensors, usage) = (stored.tensors(), stored.tensor_usage());
    let row = |(tensor, usage): (&StoredTensor<'_>, StoredTensorUsage)| {
        let original_bytes = tensor.range.end - tensor.range.start;
        let stored_bytes: u64 = usage.codecs.iter().map(|codec| codec.stored_len).sum();
        // Too many elements to count are more than there can be bytes for, whatever the shape says.
        let elements = tensor.shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let mut codecs = usage.codecs;
        codecs.sort_by_key(|codec| std::cmp::Reverse(codec.original_len));
        Row {
            file: file.to_owned(),
            name: tensor.name.to_owned(),
            dtype: tensor.dtype.to_owned(),
            shape: tensor.shape.to_vec(),
            codecs: codecs
                .into_iter()
                .map(|codec| Codec {
                    codec: codec.codec,
                    original_bytes: codec.original_len,
                    stored_bytes: codec.stored_len,
                })
                .collect(),
            original_bytes,
            stored_bytes,
            ratio: (original_bytes > 0).then(|| stored_bytes as f64 / original_bytes as f64),
            bits_per_weight: elements.filter(|&n| n > 0).map(|n| stored_bytes as f64 * 8.0 / n as f64),
            same_as: usage.twin.map(|twin| tensors[twin].name.to_owned()),
        }
    };
    tensors.iter().zip(usage).map(row).collect()
}

/// The order of two tensors by a column; of equal ones the first in the file is first.
fn compare(column: Column, a: &Row, b: &Row) -> Ordering {
    let saved = |row: &Row| i128::from(row.original_bytes) - i128::from(row.stored_bytes);
    match column {
        Column::Name => a.name.cmp(&b.name),
        Column::Size => a.original_bytes.cmp(&b.original_bytes),
        Column::Ratio => a.ratio.unwrap_or(1.0).total_cmp(&b.ratio.unwrap_or(1.0)),
        Column::Saved => saved(a).cmp(&saved(b)),
    }
}

fn show(args: &Args, rows: Vec<Row>, total: Total, directory: bool) -> Result<(), Failure> {
    if args.json {
        ui::print_json(&Json { tensors: rows, total })
    } else if args.csv {
        ui::print(&as_csv(&rows))
    } else {
        ui::print(&describe(&rows, &total, args.tensor.is_none(), directory))
    }
}

fn as_csv(rows: &[Row]) -> String {
    let mut text = csv::line([
        "file",
        "name",
        "dtype",
        "shape",
        "codec",
        "original_bytes",
        "stored_bytes",
        "ratio",
        "bits_per_weight",
        "same_as",
    ]);
    for row in rows {
        text += &csv::line([
            row.file.as_str(),
            &row.name,
            &row.dtype,
            &row.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x"),
            &codecs(row),
            &row.original_bytes.to_string(),
            &row.stored_bytes.to_string(),
            &row.ratio.map_or(String::new(), |ratio| ratio.to_string()),
            &row.bits_per_weight.map_or(String::new(), |bits| bits.to_string()),
            row.same_as.as_deref().unwrap_or_default(),
        ]);
    }
    text
}

/// The result for people. What is in the containers besides tensors is told only when `all` of these are.
fn describe(rows: &[Row], total: &Total, all: bool, directory: bool) -> String {
    let mut headings = vec!["tensor", "dtype", "shape", "codec", "original", "stored", "ratio", "bits/weight"];
    if directory {
        headings.push("file");
    }
    let mut table = Table::with_words(&headings, &[1, 3, 8]);
    let mut add = |cells: [String; 8], file: &str| {
        let file = directory.then(|| file.to_owned());
        table.row(cells.into_iter().chain(file));
    };
    let sizes = |original: u64, stored: u64| {
        let ratio = percent(stored, original).map_or("-".to_owned(), |percent| format!("{percent:.2} %"));
        [show_size(original), show_size(stored), ratio]
    };
    let nothing = || "-".to_owned();
    for row in rows {
        let [original, stored, ratio] = sizes(row.original_bytes, row.stored_bytes);
        let codec = row.same_as.as_ref().map_or_else(|| codecs(row), |other| format!("as {other}"));
        let shape = row.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
        let shape = if shape.is_empty() { "scalar".to_owned() } else { shape };
        let bits = row.bits_per_weight.map_or_else(nothing, |bits| format!("{bits:.2}"));
        add([row.name.clone(), row.dtype.clone(), shape, codec, original, stored, ratio, bits], &row.file);
    }
    let mut sum = |name: &str, original: u64, stored: u64| {
        let [original, stored, ratio] = sizes(original, stored);
        add([name.to_owned(), nothing(), nothing(), nothing(), original, stored, ratio, nothing()], "");
    };
    if all {
        let Total { container_original_bytes: original, container_bytes: stored, .. } = *total;
        sum("(headers, index)", original - total.original_bytes, stored.saturating_sub(total.stored_bytes));
        sum("total", original, stored);
    } else if rows.len() > 1 {
        sum("total", total.original_bytes, total.stored_bytes);
    }
    table.render("")
}

/// The codecs of a tensor, the one that stores most of it first.
fn codecs(row: &Row) -> String {
    let names: Vec<&str> = row.codecs.iter().map(|codec| codec.codec.as_str()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join("+") }
}
