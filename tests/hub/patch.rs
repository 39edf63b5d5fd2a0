//! `bigsmall pull --patch`, and patches that are pushed.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use crate::client::Client;
use crate::local::TOKEN;
use crate::support::*;

/// The names of the parts of the base, and the tensor in each.
const PARTS: [(&str, &str); 2] =
    [("model-00001-of-00002.safetensors", "a.weight"), ("model-00002-of-00002.safetensors", "b.weight")];

/// A part of the base, and of a model that was tuned of it: of every third element the lowest bit is another one.
fn part(tensor: &str, tuned: bool) -> Vec<u8> {
    let mut part = model(&[(tensor, "BF16", 2, 300_000)]);
    let data = part.len() - 300_000;
    if tuned {
        part[data..].iter_mut().step_by(6).for_each(|byte| *byte ^= 1);
    }
    part
}

/// A Hub with the base in `org/base` and what a fine-tune changed in `me/tune-patch`, of which the card says `of`.
fn published(of: &str) -> Client {
    let client = Client::new();
    let parts = PARTS.map(|(name, tensor)| (name, part(tensor, false)));
    let files: Vec<(&str, &[u8])> =
        parts.iter().map(|(name, bytes)| (*name, bytes.as_slice())).chain([("notes.txt", &b"notes"[..])]).collect();
    client.hub.publish("org/base", &files);
    for (name, tensor) in PARTS {
        client.scratch.write(format!("base/{name}"), part(tensor, false));
        client.scratch.write(format!("tune/{name}"), part(tensor, true));
    }
    client.scratch.write("tune/config.json", "{}");
    client.ok("compress -q tune --delta-from base -o patch");
    fs::rename(client.scratch.path("base"), client.scratch.path("away")).unwrap();
    client.ok_as(&format!("push -q patch me/tune-patch {of}"), TOKEN);
    client
}

#[track_caller]
fn assert_tuned(client: &Client, directory: &str) {
    for (name, tensor) in PARTS {
        assert!(client.scratch.read(format!("{directory}/{name}")) == part(tensor, true), "{directory}/{name}");
    }
    assert_eq!(client.scratch.read(format!("{directory}/config.json")), b"{}");
}

#[test]
fn the_card_of_a_patch_says_what_it_is_of_and_how_to_get_it() {
    let client = published("--base-model org/base");
    let tree = client.hub.tree("me/tune-patch", "main").unwrap();
    let card = String::from_utf8(tree["README.md"].content.to_vec()).unwrap();
    assert!(card.starts_with("---\nbase_model: org/base\nbase_model_relation: finetune\n"), "{card}");
    let id = client.json("info --json patch/model-00001-of-00002.bs")["containers"][0]["base"]["fingerprint"].clone();
    for part in [
        "stored losslessly in 2 patches of bigsmall",
        "\n$ bigsmall pull --patch me/tune-patch tune-patch\n",
        &format!("it was called `base` when the patch was made, and its fingerprint is `{}`", id.as_str().unwrap()),
        "\n| `a.weight` | `",
    ] {
        assert!(card.contains(part), "{part:?} is not in\n{card}");
    }
}

#[test]
fn a_patch_finds_its_base_in_the_cache_or_has_it_fetched() {
    let client = published("--base-model org/base");
    // It is nowhere: nothing is fetched unasked, and the patch stays.
    let said = client.fails_as(2, "pull --patch me/tune-patch here -o out", TOKEN);
    assert!(
        said.contains("the base \"base\" (fingerprint ") && said.contains("is not in the cache of the Hub"),
        "{said}"
    );
    assert!(said.contains("\nbigsmall pull org/base fetches it, and so does --yes; or give it with --base"), "{said}");
    assert!(!client.scratch.path("out").exists());
    client.ok_as("pull --quiet --patch --yes me/tune-patch here -o out", TOKEN);
    assert_tuned(&client, "out");
    // Of the base only what holds weights has come.
    assert_eq!(client.hub.requests("GET /org/base/resolve").iter().filter(|line| line.contains("notes")).count(), 0);
    // Now it is in the cache, and nothing is asked for.
    client.hub.forget_requests();
    let json: serde_json::Value =
        serde_json::from_str(&client.ok_as("pull --json --patch me/tune-patch -o again", TOKEN)).unwrap();
    assert_tuned(&client, "again");
    assert!(json["base"][0].as_str().unwrap().contains("/models--org--base/snapshots/"), "{json}");
    assert_eq!(json["output"], "again");
    assert_eq!(client.hub.requests("GET /org/base"), [] as [&str; 0]);
    // Without OUT it lies where a mount finds both.
    let said = client.ok_as("pull --patch me/tune-patch here", TOKEN);
    let base = said.lines().find_map(|line| line.strip_prefix("its base: ")).unwrap();
    assert!(said.contains(&format!("\nto have the model of both: bigsmall mount --base {base} here MNT\n")), "{said}");
    fs::create_dir(client.scratch.path("mnt")).unwrap();
    client.finish({
        let mut mount = client.command(BIGSMALL);
        mount.args(["mount", "here", "mnt"]);
        mount
    });
    let shown = PARTS.map(|(name, _)| fs::read(client.scratch.path("mnt").join(name)));
    client.ok("umount mnt");
    for ((_, tensor), shown) in PARTS.iter().zip(shown) {
        assert!(shown.unwrap() == part(tensor, true), "{tensor}");
    }
    // Offline, with what is there.
    let mut offline = client.command(BIGSMALL);
    offline.args(["pull", "--patch", "me/tune-patch", "-o", "offline"]).env("HF_HUB_OFFLINE", "1");
    let run = client.finish(offline);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_tuned(&client, "offline");
}

#[test]
fn a_base_that_is_named_is_used_and_a_wrong_one_refused() {
    let client = published("");
    client.ok_as("pull -q --patch me/tune-patch here --base away -o out", TOKEN);
    assert_tuned(&client, "out");
    let said = client.fails_as(2, "pull --patch me/tune-patch here --base tune -o wrong", TOKEN);
    assert!(said.contains("is not the base \"base\"") && said.contains("\"a.weight\" differs"), "{said}");
    assert!(!client.scratch.path("wrong").exists());
    let said = client.fails_as(2, "pull --patch me/tune-patch here", TOKEN);
    assert!(said.contains("its card does not say in which repo it is; give it with --base"), "{said}");
    let said = client.fails_as(2, "pull --patch org/base whole", TOKEN);
    assert_eq!(said, "bigsmall: org/base: there is no patch in it; pull it without --patch\n");
}

#[test]
fn a_base_that_is_no_longer_what_it_was_is_refused() {
    let client = published("--base-model org/base");
    let changed = PARTS.map(|(name, tensor)| (name, part(tensor, true)));
    client.hub.publish("org/base", &changed.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())));
    let said = client.fails_as(2, "pull --patch --yes me/tune-patch here -o out", TOKEN);
    assert!(said.contains("org/base, which the card of me/tune-patch names: "), "{said}");
    assert!(said.contains("is not the base \"base\"") && said.contains("differs"), "{said}");
    assert!(!client.scratch.path("out").exists());
}

/// A Hub as [`published`] makes it, and a tune of the tune in `me/second-patch`, a patch of the first patch.
fn published_chain() -> Client {
    let client = published("--base-model org/base");
    for (name, tensor) in PARTS {
        client.scratch.write(format!("second/{name}"), second(tensor));
    }
    client.ok("compress -q second --delta-from patch --base away -o second-patch");
    client.ok_as("push -q second-patch me/second-patch --base-model me/tune-patch", TOKEN);
    client
}

/// A part of a model that was tuned of the tune.
fn second(tensor: &str) -> Vec<u8> {
    let mut part = part(tensor, true);
    let data = part.len() - 300_000;
    part[data..].iter_mut().step_by(10).for_each(|byte| *byte ^= 2);
    part
}

#[track_caller]
fn assert_second(client: &Client, directory: &str) {
    for (name, tensor) in PARTS {
        assert!(client.scratch.read(format!("{directory}/{name}")) == second(tensor), "{directory}/{name}");
    }
}

#[test]
fn a_base_that_is_a_patch_comes_with_its_own_base() {
    let client = published_chain();
    let said = client.fails_as(2, "pull --patch me/second-patch there -o out", TOKEN);
    assert!(
        said.contains("\nbigsmall pull me/tune-patch fetches it, and so does --yes; or give it with --base"),
        "{said}"
    );
    client.ok_as("pull -q --patch --yes me/second-patch there -o out", TOKEN);
    assert_second(&client, "out");
    // Both bases are in the cache now.
    client.hub.forget_requests();
    let said = client.ok_as("pull --patch me/second-patch there", TOKEN);
    for repo in ["me/tune-patch", "org/base"] {
        assert_eq!(client.hub.requests(&format!("GET /{repo}")), [] as [&str; 0]);
    }
    let line = said.lines().find_map(|line| line.strip_prefix("to have the model of both: bigsmall ")).unwrap();
    assert_eq!(line.matches("--base ").count(), 2, "{said}");
    fs::create_dir(client.scratch.path("mnt")).unwrap();
    client.ok(&line.replace("MNT", "mnt"));
    let shown = PARTS.map(|(name, _)| fs::read(client.scratch.path("mnt").join(name)));
    client.ok("umount mnt");
    for ((_, tensor), shown) in PARTS.iter().zip(shown) {
        assert!(shown.unwrap() == second(tensor), "{tensor}");
    }
    // What is missing at the end of the chain is named.
    fs::remove_dir_all(client.scratch.path("hf/hub/models--org--base")).unwrap();
    let said = client.fails_as(2, "pull --patch me/second-patch there", TOKEN);
    assert!(said.contains("\nbigsmall pull org/base fetches it"), "{said}");
}

#[test]
fn on_a_terminal_it_asks() {
    let client = published("--base-model org/base");
    client.hub.change("me/tune-patch", |repo| repo.private = false);
    // `script` gives the command a terminal, on which `typed` is typed as soon as it asks.
    let on_terminal = |typed: &str| {
        let command = format!("{BIGSMALL} pull --patch me/tune-patch here -o out");
        // Whoever runs the tests in the background may have signals ignored, and that is inherited.
        let mut script = client.command("env");
        script
            .args(["--default-signal=INT", "script", "-qec", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let (mut said, mut byte) = (Vec::new(), [0]);
        let mut screen = child.stdout.take().unwrap();
        while !said.ends_with(b"Fetch org/base? [y/N] ") && screen.read(&mut byte).unwrap() == 1 {
            said.push(byte[0]);
        }
        child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        screen.read_to_end(&mut said).unwrap();
        (child.wait().unwrap().code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = on_terminal("\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("The base is not in the cache of the Hub. Fetch org/base? [y/N]"), "{said}");
    assert!(said.contains("bigsmall pull org/base fetches it"), "{said}");
    let (code, said) = on_terminal("\x03");
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("interrupted; the same command goes on where it stopped"), "{said}");
    assert!(!client.scratch.path("out").exists());
    let (code, said) = on_terminal("y\n");
    assert_eq!(code, Some(0), "{said}");
    assert_tuned(&client, "out");
}
