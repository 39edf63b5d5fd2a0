//! How small tensors get that are not plain weights, beside Zstandard: a table for `docs/research.md`.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench special [-- FILTER...]
//! ```
//!
//! They are made from the weights of `data/minilm-f32` where `scripts/test-data.sh` has made that, else from noise.
//! Columns: % of the file that the container takes in each mode, that `zstd -3` and `zstd -19` take; the codecs of the
//! default mode with their share of the chunks; decoding the whole container on one thread, in GB/s. A line that begins
//! with `!` is more than 0.5 % larger than `zstd -3` or 0.1 % larger than the file.

#[path = "../tests/support/special.rs"]
mod special;

use std::path::Path;
use std::time::{Duration, Instant};

use bigsmall_codec::container::{Mode, Options, compress};
use bigsmall_codec::{Container, Memory, Original};
use safetensors::SafeTensors;
use special::{COLUMNS, Input, inputs, made_up_weights};

/// Rows of the matrix that all is made from.
const ROWS: usize = 2048;

/// Bytes of a container that are not for its chunks.
const FIXED: usize = 1024;

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    println!(
        "{:<8} {:<32}{:>9}{:>9}{:>9}{:>9}{:>9}  GB/s, codecs",
        "", "", "balanced", "storage", "infer.", "zstd -3", "zstd -19"
    );
    for input in inputs(&weights()) {
        let label = format!("{:<8} {:<32}", input.dtype, input.name);
        if filters.is_empty() || filters.iter().any(|filter| label.contains(filter.as_str())) {
            measure(&label, &input);
        }
    }
}

/// Weights of dense layers, or noise in their place.
fn weights() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/minilm-f32/model.safetensors");
    let Ok(file) = std::fs::read(path) else {
        println!("data/minilm-f32 is missing: the weights are made up");
        return made_up_weights(ROWS, 1);
    };
    let file = SafeTensors::deserialize(&file).expect("the test data are sound");
    let mut names: Vec<&str> = file.names().into_iter().filter(|name| name.contains("dense.weight")).collect();
    names.sort_unstable();
    let tensors = names.into_iter().map(|name| file.tensor(name).expect("it is one of them"));
    let tensors = tensors.filter(|tensor| tensor.shape().last().is_some_and(|&columns| columns % COLUMNS == 0));
    let words = tensors.flat_map(|tensor| tensor.data().as_chunks().0.to_vec()).map(f32::from_le_bytes);
    words.take(ROWS * COLUMNS).collect()
}

fn measure(label: &str, input: &Input) {
    let file = input.file();
    let percent = |len: usize| len as f64 * 100.0 / file.len() as f64;
    let zstd = |level| zstd::bulk::compress(&file, level).expect("Zstandard compresses any bytes").len();
    let (fast, small) = (zstd(3), zstd(19));
    let of_mode = |mode: Mode| {
        let mut container = Vec::new();
        let options = Options { mode, chunk_size: mode.chunk_size() };
        compress(&Memory::new(file.clone()), "model.safetensors", &options, &mut container, &())
            .expect("the bench's originals compress");
        container
    };
    let [balanced, storage, inference] = [Mode::Balanced, Mode::Storage, Mode::Inference].map(of_mode);
    let most = balanced.len().max(storage.len());
    let bad = most > fast + fast / 200 + FIXED || most > file.len() + file.len() / 1000 + FIXED;
    let sizes = [balanced.len(), storage.len(), inference.len(), fast, small];
    let container = Container::from_store(Box::new(Memory::new(balanced))).expect("what was compressed can be read");
    let chunks = container.grid().chunks() as f64;
    let usage = container.codec_usage();
    let usage = usage.iter().map(|usage| format!("{} {:.0}", usage.codec.name(), usage.chunks as f64 * 100.0 / chunks));
    let mut out = vec![0; file.len()];
    let speed = speed(file.len(), || container.read_at(0, &mut out).expect("it is sound"));
    assert!(out == file, "{label} did not come back");
    let sizes: String = sizes.iter().map(|&len| format!("{:>9.3}", percent(len))).collect();
    println!("{}{label}{sizes} {speed:>5.1} {}", if bad { "!" } else { " " }, usage.collect::<Vec<_>>().join(", "));
}

/// Bytes a second of the fastest of some runs, in GB/s.
fn speed(bytes: usize, mut run: impl FnMut()) -> f64 {
    let end = Instant::now() + Duration::from_millis(60);
    let mut best = Duration::MAX;
    while Instant::now() < end {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    bytes as f64 / best.as_secs_f64() / 1e9
}
