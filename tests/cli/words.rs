//! What is said when nothing is done, and where it is said.

use std::fs;
use std::path::Path;

use crate::support::*;

/// Whether the program under test knows the Hub. Without it there are fewer commands, and fewer options of `verify`.
const HUB: bool = cfg!(feature = "hub");

/// Compares with, or writes, the text in `help/`.
#[track_caller]
fn assert_help(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cli/help/{name}.txt"));
    if std::env::var_os("BIGSMALL_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(text == expected, "{} is no longer right:\n{text}", path.display());
}

#[test]
fn help_teaches() {
    let scratch = Scratch::new();
    if HUB {
        assert_help("bigsmall", &scratch.ok("--help"));
    }
    for command in [
        "scan",
        "compress",
        "decompress",
        "apply",
        "diff",
        "info",
        "stat",
        "verify",
        "protect",
        "repair",
        "migrate",
        "mount",
        "mounts",
        "umount",
        "benchmark",
        "completions",
        "man",
        "report",
        "doctor",
    ] {
        let help = scratch.ok(&format!("{command} --help"));
        assert!(help.contains(&format!("Examples:\n  bigsmall {command}")), "{help}");
        assert_eq!(help, scratch.ok(&format!("help {command}")));
        if HUB || command != "verify" {
            assert_help(command, &help);
        }
    }
}

#[cfg(feature = "hub")]
#[test]
fn help_about_the_hub_teaches() {
    let scratch = Scratch::new();
    for command in ["pull", "push", "pipeline", "status"] {
        let help = scratch.ok(&format!("{command} --help"));
        assert!(help.contains(&format!("Examples:\n  bigsmall {command}")), "{help}");
        assert_help(command, &help);
    }
}

#[test]
fn the_reference_names_every_option() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli-reference.md");
    let reference = fs::read_to_string(reference).unwrap();
    let commands: Vec<&str> = reference.split("\n## bigsmall ").skip(1).collect();
    let help = Scratch::new().ok("--help");
    let listed = help.split("\nCommands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let names = listed.map(|line| line.split_whitespace().next().unwrap()).filter(|&name| name != "help");
    for name in names {
        let section = commands.iter().find(|section| section.lines().next() == Some(name));
        let section = section.unwrap_or_else(|| panic!("bigsmall {name} is not in the reference"));
        let help = Scratch::new().ok(&format!("{name} --help"));
        let declared = help.lines().filter(|line| line.trim_start().starts_with('-'));
        for option in declared.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))) {
            // `--ecc[=<PERCENT>]` is the option `--ecc`.
            let option = option.split('[').next().unwrap().trim_end_matches(',');
            assert!(option == "--help" || section.contains(option), "{option} of {name} is not in the reference");
        }
    }
}

#[test]
fn the_version_is_told() {
    assert_eq!(Scratch::new().ok("--version"), concat!("bigsmall ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn usage_errors_begin_as_all_others() {
    let scratch = Scratch::new();
    let said = scratch.fails(2, "");
    assert!(said.starts_with("bigsmall: no command given\n\nStores neural-network weights"), "{said}");
    assert_eq!(
        scratch.fails(2, "shrink model"),
        "bigsmall: unrecognized subcommand 'shrink'\n\nUsage: bigsmall <COMMAND>\n\nFor more information, try '--help'.\n"
    );
    assert_eq!(
        scratch.fails(2, "compress"),
        "bigsmall: the following required arguments were not provided:\n  <SRC>\n\n\
         Usage: bigsmall compress <SRC>\n\nFor more information, try '--help'.\n"
    );
    for threads in ["0", "-1", "many"] {
        let said = scratch.fails(2, &format!("verify x.bs --threads={threads}"));
        assert!(said.starts_with(&format!("bigsmall: invalid value '{threads}' for '--threads <N>': ")), "{said}");
    }
}

#[test]
fn standard_output_that_nobody_reads_is_no_failure() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    let script = format!("{BIGSMALL} compress model.safetensors; echo $? >&2");
    let pipe = scratch.command("sh").args(["-c", &format!("({script}) | true")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&pipe.stderr), "0\n");
    scratch.ok("verify -q model.bs");
}

#[test]
fn standard_output_that_cannot_be_written_is_a_failure() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    scratch.ok("compress -q model.safetensors");
    let full = scratch.command("sh").args(["-c", &format!("{BIGSMALL} info model.bs > /dev/full")]).output().unwrap();
    let run = Run::from(full);
    assert_eq!(run.code, 2);
    assert_eq!(run.stderr, "bigsmall: cannot write to standard output: No space left on device (os error 28)\n");
}

#[test]
fn progress_is_for_terminals() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", model(&[("t", "BF16", 2, 30_000_000)]));
    // `Scratch::ok` has both outputs in pipes and expects nothing on standard error.
    scratch.ok("compress model.safetensors -o a.bs");
    // `script` gives the command a terminal for all three.
    let on_terminal = |command: &str| {
        let output = scratch.command("script").args(["-qec", command, "/dev/null"]).output();
        let output = output.expect("`script` of the package bsdutils (util-linux) is needed");
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = on_terminal(&format!("{BIGSMALL} compress model.safetensors -o b.bs"));
    assert!(shown.contains(" %  ") && shown.contains("B/s") && shown.contains(" left"), "{shown:?}");
    let shown = on_terminal(&format!("{BIGSMALL} compress --quiet model.safetensors -o c.bs"));
    assert_eq!(shown, "");
    assert!(scratch.read("a.bs") == scratch.read("b.bs") && scratch.read("a.bs") == scratch.read("c.bs"));
}
