//! Patches in a mount: each appears as the whole model, read with its base, wherever that is.

use std::fs;
use std::path::Path;
use std::thread;

use crate::mounted::*;
use crate::support::*;

/// The value of an extended attribute.
fn attribute(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    Some(String::from_utf8(value[..len].to_vec()).unwrap())
}

/// A scratch directory with a base and so many fine-tunes of it, each a patch in `models`. The base is beside that directory.
fn patched(tunes: u64) -> (Scratch, Vec<u8>, Vec<Vec<u8>>) {
    let scratch = Scratch::new();
    let base = layers();
    scratch.write("base.safetensors", &base);
    fs::create_dir(scratch.path("models")).unwrap();
    let tunes: Vec<Vec<u8>> = (0..tunes).map(|seed| tuned(&base, seed)).collect();
    for (number, tune) in tunes.iter().enumerate() {
        scratch.write("tune.safetensors", tune);
        scratch.ok(&format!("compress -q tune.safetensors --delta-from base.safetensors -o models/tune{number}.bs"));
    }
    (scratch, base, tunes)
}

#[test]
fn a_patch_appears_as_the_whole_model() {
    for place in
        ["models/deep/below/base.safetensors", "elsewhere/renamed.safetensors", "models/base.bs", "models/parts/x"]
    {
        let (scratch, base, tunes) = patched(1);
        fs::create_dir_all(scratch.path(place).parent().unwrap()).unwrap();
        fs::create_dir_all(scratch.path("elsewhere")).unwrap();
        match place {
            "models/base.bs" => drop(scratch.ok("compress -q base.safetensors -o models/base.bs")),
            "models/parts/x" => {
                for part in 0..2 {
                    let name = format!("{place}-0000{}-of-00002.safetensors", part + 1);
                    scratch.write(&name, part_of(&base, |number| number % 2 == part));
                }
                // One of them compressed, the other not.
                scratch.ok("compress -q models/parts/x-00001-of-00002.safetensors");
                fs::remove_file(scratch.path("models/parts/x-00001-of-00002.safetensors")).unwrap();
            }
            place => drop(fs::copy(scratch.path("base.safetensors"), scratch.path(place)).unwrap()),
        }
        let mounted = Mounted::with_options(scratch, "models", "--base elsewhere");
        let path = mounted.path("tune0.safetensors");
        assert_eq!(fs::metadata(&path).unwrap().len(), tunes[0].len() as u64);
        // Parts whose extensions differ are found as parts of one model all the same, by what they have in common.
        assert!(fs::read(&path).unwrap() == tunes[0], "{place}");
        assert!(
            attribute(&path, "user.bigsmall.base")
                .unwrap()
                .contains(Path::new(place).file_stem().unwrap().to_str().unwrap())
        );
        assert_eq!(attribute(&path, "user.bigsmall.error"), None);
    }
}

#[test]
fn a_patch_can_be_mounted_alone() {
    let (scratch, _, tunes) = patched(1);
    fs::rename(scratch.path("models/tune0.bs"), scratch.path("tune0.bs")).unwrap();
    let mounted = Mounted::new(scratch, "tune0.bs");
    assert!(mounted.read("tune0.safetensors") == tunes[0], "its base lies beside it");
}

#[test]
fn chains_of_patches_are_followed() {
    let scratch = Scratch::new();
    let mut model = layers();
    scratch.write("models/0.safetensors", &model);
    let mut line = String::new();
    for number in 1..5 {
        model = tuned(&model, number);
        scratch.write(format!("models/{number}.safetensors"), &model);
        let before = number - 1;
        scratch.ok(&format!("compress -q models/{number}.safetensors --delta-from models/{before}.safetensors"));
        line = format!("{number}.safetensors");
    }
    for number in 1..5 {
        fs::rename(scratch.path(format!("models/{number}.safetensors")), scratch.path(format!("{number}"))).unwrap();
    }
    let mounted = Mounted::new(scratch, "models");
    assert!(mounted.read(&line) == model, "the fourth");
    for number in 1..4 {
        assert!(mounted.read(&format!("{number}.safetensors")) == mounted.scratch.read(number.to_string()), "{number}");
    }
    let files = attribute(&mounted.path("3.safetensors"), "user.bigsmall.base").unwrap();
    assert_eq!(
        files.lines().map(|line| line.rsplit('/').next().unwrap()).collect::<Vec<_>>(),
        ["2.bs", "1.bs", "0.safetensors"]
    );
}

#[test]
fn circles_are_refused() {
    let scratch = Scratch::new();
    let (a, b) = (layers(), tuned(&layers(), 1));
    scratch.write("a.safetensors", &a);
    scratch.write("b.safetensors", &b);
    fs::create_dir(scratch.path("models")).unwrap();
    scratch.ok("compress -q a.safetensors --delta-from b.safetensors -o models/a.bs");
    scratch.ok("compress -q b.safetensors --delta-from a.safetensors -o models/b.bs");
    let mounted = Mounted::new(scratch, "models");
    for name in ["a.safetensors", "b.safetensors"] {
        assert_eq!(errno(fs::read(mounted.path(name))), libc_eio());
        let why = attribute(&mounted.path(name), "user.bigsmall.error").unwrap();
        assert!(why.contains("a circle"), "{why}");
    }
    // One whole model anywhere opens it.
    fs::copy(mounted.scratch.path("a.safetensors"), mounted.scratch.path("models/whole.safetensors")).unwrap();
    eventually("the base", || fs::read(mounted.path("b.safetensors")).is_ok_and(|read| read == b));
}

#[test]
fn a_patch_without_its_base_says_so_until_the_base_comes() {
    let (scratch, base, tunes) = patched(1);
    fs::create_dir(scratch.path("bases")).unwrap();
    let mounted = Mounted::with_options(scratch, "models", "--base bases --log log");
    let path = mounted.path("tune0.safetensors");
    let arrived = mounted.scratch.path("bases/base.safetensors");
    assert_eq!(mounted.names(), ["tune0.safetensors"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), tunes[0].len() as u64);
    assert_eq!(errno(fs::read(&path)), libc_eio());
    let why = attribute(&path, "user.bigsmall.error").unwrap();
    assert!(why.starts_with("its base \"base.safetensors\" is not in ") && why.contains("/bases"), "{why}");
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains(&why), "{log}");
    // It comes, is taken away, comes again as a container, is replaced by another model.
    fs::write(&arrived, &base).unwrap();
    eventually("the base", || fs::read(&path).is_ok_and(|read| read == tunes[0]));
    assert_eq!(attribute(&path, "user.bigsmall.error"), None);
    fs::remove_file(&arrived).unwrap();
    eventually("its end", || fs::read(&path).is_err());
    mounted.scratch.ok("compress -q base.safetensors -o bases/x.bs");
    eventually("the container", || fs::read(&path).is_ok_and(|read| read == tunes[0]));
    mounted.scratch.write("other.safetensors", unrelated(&base));
    mounted.scratch.ok("compress -q --force other.safetensors -o bases/x.bs");
    eventually("its end", || fs::read(&path).is_err());
}

#[test]
fn another_base_is_refused_and_named() {
    let (scratch, base, _) = patched(1);
    let mut other = base.clone();
    let len = other.len();
    other[len - 3000] ^= 1;
    scratch.write("models/base.safetensors", &other);
    let mounted = Mounted::new(scratch, "models");
    let path = mounted.path("tune0.safetensors");
    assert_eq!(errno(fs::read(&path)), libc_eio());
    let why = attribute(&path, "user.bigsmall.error").unwrap();
    assert!(
        why.contains("models/base.safetensors") && why.contains("tensor \"model.layers.11.weight\" differs"),
        "{why}"
    );
    // Cut short, it is no model at all.
    mounted.scratch.write("models/base.safetensors", &base[..len / 2]);
    thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(errno(fs::read(&path)), libc_eio());
}

#[test]
fn a_base_that_changes_while_it_is_used_never_gives_wrong_bytes() {
    use std::os::unix::fs::FileExt;
    let (scratch, base, tunes) = patched(1);
    let place = scratch.write("models/base.safetensors", &base);
    let mounted = Mounted::new(scratch, "models");
    let open = fs::File::open(mounted.path("tune0.safetensors")).unwrap();
    let mut start = [0; 100];
    open.read_exact_at(&mut start, 0).unwrap();
    // Elsewhere than where the base was looked at when it was opened.
    let at = base.len() - 400_000;
    let file = fs::File::options().write(true).open(&place).unwrap();
    file.write_all_at(&[base[at] ^ 1], at as u64).unwrap();
    let (mut wrong, mut failed) = (0, 0);
    for piece in (0..base.len() - 4096).step_by(4096) {
        let mut read = [0; 4096];
        match open.read_exact_at(&mut read, piece as u64) {
            Ok(()) => wrong += usize::from(read != tunes[0][piece..piece + 4096]),
            Err(_) => failed += 1,
        }
    }
    assert_eq!(wrong, 0);
    assert!(failed > 0, "the chunk of which the base changed cannot be read");
}

#[test]
fn patches_of_one_base_share_its_chunks() {
    let (scratch, base, tunes) = patched(5);
    scratch.ok("compress -q base.safetensors -o models/base.bs");
    let mounted = Mounted::new(scratch, "models");
    let decoded = || {
        let stats = attribute(&mounted.path(""), "user.bigsmall.stats").unwrap();
        serde_json::from_str::<serde_json::Value>(&stats).unwrap()["chunks_decoded"].as_u64().unwrap()
    };
    assert!(mounted.read("tune0.safetensors") == tunes[0]);
    let first = decoded();
    thread::scope(|scope| {
        for (number, tune) in tunes.iter().enumerate().skip(1) {
            let mounted = &mounted;
            scope.spawn(move || assert!(mounted.read(&format!("tune{number}.safetensors")) == *tune));
        }
    });
    // As many chunks for each patch as for the first, but for those of the base.
    let (each, of_base) = ((decoded() - first) / 4, first - (decoded() - first) / 4);
    assert!(of_base * 10 > each * 8, "{first} chunks were decoded for the first, {each} for each of the others");
    assert!(mounted.read("base.safetensors") == base, "and the base is itself shown");
}

#[test]
fn a_base_does_not_lie_in_the_mount() {
    let (scratch, ..) = patched(1);
    fs::create_dir_all(scratch.path("bases/mnt")).unwrap();
    let failure = scratch.fails(2, "mount --base bases models bases/mnt");
    assert!(failure.contains("overlaps with"), "{failure}");
}

fn libc_eio() -> i32 {
    rustix::io::Errno::IO.raw_os_error()
}
