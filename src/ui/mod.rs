//! What people see: sizes, progress, tables.

pub mod chart;
pub mod colour;
pub mod csv;
pub mod progress;
pub mod size;
pub mod table;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::failure::Failure;

/// Writes `text` to standard output. That nobody reads it to the end is no failure.
///
/// # Errors
/// When standard output cannot be written, because its disk is full for instance.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Says something on standard error, after the name of the program. That it cannot be written there is nothing to fail for.
pub fn say(text: &str) {
    let mut err = io::stderr();
    let name = colour::alarming("bigsmall:", &err);
    let _ = err.write_all(format!("{name} {}\n", printable(text)).as_bytes());
}

/// Writes `value` to standard output as JSON for people and programs.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value);
    print(&(json.expect("values with text for keys can be written as JSON") + "\n"))
}

/// `text` without the characters that a terminal takes for commands, which names of files and tensors may hold. Line
/// feeds stay.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            let _ = write!(printable, "{}", c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

/// `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// `number` of things, as in `1 file` and `2 files`.
pub fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// What part of `whole` is `part`, in percent; `None` of nothing.
pub fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// How fast `bytes` bytes went by.
pub fn speed(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 { size::show_size((bytes as f64 / seconds) as u64) + "/s" } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_no_commands() {
        assert_eq!(printable("a\nb"), "a\nb");
        assert_eq!(printable("\x1b[31mred\r\u{9b}0m"), "\\u{1b}[31mred\\r\\u{9b}0m");
        assert_eq!(printable("naïve 模型"), "naïve 模型");
    }

    #[test]
    fn one_thing_and_more() {
        assert_eq!(
            (count(0, "file"), count(1, "file"), count(2, "file")),
            ("0 files".into(), "1 file".into(), "2 files".into())
        );
    }
}
