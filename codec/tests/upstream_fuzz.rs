//! Mutation fuzzing of the reader of the Python package's files, as an ordinary test.
//!
//! The fixtures are changed in a few places, headers as JSON and stored bytes as bytes, without the MD5s that would find it.
//! Contract: whatever the bytes, opening and reading gives an error or some bytes. Never a panic, never a hang, never more
//! memory than the bound for a tensor.
//!
//! `BIGSMALL_FUZZ_SECONDS` sets how long it runs (2 seconds unless set); `scripts/fuzz.sh` runs it for long. A failure names its
//! seed; `BIGSMALL_FUZZ_SEED` repeats it.

#[path = "support/random.rs"]
mod random;
#[path = "support/upstream.rs"]
mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bigsmall_codec::upstream::{HubIndex, UpstreamFile};
use bigsmall_codec::{Memory, Original, PlainFile};
use random::Random;
use serde_json::{Value, json};
use support::{Parts, containers, fixtures};

/// How long one file may take. The slowest honest one takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

impl Random {
    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Something else of the same kind, or of another.
fn mutate_value(value: &mut Value, random: &mut Random) {
    match value {
        Value::Array(values) if !values.is_empty() && random.below(4) > 0 => {
            let number = random.below(values.len());
            match random.below(4) {
                0 => drop(values.remove(number)),
                1 => values.push(values[number].clone()),
                _ => mutate_value(&mut values[number], random),
            }
        }
        Value::Object(map) if !map.is_empty() && random.below(4) > 0 => {
            let key = map.keys().nth(random.below(map.len())).expect("there are so many").clone();
            match random.below(5) {
                0 => drop(map.remove(&key)),
                _ => mutate_value(&mut map[&key], random),
            }
        }
        Value::Number(number) if random.below(4) > 0 => {
            let near = number.as_u64().unwrap_or(0);
            *value = match random.below(5) {
                0 => near.wrapping_add(1).into(),
                1 => near.wrapping_sub(1).into(),
                2 => (1u64 << random.below(64)).into(),
                3 => near.wrapping_mul(2).into(),
                _ => random.next().into(),
            };
        }
        _ => {
            *value = match random.below(6) {
                0 => Value::Null,
                1 => json!([]),
                2 => json!({}),
                3 => random.next().into(),
                4 => "x".into(),
                _ => json!(-1.5),
            }
        }
    }
}

/// Changes something of the file, whose other parts stay as they were.
fn mutate(parts: &mut Parts, random: &mut Random) {
    let data_len = parts.data.len();
    match random.below(8) {
        0 => mutate_value(&mut parts.header, random),
        // What one tensor is said to be, another is.
        1 | 2 => {
            let key = *random.of(&["codec", "dtype", "shape", "offset", "compressed_bytes", "extra", "name"]);
            let tensors = parts.tensors();
            let (from, to) = (random.below(tensors.len()), random.below(tensors.len()));
            let value = tensors[from].get(key).cloned().unwrap_or_default();
            // One that was changed may be no object any more.
            if let Some(tensor) = tensors[to].as_object_mut() {
                tensor.insert(key.to_owned(), value);
            }
        }
        3 => {
            let codecs = [
                "raw",
                "zstd",
                "tied_ref",
                "special",
                "bf16_se_rans",
                "bf16_se_ac",
                "bf16_se_tans",
                "fp32_se_ac",
                "bf16_se_single_kernel",
                "bf16_parallel_v1",
                "bf16_sparsity_v1",
                "fp2_residual_v1",
                "bf16_v8",
                "bf16_native_f32",
                "bf16_native_f32_v2",
                "fp16_se_ac",
                "fp8_cat_ac",
                "fp4_cat_ac",
                "group_stream_v1",
                "zstd_xor_delta",
            ];
            let codec = *random.of(&codecs);
            let tensors = parts.tensors();
            let number = random.below(tensors.len());
            if let Some(tensor) = tensors[number].as_object_mut() {
                tensor.insert("codec".to_owned(), codec.into());
            }
        }
        4 => parts.data.truncate(random.below(data_len + 1)),
        // Somewhere, or where a tensor begins: tables and lengths are there.
        _ => {
            for _ in 0..1 + random.below(4) {
                if parts.data.is_empty() {
                    return;
                }
                let starts = parts.tensors().iter().filter_map(|entry| entry["offset"].as_u64()).collect::<Vec<_>>();
                let near = if starts.is_empty() { 0 } else { *random.of(&starts) as usize };
                let at =
                    if random.below(2) == 0 { random.below(data_len) } else { near.saturating_add(random.below(200)) };
                let byte = match random.below(3) {
                    0 => random.next() as u8,
                    1 => 0xff,
                    _ => 1 << random.below(8),
                };
                if let Some(place) = parts.data.get_mut(at) {
                    *place = if random.below(2) == 0 { byte } else { *place ^ byte };
                }
            }
        }
    }
}

/// Opens and reads all of a file, whatever comes of it.
fn exercise(file: Vec<u8>, base: Option<&Arc<PlainFile>>, aliases: &[(&str, &str)]) {
    let Ok(mut file) = UpstreamFile::from_store(Box::new(Memory::new(file)), aliases, &Arc::default()) else { return };
    if let Some(base) = base {
        match file.with_base(Arc::clone(base) as Arc<dyn Original>) {
            Ok(with_base) => file = with_base,
            Err(_) => return,
        }
    }
    let usage = file.codec_usage();
    assert!(usage.iter().map(|usage| usage.pieces).sum::<u64>() == file.tensors().len() as u64);
    // Not all of what may be large, but the beginning of each tensor.
    for tensor in file.tensors() {
        let len = (tensor.range.end - tensor.range.start).min(100);
        let _ = file.read_at(tensor.range.start, &mut vec![0; len as usize]);
    }
}

#[test]
fn changed_files_give_errors_or_bytes() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = Duration::from_secs(variable("BIGSMALL_FUZZ_SECONDS").unwrap_or(2));
    let seed = variable("BIGSMALL_FUZZ_SEED");
    let first = seed.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64));
    let sound: Vec<(Parts, bool)> = containers()
        .iter()
        .map(|path| {
            let parts = Parts::of(&fs::read(path).unwrap()).without_md5s();
            (parts, path.file_name().is_some_and(|name| name == "patch.bs"))
        })
        .collect();
    let base = Arc::new(PlainFile::open(&fixtures().join("delta/base.safetensors")).unwrap());
    let start = Instant::now();
    let mut runs = 0;
    for seed in (first..).take_while(|&number| seed.is_none() || number == first) {
        if start.elapsed() > limit && runs > 0 {
            break;
        }
        let mut random = Random(seed);
        let (parts, is_delta) = random.of(&sound);
        let mut parts = parts.clone();
        for _ in 0..1 + random.below(3) {
            if parts.header["tensors"].as_array().is_some_and(|tensors| !tensors.is_empty()) {
                mutate(&mut parts, &mut random);
            }
        }
        let file = parts.file();
        let begun = Instant::now();
        let base = is_delta.then_some(&base);
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(file, base, &[("alias", "a"), ("b", "alias")])));
        let outcome = outcome.and_then(|()| catch_unwind(AssertUnwindSafe(|| exercise(parts.file(), base, &[]))));
        assert!(outcome.is_ok(), "BIGSMALL_FUZZ_SEED={seed}: it panicked");
        assert!(begun.elapsed() < PATIENCE, "BIGSMALL_FUZZ_SEED={seed}: it took {:?}", begun.elapsed());
        runs += 1;
    }
    println!("{runs} files from seed {first}");
}

#[test]
fn changed_indices_give_errors_or_indices() {
    let sound: Value =
        serde_json::from_slice(&fs::read(fixtures().join("shards/bigsmall.index.json")).unwrap()).unwrap();
    for seed in 0..20_000 {
        let (mut index, mut random) = (sound.clone(), Random(seed));
        (0..1 + random.below(3)).for_each(|_| mutate_value(&mut index, &mut random));
        let Ok(index) = HubIndex::parse(&serde_json::to_vec(&index).unwrap()) else { continue };
        let loaders: Value = serde_json::from_str(&index.for_loaders()).unwrap();
        assert!(loaders["weight_map"].is_object());
        let _ = index.aliases_in("model-00001-of-00002.bs").count();
    }
}
