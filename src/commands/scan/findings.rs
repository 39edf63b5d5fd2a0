//! What is worth telling about the tensors of a model: what they hold more bits for than they need, what comes twice, and what
//! looks as if something had gone wrong.

use std::collections::{BTreeMap, HashMap};

use bigsmall_codec::scan::{ScannedTensor, pattern};
use serde::Serialize;

use super::Scanned;
use crate::ui::count;
use crate::ui::size::show_size;

/// Low bits of an F32 that must be zero to be told.
const LOW_BITS: u32 = 4;

/// The part of a tensor that must be zero for it to be called sparse, and that of subnormal numbers to be told.
const SPARSE: f64 = 0.1;
const SUBNORMAL: f64 = 0.01;

/// Octaves above the middle exponent from which on a number stands out.
const FAR: usize = 16;

/// Names in a message.
const NAMES: usize = 3;

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It holds what is not a number.
    Nan,
    /// It holds infinities.
    Infinity,
    /// It is zero everywhere.
    AllZero,
    /// Some exponents are far above all others.
    FarExponents,
    /// Many numbers are subnormal.
    Subnormal,
    /// F32 whose numbers are all in BF16.
    Bf16InF32,
    /// F32 whose numbers are all in F16.
    F16InF32,
    /// Low bits that are zero everywhere.
    LowZeroBits,
    /// All elements are alike, and not zero.
    Constant,
    /// A good part of it is zero.
    Sparse,
    /// Tensors with the same bytes.
    Duplicate,
    /// Integers, or blocks of them, that hold little to be saved.
    Quantised,
    /// The file is of no known kind.
    Opaque,
}

/// Something found.
#[derive(Debug, Serialize)]
pub struct Finding {
    kind: Kind,
    /// For people.
    pub message: String,
    /// The tensors that it is about, each with its file.
    tensors: Vec<Place>,
}

/// A tensor in a file.
#[derive(Clone, Debug, Serialize)]
struct Place {
    file: String,
    tensor: String,
}

/// What was found, the most alarming first.
pub fn of(scanned: &[Scanned]) -> Vec<Finding> {
    let mut by_kind = BTreeMap::<Kind, Vec<(Place, &ScannedTensor)>>::new();
    for (file, tensor) in all_tensors(scanned) {
        for kind in kinds(tensor) {
            let place = Place { file: file.to_owned(), tensor: tensor.name.clone() };
            by_kind.entry(kind).or_default().push((place, tensor));
        }
    }
    let mut findings: Vec<Finding> = by_kind
        .into_iter()
        .map(|(kind, tensors)| Finding {
            kind,
            message: message(kind, &tensors.iter().map(|(_, tensor)| *tensor).collect::<Vec<_>>()),
            tensors: tensors.into_iter().map(|(place, _)| place).collect(),
        })
        .collect();
    findings.extend(duplicates(scanned));
    findings.extend(quantised(scanned));
    findings.extend(scanned.iter().filter(|scanned| scanned.scan.tensors.is_empty()).map(|scanned| Finding {
        kind: Kind::Opaque,
        message: format!(
            "{}: no tensors are known in it; it is no safetensors or GGUF file, or an empty one, and would be stored as opaque bytes",
            scanned.file
        ),
        tensors: Vec::new(),
    }));
    findings.sort_by_key(|finding| finding.kind);
    findings
}

fn all_tensors(scanned: &[Scanned]) -> impl Iterator<Item = (&str, &ScannedTensor)> {
    scanned.iter().flat_map(|scanned| scanned.scan.tensors.iter().map(|tensor| (scanned.file.as_str(), tensor)))
}

/// What there is to say about one tensor by itself.
fn kinds(tensor: &ScannedTensor) -> Vec<Kind> {
    let values = &tensor.values;
    let seen = values.seen as f64;
    let share = |count: u64| count as f64 / seen.max(1.0);
    let mut kinds = Vec::new();
    let mut add = |kind, holds: bool| kinds.extend(holds.then_some(kind));
    if values.seen == 0 {
        return kinds;
    }
    // A single number is always alike.
    let constant = values.constant && values.seen > 1;
    let zero = values.zeros == values.seen;
    add(Kind::AllZero, constant && zero);
    add(Kind::Constant, constant && !zero);
    if values.are_floats() {
        add(Kind::Nan, values.nans > 0);
        add(Kind::Infinity, values.infinities > 0);
        add(Kind::Subnormal, share(values.subnormals) >= SUBNORMAL);
        add(Kind::FarExponents, values.far_above(FAR) > 0);
        add(Kind::Sparse, !constant && share(values.zeros) >= SPARSE);
        if tensor.dtype == "F32" && !constant {
            let (bf16, f16) = (values.in_bf16 == values.seen, values.in_f16 == values.seen);
            add(Kind::Bf16InF32, bf16);
            add(Kind::F16InF32, f16 && !bf16);
            add(Kind::LowZeroBits, !bf16 && !f16 && values.low_zero_bits() >= LOW_BITS);
        }
    }
    kinds
}

fn message(kind: Kind, tensors: &[&ScannedTensor]) -> String {
    let names = names(tensors);
    let total = |number: fn(&ScannedTensor) -> u64| tensors.iter().map(|tensor| number(tensor)).sum::<u64>();
    let bytes = show_size(total(|tensor| tensor.range.end - tensor.range.start));
    match kind {
        Kind::Nan => format!("not a number: {} of those looked at, in {names}", total(|tensor| tensor.values.nans)),
        Kind::Infinity => {
            format!("infinite: {} of the numbers looked at, in {names}", total(|tensor| tensor.values.infinities))
        }
        Kind::AllZero => format!("zero everywhere: {names}"),
        Kind::Constant => format!("one value everywhere: {names}"),
        Kind::FarExponents => format!(
            "more than {FAR} octaves above the middle of their tensors: {} of the numbers looked at, in {names}",
            total(|tensor| tensor.values.far_above(FAR))
        ),
        Kind::Subnormal => format!(
            "many subnormal numbers: {} of those looked at, in {names}",
            total(|tensor| tensor.values.subnormals)
        ),
        Kind::Bf16InF32 => format!("BF16 numbers stored in F32, {bytes}: {names}"),
        Kind::F16InF32 => format!("F16 numbers stored in F32, {bytes}: {names}"),
        Kind::LowZeroBits => {
            let bits = tensors.iter().map(|tensor| tensor.values.low_zero_bits());
            let (least, most) = (bits.clone().min().unwrap_or(0), bits.max().unwrap_or(0));
            let bits = if least == most { least.to_string() } else { format!("{least} to {most}") };
            format!("the low {bits} bits of F32 are always zero, {bytes}: {names}")
        }
        Kind::Sparse => {
            let share =
                total(|tensor| tensor.values.zeros) as f64 * 100.0 / total(|tensor| tensor.values.seen).max(1) as f64;
            format!("sparse, {share:.0} % zeros, {bytes}: {names}")
        }
        Kind::Duplicate | Kind::Quantised | Kind::Opaque => {
            unreachable!("these are about more than a tensor by itself")
        }
    }
}

/// The names of some tensors, in short: those that differ in numbers only once.
fn names(tensors: &[&ScannedTensor]) -> String {
    let mut patterns: Vec<(String, u64, &str)> = Vec::new();
    let mut places = HashMap::new();
    for tensor in tensors {
        let pattern = pattern(&tensor.name);
        let place = *places.entry(pattern.clone()).or_insert(patterns.len());
        if place == patterns.len() {
            patterns.push((pattern, 0, &tensor.name));
        }
        patterns[place].1 += 1;
    }
    let shown = patterns.iter().take(NAMES).map(|(pattern, number, name)| match number {
        1 => (*name).to_owned(),
        _ => format!("{pattern} ({number})"),
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    let others: u64 = patterns.iter().skip(NAMES).map(|(_, number, _)| number).sum();
    if others > 0 {
        text += &format!(" and {}", count(others, "other tensor"));
    }
    text
}

/// Tensors with the same bytes, in one file or in several.
fn duplicates(scanned: &[Scanned]) -> Vec<Finding> {
    let mut alike = BTreeMap::<_, Vec<(&str, &ScannedTensor)>>::new();
    for (file, tensor) in all_tensors(scanned) {
        if let Some(print) = tensor.print {
            let key = (print, tensor.range.end - tensor.range.start, tensor.dtype.as_str());
            alike.entry(key).or_default().push((file, tensor));
        }
    }
    let mut groups: Vec<_> = alike.into_values().filter(|group| group.len() > 1).collect();
    // The largest first, those of one size in the order of the files.
    groups.sort_by_key(|group| std::cmp::Reverse(group[0].1.range.end - group[0].1.range.start));
    let finding = |group: Vec<(&str, &ScannedTensor)>| {
        let across = group.iter().any(|(file, _)| *file != group[0].0);
        let shown = group.iter().take(NAMES + 1).map(|(file, tensor)| match across {
            true => format!("{} in {file}", tensor.name),
            false => tensor.name.clone(),
        });
        let mut names = shown.collect::<Vec<_>>().join(" = ");
        if group.len() > NAMES + 1 {
            names += &format!(" and {} more", group.len() - NAMES - 1);
        }
        let size = show_size(group[0].1.range.end - group[0].1.range.start);
        let stored = if across { "those of one file are stored once" } else { "stored once" };
        Finding {
            kind: Kind::Duplicate,
            message: format!("equal, {size} each, {stored}: {names}"),
            tensors: group
                .into_iter()
                .map(|(file, tensor)| Place { file: file.to_owned(), tensor: tensor.name.clone() })
                .collect(),
        }
    };
    groups.into_iter().map(finding).collect()
}

/// What is to be expected of integers, by dtype.
fn quantised(scanned: &[Scanned]) -> Option<Finding> {
    let mut dtypes = BTreeMap::<&str, (u64, f64)>::new();
    for (_, tensor) in all_tensors(scanned).filter(|(_, tensor)| !tensor.values.are_floats() && tensor.twin.is_none()) {
        let sum = dtypes.entry(&tensor.dtype).or_default();
        sum.0 += tensor.range.end - tensor.range.start;
        sum.1 += tensor.stored[0].bytes;
    }
    let all: u64 = scanned.iter().map(|scanned| scanned.scan.len).sum();
    // Positions and the like are not worth a word.
    dtypes.retain(|_, (bytes, _)| *bytes * 100 > all);
    if dtypes.is_empty() {
        return None;
    }
    let each = dtypes.iter().map(|(dtype, (bytes, stored))| format!("{dtype} {:.1} %", stored * 100.0 / *bytes as f64));
    Some(Finding {
        kind: Kind::Quantised,
        message: format!(
            "no plain floats, of which less can be saved, if anything; they would take {}",
            each.collect::<Vec<_>>().join(", ")
        ),
        tensors: all_tensors(scanned)
            .filter(|(_, tensor)| dtypes.contains_key(tensor.dtype.as_str()) && !tensor.values.are_floats())
            .map(|(file, tensor)| Place { file: file.to_owned(), tensor: tensor.name.clone() })
            .collect(),
    })
}
