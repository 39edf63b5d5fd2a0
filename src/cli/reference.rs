//! `docs/cli-reference.md`, whose usage and options come from where the help comes from.
//!
//! What stands between `<!-- begin COMMAND -->` and `<!-- end -->` is generated; all else is written by people and stays. The
//! test below compares, and with `BIGSMALL_BLESS=1` in the environment writes anew: also the sections of new commands, in which only the
//! prose is missing then.

use std::path::Path;

use clap::{Arg, Command};

const END: &str = "<!-- end -->";

/// The reference `old` with all that is generated made anew.
fn regenerated(old: &str) -> String {
    let mut whole = super::command();
    whole.build();
    let mut text = old.to_owned();
    let shown = |command: &&Command| command.get_name() != "help" && !command.is_hide_set();
    for command in whole.get_subcommands().filter(shown) {
        let begin = format!("<!-- begin {} -->", command.get_name());
        let section = format!("{begin}\n{}{END}", block(command));
        match text.find(&begin) {
            Some(start) => {
                let end = start + text[start..].find(END).expect("what begins ends") + END.len();
                text.replace_range(start..end, &section);
            }
            None => text += &format!("\n## bigsmall {}\n\n{section}\n", command.get_name()),
        }
    }
    text
}

/// What is generated for a command.
fn block(command: &Command) -> String {
    let below: Vec<&Command> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
    if !below.is_empty() {
        return below.into_iter().map(block).collect::<Vec<_>>().join("\n");
    }
    let usage = command.clone().render_usage().to_string();
    let mut text = format!("    {}\n\n", usage.trim_start_matches("Usage: ").replace('\n', "\n    "));
    let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help");
    let arguments: Vec<&Arg> = arguments.collect();
    text += "| argument | |\n|---|---|\n";
    for arg in
        arguments.iter().filter(|arg| arg.is_positional()).chain(arguments.iter().filter(|arg| !arg.is_positional()))
    {
        text += &format!("| {} | {} |\n", spelled(arg), meaning(arg));
    }
    text
}

/// How an argument is written.
fn spelled(arg: &Arg) -> String {
    if arg.is_positional() {
        return format!("`{}`", arg.get_value_names().map_or("", |names| names[0].as_str()));
    }
    let mut ways: Vec<String> = arg.get_short().map(|short| format!("-{short}")).into_iter().collect();
    ways.extend(arg.get_long().map(|long| format!("--{long}")));
    let mut text = ways.iter().map(|way| format!("`{way}`")).collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() {
        let value = arg.get_value_names().map_or("VALUE", |names| names[0].as_str());
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let value = if optional { format!("[={value}]`") } else { format!(" {value}`") };
        text.truncate(text.len() - 1);
        text += &value;
    }
    text
}

/// What the help says of an argument, in one line.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = match arg.get_long_help().map(ToString::to_string) {
        // The long help begins with the short one, as a paragraph.
        Some(long) => long.split("\n\n").map(str::trim).collect::<Vec<_>>().join(". "),
        None => help,
    };
    let value = |value: &clap::builder::PossibleValue| match value.get_help() {
        Some(help) => format!("`{}` ({help})", value.get_name()),
        None => format!("`{}`", value.get_name()),
    };
    let values: Vec<String> = arg.get_possible_values().iter().map(value).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        text += &format!(": {}", values.join(", "));
    }
    let defaults: Vec<String> = arg.get_default_values().iter().map(|value| value.to_string_lossy().into()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        text += &format!("; by default {}", defaults.join(", "));
    }
    text.replace('\n', " ").replace('|', "\\|")
}

#[test]
fn the_reference_says_what_the_help_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli-reference.md");
    let old = std::fs::read_to_string(&path).unwrap();
    let new = regenerated(&old);
    if std::env::var_os("BIGSMALL_BLESS").is_some() {
        std::fs::write(&path, new).unwrap();
    } else {
        assert!(old == new, "docs/cli-reference.md is no longer current: run this test with BIGSMALL_BLESS=1");
    }
}
