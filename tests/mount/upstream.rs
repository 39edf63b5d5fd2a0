//! Mounts of the files of the Python package.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::thread;

use memmap2::Mmap;
use serde_json::Value;

use crate::mounted::*;
use crate::support::*;

const EIO: i32 = 5;

/// A scratch directory with these fixtures in `models`, each in a directory of its own.
fn with(fixtures: &[String]) -> Scratch {
    let scratch = Scratch::new();
    fixtures.iter().for_each(|fixture| copy_upstream(&scratch, fixture, &format!("models/{fixture}")));
    scratch
}

fn weights(directory: &Path) -> Vec<Vec<u8>> {
    let names = names_in(directory).into_iter().filter(|name| name.ends_with(".safetensors"));
    names.map(|name| fs::read(directory.join(name)).unwrap()).collect()
}

#[test]
fn every_fixture_appears_as_safetensors() {
    let fixtures = upstream_fixtures();
    let scratch = with(&fixtures);
    scratch.ok("decompress -q models -o plain");
    let check = |mounted: &Mounted| {
        for fixture in &fixtures {
            let shown = mounted.path(fixture);
            assert_upstream(fixture, &weights(&shown));
            let plain = mounted.scratch.path("plain").join(fixture);
            assert_eq!(names_in(&shown), names_in(&plain), "{fixture}");
            for name in names_in(&plain) {
                let same = fs::read(shown.join(&name)).unwrap() == fs::read(plain.join(&name)).unwrap();
                assert!(same, "{fixture}/{name}");
            }
        }
    };
    let mounted = Mounted::new(scratch, "models");
    check(&mounted);
    // And with a cache that keeps the last tensor only.
    mounted.scratch.ok("umount mnt");
    mounted.scratch.ok("mount --tensor-cache-size 0 --cache-size 0 models mnt");
    check(&mounted);
}

#[test]
fn a_directory_of_the_hub_is_one_that_loaders_know() {
    let mounted = Mounted::new(with(&["shards".to_owned()]), "models/shards");
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(mounted.names(), expected);
    let index: Value = serde_json::from_slice(&mounted.read("model.safetensors.index.json")).unwrap();
    for (tensor, file) in index["weight_map"].as_object().unwrap() {
        let file = mounted.read(file.as_str().unwrap());
        assert!(safetensors::SafeTensors::deserialize(&file).unwrap().tensor(tensor).is_ok(), "{tensor}");
    }
    // A real one wins, and then the other is what it is.
    mounted.scratch.write("models/shards/model.safetensors.index.json", "{}");
    eventually("the real index", || mounted.read("model.safetensors.index.json") == b"{}");
    assert!(mounted.path("bigsmall.index.json").exists());
}

#[test]
fn links_of_a_cache_lead_to_originals() {
    let scratch = Scratch::new();
    copy_upstream(&scratch, "shards", "files");
    let snapshot = "hub/models--org--name/snapshots/0123abc";
    fs::create_dir_all(scratch.path(snapshot)).unwrap();
    for (number, name) in names_in(&scratch.path("files")).into_iter().enumerate() {
        let blob = format!("{number:040x}");
        scratch.write(format!("hub/models--org--name/blobs/{blob}"), scratch.read(format!("files/{name}")));
        symlink(format!("../../blobs/{blob}"), scratch.path(snapshot).join(name)).unwrap();
    }
    let mounted = Mounted::new(scratch, "hub");
    let shown = mounted.path("models--org--name/snapshots/0123abc");
    assert_eq!(assert_upstream("shards", &weights(&shown)), 5);
    assert!(shown.join("model.safetensors.index.json").is_file());
}

#[test]
fn maps_and_readers_at_random_see_the_same() {
    let scratch = with(&["default_bf16".to_owned(), "default_f32".to_owned()]);
    scratch.ok("decompress -q models -o plain");
    let mounted = Mounted::with_options(scratch, "models", "--tensor-cache-size 100KiB --cache-size 64KiB");
    for name in ["default_bf16/model.safetensors", "default_f32/model.safetensors"] {
        let plain = fs::read(mounted.scratch.path("plain").join(name)).unwrap();
        let file = File::open(mounted.path(name)).unwrap();
        // SAFETY: the mount is read-only and its source is not touched while the map lives.
        let map = unsafe { Mmap::map(&file).unwrap() };
        thread::scope(|scope| {
            for reader in 0..8usize {
                let (plain, file, map) = (&plain, &file, &map);
                scope.spawn(move || {
                    for step in 0..60 {
                        let at = (reader * 7919 + step * 104_729) % plain.len();
                        let len = (1 + step * 997).min(plain.len() - at);
                        let mut bytes = vec![0; len];
                        file.read_exact_at(&mut bytes, at as u64).unwrap();
                        assert!(bytes == plain[at..at + len] && map[at..at + len] == plain[at..at + len]);
                    }
                });
            }
        });
    }
}

#[test]
fn attributes_say_how_it_is_stored() {
    let mounted = Mounted::new(with(&["default_bf16".to_owned()]), "models");
    let shown = fs::metadata(mounted.path("default_bf16/model.safetensors")).unwrap();
    let container = fs::metadata(mounted.scratch.path("models/default_bf16/model.bs")).unwrap();
    assert_eq!(shown.len(), mounted.read("default_bf16/model.safetensors").len() as u64);
    assert_eq!(shown.modified().unwrap(), container.modified().unwrap());
    let attribute = |name: &str| {
        let mut value = [0; 4096];
        let len = rustix::fs::getxattr(mounted.path("default_bf16/model.safetensors"), name, &mut value[..])?;
        Ok::<_, rustix::io::Errno>(String::from_utf8(value[..len].to_vec()).unwrap())
    };
    assert!(attribute("user.bigsmall.codec").unwrap().starts_with("bf16_se_rans,"));
    assert!(attribute("user.bigsmall.ratio").unwrap().starts_with("0."));
    assert!(attribute("user.bigsmall.container").unwrap().ends_with("models/default_bf16/model.bs"));
    assert_eq!(attribute("user.bigsmall.sha256"), Err(rustix::io::Errno::NODATA), "it is not recorded");
    let mut names = [0; 4096];
    let len = rustix::fs::listxattr(mounted.path("default_bf16/model.safetensors"), &mut names[..]).unwrap();
    assert!(!String::from_utf8_lossy(&names[..len]).contains("sha256"));
}

#[test]
fn a_damaged_tensor_gives_eio_and_its_neighbours_do_not() {
    let scratch = with(&["default_bf16".to_owned()]);
    let path = scratch.path("models/default_bf16/model.bs");
    let mut file = fs::read(&path).unwrap();
    let data = 10 + u32::from_le_bytes(file[6..10].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[10..data]).unwrap();
    let tensors = header["tensors"].as_array().unwrap();
    let longest = tensors.iter().max_by_key(|tensor| tensor["compressed_bytes"].as_u64()).unwrap();
    let number = |key: &str| longest[key].as_u64().unwrap() as usize;
    file[data + number("offset") + number("compressed_bytes") / 2] ^= 0x10;
    scratch.ok("decompress -q models/default_bf16/model.bs -o plain.safetensors");
    fs::write(&path, file).unwrap();
    let plain = scratch.read("plain.safetensors");
    let bad = longest["name"].as_str().unwrap().to_owned();
    let tensors = safetensors::SafeTensors::deserialize(&plain).unwrap();
    let mounted = Mounted::with_options(scratch, "models/default_bf16", "--log log");
    let shown = File::open(mounted.path("model.safetensors")).unwrap();
    let place = |data: &[u8]| data.as_ptr() as usize - plain.as_ptr() as usize;
    let pages = |data: &[u8]| place(data) / 4096..(place(data) + data.len()).div_ceil(4096);
    let lost = pages(tensors.tensor(&bad).unwrap().data());
    let mut neighbours = 0;
    for (name, tensor) in tensors.iter() {
        let at = place(tensor.data());
        let mut bytes = vec![0; tensor.data().len().min(100)];
        let read = shown.read_exact_at(&mut bytes, at as u64);
        if name == bad {
            assert_eq!(errno(read), EIO);
        } else if !lost.contains(&(at / 4096)) {
            // The kernel reads whole pages.
            read.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(bytes == tensor.data()[..bytes.len()], "{name}");
            neighbours += 1;
        }
    }
    assert!(neighbours >= 3, "{neighbours}");
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains("model.bs") && log.contains(&bad), "{log}");
}

#[test]
fn the_package_s_parity_repairs_what_is_read() {
    let (scratch, from) = (Scratch::new(), Path::new(UPSTREAM).join("ecc"));
    for (name, of) in [("model.bs", "damaged"), ("model.bs.ecc", "model.bs.ecc"), ("sound.bs", "model.bs")] {
        scratch.write(format!("models/{name}"), fs::read(from.join(of)).unwrap());
    }
    let mounted = Mounted::with_options(scratch, "models", "--log log");
    assert!(mounted.read("model.safetensors") == mounted.read("sound.safetensors"));
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains("model.bs: tensor \"") && log.contains("it was restored from the sidecar"), "{log}");
    assert!(mounted.scratch.read("models/model.bs") == fs::read(from.join("damaged")).unwrap());
}

#[test]
fn what_cannot_be_shown_is_the_file_that_it_is() {
    let scratch = Scratch::new();
    copy_upstream(&scratch, "delta", "models");
    scratch.write("models/base.safetensors", "whatever");
    scratch.write("models/dual.bs", b"BGSD\x02\0\x02\0\0\0{}");
    let said = scratch.run(["mount", "models/patch.bs", "models"]).stderr;
    assert!(said.contains("the difference from another model"), "{said}");
    scratch.write("models/bigsmall.index.json", "nonsense");
    let mounted = Mounted::with_options(scratch, "models", "--log log");
    assert_eq!(mounted.names(), ["base.safetensors", "bigsmall.index.json", "dual.bs", "patch.bs"]);
    assert_eq!(mounted.read("dual.bs"), b"BGSD\x02\0\x02\0\0\0{}");
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains("in two qualities") && log.contains("bigsmall.index.json"), "{log}");
}
