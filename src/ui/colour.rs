//! Colours: on a terminal, and there unless they are not wanted.

use std::io::IsTerminal;

/// Begins and ends what is to be red and bold.
const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";

/// Whether what is written to `stream` is to have colours: it is a terminal that knows them, and `NO_COLOR` is not set.
pub fn on(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `text` for `stream`, in a colour that alarms if it has any.
pub fn alarming(text: &str, stream: &impl IsTerminal) -> String {
    if on(stream) { format!("{RED}{text}{PLAIN}") } else { text.to_owned() }
}
