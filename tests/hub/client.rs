//! Running the program against a local Hub, with an environment of its own.

use std::process::Command;

use serde_json::Value;

use crate::local::{EXPIRED_TOKEN, LocalHub, READ_TOKEN, TOKEN};
use crate::support::*;

/// A scratch directory and a Hub.
pub struct Client {
    pub scratch: Scratch,
    pub hub: LocalHub,
}

impl Client {
    pub fn new() -> Client {
        Client { scratch: Scratch::new(), hub: LocalHub::start() }
    }

    /// A command that knows of this Hub alone, and of no token.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.scratch.command(program);
        forget_hub(&mut command);
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HOME", self.scratch.path("hf"));
        command
    }

    /// Runs `bigsmall` with the arguments in `line` and perhaps a token. Whatever comes of it, no token shows in what it says or
    /// leaves behind, nor has the server of large files seen one.
    #[track_caller]
    pub fn run(&self, line: &str, token: Option<&str>) -> Run {
        let mut command = self.command(BIGSMALL);
        command.args(line.split_whitespace()).envs(token.map(|token| ("HF_TOKEN", token)));
        self.finish(command)
    }

    /// Runs a command that [`command`](Client::command) made, as [`run`](Client::run) does.
    #[track_caller]
    pub fn finish(&self, mut command: Command) -> Run {
        let run: Run = command.output().unwrap().into();
        for token in [TOKEN, READ_TOKEN, EXPIRED_TOKEN] {
            assert!(!run.stdout.contains(token) && !run.stderr.contains(token), "a token is shown: {run:?}");
            let holds = |bytes: &[u8]| bytes.windows(token.len()).any(|part| part == token.as_bytes());
            for (path, _, contents) in tree(&self.scratch.path("")) {
                assert!(!contents.is_some_and(|contents| holds(&contents)), "{} holds a token", path.display());
            }
        }
        assert_eq!(self.hub.leaks(), [] as [String; 0]);
        run
    }

    /// Expects success without a word on standard error. Gives standard output.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.ok_as(line, None)
    }

    /// The same with a token.
    #[track_caller]
    pub fn ok_as(&self, line: &str, token: impl Into<Option<&'static str>>) -> String {
        self.run(line, token.into()).succeeded(line)
    }

    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    /// Expects failure with `code`, and nothing on standard output. Gives standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, line: &str) -> String {
        self.fails_as(code, line, None)
    }

    /// The same with a token.
    #[track_caller]
    pub fn fails_as(&self, code: i32, line: &str, token: impl Into<Option<&'static str>>) -> String {
        self.run(line, token.into()).failed(code, line)
    }

    /// The files of a directory that are no part of any other: those that have not come whole.
    pub fn unfinished(&self, directory: &str) -> Vec<String> {
        let names =
            if self.scratch.path(directory).is_dir() { names_in(&self.scratch.path(directory)) } else { vec![] };
        names.into_iter().filter(|name| name.ends_with(".incomplete") || name.ends_with("-tmp")).collect()
    }
}
