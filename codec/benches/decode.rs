//! How fast whole files are decoded in memory, by dtype, by implementation, by chunk size, on one thread and on two, beside
//! `memcpy` of as many bytes, Zstandard and LZ4 in the same chunks. Bytes are those of the original.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench decode -- [--quick] [--json FILE] [--file FILE] [--implementation NAME] [FILTER...]
//! ```
//!
//! The files are those that `scripts/test-data.sh` makes in `data/`; `--quick` looks once at little data that is in the
//! repository; each `--file` names one to be measured instead. `FILTER`s leave out the cases that contain none of them, such as `"balanced 256"`. Columns: what is decoded,
//! the mode, KiB a chunk, the implementation; % of the original; the speed on one thread as a ratio to `memcpy` and in
//! GB/s; that on two, each decoding all of it, and its ratio to one. Implementations are the instruction sets that
//! `BIGSMALL_SIMD` chooses from, checksums left out; `whole` is the way that a reader of a container takes, with the copy
//! out of the file and the checksums. `memcpy` is the faster of one call and a call for each chunk.

mod support;

use std::time::Duration;

use bigsmall_codec::bench::Chunks;
use bigsmall_codec::container::{Options, compress};
use bigsmall_codec::{ChunkIndex, Container, Memory, Original};
use serde_json::json;
use support::{Settings, at_once, copy, copy_pieces, name_of, speed};

/// Decodes all of a file.
type Decode<'a> = Box<dyn Fn(&mut [u8]) + Sync + 'a>;

fn main() {
    let mut settings = Settings::read();
    println!("{:<33}{:<12}{:>7}{:>9}{:>7}{:>11}{:>6}", "decoding", "", "%", "/memcpy", "GB/s", "2 threads", "/1");
    for (what, path) in settings.files(false) {
        for options in support::cases() {
            let label = format!("{what:<17}{:<10}{:>5} ", name_of(options.mode), options.chunk_size >> 10);
            if settings.wants(&label) {
                decode(&mut settings, &what, &label, &support::read(&path), options);
            }
        }
    }
}

/// Measures one file in one mode and chunk size.
fn decode(settings: &mut Settings, what: &str, label: &str, original: &[u8], options: Options) {
    let mut container = Vec::new();
    compress(&Memory::new(original.to_vec()), "model.safetensors", &options, &mut container, &())
        .expect("the bench's originals compress");
    let our_size = container.len();
    let chunks = Chunks::of(container).expect("what was compressed can be read");
    let chunk_size = options.chunk_size as usize;
    let pieces = original.chunks(chunk_size);
    let zstd: Vec<Vec<u8>> =
        pieces.clone().map(|piece| zstd::bulk::compress(piece, 1).expect("Zstandard compresses any bytes")).collect();
    let lz4: Vec<Vec<u8>> = pieces.map(lz4_flex::block::compress).collect();
    let size_of = |pieces: &[Vec<u8>]| pieces.iter().map(Vec::len).sum::<usize>();

    let mut ways: Vec<(&str, usize, Decode<'_>)> = vec![
        ("memcpy", original.len(), Box::new(|out| copy(original, out))),
        ("memcpy", original.len(), Box::new(|out| copy_pieces(original, out, chunk_size))),
    ];
    for name in settings.implementations() {
        let chunks = &chunks;
        let decode: Decode<'_> = Box::new(move |out| chunks.decode(name, out).expect("sound chunks decode"));
        ways.push((name, our_size, decode));
    }
    ways.push(("whole", our_size, Box::new(|out| read_all(chunks.container(), out))));
    ways.push((
        "zstd -1",
        size_of(&zstd),
        Box::new(|out| {
            for (stored, out) in zstd.iter().zip(out.chunks_mut(chunk_size)) {
                zstd::bulk::decompress_to_buffer(stored, out).expect("a sound frame");
            }
        }),
    ));
    ways.push((
        "lz4",
        size_of(&lz4),
        Box::new(|out| {
            for (stored, out) in lz4.iter().zip(out.chunks_mut(chunk_size)) {
                lz4_flex::block::decompress_into(stored, out).expect("a sound block");
            }
        }),
    ));

    let mut outs = [vec![1; original.len()], vec![1; original.len()]];
    for (name, _, decode) in &ways {
        decode(&mut outs[0]);
        assert!(outs[0] == original, "{label}{name} did not come back");
    }
    let (times, times_of_two) = time(settings, &ways, &mut outs);
    let usage: Vec<_> =
        chunks.container().codec_usage().iter().map(|u| json!([u.codec.name(), u.original_len])).collect();

    let memcpy = times[0].min(times[1]);
    for (number, (name, size, _)) in ways.iter().enumerate().skip(1) {
        let time = if number == 1 { memcpy } else { times[number] };
        let time_of_two = if number == 1 { times_of_two[0].min(times_of_two[1]) } else { times_of_two[number] };
        let (one, two) = (speed(original.len(), time), speed(2 * original.len(), time_of_two));
        let ratio = memcpy.as_secs_f64() / time.as_secs_f64();
        let percent = *size as f64 * 100.0 / original.len() as f64;
        println!("{label}{name:<12}{percent:>7.2}{ratio:>9.2}{one:>7.2}{two:>11.2}{:>6.2}", two / one);
        settings.record(&json!({
            "bench": "decode", "what": what, "bytes": original.len(),
            "mode": name_of(options.mode), "chunk_kib": options.chunk_size >> 10, "implementation": name,
            "percent": percent, "of_memcpy": ratio, "gb_s": one, "two_threads_gb_s": two, "codecs": usage,
        }));
    }
}

/// The best times of each way alone, and with another thread beside it that does the same.
fn time(
    settings: &Settings,
    ways: &[(&str, usize, Decode<'_>)],
    outs: &mut [Vec<u8>; 2],
) -> (Vec<Duration>, Vec<Duration>) {
    let outs = std::cell::RefCell::new(outs);
    let mut runs: Vec<Box<dyn FnMut() + '_>> = Vec::new();
    for (_, _, decode) in ways {
        runs.push(Box::new(|| decode(&mut outs.borrow_mut()[0])));
        runs.push(Box::new(|| {
            let [first, second] = &mut **outs.borrow_mut();
            at_once(|| decode(first), || decode(second));
        }));
    }
    let times = settings.best_of(&mut runs);
    (times.iter().step_by(2).copied().collect(), times.iter().skip(1).step_by(2).copied().collect())
}

/// Reads all of a container as its readers do.
fn read_all(container: &Container, out: &mut [u8]) {
    for chunk in (0..container.grid().chunks()).map(ChunkIndex) {
        let range = container.grid().range(chunk);
        container.decode_chunk(chunk, &mut out[range.start as usize..range.end as usize]).expect("a sound chunk");
    }
}
