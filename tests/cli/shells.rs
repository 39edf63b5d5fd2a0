//! Completions, man pages, colours.

use crate::support::*;

#[test]
fn shells_can_complete() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = scratch.ok(&format!("completions {shell}"));
        for word in ["compress", "verify", "umount", "chunk-size", "hf-cache"] {
            assert!(script.contains(word), "{word} is not in the completions for {shell}");
        }
    }
    scratch.write("bigsmall.bash", scratch.ok("completions bash"));
    let complete = "source bigsmall.bash && COMP_WORDS=(bigsmall ver) COMP_CWORD=1 && _bigsmall bigsmall ver bigsmall && echo ${COMPREPLY[@]}";
    let output = scratch.command("bash").args(["-c", complete]).output().unwrap();
    assert_eq!(Run::from(output).stdout, "verify\n");
    let said = scratch.fails(2, "completions cmd");
    assert!(said.contains("bash") && said.contains("zsh") && said.contains("fish"), "{said}");
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let scratch = Scratch::new();
    scratch.ok("man pages/man1");
    let names = names_in(&scratch.path("pages/man1"));
    let help = scratch.ok("--help");
    let commands = help.split("\nCommands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let mut expected: Vec<String> = commands
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|name| *name != "help")
        .map(|name| format!("bigsmall-{name}.1"))
        .collect();
    expected.push("bigsmall.1".to_owned());
    expected.sort();
    assert_eq!(names, expected);
    let page = String::from_utf8(scratch.read("pages/man1/bigsmall-compress.1")).unwrap();
    for part in [".TH bigsmall-compress 1", "bigsmall compress model.safetensors", "chunk\\-size"] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let said = scratch.fails(2, "man pages/man1");
    assert!(said.starts_with("bigsmall: pages/man1/bigsmall.1: exists already"), "{said}");
    scratch.ok("man --force pages/man1");
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let scratch = Scratch::new();
    let on_terminal = |command: &str, no_colour: bool| {
        let mut script = scratch.command("script");
        script.args(["-qec", command, "/dev/null"]).env("TERM", "xterm");
        if no_colour {
            script.env("NO_COLOR", "1");
        }
        String::from_utf8(script.output().expect("`script` of the package bsdutils is needed").stdout).unwrap()
    };
    for command in ["info --help", "info nowhere"] {
        let command = format!("{BIGSMALL} {command}");
        assert!(on_terminal(&command, false).contains("\x1b["), "{command}");
        assert!(!on_terminal(&command, true).contains("\x1b["), "{command}");
    }
    assert!(!scratch.ok("info --help").contains("\x1b["));
}
