//! How fast weights are encoded and hashed, by dtype and by implementation, and how fast files are compressed as a whole.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench encode
//! ```
//!
//! The weights are those that `scripts/test-data.sh --large` prepares. Each figure is the best of many short runs, in
//! GB of the original a second on one core: the best is what the code can do, the rest is what else the machine did.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bigsmall_codec::bench::{Encode, implementations, md5_lanes};
use bigsmall_codec::container::{Element, compress};
use bigsmall_codec::{Options, PlainFile};
use md5::{Digest, Md5};
use sha2::Sha256;

/// Bytes of weights that are encoded again and again: they stay in the second level of the cache, so that the figure is
/// the encoder's and not the memory's.
const WEIGHTS: usize = 1 << 20;

/// What a figure is measured for.
const WORTH: Duration = Duration::from_millis(700);

fn main() {
    let memory = copy_speed();
    println!("copying {WEIGHTS} bytes: {memory:.1} GB/s");
    encoding();
    hashing();
    compressing();
}

/// Bytes a second of the fastest of many runs, in GB/s.
fn speed(bytes: usize, mut run: impl FnMut()) -> f64 {
    let end = Instant::now() + WORTH;
    let mut best = Duration::MAX;
    while Instant::now() < end {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    bytes as f64 / best.as_secs_f64() / 1e9
}

fn copy_speed() -> f64 {
    let (from, mut to) = (vec![1u8; WEIGHTS], vec![0u8; WEIGHTS]);
    speed(WEIGHTS, || black_box(&mut to[..]).copy_from_slice(black_box(&from)))
}

/// The file of that name under `data/`.
fn data(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name);
    assert!(path.exists(), "{} is missing: run scripts/test-data.sh --large", path.display());
    path
}

/// Weights from the middle of a file, whole elements of up to 8 bytes.
fn weights(name: &str) -> Vec<u8> {
    let file = File::open(data(name)).expect("it exists");
    let middle = file.metadata().expect("it is open").len() / 2;
    let mut header_len = [0; 8];
    file.read_exact_at(&mut header_len, 0).expect("it has a header");
    let begin = 8 + u64::from_le_bytes(header_len);
    let mut bytes = vec![0; WEIGHTS];
    file.read_exact_at(&mut bytes, begin + (middle - begin) / 8 * 8).expect("it is long enough");
    bytes
}

fn encoding() {
    let sets = [
        ("BF16", Element::Bf16, "minilm-bf16/model.safetensors"),
        ("BF16, conv net", Element::Bf16, "crepe-bf16/model.safetensors"),
        ("F16", Element::F16, "minilm-f16/model.safetensors"),
        ("F32", Element::F32, "minilm-f32/model.safetensors"),
        ("FP8", Element::F8E4M3, "minilm-fp8/model.safetensors"),
        ("BF16 as integers", Element::Bytes(2), "minilm-bf16/model.safetensors"),
    ];
    println!("\n{:<36}{:>12}{:>16}{:>9}", "encoding, GB/s on one core", "table at hand", "table fitted", "% of raw");
    for (name, element, file) in sets {
        let bytes = weights(file);
        for implementation in implementations() {
            let mut encode = Encode::fit(implementation, element, &bytes);
            let stored = encode.encode(&bytes);
            let at_hand = speed(bytes.len(), || {
                black_box(encode.encode(black_box(&bytes)));
            });
            let fitted = speed(bytes.len(), || {
                black_box(Encode::fit(implementation, element, black_box(&bytes)).encode(&bytes));
            });
            let what = format!("{name}, {}", implementation);
            println!("{what:<36}{at_hand:>12.2}{fitted:>16.2}{:>9.2}", stored as f64 / bytes.len() as f64 * 100.0);
        }
    }
}

fn hashing() {
    println!("\n{:<36}{:>12}", "hashing, GB/s on one core", "");
    let message = vec![7; 64 << 10];
    let show = |what: &str, speed: f64| println!("{what:<36}{speed:>12.2}");
    show("MD5, one stream", speed(message.len(), || _ = black_box(Md5::digest(black_box(&message)))));
    for implementation in implementations() {
        let all = speed(16 * message.len(), || {
            black_box(md5_lanes(implementation, [black_box(&message); 16]));
        });
        show(&format!("MD5, 16 streams, {}", implementation), all);
    }
    show("SHA-256", speed(message.len(), || _ = black_box(Sha256::digest(black_box(&message)))));
}

/// Throws away what is written.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compressing() {
    println!("\n{:<36}{:>12}{:>16}", "compressing, GB/s", "1 thread", "2 threads");
    for folder in ["large-bf16", "minilm-bf16", "minilm-f32", "minilm-f16", "minilm-fp8"] {
        let source = PlainFile::open(&data(folder).join("model.safetensors")).expect("it can be read");
        let len = source.file().metadata().expect("it is open").len() as usize;
        let speeds = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be had");
            let run = || compress(&source, "model.safetensors", &Options::default(), &mut Nowhere, &());
            // Once to have the file in the page cache, and then at least three times.
            let runs = (0..4).map(|_| speed(len, || _ = pool.install(run).expect("it can be compressed")));
            runs.skip(1).fold(0.0, f64::max)
        });
        println!("{folder:<36}{:>12.2}{:>16.2}", speeds[0], speeds[1]);
    }
}
