//! Names of all kinds, and that each leads to what it leads to in the source.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::thread;
use std::time::Duration;

use crate::mounted::*;

#[test]
fn hard_links_are_one_file() {
    let (scratch, original) = real();
    let models = scratch.path("models");
    fs::hard_link(models.join("real.bs"), models.join("again.bs")).unwrap();
    scratch.write("models/plain", "plain");
    fs::hard_link(models.join("plain"), models.join("plain-again")).unwrap();
    let mounted = Mounted::new(scratch, "models");
    for (one, two) in [("real.safetensors", "again.safetensors"), ("plain", "plain-again")] {
        let (one, two) = (fs::metadata(mounted.path(one)).unwrap(), fs::metadata(mounted.path(two)).unwrap());
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    }
    fs::remove_file(models.join("real.bs")).unwrap();
    thread::sleep(Duration::from_millis(1100));
    assert!(mounted.read("again.safetensors") == original, "the other name stays");
    assert_eq!(mounted.read("plain-again"), b"plain");
}

#[test]
fn a_plain_file_that_was_replaced_is_another() {
    let (scratch, _) = real();
    let (old, new) = (vec![b'o'; 100_000], vec![b'n'; 100_000]);
    scratch.write("models/plain", &old);
    scratch.write("new", &new);
    let mounted = Mounted::new(scratch, "models");
    let open = File::open(mounted.path("plain")).unwrap();
    let mut start = [0; 10];
    open.read_exact_at(&mut start, 0).unwrap();
    fs::rename(mounted.scratch.path("new"), mounted.scratch.path("models/plain")).unwrap();
    eventually("the new contents", || mounted.read("plain") == new);
    let mut all = vec![0; old.len()];
    open.read_exact_at(&mut all, 0).unwrap();
    assert!(all == old, "what is open keeps the old contents, also those that had not been read");
    // Also when the kernel does not believe any more what it was told.
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(open.metadata().unwrap().len(), 100_000);
    assert!(mounted.read("plain") == new, "and the new ones are not mixed with them");
    // Written in place it stays the same file, here as in the source.
    fs::write(mounted.scratch.path("models/plain"), "written in place").unwrap();
    eventually("what was written in place", || mounted.read("plain") == b"written in place");
}

#[test]
fn names_of_any_bytes_and_any_depth() {
    let (scratch, original) = real();
    let mut deep = scratch.path("models");
    let odd = OsString::from_vec((1..=255u8).filter(|byte| *byte != b'/').take(120).collect());
    for level in 0..40u8 {
        let mut name = vec![b'd', 0x80 + level];
        name.extend(vec![b'x'; 60]);
        deep.push(OsStr::from_bytes(&name));
        fs::create_dir(&deep).unwrap();
    }
    let mut container = odd.clone();
    container.push(".bs");
    fs::copy(scratch.path("models/real.bs"), deep.join(&container)).unwrap();
    fs::write(deep.join(&odd), "plain").unwrap();
    symlink(&odd, deep.join("link")).unwrap();
    // As long as a name can be: its original's, which is longer, cannot be shown.
    let mut longest = "l".repeat(252);
    longest.push_str(".bs");
    fs::copy(scratch.path("models/real.bs"), deep.join(&longest)).unwrap();
    let mounted = Mounted::new(scratch, "models");
    let shown = mounted.path("").join(deep.strip_prefix(mounted.scratch.path("models")).unwrap());
    let mut file = odd.clone();
    file.push(".safetensors");
    assert!(fs::read(shown.join(&file)).unwrap() == original);
    assert_eq!(fs::read(shown.join(&odd)).unwrap(), b"plain");
    assert_eq!(fs::read(shown.join("link")).unwrap(), b"plain");
    let names: Vec<OsString> = fs::read_dir(&shown).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| fs::symlink_metadata(shown.join(name)).is_ok()), "what is listed is there");
    assert_eq!(names.len(), 4);
}

#[test]
fn extended_attributes_say_how_a_file_is_stored() {
    let (scratch, _) = real();
    scratch.write("models/plain", "plain");
    let info = scratch.json("info models/real.bs --json");
    let container = scratch.path("models").canonicalize().unwrap().join("real.bs");
    let stored = fs::metadata(&container).unwrap().len();
    let mounted = Mounted::new(scratch, "models");
    let file = mounted.path("real.safetensors");
    let get = |name: &str| {
        let mut value = [0u8; 4096];
        let len = rustix::fs::getxattr(&file, name, &mut value).unwrap_or_else(|e| panic!("{name}: {e}"));
        String::from_utf8(value[..len].to_vec()).unwrap()
    };
    let mut list = [0u8; 4096];
    let len = rustix::fs::listxattr(&file, &mut list).unwrap();
    let names: Vec<&str> = std::str::from_utf8(&list[..len]).unwrap().split_terminator('\0').collect();
    let expected = ["user.bigsmall.ratio", "user.bigsmall.container", "user.bigsmall.codec", "user.bigsmall.sha256"];
    assert_eq!(names, expected);
    let ratio = stored as f64 / fs::metadata(&file).unwrap().len() as f64;
    assert_eq!(get("user.bigsmall.ratio"), format!("{ratio:.4}"));
    assert_eq!(get("user.bigsmall.container"), container.to_str().unwrap());
    let codecs = &info["containers"][0]["codecs"];
    assert!(get("user.bigsmall.codec").split(',').all(|codec| codecs.get(codec).is_some()), "{codecs}");
    assert_eq!(get("user.bigsmall.sha256"), info["containers"][0]["sha256"].as_str().unwrap());
    let none = rustix::fs::getxattr(&file, "user.other", &mut list[..]);
    assert_eq!(none.unwrap_err(), rustix::io::Errno::NODATA);
    let short = rustix::fs::getxattr(&file, "user.bigsmall.sha256", &mut list[..3]);
    assert_eq!(short.unwrap_err(), rustix::io::Errno::RANGE);
    assert_eq!(rustix::fs::listxattr(mounted.path("plain"), &mut list[..]).unwrap(), 0);
    assert_eq!(rustix::fs::listxattr(mounted.path(""), &mut list[..]).unwrap(), 0);
}
