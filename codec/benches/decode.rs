//! How fast chunks are decoded, beside `memcpy` of the same bytes, Zstandard and LZ4: gigabytes of output a second, the best
//! of many runs.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench decode [-- FILTER...]
//! ```
//!
//! The files are those that `scripts/test-data.sh` makes in `data/`, and integers made up. `FILTER`s leave out lines that
//! contain none of them. Columns: what is decoded, the chunk size, the implementation, GB/s on one thread and its ratio to
//! `memcpy`, GB/s on two threads and its ratio to one. The checksum is not counted; the implementation `whole` is the way
//! that a reader of a container takes, with the copy out of the file and the checksum. Where the environment names a file in
//! `BIGSMALL_BENCH_JSON`, each line is appended to it too, as JSON.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bigsmall_codec::bench::{Chunks, implementations};
use bigsmall_codec::container::{Options, compress};
use bigsmall_codec::{ChunkIndex, Container, Memory, Original};

/// Bytes of an original that is made up: more than the caches near a core hold.
const LEN: usize = 24 << 20;

/// How long each measurement goes on, at least.
const TIME: Duration = Duration::from_millis(400);

const CHUNK_SIZES: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];

/// The files that are decoded.
const FILES: [(&str, &str); 8] = [
    ("BF16", "minilm-bf16"),
    ("BF16, conv net", "crepe-bf16"),
    ("F16", "minilm-f16"),
    ("F16, embeddings", "wordllama-f16"),
    ("F32", "minilm-f32"),
    ("F32, conv net", "crepe-f32"),
    ("BF16 in F32", "minilm-bf16-in-f32"),
    ("F8_E4M3", "minilm-fp8"),
];

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |line: &str| filters.is_empty() || filters.iter().any(|filter| line.contains(filter.as_str()));
    println!("{:<18}{:>6}  {:<12}{:>7}{:>9}{:>11}{:>8}", "", "KiB", "", "GB/s", "/memcpy", "2 threads", "/1");
    let originals = FILES.iter().map(|&(name, folder)| (name, original(folder))).chain([("I8", integers())]);
    for (name, original) in originals {
        for chunk_size in CHUNK_SIZES {
            let label = format!("{name:<18}{:>6}", chunk_size >> 10);
            let names: Vec<&str> = implementations().chain(["whole", "zstd -1", "lz4"]).collect();
            if !names.iter().any(|implementation| wanted(&format!("{label}  {implementation}"))) {
                continue;
            }
            let mut container = Vec::new();
            let options = Options { chunk_size, ..Options::default() };
            compress(&Memory::new(original.clone()), "model.safetensors", &options, &mut container, &())
                .expect("the bench's originals compress");
            let chunks = Chunks::of(container.clone()).expect("what was compressed can be read");
            let whole = Container::from_store(Box::new(Memory::new(container))).expect("it can");
            let pieces = original.chunks(chunk_size as usize);
            let zstd: Vec<Vec<u8>> = pieces
                .clone()
                .map(|piece| zstd::bulk::compress(piece, 1).expect("anything can be compressed"))
                .collect();
            let lz4: Vec<Vec<u8>> = pieces.map(lz4_flex::block::compress).collect();
            for implementation in names {
                let line = format!("{label}  {implementation:<12}");
                if !wanted(&line) {
                    continue;
                }
                let decode = |out: &mut [u8]| match implementation {
                    "whole" => {
                        for chunk in (0..whole.grid().chunks()).map(ChunkIndex) {
                            let range = whole.grid().range(chunk);
                            whole
                                .decode_chunk(chunk, &mut out[range.start as usize..range.end as usize])
                                .expect("as above");
                        }
                    }
                    "zstd -1" => {
                        for (stored, out) in zstd.iter().zip(out.chunks_mut(chunk_size as usize)) {
                            zstd::bulk::decompress_to_buffer(stored, out).expect("as above");
                        }
                    }
                    "lz4" => {
                        for (stored, out) in lz4.iter().zip(out.chunks_mut(chunk_size as usize)) {
                            lz4_flex::block::decompress_into(stored, out).expect("as above");
                        }
                    }
                    _ => chunks.decode(implementation, out).expect("sound chunks decode"),
                };
                let is_ours = implementations().any(|ours| ours == implementation);
                let len = if is_ours { chunks.original_len() } else { original.len() };
                measure(name, chunk_size, implementation, len, &original, decode);
            }
        }
    }
}

/// Times `decode`, which writes `len` bytes, and copying as many, in turn, and prints a line.
fn measure(
    name: &str,
    chunk_size: u32,
    implementation: &str,
    len: usize,
    original: &[u8],
    decode: impl Fn(&mut [u8]) + Sync,
) {
    let mut outs = [vec![1; len], vec![1; len]];
    let (mut copied, mut alone, mut together) = (Duration::MAX, Duration::MAX, Duration::MAX);
    let start = Instant::now();
    while start.elapsed() < TIME {
        copied = copied.min(time(|| outs[0].copy_from_slice(std::hint::black_box(&original[..len]))));
        alone = alone.min(time(|| decode(&mut outs[0])));
        let [first, second] = &mut outs;
        together = together.min(time(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| decode(first));
                decode(second);
            });
        }));
    }
    let speed = |bytes: usize, time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
    let (memcpy, one, two) = (speed(len, copied), speed(len, alone), speed(2 * len, together));
    let kib = chunk_size >> 10;
    println!("{name:<18}{kib:>6}  {implementation:<12}{one:>7.2}{:>9.2}{two:>11.2}{:>8.2}", one / memcpy, two / one);
    if let Some(path) = std::env::var_os("BIGSMALL_BENCH_JSON") {
        let line = serde_json::json!({
            "bench": "decode", "what": name, "chunk_kib": kib, "implementation": implementation,
            "gb_s": one, "memcpy_gb_s": memcpy, "two_threads_gb_s": two,
        });
        let mut file = OpenOptions::new().append(true).create(true).open(path).expect("it can be written to");
        writeln!(file, "{line}").expect("there is room");
    }
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// A file of `data/`.
fn original(folder: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(folder).join("model.safetensors");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run scripts/test-data.sh", path.display()))
}

/// Quantised weights.
fn integers() -> Vec<u8> {
    let bytes: Vec<u8> = (0..LEN).map(|_| (normal() * 20.0) as i8 as u8).collect();
    model("I8", 1, &bytes)
}

/// A safetensors file with one tensor.
fn model(dtype: &str, size: usize, bytes: &[u8]) -> Vec<u8> {
    let elements = bytes.len() / size;
    let mut header =
        format!(r#"{{"weights":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[0,{}]}}}}"#, elements * size);
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(&bytes[..elements * size]);
    file
}

/// Noise that is normally distributed, nearly.
fn normal() -> f32 {
    use std::cell::Cell;
    thread_local!(static STATE: Cell<u64> = const { Cell::new(1) });
    let uniform = || {
        let state = STATE.get().wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        STATE.set(state);
        (state >> 40) as f32 / 16_777_216.0
    };
    (0..12).map(|_| uniform()).sum::<f32>() - 6.0
}
