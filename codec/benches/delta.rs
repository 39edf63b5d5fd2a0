//! How fast the differences of a model to its base are decoded and encoded in memory, by dtype and by implementation, on one thread.
//! Bytes are those of the model.
//!
//! ```text
//! [BIGSMALL_PAIR=BASE,TUNED] cargo bench -p bigsmall-codec --bench delta -- [--quick] [--implementation NAME] [--json FILE] [FILTER...]
//! ```
//!
//! `BIGSMALL_PAIR` names two safetensors files, such as `scripts/make_finetune.py` makes. Without it the bases are files that
//! `scripts/test-data.sh` makes in `data/`, with `--quick` one that is in the repository, and each model is its base with noise added to
//! every weight. `FILTER`s leave out the pairs whose names contain none of them. Columns: the pair; the implementation; % of the
//! original; decoding, as a ratio to `memcpy` and in GB/s; encoding with tables at hand, in GB/s. Only floats that changed and
//! have a base are in it, in chunks of the default size; the base and the chunks are in memory, the base's checksum is taken.

mod support;

use std::path::PathBuf;

use bigsmall_codec::Memory;
use bigsmall_codec::bench::{Differences, moved};
use serde_json::json;
use support::{Settings, copy_pieces, read, speed};

/// Files of `data/` and the noise that is added to them.
const PAIRS: [(&str, &str, f32); 3] = [
    ("BF16, noise 1e-4", "minilm-bf16/model.safetensors", 1e-4),
    ("F16, noise 1e-4", "minilm-f16/model.safetensors", 1e-4),
    ("F32, noise 1e-5", "minilm-f32/model.safetensors", 1e-5),
];

fn main() {
    let mut settings = Settings::read();
    println!("{:<19}{:<12}{:>7}{:>9}{:>7}{:>9}", "differences", "", "%", "/memcpy", "GB/s", "encoding");
    if let Ok(pair) = std::env::var("BIGSMALL_PAIR") {
        let (base, tuned) = pair.split_once(',').expect("BIGSMALL_PAIR is two files with a comma between them");
        let files = [base, tuned].map(|file| Memory::new(read(&PathBuf::from(file))));
        return measure(&mut settings, "pair", &files[0], &files[1]);
    }
    let files = settings.files(false);
    for (what, path, noise) in PAIRS {
        let path = match files.iter().find(|(_, file)| file.ends_with(path)) {
            Some((_, file)) => file.clone(),
            // What is looked at quickly has floats of all kinds.
            None if what == PAIRS[0].0 => files[0].1.clone(),
            None => continue,
        };
        if settings.wants(what) {
            let base = Memory::new(read(&path));
            let tuned = moved(&base, noise).expect("the bench's originals are sound");
            measure(&mut settings, what, &base, &Memory::new(tuned));
        }
    }
}

/// Measures one pair.
fn measure(settings: &mut Settings, what: &str, base: &Memory, tuned: &Memory) {
    let mut pair = Differences::of(tuned, base).expect("the bench's originals are sound");
    let (bytes, tuned) = (pair.bytes(), pair.tuned());
    let mut out = vec![1; bytes];
    let memcpy = settings.best_of(&mut [Box::new(|| copy_pieces(&tuned, &mut out, 256 << 10))])[0];
    println!("{what:<19}{:<12}{:>7}{:>9.2}{:>7.2}", "memcpy", "", 1.0, speed(bytes, memcpy));
    for name in settings.implementations() {
        let stored = pair.encode(name);
        let encoding = settings.best_of(&mut [Box::new(|| _ = pair.encode(name))])[0];
        let decode = |out: &mut [u8]| pair.decode(name, out).expect("sound chunks decode");
        decode(&mut out);
        assert!(out == tuned, "{what}, {name}: it did not come back");
        let decoding = settings.best_of(&mut [Box::new(|| decode(&mut out))])[0];
        let percent = stored as f64 * 100.0 / bytes as f64;
        let ratio = memcpy.as_secs_f64() / decoding.as_secs_f64();
        let (gb_s, encode_gb_s) = (speed(bytes, decoding), speed(bytes, encoding));
        println!("{what:<19}{name:<12}{percent:>7.2}{ratio:>9.2}{gb_s:>7.2}{encode_gb_s:>9.2}");
        settings.record(&json!({
            "bench": "delta", "what": what, "bytes": bytes, "implementation": name, "percent": percent,
            "of_memcpy": ratio, "gb_s": gb_s, "encode_gb_s": encode_gb_s,
        }));
    }
}
