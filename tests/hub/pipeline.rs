//! `bigsmall pipeline`.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::local::{TOKEN, Wrong};
use crate::pull::{model_files, published};
use crate::support::*;

const RUN: &str = "pipeline run org/model work --repo-id me/model-bigsmall";

#[test]
fn from_one_repo_to_another() {
    let (client, files, commit) = published();
    let card = b"---\nlicense: apache-2.0\n---\n# Theirs\n".to_vec();
    let mut changed: Vec<(&str, &[u8])> = files.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
    changed[0].1 = &card;
    let newer = client.hub.publish("org/model", &changed);
    assert_ne!(commit, newer);
    let said = client.ok_as(RUN, TOKEN);
    assert!(said.contains("5 of 5 files: 800.2 kB in "), "{said}");
    assert!(said.contains("\npublished in me/model-bigsmall at "), "{said}");
    let tree = client.hub.tree("me/model-bigsmall", "main").unwrap();
    assert_eq!(tree.len(), 7, "{:?}", tree.keys());
    assert_eq!(client.hub.commits("me/model-bigsmall"), 2);
    let readme = String::from_utf8(tree["README.md"].content.to_vec()).unwrap();
    assert!(readme.starts_with("---\nbase_model: org/model\nlicense: apache-2.0\n"), "{readme}");
    assert!(readme.contains("\n| `a.weight` | `") && readme.contains("\n| `b.weight` | `"), "{readme}");
    assert_eq!(client.scratch.read("work/README.md"), readme.as_bytes());
    // As compress and push would have done it.
    for (path, contents) in &files {
        client.scratch.write(format!("model/{path}"), contents);
    }
    client.ok("compress -q model -o packed");
    for name in ["model-00001-of-00002.bs", "model-00002-of-00002.bs", "config.json", "onnx/odd name.bin"] {
        assert!(*tree[name].content == client.scratch.read(format!("packed/{name}")), "{name}");
        assert!(client.scratch.read(format!("work/{name}")) == *tree[name].content, "{name}");
    }
    let status = client.json("pipeline status --json work");
    assert_eq!((&status["finished"], &status["commit"]), (&true.into(), &newer.into()));
    assert_eq!(status["files"][1]["step"], "published");
    // A second run finds nothing to do.
    client.hub.forget_requests();
    client.ok_as(RUN, TOKEN);
    assert_eq!(client.hub.requests("PUT"), [] as [&str; 0]);
    assert_eq!(client.hub.requests("GET /objects/"), [] as [&str; 0]);
    assert_eq!(client.hub.commits("me/model-bigsmall"), 2);
    assert!(client.ok("verify --against-hub org/model work").contains("sound"));
    let said = client.fails_as(2, "pipeline run org/model work --mode storage --repo-id me/model-bigsmall", TOKEN);
    assert!(said.contains("a pipeline of org/model (mode balanced) has worked in it"), "{said}");
}

#[test]
fn killed_again_and_again_it_ends_in_the_same_repo() {
    let (client, ..) = published();
    client.ok_as("pipeline run org/model whole --repo-id me/whole", TOKEN);
    client.hub.forget_requests();
    let expected = client.hub.tree("me/whole", "main").unwrap();
    // Deleted so that what the runs below upload is not there already.
    client.hub.forget_objects(".bs");
    let mut kills = 0;
    for delay in 0.. {
        let mut command = client.command(BIGSMALL);
        command.args(RUN.split(' ')).args(["--discard", "--workers", "1"]).env("HF_TOKEN", TOKEN);
        // It takes some time, so that the kill comes here and there.
        client.hub.clear_faults();
        client.hub.fault("GET", "", 100, Wrong::Before(|_| thread::sleep(Duration::from_millis(10))));
        client.hub.fault("PUT", "", 100, Wrong::Before(|_| thread::sleep(Duration::from_millis(10))));
        client.hub.fault("POST", "", 100, Wrong::Before(|_| thread::sleep(Duration::from_millis(10))));
        let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(30 + 35 * delay));
        if run.try_wait().unwrap().is_some() {
            assert!(run.wait().unwrap().success(), "{:?}", run.wait_with_output());
            break;
        }
        run.kill().unwrap();
        run.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 3, "it was killed {kills} times only");
    let tree = client.hub.tree("me/model-bigsmall", "main").unwrap();
    assert_eq!(tree.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, entry) in tree.iter().filter(|(path, _)| *path != "README.md") {
        assert!(*entry == expected[path], "{path}");
    }
    let readme = |tree: &crate::local::repos::Tree| String::from_utf8(tree["README.md"].content.to_vec()).unwrap();
    assert_eq!(
        readme(&tree),
        readme(&expected).replace("me/whole", "me/model-bigsmall").replace("whole", "model-bigsmall")
    );
    assert_eq!(client.hub.commits("me/model-bigsmall"), 2);
    // Nothing that was finished was done again.
    for start in ["PUT /objects/", "GET /objects/"] {
        let mut done = client.hub.requests(start);
        let all = done.len();
        done.retain(|line| !line.contains("bytes="));
        done.sort();
        done.dedup();
        assert!(all < done.len() + 2 * kills + 3, "{start}: {all} for {} files, {kills} kills", done.len());
    }
    assert_eq!(names_in(&client.scratch.path("work")), [".bigsmall", "config.json", "empty.txt", "onnx"]);
}

#[test]
fn without_a_repo_and_without_compression() {
    let (client, files, _) = published();
    let said = client.ok("pipeline run org/model work --no-upload");
    assert!(said.ends_with("all of it is in work\n"), "{said}");
    client.ok("decompress work -o out");
    for (path, contents) in &files {
        assert!(client.scratch.read(format!("out/{path}")) == *contents, "{path}");
    }
    client.ok_as("pipeline run org/model copy --no-compress --repo-id me/copy", TOKEN);
    let tree = client.hub.tree("me/copy", "main").unwrap();
    for (path, contents) in &model_files() {
        assert!(*tree[*path].content == *contents, "{path}");
    }
    let said = client.fails(2, "pipeline status nowhere");
    assert_eq!(said, "bigsmall: nowhere: no pipeline has worked in it\n");
}

#[test]
fn a_token_as_an_argument_and_a_name_of_its_own() {
    let (client, ..) = published();
    client.ok(&format!("pipeline run org/model work --token {TOKEN} --private"));
    assert!(client.hub.is_private("me/model-bigsmall"));
}
