//! The extended attributes of virtual files: what they are stored as.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bigsmall_codec::{Container, Original};

/// What the names of all our attributes begin with.
const PREFIX: &str = "user.bigsmall.";

const RATIO: &str = "user.bigsmall.ratio";
const CONTAINER: &str = "user.bigsmall.container";
const CODEC: &str = "user.bigsmall.codec";
const SHA256: &str = "user.bigsmall.sha256";

/// The names of the attributes that a virtual file has, each ended by a zero byte.
pub fn names() -> Vec<u8> {
    [RATIO, CONTAINER, CODEC, SHA256].iter().flat_map(|name| name.bytes().chain([0])).collect()
}

/// The name, if it is one that we could have given.
pub fn ours(name: &OsStr) -> Option<&str> {
    name.to_str().filter(|name| name.starts_with(PREFIX))
}

/// The value of an attribute of the original of `container`, which lies at `path`.
pub fn value(name: &str, path: &Path, container: &Container) -> Option<Vec<u8>> {
    let text = match name {
        RATIO if container.is_empty() => return None,
        RATIO => format!("{:.4}", container.stored_len() as f64 / container.len() as f64),
        CONTAINER => return Some(path.as_os_str().as_bytes().to_owned()),
        CODEC => codecs(container),
        SHA256 => hexadecimal(container.sha256()),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// The codecs in use, the one that stores most of the original first.
fn codecs(container: &Container) -> String {
    let mut usage = container.codec_usage();
    usage.sort_by_key(|usage| std::cmp::Reverse(usage.original_len));
    usage.iter().map(|usage| usage.codec.name()).collect::<Vec<_>>().join(",")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
