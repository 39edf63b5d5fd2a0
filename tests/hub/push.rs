//! `bigsmall push`.

use crate::client::Client;
use crate::local::repos::{Tree, sha256};
use crate::local::{READ_TOKEN, TOKEN, Wrong};
use crate::pull::model_files;

/// A client with a directory `packed` of containers; gives the files that they were made of.
fn packed() -> (Client, Vec<(&'static str, Vec<u8>)>) {
    let client = Client::new();
    let files: Vec<_> = model_files().into_iter().filter(|(path, _)| *path != "README.md").collect();
    for (path, contents) in &files {
        client.scratch.write(format!("model/{path}"), contents);
    }
    client.ok("compress -q model -o packed");
    (client, files)
}

/// The text of a file in a repo.
#[track_caller]
fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(tree[path].content.to_vec()).unwrap()
}

#[test]
fn everything_appears_in_one_commit() {
    let (client, _) = packed();
    let said = client.ok_as("push packed me/model-bigsmall --base-model org/model", TOKEN);
    let tree = client.hub.tree("me/model-bigsmall", "main").unwrap();
    let names: Vec<&str> = tree.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            ".gitattributes",
            "README.md",
            "config.json",
            "empty.txt",
            "model-00001-of-00002.bs",
            "model-00002-of-00002.bs",
            "onnx/odd name.bin"
        ]
    );
    assert_eq!(client.hub.commits("me/model-bigsmall"), 2, "that which made the repo and ours");
    for path in ["model-00001-of-00002.bs", "onnx/odd name.bin", "config.json", "empty.txt"] {
        assert!(*tree[path].content == client.scratch.read(format!("packed/{path}")), "{path}");
    }
    assert_eq!(tree["model-00001-of-00002.bs"].lfs, Some(sha256(&tree["model-00001-of-00002.bs"].content)));
    assert_eq!((&tree["empty.txt"].lfs, &tree["config.json"].lfs), (&None, &None));
    let card = text(&tree, "README.md");
    assert!(card.starts_with("---\nbase_model: org/model\n"), "{card}");
    assert!(card.contains("$ bigsmall pull me/model-bigsmall model-bigsmall\n"), "{card}");
    assert!(card.contains("| `model-00002-of-00002.bs` | `model-00002-of-00002.safetensors` | 200.1 kB |"), "{card}");
    assert!(said.starts_with("me/model-bigsmall at ") && said.contains(": 5 files, "), "{said}");
    // There is nothing to do a second time.
    client.hub.forget_requests();
    assert!(
        client.ok_as("push packed me/model-bigsmall --base-model org/model", TOKEN).contains("6 were there, 0 B sent")
    );
    assert_eq!(client.hub.requests("PUT"), [] as [&str; 0]);
    assert_eq!(client.hub.commits("me/model-bigsmall"), 2);
    // What comes back is what went.
    client.ok_as("pull me/model-bigsmall back", READ_TOKEN);
    client.ok("verify back");
}

#[test]
fn only_what_is_new_is_sent() {
    let (client, _) = packed();
    client.ok_as("push packed me/model", TOKEN);
    client.scratch.write("packed/config.json", "{\"new\": true}");
    client.scratch.write("packed/notes.ignored", "mine");
    client.scratch.write("packed/.git/config", "mine");
    client.hub.forget_requests();
    let json: serde_json::Value =
        serde_json::from_str(&client.ok_as("push --json --message New packed me/model", TOKEN)).unwrap();
    assert_eq!((&json["files"], &json["present"], &json["sent_bytes"]), (&6.into(), &5.into(), &0.into()));
    assert_eq!(json["ignored"][0], "notes.ignored");
    assert_eq!(client.hub.requests("PUT"), [] as [&str; 0]);
    let tree = client.hub.tree("me/model", "main").unwrap();
    assert_eq!(text(&tree, "config.json"), "{\"new\": true}");
    assert!(!tree.contains_key("notes.ignored") && !tree.contains_key(".git/config"));
    assert!(tree.contains_key("model-00001-of-00002.bs"), "nothing is removed");
}

#[test]
fn a_card_that_somebody_wrote_stays() {
    let (client, _) = packed();
    client.scratch.write("packed/README.md", "# Mine\n");
    client.ok_as("push packed me/model", TOKEN);
    assert_eq!(text(&client.hub.tree("me/model", "main").unwrap(), "README.md"), "# Mine\n");
    std::fs::remove_file(client.scratch.path("packed/README.md")).unwrap();
    client.ok_as("push packed me/model", TOKEN);
    assert_eq!(text(&client.hub.tree("me/model", "main").unwrap(), "README.md"), "# Mine\n");
    // One of ours is written anew.
    client.ok_as("push packed me/other", TOKEN);
    client.ok_as("push packed me/other --base-model org/model", TOKEN);
    assert!(text(&client.hub.tree("me/other", "main").unwrap(), "README.md").contains("base_model: org/model"));
}

#[test]
fn branches_and_private_repos() {
    let (client, _) = packed();
    client.ok_as("push --private --revision next packed me/secret", TOKEN);
    assert!(client.hub.is_private("me/secret"));
    assert!(client.hub.tree("me/secret", "next").unwrap().contains_key("model-00001-of-00002.bs"));
    assert_eq!(client.hub.tree("me/secret", "main").unwrap().len(), 1);
    client.hub.publish("me/open", &[("x", b"x")]);
    let said = client.fails_as(2, "push --private packed me/open", TOKEN);
    assert!(said.starts_with("bigsmall: me/open: is public already"), "{said}");
}

#[test]
fn who_may_not_is_told_what_to_do() {
    let (client, _) = packed();
    let said = client.fails(2, "push packed me/model");
    assert!(said.contains("to upload takes a token: set HF_TOKEN to one that may write"), "{said}");
    let said = client.fails_as(2, "push packed me/model", READ_TOKEN);
    assert!(said.contains("the token may not do this (403)") && said.contains("settings/tokens"), "{said}");
    let said = client.fails_as(2, "push packed me/model", crate::local::EXPIRED_TOKEN);
    assert!(said.contains("has expired (401)"), "{said}");
    client.scratch.write("plain/config.json", "{}");
    let said = client.fails_as(2, "push plain me/model", TOKEN);
    assert_eq!(said, "bigsmall: plain: there is no container in it; bigsmall compress makes them\n");
}

#[test]
fn large_files_go_in_parts_when_the_hub_wants_them_so() {
    let (client, _) = packed();
    client.hub.set_part_size(100_000);
    client.hub.fault("PUT", "/2", 1, Wrong::Status(500, "X-Nothing", ""));
    client.ok_as("push packed me/model", TOKEN);
    let tree = client.hub.tree("me/model", "main").unwrap();
    assert!(*tree["model-00001-of-00002.bs"].content == client.scratch.read("packed/model-00001-of-00002.bs"));
    assert!(client.hub.requests("PUT").len() > 5);
}

#[test]
fn a_hub_that_takes_large_files_by_xet_alone_gets_none_in_another_way() {
    let (client, _) = packed();
    client.hub.set_xet_alone();
    let said = client.fails_as(2, "push packed me/model", TOKEN);
    assert!(said.contains("the Hub takes it by \"xet\" alone, which this program does not speak"), "{said}");
    assert!(said.contains("hf upload me/model DIR"), "{said}");
    assert_eq!(client.hub.requests("PUT"), [] as [&str; 0]);
    assert_eq!(client.hub.commits("me/model"), 1, "that which made the repo");
}

#[test]
fn an_upload_that_was_cut_goes_on_with_the_next_file() {
    let (client, _) = packed();
    client.hub.fault("PUT", "/objects/", 1, Wrong::Status(403, "X-Nothing", ""));
    let said = client.fails_as(2, "push --workers 1 packed me/model", TOKEN);
    assert!(said.contains("me/model, model-0000"), "{said}");
    assert_eq!(client.hub.tree("me/model", "main").unwrap().len(), 1, "nothing shows before everything does");
    client.hub.fault("POST", "/commit/", 1, Wrong::Status(500, "X-Nothing", ""));
    let said = client.fails_as(2, "push --workers 1 packed me/model", TOKEN);
    assert!(said.contains("the Hub has a fault (500)") && said.contains("run the same command again"), "{said}");
    client.hub.forget_requests();
    client.ok_as("push packed me/model", TOKEN);
    assert_eq!(client.hub.requests("PUT"), [] as [&str; 0], "all was uploaded before");
    assert_eq!(client.hub.tree("me/model", "main").unwrap().len(), 7);
}

#[test]
fn a_repo_that_others_change_meanwhile_is_not_overwritten() {
    let (client, _) = packed();
    client.ok_as("push packed me/model", TOKEN);
    client.scratch.write("packed/config.json", "{}");
    client.hub.fault("POST", "/commit/", 1, Wrong::Before(|hub| drop(hub.publish("me/model", &[("theirs", b"x")]))));
    let said = client.fails_as(2, "push packed me/model", TOKEN);
    assert!(said.contains("the repo was changed by somebody else (412)"), "{said}");
    assert_eq!(client.hub.tree("me/model", "main").unwrap().len(), 1);
}
