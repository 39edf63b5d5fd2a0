//! The proof with what no one here wrote: `huggingface_hub` and `transformers` use the local Hub, what they upload is pulled and what
//! is pushed they download.
//!
//! They need what `scripts/test.sh` prepares. Where it is missing a test fails and says so.

use std::fs;
use std::path::Path;

use crate::client::Client;
use crate::local::TOKEN;
use crate::pull::model_files;
use crate::support::*;

/// Runs `clients.py` with these arguments and the token.
#[track_caller]
fn python(client: &Client, arguments: &[&str], environment: &[(&str, &Path)]) {
    let mut command = client.command(python_programs().join("python").to_str().unwrap());
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hub/clients.py")).args(arguments);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("HF_HUB_VERBOSITY", "error").env("HF_TOKEN", TOKEN);
    command.envs(environment.iter().copied());
    let run: Run = command.output().unwrap().into();
    assert_eq!(run.code, 0, "clients.py {arguments:?}: {}", run.stderr);
}

#[test]
fn what_python_uploads_is_pulled_and_what_is_pushed_python_downloads() {
    let client = Client::new();
    // huggingface_hub has model cards checked by an address that no endpoint changes.
    let files: Vec<_> = model_files().into_iter().filter(|(path, _)| *path != "README.md").collect();
    for (path, contents) in &files {
        client.scratch.write(format!("model/{path}"), contents);
    }
    python(&client, &["upload", "model", "me/from-python"], &[]);
    client.ok_as("pull me/from-python@stable pulled", TOKEN);
    for (path, contents) in &files {
        assert!(client.scratch.read(format!("pulled/{path}")) == *contents, "{path}");
    }
    client.ok("compress -q model -o packed");
    client.ok_as("push packed me/from-rust", TOKEN);
    python(&client, &["download", "me/from-rust", "downloaded"], &[]);
    let tree = client.hub.tree("me/from-rust", "main").unwrap();
    assert_eq!(tree.len(), 7);
    for (path, entry) in tree {
        assert!(client.scratch.read(format!("downloaded/{path}")) == *entry.content, "{path}");
    }
    // What Python has put into the cache is not fetched again.
    client.hub.forget_requests();
    assert!(client.ok_as("pull me/from-rust", TOKEN).contains("all were there"));
    assert_eq!(client.hub.requests("GET /objects/"), [] as [&str; 0]);
}

#[test]
fn transformers_loads_by_name_from_the_hub_and_from_a_compressed_cache() {
    let client = Client::new();
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm-bf16");
    assert!(plain.is_dir(), "{} is missing: run scripts/test-data.sh", plain.display());
    let names: Vec<String> = names_in(&plain).into_iter().filter(|name| plain.join(name).is_file()).collect();
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (name.as_str(), fs::read(plain.join(name)).unwrap())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    client.hub.publish("org/minilm", &files);
    let plain = plain.to_str().unwrap();
    python(&client, &["load", "org/minilm", plain], &[("HF_HUB_CACHE", &client.scratch.path("plain"))]);
    client.ok("pull --compress --quiet org/minilm");
    fs::create_dir(client.scratch.path("mnt")).unwrap();
    client.ok("mount --hf-cache hf/hub mnt");
    client.hub.forget_requests();
    let mounted = client.scratch.path("mnt");
    let load = || {
        python(
            &client,
            &["load", "org/minilm", plain],
            &[("HF_HUB_CACHE", &mounted), ("HF_HUB_OFFLINE", Path::new("1"))],
        )
    };
    let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(load));
    client.ok("umount mnt");
    assert!(loaded.is_ok(), "see above");
    assert_eq!(client.hub.requests(""), [] as [&str; 0], "it came from the cache alone");
}
