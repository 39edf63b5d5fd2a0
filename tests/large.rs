//! Files that are larger than numbers of 32 bits, and models of very many tensors.

#[path = "cli/support.rs"]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use bigsmall_codec::{Container, Original};
use support::*;

#[test]
fn files_beyond_4_gib_and_tensors_beyond_2_to_the_32_elements_are_read_anywhere() {
    let scratch = Scratch::new();
    // In bytes and in elements; a little more than either limit, with something at its very end.
    const ELEMENTS: u64 = (1 << 32) + 1001;
    let header = format!(
        "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{ELEMENTS}],\"data_offsets\":[0,{ELEMENTS}]}},\
         \"b\":{{\"dtype\":\"BF16\",\"shape\":[500],\"data_offsets\":[{ELEMENTS},{}]}}}}",
        ELEMENTS + 1000
    );
    let start = safetensors(&header, 0);
    let data = start.len() as u64;
    let path = scratch.write("m.safetensors", &start);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let len = data + ELEMENTS + 1000;
    file.set_len(len).unwrap();
    // The rest is a hole, which takes no room.
    let places = [data + 77, data + (1 << 31), data + (1 << 32) - 3, data + (1 << 32) + 999, len - 9];
    for (number, place) in places.iter().enumerate() {
        file.write_all_at(&[number as u8 + 1; 9], *place).unwrap();
    }
    let said = scratch.json("compress --json m.safetensors");
    assert_eq!(said["files"][0]["original_bytes"], len);
    assert!(fs::metadata(scratch.path("m.bs")).unwrap().len() < 1 << 20);
    let container = Container::open(&scratch.path("m.bs")).unwrap();
    assert_eq!((container.len(), container.tensors()[0].shape[0]), (len, ELEMENTS));
    let (mut have, mut want) = (vec![0; 4000], vec![0; 4000]);
    for place in places.into_iter().chain([0, data, (1 << 32) - 2000, len - 4000]) {
        let at = place.saturating_sub(1000).min(len - 4000);
        container.read_at(at, &mut have).unwrap();
        file.read_exact_at(&mut want, at).unwrap();
        assert!(have == want, "bytes from {at} on");
    }
    scratch.ok("verify -q --sample 0.02 m.bs");
    // A sidecar of so small a container, and a patch of a hole in what is compared, are tried elsewhere.
    let said = scratch.json("info --json m.bs");
    assert_eq!(said["containers"][0]["original_bytes"], len);
}

#[test]
fn a_hundred_thousand_tensors_come_back_and_are_found() {
    let scratch = Scratch::new();
    const TENSORS: usize = 100_000;
    let names: Vec<String> =
        (0..TENSORS).map(|number| format!("model.layers.{}.weight.{number}", number % 97)).collect();
    let tensors: Vec<(&str, &str, u64, usize)> =
        names.iter().enumerate().map(|(number, name)| (name.as_str(), "BF16", 2, number % 40 * 2)).collect();
    let original = model(&tensors);
    scratch.write("m.safetensors", &original);
    scratch.ok("compress -q m.safetensors");
    assert!(fs::metadata(scratch.path("m.bs")).unwrap().size() < original.len() as u64);
    let verified = scratch.json("verify --json m.bs");
    assert_eq!((&verified["files"][0]["tensors"], &verified["sound"]), (&TENSORS.into(), &1.into()));
    scratch.ok("decompress -q m.bs -o out");
    assert!(scratch.read("out") == original);
}
