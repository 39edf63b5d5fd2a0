//! Bars, for terminals and pipes alike.

/// What a bar is made of: whole cells and those that are filled in part, by eighths.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];

/// Cells of the longest bar.
const WIDTH: usize = 40;

/// A chart of named numbers, each with what is written behind its bar; the largest has the longest bar.
pub fn bars(rows: &[(String, f64, String)], indent: &str) -> String {
    let most = rows.iter().map(|row| row.1).fold(f64::MIN_POSITIVE, f64::max);
    let widest = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value, shown) in rows {
        let padding = " ".repeat(widest - name.chars().count());
        text += &format!("{indent}{name}{padding}  {} {shown}\n", bar(value / most));
    }
    text
}

/// A bar of a part of the width; nothing is shown as the thinnest that there is.
fn bar(part: f64) -> String {
    let eighths = ((part * (WIDTH * 8) as f64).round() as usize).max(1);
    let mut bar = "█".repeat(eighths / 8);
    if let Some(rest) = (eighths % 8).checked_sub(1) {
        bar.push(EIGHTHS[rest]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_numbers() {
        let rows = [("memcpy", 10.0), ("größe", 5.0), ("z", 0.125), ("none", 0.0)];
        let rows = rows.map(|(name, value)| (name.to_owned(), value, format!("{value} GB/s")));
        let half = "█".repeat(20);
        let expected = [
            format!("  memcpy  {half}{half} 10 GB/s"),
            format!("  größe   {half} 5 GB/s"),
            "  z       ▌ 0.125 GB/s".to_owned(),
            "  none    ▏ 0 GB/s".to_owned(),
            String::new(),
        ];
        assert_eq!(bars(&rows, "  ").split('\n').collect::<Vec<_>>(), expected);
        assert_eq!(bars(&[], ""), "");
    }
}
