//! The extended attributes of virtual files: what they are stored as.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bigsmall_codec::{Original, Stored};

use crate::bases::Outcome;
use crate::containers::Opened;

/// What the names of all our attributes begin with.
const PREFIX: &str = "user.bigsmall.";

const RATIO: &str = "user.bigsmall.ratio";
const CONTAINER: &str = "user.bigsmall.container";
const CODEC: &str = "user.bigsmall.codec";
const SHA256: &str = "user.bigsmall.sha256";

/// Of a patch alone: why it cannot be read.
const ERROR: &str = "user.bigsmall.error";
/// Of a patch that can: the files that it is read with, a line each.
const BASE: &str = "user.bigsmall.base";

/// The names of the attributes that `opened` has, which lies at `path`, each ended by a zero byte.
pub fn names(path: &Path, opened: &Opened) -> Vec<u8> {
    let has = |name: &&&str| value(name, path, opened).is_some();
    [RATIO, CONTAINER, CODEC, SHA256].iter().filter(has).flat_map(|name| name.bytes().chain([0])).collect()
}

/// The name, if it is one that we could have given.
pub fn ours(name: &OsStr) -> Option<&str> {
    name.to_str().filter(|name| name.starts_with(PREFIX))
}

/// The value of an attribute of what is shown in the place of `opened`, which lies at `path`.
pub fn value(name: &str, path: &Path, opened: &Opened) -> Option<Vec<u8>> {
    if name == CONTAINER {
        return Some(path.as_os_str().as_bytes().to_owned());
    }
    let stored = opened.original.stored()?;
    let text = match name {
        RATIO if stored.is_empty() => return None,
        RATIO => format!("{:.4}", stored.stored_len() as f64 / stored.len() as f64),
        CODEC => codecs(stored),
        SHA256 => hexadecimal(stored.sha256()?),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// The name, if it is of an attribute that depends on the base of a patch.
pub fn of_patch(name: &OsStr) -> Option<&'static str> {
    [ERROR, BASE].into_iter().find(|known| name == *known)
}

/// The name of the attribute that a patch has, of which this is known.
pub fn patch_name(outcome: &Outcome) -> &'static str {
    if outcome.is_ok() { BASE } else { ERROR }
}

/// The value of an attribute of a patch, of which this is known; `files` are those that it is read with.
pub fn patch_value(name: &str, outcome: &Outcome, files: impl FnOnce() -> Vec<PathBuf>) -> Option<Vec<u8>> {
    match outcome {
        Ok(_) if name == BASE => {
            let files = files();
            Some(files.iter().map(|path| path.as_os_str().as_bytes()).collect::<Vec<_>>().join(&b'\n'))
        }
        Err(why) if name == ERROR => Some(why.as_bytes().to_vec()),
        _ => None,
    }
}

/// The codecs in use, the one that stores most of the original first.
fn codecs(stored: &Stored) -> String {
    let mut usage = stored.codec_usage();
    usage.sort_by_key(|usage| std::cmp::Reverse(usage.original_len));
    usage.into_iter().map(|usage| usage.codec).collect::<Vec<_>>().join(",")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
