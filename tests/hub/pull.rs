//! `bigsmall pull`.

use std::fs;
use std::process::Stdio;

use crate::client::Client;
use crate::local::repos::sha256;
use crate::local::{READ_TOKEN, TOKEN};
use crate::support::*;

/// A model of two shards, what belongs to them, and something in a directory.
pub fn model_files() -> Vec<(&'static str, Vec<u8>)> {
    let shard = |name: &str, len| model(&[(name, "BF16", 2, len)]);
    vec![
        ("README.md", b"# A model\n".to_vec()),
        ("config.json", br#"{"model_type": "test"}"#.to_vec()),
        ("empty.txt", Vec::new()),
        ("model-00001-of-00002.safetensors", shard("a.weight", 600_000)),
        ("model-00002-of-00002.safetensors", shard("b.weight", 200_000)),
        ("onnx/odd name.bin", b"\0\x01\x02".to_vec()),
    ]
}

/// A Hub with that model in `org/model`; gives its commit too.
pub fn published() -> (Client, Vec<(&'static str, Vec<u8>)>, String) {
    let (client, files) = (Client::new(), model_files());
    let contents: Vec<(&str, &[u8])> = files.iter().map(|(path, contents)| (*path, contents.as_slice())).collect();
    let commit = client.hub.publish("org/model", &contents);
    (client, files, commit)
}

#[test]
fn into_a_directory() {
    let (client, files, commit) = published();
    let said = client.ok("pull org/model here");
    assert_eq!(said, format!("org/model at {}: 6 files, 800.2 kB\nhere\n", &commit[..8]));
    for (path, contents) in &files {
        assert!(client.scratch.read(format!("here/{path}")) == *contents, "{path}");
    }
    assert_eq!(client.unfinished("here"), [] as [&str; 0]);
    // What is there is not fetched again.
    client.hub.forget_requests();
    assert_eq!(client.ok("pull org/model here"), said.replace("kB", "kB; all were there"));
    assert_eq!(client.hub.requests("GET /org/model/resolve"), [] as [&str; 0]);
    // What is there and is something else stays, unless it may be replaced.
    client.scratch.write("here/config.json", "mine");
    let said = client.fails(2, "pull org/model here");
    assert_eq!(said, "bigsmall: here/config.json: exists already and is another file\n--force replaces it\n");
    assert_eq!(client.scratch.read("here/config.json"), b"mine");
    client.ok("pull --force --quiet org/model here");
    assert!(client.scratch.read("here/config.json") == files[1].1);
}

#[test]
fn into_the_cache_that_others_share() {
    let (client, files, commit) = published();
    let json = client.json("pull --json org/model");
    let snapshot = format!("hf/hub/models--org--model/snapshots/{commit}");
    assert_eq!(json["path"], client.scratch.path(&snapshot).to_str().unwrap());
    assert_eq!((&json["commit"], &json["bytes"]), (&commit.clone().into(), &json["stored_bytes"]));
    assert_eq!(json["files"][3]["how"], "fetched");
    for (path, contents) in &files {
        let path = client.scratch.path(&snapshot).join(path);
        assert!(fs::read(&path).unwrap() == *contents, "{}", path.display());
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }
    assert_eq!(client.scratch.read("hf/hub/models--org--model/refs/main"), commit.as_bytes());
    let blob = format!("hf/hub/models--org--model/blobs/{}", sha256(&files[3].1));
    assert!(client.scratch.read(blob) == files[3].1, "large files are named by their SHA-256");
    client.hub.forget_requests();
    assert!(client.ok("pull org/model").contains("all were there"));
    assert_eq!(client.hub.requests("GET /org/model/resolve"), [] as [&str; 0]);
    // Another revision, which shares most.
    client.hub.publish("org/model", &[("config.json", b"{}"), (files[3].0, &files[3].1)]);
    assert!(client.ok("pull org/model").contains("2 files, 600.1 kB; 1 was there"));
    assert!(client.ok(&format!("pull org/model@{commit}")).contains("all were there"));
    // Offline, it is as it was.
    let mut offline = client.command(BIGSMALL);
    offline.args(["pull", "org/model"]).env("HF_HUB_OFFLINE", "1");
    let run = client.finish(offline);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.starts_with("org/model: as it was last fetched"), "{}", run.stdout);
    let mut offline = client.command(BIGSMALL);
    offline.args(["pull", "org/other"]).env("HF_HUB_OFFLINE", "1");
    assert!(client.finish(offline).stderr.contains("HF_HUB_OFFLINE is set"));
}

#[test]
fn only_what_is_wanted() {
    let (client, ..) = published();
    client.ok("pull --include *.json --include onnx/* org/model some");
    assert_eq!(names_in(&client.scratch.path("some")), ["config.json", "onnx"]);
    let said = client.fails(2, "pull --include *.gguf org/model none");
    assert_eq!(said, "bigsmall: org/model: there is no file in it that --include *.gguf fits\n");
}

#[test]
fn compressed_as_it_arrives() {
    let (client, files, _) = published();
    let said = client.ok("pull --compress org/model packed");
    assert!(said.contains("6 files, 800.2 kB, stored in "), "{said}");
    assert_eq!(
        names_in(&client.scratch.path("packed")),
        ["README.md", "config.json", "empty.txt", "model-00001-of-00002.bs", "model-00002-of-00002.bs", "onnx"]
    );
    client.ok("verify packed");
    client.ok("decompress packed -o out");
    for (path, contents) in &files {
        assert!(client.scratch.read(format!("out/{path}")) == *contents, "{path}");
    }
    client.hub.forget_requests();
    assert!(client.ok("pull --compress org/model packed").contains("all were there"));
    assert_eq!(client.hub.requests("GET /org/model/resolve"), [] as [&str; 0]);
    // A container of something else stays.
    fs::copy(
        client.scratch.path("packed/model-00002-of-00002.bs"),
        client.scratch.path("packed/model-00001-of-00002.bs"),
    )
    .unwrap();
    assert!(client.fails(2, "pull --compress org/model packed").contains("exists already and is another file"));
    // In the cache, containers have the names of what they hold, as with compress --hf-cache.
    let json = client.json("pull --compress --json org/model");
    let shard = fs::read(json["files"][3]["file"].as_str().unwrap()).unwrap();
    assert!(shard.len() < files[3].1.len());
    assert_eq!(client.json("pull --compress --json org/model")["files"][3]["how"], "present");
    assert_eq!(client.json("pull --json org/model")["files"][3]["how"], "present");
}

#[test]
fn two_at_once_share_the_work() {
    let (client, files, _) = published();
    let pulls: Vec<_> = (0..2)
        .map(|_| {
            let mut command = client.command(BIGSMALL);
            command.args(["pull", "org/model", "here"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for pull in pulls {
        let run: Run = pull.wait_with_output().unwrap().into();
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    }
    for (path, contents) in &files {
        assert!(client.scratch.read(format!("here/{path}")) == *contents, "{path}");
        let fetched = client.hub.requests("GET /org/model/resolve").iter().filter(|line| line.ends_with(path)).count();
        assert!(fetched <= 1, "{path} was fetched {fetched} times");
    }
    assert_eq!(client.unfinished("here"), [] as [&str; 0]);
}

#[test]
fn who_may_have_it() {
    let (client, ..) = published();
    client.hub.change("org/model", |repo| repo.private = true);
    let said = client.fails(2, "pull org/model here");
    assert!(said.starts_with("bigsmall: org/model: there is no such repo, or it is private (401)\n"), "{said}");
    assert!(said.contains("set HF_TOKEN"), "{said}");
    let said = client.fails_as(2, "pull org/model here", crate::local::EXPIRED_TOKEN);
    assert!(said.contains("the Hub refuses the token, which is wrong or has expired (401)"), "{said}");
    assert!(said.contains("/settings/tokens"), "{said}");
    client.ok_as("pull org/model here", READ_TOKEN);
    let said = client.fails_as(2, "pull org/nothing here", TOKEN);
    assert!(said.starts_with("bigsmall: org/nothing: there is no such repo"), "{said}");
    let said = client.fails_as(2, "pull org/model@v9 here", TOKEN);
    assert!(said.starts_with("bigsmall: org/model@v9: there is no such branch, tag or commit"), "{said}");
    client.hub.change("org/model", |repo| (repo.private, repo.gated) = (false, true));
    let said = client.fails(2, "pull org/model other");
    assert!(said.contains("is gated: ask for access on its page at http://127.0.0.1:"), "{said}");
    // The token of whoever has logged in.
    client.hub.change("org/model", |repo| repo.private = true);
    let mut command = client.command(BIGSMALL);
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    command.args(["pull", "org/model", "mine"]).env("HF_TOKEN_PATH", &file);
    assert_eq!(client.finish(command).code, 0);
}

#[test]
fn paths_that_lead_out_are_refused() {
    let client = Client::new();
    client.hub.publish("org/evil", &[("../outside", b"gotcha")]);
    let said = client.fails(2, "pull org/evil here");
    assert!(said.contains("the Hub lists a file \"../outside\", which is no path to be written to"), "{said}");
    assert!(!client.scratch.path("outside").exists());
    let said = client.fails(2, "pull not/a/repo here");
    assert!(said.contains("\"not/a/repo\" is no repo's name, such as org/name"), "{said}");
}
