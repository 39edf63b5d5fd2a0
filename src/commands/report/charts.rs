//! Charts, as SVG that is part of a page. Colours are those of the page's style sheet.

use std::fmt::Write as _;

use super::html::escaped;

/// Steps of the colours of a heat map, as the style sheet has them.
const STEPS: usize = 10;

/// A column: what is written below it, how high it is and how much of that is filled, and what a reader is told of it.
pub struct Column {
    pub label: String,
    pub whole: f64,
    pub part: f64,
    pub title: String,
}

/// Columns side by side, with what is filled before what is not.
pub fn columns(columns: &[Column]) -> String {
    const HEIGHT: f64 = 180.0;
    const BOTTOM: f64 = 26.0;
    let most = columns.iter().map(|column| column.whole).fold(f64::MIN_POSITIVE, f64::max);
    let width = (940.0 / columns.len().max(1) as f64).clamp(14.0, 110.0);
    let total = width * columns.len() as f64;
    let gap = (width * 0.22).min(12.0);
    // On a narrow screen it shrinks, but not until columns cannot be told apart.
    let least = format!("columns\" style=\"min-width:{}px", 14 * columns.len());
    let mut svg = open(total, HEIGHT + BOTTOM, &least);
    // Labels need some room each.
    let every = (30.0 / width).ceil() as usize;
    for (number, column) in columns.iter().enumerate() {
        let (x, width) = (number as f64 * width + gap / 2.0, width - gap);
        let (whole, part) = (column.whole / most * HEIGHT, column.part / most * HEIGHT);
        let _ = write!(svg, "<g><title>{}</title>", escaped(&column.title));
        let _ = write!(
            svg,
            "{}{}",
            rect("whole", x, HEIGHT - whole, width, whole),
            rect("part", x, HEIGHT - part, width, part)
        );
        if number % every == 0 {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x + width / 2.0,
                HEIGHT + 18.0,
                escaped(&column.label)
            );
        }
        svg.push_str("</g>");
    }
    svg + "</svg>"
}

/// A row of a heat map: its name, and for each column a part and what a reader is told of it.
pub struct HeatRow {
    pub name: String,
    pub cells: Vec<Option<(f64, String)>>,
}

/// What the colours of heat maps stand for: parts from here to there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    /// One that all of these parts are on, from one twentieth to another.
    pub fn of(parts: impl Iterator<Item = f64>) -> Scale {
        let (least, most) =
            parts.fold((f64::MAX, 0.0), |(least, most): (f64, f64), part| (least.min(part), most.max(part)));
        let from = (least.min(0.95) * 20.0).floor() / 20.0;
        Scale { from, to: ((most * 20.0).ceil() / 20.0).max(from + 0.05) }
    }

    /// The step of the colours that a part has.
    fn step(self, part: f64) -> usize {
        (((part - self.from) / (self.to - self.from) * STEPS as f64).max(0.0) as usize).min(STEPS - 1)
    }

    /// Says what they stand for.
    pub fn legend(self) -> String {
        let percent = |step: usize| 100.0 * (self.from + (self.to - self.from) * step as f64 / STEPS as f64);
        let mut html = format!("<div class=\"legend\"><span>{:.0} %</span>", percent(0));
        for step in 0..STEPS {
            let _ =
                write!(html, "<i class=\"h{step}\" title=\"{:.1} to {:.1} %\"></i>", percent(step), percent(step + 1));
        }
        html + &format!("<span>{:.0} % of the original</span></div>", percent(STEPS))
    }
}

/// A heat map of parts over the numbers that columns have.
pub fn heat_map(columns: &[String], rows: &[HeatRow], scale: Scale) -> String {
    const ROW: f64 = 22.0;
    const NAMES: f64 = 236.0;
    const TOP: f64 = 20.0;
    let width = (560.0 / columns.len().max(1) as f64).clamp(14.0, 46.0);
    let (total, height) = (NAMES + width * columns.len() as f64, TOP + ROW * rows.len() as f64);
    let mut svg = open(total, height, "heat");
    let every = (26.0 / width).ceil() as usize;
    for (number, column) in columns.iter().enumerate().step_by(every) {
        let x = NAMES + (number as f64 + 0.5) * width;
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"12\" text-anchor=\"middle\">{}</text>", escaped(column));
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + number as f64 * ROW;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}<title>{}</title></text>",
            NAMES - 8.0,
            y + ROW * 0.68,
            escaped(&shortened(&row.name, 34)),
            escaped(&row.name)
        );
        for (column, cell) in row.cells.iter().enumerate() {
            let Some((part, title)) = cell else { continue };
            let x = NAMES + column as f64 * width;
            let _ = write!(
                svg,
                "<rect class=\"h{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"><title>{}</title></rect>",
                scale.step(*part),
                x + 1.0,
                y + 1.0,
                width - 2.0,
                ROW - 2.0,
                escaped(title)
            );
        }
    }
    svg + "</svg>"
}

/// How often numbers occur, from the first one on.
pub fn histogram(counts: &[u64], first: i32) -> String {
    const WIDTH: f64 = 300.0;
    const HEIGHT: f64 = 110.0;
    const BOTTOM: f64 = 20.0;
    let all: u64 = counts.iter().sum();
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let width = WIDTH / counts.len().max(1) as f64;
    let mut svg = open(WIDTH, HEIGHT + BOTTOM, "histogram");
    for (number, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let height = (count as f64 / most * HEIGHT).max(0.8);
        let share = count as f64 * 100.0 / all as f64;
        let power = first + number as i32;
        let _ = write!(
            svg,
            "<g><title>2^{power}: {share:.2} %</title>{}</g>",
            rect("part", number as f64 * width + 0.5, HEIGHT - height, (width - 1.0).max(0.5), height)
        );
    }
    let _ = write!(svg, "<line x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>");
    let last = first + counts.len() as i32 - 1;
    for (x, anchor, power) in
        [(1.0, "start", first), (WIDTH / 2.0, "middle", (first + last) / 2), (WIDTH - 1.0, "end", last)]
    {
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">2<tspan dy=\"-5\" class=\"power\">{}</tspan></text>",
            HEIGHT + 17.0,
            power.to_string().replace('-', "\u{2212}")
        );
    }
    svg + "</svg>"
}

/// `text`, without its beginning if it is longer than so many characters.
pub fn shortened(text: &str, most: usize) -> String {
    let len = text.chars().count();
    match len > most {
        true => format!("…{}", text.chars().skip(len - most + 1).collect::<String>()),
        false => text.to_owned(),
    }
}

fn open(width: f64, height: f64, class: &str) -> String {
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width:.1} {height:.1}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">"
    )
}

fn rect(class: &str, x: f64, y: f64, width: f64, height: f64) -> String {
    format!(
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1.5\"/>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_colours_of_the_style_sheet() {
        let scale = Scale::of([0.0, 1.0].into_iter());
        assert_eq!([0.0, 0.05, 0.65, 0.999, 1.0, 1.4].map(|part| scale.step(part)), [0, 0, 6, 9, 9, 9]);
        let narrow = Scale::of([0.652, 0.681].into_iter());
        assert!(narrow.from == 0.65 && (narrow.to - 0.7).abs() < 1e-9, "{narrow:?}");
        assert_eq!([0.652, 0.681].map(|part| narrow.step(part)), [0, 6]);
        assert!(narrow.legend().contains("65 %") && narrow.legend().contains("70 % of the original"));
        assert_eq!(Scale::of(std::iter::empty()).step(0.5), 0);
        let style = include_str!("style.css");
        (0..STEPS).for_each(|step| assert!(style.contains(&format!("--h{step}:")), "{step}"));
        assert_eq!(scale.legend().matches("<i ").count(), STEPS);
    }

    #[test]
    fn charts_of_nothing_are_charts() {
        for svg in
            [columns(&[]), heat_map(&[], &[], Scale::of([0.5].into_iter())), histogram(&[], 0), histogram(&[0, 0], 1)]
        {
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>") && !svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn names_are_shortened_where_they_begin() {
        assert_eq!(shortened("mlp.up_proj.weight", 18), "mlp.up_proj.weight");
        assert_eq!(shortened("größe.weight", 8), "….weight");
    }
}
