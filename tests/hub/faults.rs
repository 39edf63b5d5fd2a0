//! What goes wrong on the wire and on this side of it: nothing half-written gets a name, and what arrived is not lost.

use std::process::Command;

use crate::client::Client;
use crate::local::{TOKEN, Wrong};
use crate::pull::published;
use crate::support::*;

/// The path of requests for large files, and of those for one of the repo's.
const LARGE: &str = "/objects/";
const SHARD: &str = "model-00001-of-00002.safetensors";

#[track_caller]
fn assert_complete(client: &Client, files: &[(&str, Vec<u8>)]) {
    for (path, contents) in files {
        assert!(client.scratch.read(format!("here/{path}")) == *contents, "{path}");
    }
    assert_eq!(client.unfinished("here"), [] as [&str; 0]);
}

#[test]
fn a_connection_that_is_cut_goes_on_where_it_was() {
    let (client, files, _) = published();
    client.hub.fault("GET", LARGE, 3, Wrong::Cut(150_000));
    client.ok("pull --workers 1 org/model here");
    assert_complete(&client, &files);
    let ranges: Vec<String> = client.hub.requests("GET /objects/");
    let starts: Vec<&str> =
        ranges.iter().filter_map(|line| line.split_once("bytes=")).map(|(_, range)| range).collect();
    assert_eq!(starts, ["150000-", "300000-", "450000-"]);
}

#[test]
fn a_pull_that_was_killed_goes_on_where_it_was() {
    let (client, files, _) = published();
    // Which takes so long that there is time to kill it.
    client.hub.fault("GET", LARGE, 1, Wrong::Cut(400_000));
    client.hub.fault("GET", SHARD, 1, Wrong::Status(503, "Retry-After", "0"));
    client.hub.fault("GET", LARGE, 9, Wrong::Status(503, "Retry-After", "100"));
    let mut pull = client.command(BIGSMALL).args(["pull", "--workers", "1", "org/model", "here"]).spawn().unwrap();
    let waits = || client.hub.requests("GET /objects/").len() >= 2;
    while !waits() {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert_eq!(pull.try_wait().unwrap(), None);
    }
    pull.kill().unwrap();
    pull.wait().unwrap();
    assert!(!client.scratch.path("here").join(SHARD).exists());
    assert_eq!(client.unfinished("here").len(), 1);
    client.hub.clear_faults();
    client.hub.forget_requests();
    client.ok("pull org/model here");
    assert_complete(&client, &files);
    assert!(client.hub.requests("GET /objects/").iter().any(|line| line.ends_with("bytes=400000-")));
}

#[test]
fn a_signal_ends_it_and_what_came_is_kept() {
    let (client, files, _) = published();
    client.hub.fault("GET", LARGE, 1, Wrong::Cut(400_000));
    client.hub.fault("GET", LARGE, 9, Wrong::Status(503, "Retry-After", "100"));
    let mut command = client.command(BIGSMALL);
    command.args(["pull", "--workers", "1", "org/model", "here"]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while client.hub.requests("GET /objects/").len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (130, "bigsmall: interrupted; the same command goes on where it stopped\n")
    );
    client.hub.clear_faults();
    client.ok("pull org/model here");
    assert_complete(&client, &files);
}

#[test]
fn a_server_that_is_busy_or_ill_is_asked_again() {
    let (client, files, _) = published();
    client.hub.fault("GET", "/tree/", 1, Wrong::Status(429, "Retry-After", "1"));
    client.hub.fault("GET", "/revision/", 2, Wrong::Status(502, "X-Nothing", ""));
    client.hub.fault("GET", LARGE, 2, Wrong::Status(500, "X-Nothing", ""));
    client.ok("pull org/model here");
    assert_complete(&client, &files);
    client.hub.fault("GET", "/revision/", 1, Wrong::Status(429, "Retry-After", "3600"));
    let said = client.fails(2, "pull org/model here");
    assert!(said.contains("the Hub has been asked too much (429)") && said.contains("3600 seconds"), "{said}");
}

#[test]
fn wrong_bytes_are_not_kept() {
    let (client, files, _) = published();
    client.hub.fault("GET", LARGE, 1, Wrong::Flip);
    let said = client.fails(2, "pull --workers 1 org/model here");
    assert!(said.starts_with(&format!("bigsmall: org/model, {SHARD}: what came has the hash ")), "{said}");
    assert!(!client.scratch.path("here").join(SHARD).exists());
    assert_eq!(client.unfinished("here"), [] as [&str; 0]);
    // Small files have a hash too.
    std::fs::remove_file(client.scratch.path("here/config.json")).unwrap();
    client.hub.fault("GET", "config.json", 1, Wrong::Flip);
    let said = client.fails(2, "pull --workers 1 org/model here");
    assert!(said.starts_with("bigsmall: org/model, config.json: what came has the hash "), "{said}");
    client.ok("pull org/model here");
    assert_complete(&client, &files);
    // What is wrong with what came before is mended by fetching all of it.
    std::fs::remove_file(client.scratch.path("here").join(SHARD)).unwrap();
    let id = &crate::local::repos::sha256(&files[3].1)[..16];
    client.scratch.write(format!("here/.{SHARD}.{id}.bigsmall.incomplete"), vec![7; 1000]);
    client.hub.forget_requests();
    client.ok("pull org/model here");
    assert_eq!(client.hub.requests("GET /objects/").len(), 2);
    assert_complete(&client, &files);
}

#[test]
fn lists_that_end_early_are_noticed() {
    let (client, files, _) = published();
    client.hub.fault("GET", "/tree/", 1, Wrong::Without("Link"));
    let said = client.fails(2, "pull org/model here");
    assert!(said.contains("but the server lists 3 of them"), "{said}");
    assert!(!client.scratch.path("here").join(SHARD).exists());
    client.ok("pull org/model here");
    assert_complete(&client, &files);
}

#[test]
fn wrong_lengths_are_noticed() {
    let (client, files, _) = published();
    client.hub.fault("GET", LARGE, 1, Wrong::Length(1000));
    let said = client.fails(2, "pull --workers 1 org/model here");
    assert!(said.contains("601080 bytes are announced, and the Hub lists 600080"), "{said}");
    client.hub.fault("GET", LARGE, 1, Wrong::Length(-1000));
    let said = client.fails(2, "pull --workers 1 org/model here");
    assert!(said.contains("599080 bytes are announced"), "{said}");
    client.ok("pull org/model here");
    assert_complete(&client, &files);
}

#[test]
fn a_repo_that_changes_underneath_is_noticed() {
    let (client, ..) = published();
    let overwrite: fn(&crate::local::LocalHub) = |hub| {
        hub.change("org/model", |repo| {
            // As a history that was rewritten is.
            let entry = |repo: &mut crate::local::repos::Repo, path: &str| {
                repo.commits.values_mut().for_each(|tree| tree.get_mut(path).unwrap().content = b"{}".to_vec().into());
            };
            entry(repo, "config.json");
        });
    };
    client.hub.fault("GET", "config.json", 1, Wrong::Before(overwrite));
    let said = client.fails(2, "pull --workers 1 org/model here");
    assert!(said.contains("config.json: it was changed between the listing and the download"), "{said}");
    assert!(!client.scratch.path("here/config.json").exists());
    client.hub.fault("GET", "/tree/", 1, Wrong::Before(|hub| hub.change("org/model", |repo| repo.commits.clear())));
    let said = client.fails(2, "pull --workers 1 org/model here");
    assert!(said.contains("there is no such branch, tag or commit"), "{said}");
}

#[test]
fn a_token_that_a_server_sends_back_is_not_shown() {
    let client = Client::new();
    client.hub.fault("GET", "/revision/", 1, Wrong::Status(400, "X-Error-Message", TOKEN));
    let said = client.fails_as(2, "pull org/model here", TOKEN);
    assert!(said.contains("the Hub says: [token]"), "{said}");
}

#[test]
fn certificates_that_are_none_are_refused() {
    let (client, ..) = published();
    client.scratch.write("none.pem", "no certificate");
    for (name, what) in [("none.pem", "there is no certificate in it (PEM)"), ("nowhere.pem", "cannot be read")] {
        let mut pull = client.command(BIGSMALL);
        pull.args(["pull", "org/model", "here"]).env("SSL_CERT_FILE", name);
        let run = client.finish(pull);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.starts_with(&format!("bigsmall: {name}: {what}")), "{run:?}");
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let (client, files, _) = published();
    let line = "pull --workers 1 org/model here";
    let script = format!(
        "set -e; mkdir here; mount -t tmpfs -o size=500k none here; code=0; {BIGSMALL} {line} || code=$?; \
         ls -A here; mount -o remount,size=4m here; {BIGSMALL} {line}; cp -r here/. there; exit $code"
    );
    std::fs::create_dir(client.scratch.path("there")).unwrap();
    let mut command = Command::new("unshare");
    for (name, value) in client.command(BIGSMALL).get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(client.scratch.path("")).args(["--mount", "--map-root-user", "sh", "-c", &script]);
    let run = client.finish(command);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("cannot take 600080 bytes: No space left on device"), "{run:?}");
    assert!(run.stderr.contains("make room and run the same command again"), "{run:?}");
    assert!(!run.stdout.contains(&format!("\n{SHARD}\n")), "{run:?}");
    for (path, contents) in &files {
        assert!(client.scratch.read(format!("there/{path}")) == *contents, "{path}");
    }
}
