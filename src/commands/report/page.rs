//! The page.

use std::fmt::Write as _;

use super::charts::{self, Column, HeatRow, Scale};
use super::html::escaped;
use super::model::{Model, Sum, Tensor};
use crate::ui::count;
use crate::ui::size::show_size;

/// Kinds of tensors that have a row of their own, and that have a histogram; of the whole a kind must be a thousandth.
const KINDS: usize = 16;
const WORTH_A_ROW: f64 = 0.001;
const HISTOGRAMS: usize = 9;

/// Rows of a heat map, and heat maps: one for each stack of layers.
const HEAT_ROWS: usize = 24;
const STACKS: usize = 4;

/// Rows of the table of tensors: more make the page slow.
const ROWS: usize = 5000;

/// The page about a model.
pub fn render(model: &Model) -> String {
    let mut body = String::new();
    for section in
        [head(model), layers(model), kinds(model), heat_maps(model), bounds(model), exponents(model), tensors(model)]
    {
        body += &section;
    }
    let title = escaped(&model.title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>{title} – bigsmall report</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>bigsmall {} · sizes are decimal: 1 MB is a million bytes</footer>\n</main>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("style.css"),
        env!("CARGO_PKG_VERSION"),
        include_str!("script.js"),
    )
}

/// A section with a heading and what it means; nothing if there is nothing in it.
fn section(heading: &str, meaning: &str, content: &str) -> String {
    match content.is_empty() {
        true => String::new(),
        false => format!("<section>\n<h2>{heading}</h2>\n<p>{meaning}</p>\n{content}\n</section>\n"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn head(model: &Model) -> String {
    let part = if model.original > 0 { model.stored as f64 / model.original as f64 } else { 1.0 };
    let elements: f64 =
        model.tensors.iter().map(|tensor| tensor.shape.iter().map(|&dim| dim as f64).product::<f64>()).sum();
    let mut dtypes: Vec<(String, Sum)> = model.sums(|tensor| Some(tensor.dtype.clone()));
    dtypes.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.original));
    let dtypes = dtypes.iter().take(3).map(|(dtype, _)| escaped(dtype)).collect::<Vec<_>>().join(", ");
    let (what, size) =
        if model.expected { ("smaller is what to expect", "expected size") } else { ("smaller", "stored size") };
    let tile = |class: &str, value: &str, what: &str| {
        format!("<div class=\"{class}\"><b>{value}</b><span>{what}</span></div>")
    };
    let files = count(model.files, "file");
    format!(
        "<h1>{}</h1>\n<p>{} in {files}{}</p>\n<section>\n<div class=\"tiles\">{}{}{}{}{}</div>\n\
         <div class=\"whole-bar\" title=\"{} of the original\"><i style=\"width:{:.2}%\"></i></div>\n</section>\n",
        escaped(&model.title),
        count(model.tensors.len() as u64, "tensor"),
        match (model.expected, model.difference) {
            (true, _) => ", not compressed yet",
            (_, true) => ", stored as the difference from another model",
            _ => "",
        },
        tile("first", &percent(1.0 - part), what),
        tile("", &show_size(model.original), "original size"),
        tile("", &show_size(model.stored), size),
        tile("", &show_count(elements), "weights"),
        tile("", if dtypes.is_empty() { "–" } else { &dtypes }, "dtypes"),
        percent(part),
        (part * 100.0).clamp(0.0, 100.0),
    )
}

/// A large number in short: `7.2 B` for billions.
fn show_count(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.1} B", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

const KEY: &str =
    "<div class=\"key\"><span><i class=\"k-part\"></i>stored</span><span><i class=\"k-whole\"></i>saved</span></div>";

fn layers(model: &Model) -> String {
    let mut sums = model.sums(|tensor| Some((tensor.place.stack.clone(), tensor.place.depth?)));
    if sums.len() < 2 {
        return String::new();
    }
    let stacks = model.sums(|tensor| tensor.place.depth.map(|_| tensor.place.stack.clone()));
    // In their order, and what is in no layer behind them.
    sums.sort_by(|((a_stack, a), _), ((b_stack, b), _)| (a_stack, a).cmp(&(b_stack, b)));
    let title = |name: &str, sum: &Sum| {
        format!("{name}: {} of {}, {}", show_size(sum.stored), show_size(sum.original), percent(sum.ratio()))
    };
    let mut columns: Vec<Column> = sums
        .iter()
        .map(|((stack, depth), sum)| Column {
            label: depth.to_string(),
            whole: sum.original as f64,
            part: sum.stored.min(sum.original) as f64,
            title: title(&format!("{stack}.{depth}"), sum),
        })
        .collect();
    let others = model.sums(|tensor| tensor.place.depth.is_none().then_some(())).pop();
    if let Some((_, others)) = others.filter(|(_, sum)| sum.original > 0) {
        columns.push(Column {
            label: "others".to_owned(),
            whole: others.original as f64,
            part: others.stored.min(others.original) as f64,
            title: title("in no layer", &others),
        });
    }
    let names: Vec<String> =
        stacks.iter().take(STACKS).map(|(stack, _)| format!("<code>{}</code>", escaped(stack))).collect();
    let meaning = format!(
        "Bytes of each layer of {}, by its number; what is in no layer, such as embeddings, stands last.",
        names.join(", ")
    );
    section("Size by layer", &meaning, &format!("{KEY}<div class=\"scroll\">{}</div>", charts::columns(&columns)))
}

/// Kinds of tensors, the largest first.
fn largest_kinds(model: &Model) -> Vec<(String, Sum)> {
    let mut sums = model.sums(|tensor| Some(tensor.place.kind.clone()));
    sums.retain(|(_, sum)| sum.original > 0);
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.original));
    sums
}

fn is_worth_a_row(model: &Model, sum: &Sum) -> bool {
    sum.original as f64 >= WORTH_A_ROW * model.original as f64
}

fn kinds(model: &Model) -> String {
    let mut sums = largest_kinds(model);
    let worth = sums.iter().filter(|(_, sum)| is_worth_a_row(model, sum)).count();
    let rest = sums.split_off(worth.min(KINDS));
    if !rest.is_empty() {
        let mut all = Sum::default();
        for (_, sum) in &rest {
            all.tensors += sum.tensors;
            all.original += sum.original;
            all.stored += sum.stored;
        }
        sums.push((count(rest.len() as u64, "other kind"), all));
    }
    let most = sums.iter().map(|(_, sum)| sum.original).max().unwrap_or(1) as f64;
    let rows = sums.iter().map(|(kind, sum)| {
        let width = |bytes: u64| bytes as f64 * 100.0 / most;
        format!(
            "<div class=\"row\"><div class=\"what\"><span><code>{}</code></span><span>{} → {} · {}</span></div>\
             <div class=\"bar\"><i class=\"outer\" style=\"width:{:.2}%\"></i><i class=\"inner\" style=\"width:{:.2}%\"></i></div></div>",
            escaped(kind),
            show_size(sum.original),
            show_size(sum.stored),
            percent(sum.ratio()),
            width(sum.original),
            width(sum.stored.min(sum.original)),
        )
    });
    let rows: String = rows.collect();
    let content = if rows.is_empty() { rows } else { format!("{KEY}<div class=\"rows\">{rows}</div>") };
    section(
        "Size by kind of tensor",
        "Tensors of all layers that have the same part, the largest kinds first.",
        &content,
    )
}

fn heat_maps(model: &Model) -> String {
    let mut stacks = model.sums(|tensor| tensor.place.depth.map(|_| tensor.place.stack.clone()));
    stacks.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.original));
    let mut maps = Vec::new();
    for (stack, _) in stacks.iter().take(STACKS) {
        let of_stack = |tensor: &Tensor| tensor.place.depth.filter(|_| tensor.place.stack == *stack);
        let mut depths: Vec<u64> = model.sums(of_stack).into_iter().map(|(depth, _)| depth).collect();
        depths.sort_unstable();
        if depths.len() < 2 {
            continue;
        }
        let mut kinds = model.sums(|tensor| of_stack(tensor).map(|_| tensor.place.kind.clone()));
        kinds.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.original));
        kinds.truncate(HEAT_ROWS);
        let cells = model.sums(|tensor| Some((tensor.place.kind.clone(), of_stack(tensor)?)));
        let cells: std::collections::BTreeMap<_, _> = cells.into_iter().collect();
        let rows: Vec<HeatRow> = kinds
            .into_iter()
            .map(|(kind, _)| {
                let cell = |depth: &u64| {
                    let sum = cells.get(&(kind.clone(), *depth)).filter(|sum| sum.original > 0)?;
                    let title = format!(
                        "{stack}.{depth}.{kind}: {} of {}, {}",
                        show_size(sum.stored),
                        show_size(sum.original),
                        percent(sum.ratio())
                    );
                    Some((sum.ratio(), title))
                };
                HeatRow { cells: depths.iter().map(cell).collect(), name: kind }
            })
            .collect();
        let depths: Vec<String> = depths.iter().map(u64::to_string).collect();
        maps.push((if stack.is_empty() { "layers" } else { stack }, depths, rows));
    }
    let parts = maps.iter().flat_map(|(_, _, rows)| rows.iter().flat_map(|row| row.cells.iter().flatten()));
    let scale = Scale::of(parts.map(|(part, _)| *part));
    let drawn = maps.iter().map(|(name, depths, rows)| {
        let map = charts::heat_map(depths, rows, scale);
        format!("<h3><code>{}</code></h3><div class=\"scroll\">{map}</div>", escaped(name))
    });
    let content = if maps.is_empty() { String::new() } else { drawn.collect::<String>() + &scale.legend() };
    let (heading, meaning) = match model.difference {
        true => (
            "Change over depth",
            "What had to be stored as part of the original, for each kind of tensor and each layer: how much it differs from the base.",
        ),
        false => {
            ("Ratio over depth", "What is stored as part of the original, for each kind of tensor and each layer.")
        }
    };
    section(heading, meaning, &content)
}

fn bounds(model: &Model) -> String {
    let mut content = String::new();
    for (kind, sum) in largest_kinds(model).into_iter().filter(|(_, sum)| is_worth_a_row(model, sum)) {
        let Some((stored, entropy)) = sum.bits() else { continue };
        let whole = sum.original as f64 * 8.0;
        let elements = model.tensors.iter().filter(|tensor| tensor.place.kind == kind);
        let elements: f64 = elements.map(|tensor| tensor.shape.iter().map(|&dim| dim as f64).product::<f64>()).sum();
        let whole = whole / elements.max(1.0);
        let width = |bits: f64| (bits * 100.0 / whole).clamp(0.0, 100.0);
        // Elements of quantised blocks take no whole number of bits.
        let digits = if (whole - whole.round()).abs() < 0.005 { 0 } else { 2 };
        let _ = write!(
            content,
            "<div class=\"row\"><div class=\"what\"><span><code>{}</code></span><span>{stored:.2} of {whole:.digits$} bits · bound {entropy:.2}</span></div>\
             <div class=\"bar\"><i class=\"outer\" style=\"width:100%\"></i><i class=\"inner\" style=\"width:{:.2}%\"></i>\
             <i class=\"bound\" style=\"left:{:.2}%\"></i></div></div>",
            escaped(&kind),
            width(stored),
            width(entropy),
        );
        if content.matches("class=\"row\"").count() == KINDS {
            break;
        }
    }
    if content.is_empty() {
        return content;
    }
    let key = "<div class=\"key\"><span><i class=\"k-part\"></i>stored</span><span><i class=\"k-whole\"></i>bits of the dtype</span>\
               <span><i class=\"k-mark\"></i>entropy bound</span></div>";
    section(
        "Bits per weight",
        "The mark is what coding each weight by itself comes down to: the entropy of exponents and the upper two bits of mantissas, and all \
         other bits as they are. To stay below it, more has to be used than how often each value occurs: that rows and columns differ in scale, \
         zeros in low bits, what repeats, a base.",
        &format!("{key}<div class=\"rows\">{content}</div>"),
    )
}

fn exponents(model: &Model) -> String {
    let mut content = String::new();
    for (kind, sum) in largest_kinds(model).into_iter().filter(|(_, sum)| is_worth_a_row(model, sum)) {
        let tensors: Vec<&Tensor> = model.tensors.iter().filter(|tensor| tensor.place.kind == kind).collect();
        let dtype = &tensors[0].dtype;
        let values = tensors.iter().filter(|tensor| tensor.dtype == *dtype).filter_map(|tensor| tensor.values.as_ref());
        let (mut counts, mut bias) = (Vec::new(), 0);
        for values in values.filter(|values| values.are_floats()) {
            let exponents = values.exponents();
            counts.resize(exponents.len(), 0u64);
            counts.iter_mut().zip(exponents).for_each(|(all, more)| *all += more);
            bias = values.bias();
        }
        // Zeros and subnormals have no exponent, what is no number neither.
        let [zero, numbers @ .., _] = &counts[..] else { continue };
        let used = |count: &&u64| **count > 0;
        let (Some(first), Some(last)) = (numbers.iter().position(|n| used(&n)), numbers.iter().rposition(|n| used(&n)))
        else {
            continue;
        };
        let all: u64 = counts.iter().sum();
        // A few stray ones would make all others invisible.
        let enough = all / 20_000;
        let low = numbers.iter().position(|&count| count > enough).unwrap_or(first);
        let high = numbers.iter().rposition(|&count| count > enough).unwrap_or(last);
        let beyond: u64 = numbers[..low].iter().chain(&numbers[high + 1..]).sum();
        let mut note = format!("{} · {}", escaped(dtype), show_size(sum.original));
        if *zero > 0 {
            let _ = write!(note, " · {} zero", percent_of(*zero, all));
        }
        if beyond > 0 {
            let _ = write!(note, " · {} beyond", percent_of(beyond, all));
        }
        let _ = write!(
            content,
            "<div><h3><code>{}</code></h3>{}<p>{note}</p></div>",
            escaped(&charts::shortened(&kind, 40)),
            charts::histogram(&numbers[low..=high], low as i32 + 1 - bias),
        );
        if content.matches("<svg ").count() == HISTOGRAMS {
            break;
        }
    }
    let content = if content.is_empty() { content } else { format!("<div class=\"many\">{content}</div>") };
    section(
        "Exponents",
        "How often weights have which power of two, for the largest kinds. The narrower the hill, the fewer bits an exponent takes.",
        &content,
    )
}

fn percent_of(part: u64, whole: u64) -> String {
    match part as f64 * 100.0 / whole.max(1) as f64 {
        little if little < 0.01 => "&lt; 0.01 %".to_owned(),
        share => format!("{share:.2} %"),
    }
}

fn tensors(model: &Model) -> String {
    if model.tensors.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for tensor in model.tensors.iter().take(ROWS) {
        let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("×");
        let ratio = if tensor.original > 0 { tensor.stored as f64 / tensor.original as f64 } else { 1.0 };
        let bits = |bits: Option<f64>| match bits {
            Some(bits) => format!("<td data-value=\"{bits:.4}\">{bits:.2}</td>"),
            None => "<td data-value=\"-1\">–</td>".to_owned(),
        };
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td data-value=\"{}\">{}</td><td data-value=\"{}\">{}</td>\
             <td data-value=\"{ratio:.6}\">{}</td>{}{}</tr>",
            escaped(&tensor.name),
            escaped(&tensor.dtype),
            if shape.is_empty() { "scalar" } else { &shape },
            if tensor.twin { "as another".to_owned() } else { escaped(&tensor.codec) },
            tensor.original,
            show_size(tensor.original),
            tensor.stored,
            show_size(tensor.stored),
            percent(ratio),
            bits(tensor.bits()),
            bits(tensor.entropy()),
        );
    }
    let numbers = ["original", if model.expected { "expected" } else { "stored" }, "ratio", "bits/weight", "bound"];
    let headings: String =
        ["tensor", "dtype", "shape", "codec"].iter().map(|name| format!("<th>{name}</th>")).collect();
    let headings = headings + &numbers.map(|name| format!("<th data-numbers>{name}</th>")).concat();
    let cut = match model.tensors.len() > ROWS {
        true => format!("<p>The first {ROWS} of {}; bigsmall stat tells all.</p>", model.tensors.len()),
        false => String::new(),
    };
    format!(
        "<section><details><summary>All tensors</summary>{cut}<div class=\"scroll\"><table><thead><tr>{headings}</tr></thead>\
         <tbody>\n{rows}</tbody></table></div></details></section>\n"
    )
}
