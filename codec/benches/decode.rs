//! How fast chunks are decoded, beside `memcpy` of the same bytes: gigabytes of output a second, the best of many runs.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench decode [-- FILTER...]
//! ```
//!
//! Real weights are taken from `data/` where `scripts/test-data.sh` has made them, else made up. `FILTER`s leave out
//! lines that contain none of them. Columns: what is decoded, the chunk size, the implementation, GB/s on one thread and
//! its ratio to `memcpy`, GB/s on two threads and its ratio to one. The checksum is not counted; the implementation
//! `whole` is the way that a reader of a container takes, with the copy out of the file and the checksum.

use std::path::Path;
use std::time::{Duration, Instant};

use bigsmall_codec::bench::{Chunks, implementations};
use bigsmall_codec::container::{Options, compress};
use bigsmall_codec::{ChunkIndex, Container, Memory, Original};

/// Bytes of each original that are decoded: more than the caches near a core hold.
const LEN: usize = 24 << 20;

/// How long each measurement goes on, at least.
const TIME: Duration = Duration::from_millis(400);

const CHUNK_SIZES: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];

/// The files that are decoded, and of which dtype they are.
const FILES: [(&str, &str, usize); 6] = [
    ("BF16", "data/minilm-bf16/model.safetensors", 2),
    ("F16", "data/minilm-f16/model.safetensors", 2),
    ("F32", "data/minilm-f32/model.safetensors", 4),
    ("BF16 in F32", "data/minilm-bf16-in-f32/model.safetensors", 4),
    ("F8_E4M3", "data/minilm-fp8/model.safetensors", 1),
    ("F32, 7 zero bits", "data/crepe-f32/model.safetensors", 4),
];

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |line: &str| filters.is_empty() || filters.iter().any(|filter| line.contains(filter.as_str()));
    println!("{:<18}{:>6}  {:<12}{:>7}{:>9}{:>11}{:>8}", "", "KiB", "", "GB/s", "/memcpy", "2 threads", "/1");
    let originals = FILES.iter().map(|&(name, path, size)| (name, original(path, size))).chain([("I8", integers())]);
    for (name, original) in originals {
        for chunk_size in CHUNK_SIZES {
            let label = format!("{name:<18}{:>6}", chunk_size >> 10);
            let names: Vec<&str> = implementations().chain(["whole"]).collect();
            if !names.iter().any(|implementation| wanted(&format!("{label}  {implementation}"))) {
                continue;
            }
            let mut container = Vec::new();
            let options = Options { chunk_size, ..Options::default() };
            compress(&Memory::new(original.clone()), "model.safetensors", &options, &mut container, &())
                .expect("the bench's originals compress");
            let chunks = Chunks::of(container.clone()).expect("what was compressed can be read");
            let whole = Container::from_store(Box::new(Memory::new(container))).expect("it can");
            for implementation in names {
                let label = format!("{label}  {implementation:<12}");
                if !wanted(&label) {
                    continue;
                }
                let decode = |out: &mut [u8]| {
                    if implementation != "whole" {
                        return chunks.decode(implementation, out).expect("sound chunks decode");
                    }
                    for chunk in (0..whole.grid().chunks()).map(ChunkIndex) {
                        let range = whole.grid().range(chunk);
                        whole
                            .decode_chunk(chunk, &mut out[range.start as usize..range.end as usize])
                            .expect("as above");
                    }
                };
                let len = if implementation == "whole" { original.len() } else { chunks.original_len() };
                measure(&label, len, &original, decode);
            }
        }
    }
}

/// Times `decode`, which writes `len` bytes, and copying as many, in turn, and prints a line.
fn measure(label: &str, len: usize, original: &[u8], decode: impl Fn(&mut [u8]) + Sync) {
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
    println!("{label}{one:>7.2}{:>9.2}{two:>11.2}{:>8.2}", one / memcpy, two / one);
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// The first [`LEN`] bytes of the tensors of a file, as one tensor of elements of `size` bytes; or weights made up.
fn original(path: &str, size: usize) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let dtype = ["F8_E4M3", "BF16", "", "F32"][size - 1];
    let weights = match std::fs::read(&path) {
        Ok(file) => {
            let header = u64::from_le_bytes(file[..8].try_into().expect("a header")) as usize;
            let dtype = if path.to_string_lossy().contains("-f16") { "F16" } else { dtype };
            return model(dtype, size, &file[8 + header..][..LEN.min(file.len() - 8 - header)]);
        }
        Err(_) => (0..LEN / size).map(|_| 0.05 * normal()),
    };
    let bytes: Vec<u8> = match size {
        1 => weights.map(|w| ((w.to_bits() >> 24 & 0x80) as u8) | (w.abs().to_bits() >> 20) as u8 & 0x7f).collect(),
        2 => weights.flat_map(|w| ((w.to_bits() >> 16) as u16).to_le_bytes()).collect(),
        _ => weights.flat_map(f32::to_le_bytes).collect(),
    };
    model(dtype, size, &bytes)
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
