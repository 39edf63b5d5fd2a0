//! What `bigsmall diff` says, to people and to programs.

use std::path::Path;

use bigsmall_codec::diff::{Change, Compared, Steps, Tensor};
use bigsmall_codec::patch::Model;
use serde::Serialize;

use super::groups::{Group, groups};
use crate::ui::size::show_size;
use crate::ui::table::Table;
use crate::ui::{count, printable};

/// How many tensors are named in a list for people.
const LISTED: usize = 20;

/// One of the two models.
#[derive(Serialize)]
pub struct Side {
    path: String,
    files: u64,
    tensors: u64,
    /// Bytes of its originals.
    original_bytes: u64,
}

impl Side {
    pub fn of(path: &Path, model: &Model) -> Side {
        Side {
            path: path.display().to_string(),
            files: model.files() as u64,
            tensors: model.tensors().len() as u64,
            original_bytes: model.total_len(),
        }
    }
}

/// The result for programs.
#[derive(Serialize)]
pub struct Json<'a> {
    same: bool,
    before: &'a Side,
    after: &'a Side,
    total: JsonGroup,
    groups: Vec<JsonNamedGroup>,
    tensors: Vec<JsonTensor<'a>>,
}

#[derive(Serialize)]
struct JsonGroup {
    tensors: u64,
    changed_tensors: u64,
    elements: u64,
    changed_elements: u64,
    mean_step: Option<f64>,
    max_step: Option<u64>,
}

#[derive(Serialize)]
struct JsonNamedGroup {
    name: String,
    #[serde(flatten)]
    group: JsonGroup,
}

#[derive(Serialize)]
struct JsonTensor<'a> {
    name: &'a str,
    change: &'static str,
    /// Its name in the first model, if that is another.
    renamed_from: Option<&'a str>,
    before: Option<JsonShape<'a>>,
    after: Option<JsonShape<'a>>,
    /// Elements that were compared, or known to be the same.
    elements: Option<u64>,
    changed_elements: Option<u64>,
    mean_step: Option<f64>,
    max_step: Option<u64>,
}

#[derive(Serialize)]
struct JsonShape<'a> {
    dtype: &'a str,
    shape: &'a [u64],
    bytes: u64,
}

impl<'a> Json<'a> {
    pub fn of(same: bool, [before, after]: &'a [Side; 2], compared: &'a [Compared<'_>]) -> Json<'a> {
        let (groups, total) = groups(compared);
        Json {
            same,
            before,
            after,
            total: (&total).into(),
            groups: groups.into_iter().map(|(name, group)| JsonNamedGroup { name, group: (&group).into() }).collect(),
            tensors: compared.iter().map(json_tensor).collect(),
        }
    }
}

impl From<&Group> for JsonGroup {
    fn from(group: &Group) -> JsonGroup {
        JsonGroup {
            tensors: group.tensors,
            changed_tensors: group.changed_tensors,
            elements: group.elements,
            changed_elements: group.changed,
            mean_step: group.steps.mean(),
            max_step: max(&group.steps),
        }
    }
}

fn json_tensor<'a>(compared: &'a Compared<'_>) -> JsonTensor<'a> {
    let shape = |tensor: &'a Option<Tensor<'_>>| {
        tensor.as_ref().map(|tensor| JsonShape { dtype: tensor.dtype, shape: tensor.shape, bytes: tensor.byte_len() })
    };
    let steps = match compared.change {
        Change::Same => Some(Steps { elements: compared.elements(), ..Steps::default() }),
        Change::Values(steps) | Change::Shape(Some(steps)) => Some(steps),
        Change::Dtype | Change::Shape(None) | Change::Added | Change::Removed => None,
    };
    JsonTensor {
        name: &compared.tensor().name,
        change: match compared.change {
            Change::Same => "same",
            Change::Values(_) => "values",
            Change::Dtype => "dtype",
            Change::Shape(_) => "shape",
            Change::Added => "added",
            Change::Removed => "removed",
        },
        renamed_from: compared.renamed_from(),
        before: shape(&compared.before),
        after: shape(&compared.after),
        elements: steps.map(|steps| steps.elements),
        changed_elements: steps.map(|steps| steps.changed),
        mean_step: steps.and_then(|steps| steps.mean()),
        max_step: steps.and_then(|steps| max(&steps)),
    }
}

/// The largest step, if any was made.
fn max(steps: &Steps) -> Option<u64> {
    (steps.max > 0).then_some(steps.max)
}

/// The result for people.
pub fn describe(sides: &[Side; 2], compared: &[Compared<'_>]) -> String {
    let mut models = Table::new(&["", "files", "tensors", "size"]);
    for (mark, side) in ["A", "B"].into_iter().zip(sides) {
        let Side { path, files, tensors, original_bytes } = side;
        models.row([format!("{mark}  {path}"), files.to_string(), tensors.to_string(), show_size(*original_bytes)]);
    }
    let (groups, total) = groups(compared);
    let mut text = models.render("") + "\n";
    if compared.iter().all(Compared::is_same) {
        return text + &format!("the same: {}\n", count(total.tensors, "tensor"));
    }
    if !groups.is_empty() {
        let mut table = Table::new(&["layer", "tensors", "changed", "weights changed", "mean step", "largest"]);
        groups.iter().for_each(|(name, group)| table.row(row(name, group)));
        table.row(row("total", &total));
        text += &table.render("");
    }
    for (heading, is_meant) in LISTS {
        let meant: Vec<&Compared<'_>> = compared.iter().filter(|compared| is_meant(compared)).collect();
        if meant.is_empty() {
            continue;
        }
        text += &format!("\n{heading}\n");
        meant.iter().take(LISTED).for_each(|compared| text += &format!("  {}\n", line(compared)));
        if meant.len() > LISTED {
            text += &format!("  and {} more; --json gives all\n", meant.len() - LISTED);
        }
    }
    text
}

/// Whether something is to be listed.
type IsMeant = fn(&Compared<'_>) -> bool;

/// What is listed, and by which change.
const LISTS: [(&str, IsMeant); 4] = [
    ("added", |compared| compared.change == Change::Added),
    ("removed", |compared| compared.change == Change::Removed),
    ("renamed", |compared| compared.renamed_from().is_some()),
    ("of another dtype or shape", |compared| matches!(compared.change, Change::Dtype | Change::Shape(_))),
];

fn row(name: &str, group: &Group) -> [String; 6] {
    [
        name.to_owned(),
        group.tensors.to_string(),
        group.changed_tensors.to_string(),
        group.fraction().map_or("-".to_owned(), |fraction| part(fraction, group.changed)),
        group.steps.mean().map_or("-".to_owned(), |mean| format!("{mean:.1}")),
        max(&group.steps).map_or("-".to_owned(), |max| max.to_string()),
    ]
}

/// A part in per cent, which is not shown as none or all when it is not.
fn part(fraction: f64, changed: u64) -> String {
    match format!("{:.1} %", fraction * 100.0) {
        none if none == "0.0 %" && changed > 0 => "< 0.1 %".to_owned(),
        all if all == "100.0 %" && fraction < 1.0 => "> 99.9 %".to_owned(),
        part => part,
    }
}

/// A tensor with dtype and shape, before and after where both are known.
fn line(compared: &Compared<'_>) -> String {
    let shape =
        |tensor: &Option<Tensor<'_>>| tensor.as_ref().map(|tensor| format!("{} {:?}", tensor.dtype, tensor.shape));
    let mut shapes: Vec<String> = [shape(&compared.before), shape(&compared.after)].into_iter().flatten().collect();
    shapes.dedup();
    let common = match compared.change {
        Change::Shape(Some(steps)) => {
            let changed = part(steps.fraction().unwrap_or(0.0), steps.changed);
            format!("; {changed} of {} in both changed", count(steps.elements, "weight"))
        }
        _ => String::new(),
    };
    let before = compared.renamed_from().map_or(String::new(), |before| format!("{before} -> "));
    printable(&format!("{before}{}  {}{common}", compared.tensor().name, shapes.join(" -> "))).replace('\n', "\\n")
}
