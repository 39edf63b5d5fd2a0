//! `bigsmall status` and `bigsmall verify --against-hub`; repos that the Python package published.

use std::fs;

use crate::client::Client;
use crate::local::TOKEN;
use crate::pull::published;
use crate::support::*;

#[test]
fn originals_are_compared_with_the_hub() {
    let (client, ..) = published();
    client.ok("pull --compress org/model packed");
    let said = client.ok("verify --against-hub org/model packed");
    assert_eq!(said.lines().count(), 2, "{said}");
    client.ok("verify --against-hub org/model packed/model-00002-of-00002.bs");
    // Another original of the same name.
    client
        .hub
        .publish("org/other", &[("model-00001-of-00002.safetensors", &model(&[("b.weight", "BF16", 2, 600_000)]))]);
    let run = client.run("verify --against-hub org/other packed", None);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stdout.contains("model-00001-of-00002.safetensors in org/other has the hash "), "{run:?}");
    assert!(run.stdout.contains("org/other has no file model-00002-of-00002.safetensors"), "{run:?}");
    let run = client.run("verify --json --against-hub org/other packed/model-00001-of-00002.bs", None);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &json["files"][0]["damage"][0]["cause"]), (1, &"hub_hash".into()));
    let said = client.fails(2, "verify --against-hub org/none packed");
    assert!(said.contains("org/none: there is no such repo"), "{said}");
}

#[test]
fn what_is_saved() {
    let (client, ..) = published();
    client.ok("pull --compress --quiet org/model packed");
    client.ok_as("push --quiet packed me/model-bigsmall", TOKEN);
    client.ok_as("push --quiet --private packed me/secret-bigsmall", TOKEN);
    client.hub.publish("me/nothing-bigsmall", &[("README.md", b"")]);
    client.hub.publish("me/model", &[("README.md", b"")]);
    let stored = ["1", "2"]
        .map(|n| client.scratch.read(format!("packed/model-0000{n}-of-00002.bs")).len())
        .iter()
        .sum::<usize>();
    client.hub.forget_requests();
    let run = client.run("status --json", Some(TOKEN));
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(run.code, 0, "{run:?}");
    let names: Vec<_> = json["repos"].as_array().unwrap().iter().map(|repo| repo["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["me/model-bigsmall", "me/secret-bigsmall"]);
    let repo = &json["repos"][0];
    assert_eq!((&repo["containers"], &repo["original_bytes"]), (&2.into(), &800_160.into()));
    assert_eq!((&repo["stored_bytes"], &repo["private"]), (&stored.into(), &false.into()));
    assert!(
        client.hub.requests("GET /objects/").iter().all(|line| line.contains("bytes=")),
        "nothing is fetched whole"
    );
    let said = client.ok("status --user me --local-dirs packed");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[1].starts_with("me/model-bigsmall  ") && lines[2].starts_with("packed "), "{said}");
    assert!(lines[3].starts_with("total ") && lines[3].contains("1.6 MB"), "{said}");
    assert!(client.ok_as("status", TOKEN).contains("me/secret-bigsmall (private)"));
    client.ok("status --local-dirs packed");
    let said = client.fails(2, "status");
    assert!(said.contains("nobody is logged in: set HF_TOKEN, or name a user"), "{said}");
}

#[test]
fn repos_of_the_python_package_come_and_mount_too() {
    let client = Client::new();
    let fixture = "shards";
    let from = std::path::Path::new(UPSTREAM).join(fixture);
    let names: Vec<String> =
        names_in(&from).into_iter().filter(|name| name != "manifest.json" && !name.ends_with(".safetensors")).collect();
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (name.as_str(), fs::read(from.join(name)).unwrap())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    client.hub.publish("them/model-bigsmall", &files);
    client.ok("pull them/model-bigsmall theirs");
    client.ok("verify theirs");
    let said = client.ok("status --user them");
    assert!(said.contains("them/model-bigsmall"), "{said}");
    fs::create_dir(client.scratch.path("mnt")).unwrap();
    client.ok("mount theirs mnt");
    let shown = names_in(&client.scratch.path("mnt"));
    let originals: Vec<Vec<u8>> = shown
        .iter()
        .filter(|name| name.ends_with(".safetensors"))
        .map(|name| fs::read(client.scratch.path("mnt").join(name)).unwrap())
        .collect();
    client.ok("umount mnt");
    assert!(assert_upstream(fixture, &originals) > 0, "{shown:?}");
}
