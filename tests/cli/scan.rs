//! `scan`: what is foretold, and what is found.

use std::fs;

use crate::support::*;

/// A safetensors file of these tensors: name, dtype, bytes of an element, bytes.
fn file(tensors: &[(&str, &str, usize, Vec<u8>)]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, size, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let elements = bytes.len() / size;
        entries.push(format!(
            "{name:?}:{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\"data_offsets\":[{start},{}]}}",
            data.len()
        ));
    }
    let mut file = safetensors(&format!("{{{}}}", entries.join(",")), 0);
    file.extend(data);
    file
}

fn f32s(numbers: impl Iterator<Item = f32>) -> Vec<u8> {
    numbers.flat_map(f32::to_le_bytes).collect()
}

/// Numbers that look like weights and are not in any shorter kind of float.
fn noise(len: usize, seed: u32) -> impl Iterator<Item = f32> {
    (0..len as u32).map(move |n| {
        let hash = (n ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b);
        f32::from_bits(0x3c00_0001 | hash & 0x8180_ffff | hash >> 9 & 0x007f_0000)
    })
}

#[test]
fn real_weights_are_foretold_to_three_tenths_of_a_point() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", fs::read(REAL_WEIGHTS).unwrap());
    let json = scratch.json("scan --json m.safetensors");
    let original = json["total"]["original_bytes"].as_u64().unwrap();
    assert_eq!(original, scratch.read("m.safetensors").len() as u64);
    for mode in ["balanced", "storage", "inference"] {
        let expected = json["total"]["modes"][mode]["container_bytes"].as_f64().unwrap();
        scratch.ok(&format!("compress -q -f --{mode} m.safetensors"));
        let really = scratch.read("m.bs").len() as f64;
        let points = (expected - really) * 100.0 / original as f64;
        assert!(points.abs() < 0.3, "--{mode}: {points} points");
    }
    assert_eq!(json["total"]["tensors"], 7);
    let dtypes: Vec<&serde_json::Value> =
        json["groups"].as_array().unwrap().iter().map(|group| &group["dtype"]).collect();
    assert_eq!(dtypes, ["I64", "F32", "F32", "BF16", "BF16", "F16", "F8_E4M3"]);
    let shown = scratch.ok("scan m.safetensors");
    assert!(shown.starts_with("m.safetensors: 560.0 kB, 7 tensors; all of it was coded\n\n  mode "), "{shown}");
    assert_eq!(scratch.ok("scan --quiet m.safetensors"), "");
    assert_eq!(scratch.names(), ["m.bs", "m.safetensors"], "nothing is written");
}

#[test]
fn what_is_odd_is_found() {
    let scratch = Scratch::new();
    let plain: Vec<u8> = f32s(noise(30_000, 1));
    let mut odd = plain.clone();
    odd[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    odd[800..804].copy_from_slice(&f32::INFINITY.to_le_bytes());
    odd[1200..1204].copy_from_slice(&1e30f32.to_le_bytes());
    let bf16 = f32s(noise(30_000, 2).map(|x| f32::from_bits(x.to_bits() & 0xffff_0000)));
    let f16 = f32s(noise(30_000, 3).map(|x| f32::from_bits(x.to_bits() & 0xffff_e000 | 0x2000)));
    let rounded = f32s(noise(30_000, 4).map(|x| f32::from_bits(x.to_bits() & 0xffff_ff80 | 0x80)));
    let sparse = f32s(noise(30_000, 5).enumerate().map(|(n, x)| if n % 4 == 0 { x } else { 0.0 }));
    let tiny = f32s((0..30_000).map(|n| f32::from_bits(n * 7 + 1)));
    scratch.write(
        "m/a.safetensors",
        file(&[
            ("odd", "F32", 4, odd),
            ("layers.0.bf16", "F32", 4, bf16.clone()),
            ("layers.1.bf16", "F32", 4, f32s(noise(30_000, 6).map(|x| f32::from_bits(x.to_bits() & 0xffff_0000)))),
            ("half", "F32", 4, f16),
            ("rounded", "F32", 4, rounded),
            ("sparse", "F32", 4, sparse),
            ("tiny", "F32", 4, tiny),
            ("zeros", "F32", 4, vec![0; 120_000]),
            ("ones", "F32", 4, f32s([1.0; 30_000].into_iter())),
            ("tied", "F32", 4, plain.clone()),
            ("tied too", "F32", 4, plain.clone()),
        ]),
    );
    scratch
        .write("m/b.safetensors", file(&[("copy", "F32", 4, plain), ("packed", "U8", 1, [7, 9, 200].repeat(30_000))]));
    let json = scratch.json("scan --json m");
    let found: Vec<(&str, Vec<&str>)> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let tensors = finding["tensors"].as_array().unwrap().iter().map(|place| place["tensor"].as_str().unwrap());
            (finding["kind"].as_str().unwrap(), tensors.collect())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("nan", vec!["odd"]),
            ("infinity", vec!["odd"]),
            ("all_zero", vec!["zeros"]),
            ("far_exponents", vec!["odd"]),
            ("subnormal", vec!["tiny"]),
            ("bf16_in_f32", vec!["layers.0.bf16", "layers.1.bf16"]),
            ("f16_in_f32", vec!["half"]),
            ("low_zero_bits", vec!["rounded"]),
            ("constant", vec!["ones"]),
            ("sparse", vec!["sparse"]),
            ("duplicate", vec!["tied", "tied too", "copy"]),
            ("quantised", vec!["packed"]),
        ]
    );
    let shown = scratch.ok("scan m");
    for line in [
        "2 files: ",
        "  * not a number: 1 of those looked at, in odd\n",
        "  * zero everywhere: zeros\n",
        "  * BF16 numbers stored in F32, 240.0 kB: layers.*.bf16 (2)\n",
        "  * the low 7 bits of F32 are always zero, 120.0 kB: rounded\n",
        "  * sparse, 75 % zeros, 120.0 kB: sparse\n",
        "tied in m/a.safetensors = tied too in m/a.safetensors = copy in m/b.safetensors\n",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
}

#[test]
fn a_sample_does_and_a_bound_is_told() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", model(&[("t", "BF16", 2, 24_000_000)]));
    let json = scratch.json("scan --json --sample 4M m.safetensors");
    let coded = json["total"]["coded_bytes"].as_u64().unwrap();
    assert!((4_000_000..7_000_000).contains(&coded), "{coded}");
    let balanced = &json["total"]["modes"]["balanced"];
    scratch.ok("compress -q m.safetensors");
    let off = balanced["container_bytes"].as_f64().unwrap() - scratch.read("m.bs").len() as f64;
    assert!(off.abs() < 0.003 * 24e6, "{off}");
    assert!(balanced["error_bytes"].as_f64().unwrap() < 0.003 * 24e6);
    let full = scratch.json("scan --json --full m.safetensors");
    assert_eq!(full["total"]["coded_bytes"], full["total"]["original_bytes"]);
}

#[test]
fn the_base_of_a_fine_tune_is_suggested() {
    let scratch = Scratch::new();
    let base = model(&[("t", "BF16", 2, 600_000)]);
    let mut tuned = base.clone();
    let data = tuned.len() - 600_000;
    tuned[data..].iter_mut().step_by(6).for_each(|byte| *byte ^= 1);
    scratch.write("models/base.safetensors", base);
    scratch.write("tuned.safetensors", tuned);
    let json = scratch.json("scan --json --base-dir models tuned.safetensors");
    let choice = &json["bases"][0];
    assert!(choice["base"][0].as_str().unwrap().ends_with("models/base.safetensors"), "{choice}");
    scratch.ok("compress -q tuned.safetensors --delta-from models/base.safetensors");
    let expected = choice["expected_patch_bytes"].as_f64().unwrap();
    let off = expected / scratch.read("tuned.bs").len() as f64;
    assert!((0.7..1.4).contains(&off), "{expected} bytes are {off} of what it takes");
    let shown = scratch.ok("scan --base-dir models tuned.safetensors");
    assert!(shown.contains("base.safetensors is its base; a patch should take "), "{shown}");
    // Nothing is remembered by looking; what compress --auto-delta has seen is known.
    assert!(!scratch.path(".cache").exists());
    assert_eq!(scratch.json("scan --json tuned.safetensors")["bases"][0]["base"], serde_json::json!([]));
    assert!(!scratch.ok("scan tuned.safetensors").contains(" base"));
    fs::create_dir(scratch.path("none")).unwrap();
    let said = scratch.ok("scan --base-dir none tuned.safetensors");
    assert!(said.contains("tuned.safetensors: of 0 models, none is a base that pays"), "{said}");
    scratch.ok("compress -q tuned.safetensors -o p.bs --auto-delta --base-dir models");
    let said = scratch.ok("scan tuned.safetensors");
    assert!(said.contains("base.safetensors is its base; a patch should take "), "{said}");
    // So is what lies in the cache of the Hub.
    fs::remove_dir_all(scratch.path(".cache")).unwrap();
    fs::rename(scratch.path("models"), scratch.path("hub")).unwrap();
    let run: Run = scratch
        .command(BIGSMALL)
        .args(["scan", "tuned.safetensors"])
        .env("HF_HUB_CACHE", "hub")
        .output()
        .unwrap()
        .into();
    assert!(run.stdout.contains("hub/base.safetensors is its base; a patch should take "), "{run:?}");
}

#[test]
fn what_cannot_be_scanned_is_refused() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", small_model());
    scratch.ok("compress -q m.safetensors");
    assert_eq!(scratch.fails(2, "scan m.bs"), "bigsmall: m.bs: is a bigsmall container already\n");
    assert_eq!(scratch.fails(2, "scan nowhere"), "bigsmall: nowhere: no such file or directory\n");
    fs::create_dir(scratch.path("empty")).unwrap();
    let said = scratch.fails(2, "scan empty");
    assert_eq!(said, "bigsmall: empty: there is no .safetensors or .gguf file in it: nothing to scan\n");
    scratch.write("README", "Opaque. ".repeat(1000));
    let shown = scratch.ok("scan README");
    assert!(shown.contains("  * README: no tensors are known in it"), "{shown}");
    scratch.write("nothing", "");
    scratch.ok("scan nothing");
}
