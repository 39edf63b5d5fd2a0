//! How fast whole files are encoded in memory, by dtype, by implementation, by chunk size, on one thread and on two, beside
//! `memcpy`, Zstandard and LZ4 in the same chunks. Bytes are those of the original.
//!
//! ```text
//! cargo bench -p bigsmall-codec --bench encode -- [--quick] [--json FILE] [--file FILE] [--implementation NAME] [FILTER...]
//! ```
//!
//! The files are those that `scripts/test-data.sh --large` makes in `data/`; `--quick` looks once at little data that is in
//! the repository; each `--file` names one to be measured instead. `FILTER`s leave out the cases that contain none of them, such as `"balanced 256"`. Columns: what is
//! encoded, the mode, KiB a chunk, the implementation; % of the original; the speed on one thread as a ratio to `zstd -1`
//! and in GB/s; that on two, and its ratio to one. An implementation plans each segment, fits its tables and encodes it,
//! hashing nothing; `..., planned` encodes with plans at hand. `whole` is `compress`, with all hashes, which shares one
//! file between the threads; the others encode all of it on each.

mod support;

use std::io::{self, Write};
use std::time::Duration;

use bigsmall_codec::bench::Encode;
use bigsmall_codec::container::{Options, compress};
use bigsmall_codec::{Memory, PlainFile};
use rayon::ThreadPool;
use serde_json::json;
use support::{Settings, at_once, copy, copy_pieces, name_of, speed};

fn main() {
    let mut settings = Settings::read();
    println!("{:<33}{:<21}{:>7}{:>9}{:>7}{:>11}{:>6}", "encoding", "", "%", "/zstd -1", "GB/s", "2 threads", "/1");
    for (what, path) in settings.files(false) {
        for options in support::cases() {
            let label = label(&what, &options);
            if settings.wants(&label) {
                encode(&mut settings, &what, &support::read(&path), options);
            }
        }
    }
    // What is too large to be in memory several times goes from the page cache to nowhere.
    for (what, path) in settings.files(true) {
        let options = Options::default();
        if settings.wants(&label(&what, &options)) {
            let file = PlainFile::open(&path).unwrap_or_else(|e| panic!("{e}: run scripts/test-data.sh --large"));
            let len = file.file().metadata().expect("it is open").len() as usize;
            let [one, two] = &[pool(1), pool(2)];
            let run = |pool: &ThreadPool| {
                let summary = pool.install(|| compress(&file, "model.safetensors", &options, &mut Nowhere, &()));
                summary.expect("the bench's originals compress").stored_len
            };
            let stored = run(two);
            let times = settings.best_of(&mut [Box::new(|| _ = run(one)), Box::new(|| _ = run(two))]);
            report(&mut settings, &what, &options, "whole", (len, stored as usize), [times[0], times[1]], (1, None));
        }
    }
}

/// What a case is called in the table.
fn label(what: &str, options: &Options) -> String {
    format!("{what:<17}{:<10}{:>5} ", name_of(options.mode), options.chunk_size >> 10)
}

/// A pool of so many threads.
fn pool(threads: usize) -> ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be had")
}

/// Encodes one piece of a file.
type EncodePiece = fn(&[u8]) -> Vec<u8>;

/// One way to encode a file.
struct Way<'a> {
    name: String,
    stored: usize,
    /// Encodes it on one thread, and on two.
    runs: [Box<dyn FnMut() + 'a>; 2],
}

/// Measures one file in one mode and chunk size.
fn encode(settings: &mut Settings, what: &str, original: &[u8], options: Options) {
    let chunk_size = options.chunk_size as usize;
    let source = Memory::new(original.to_vec());
    let mut outs = [vec![1; original.len()], vec![1; original.len()], vec![1; original.len()]];
    let [alone, first, second] = &mut outs;
    let mut ways = vec![Way {
        name: "memcpy".to_owned(),
        stored: original.len(),
        runs: [
            Box::new(|| copy_pieces(original, alone, chunk_size)),
            Box::new(|| at_once(|| copy(original, first), || copy(original, second))),
        ],
    }];
    for name in settings.implementations() {
        for planned in [false, true] {
            let [mut alone, mut first, mut second] = [(); 3]
                .map(|()| Encode::new(name, &source, options.clone()).expect("the bench's options are possible"));
            let run = move |encode: &mut Encode<'_>| match planned {
                true => encode.encode(),
                false => encode.plan_and_encode().expect("as above"),
            };
            ways.push(Way {
                name: if planned { format!("{name}, planned") } else { name.to_owned() },
                stored: run(&mut alone),
                runs: [
                    Box::new(move || _ = run(&mut alone)),
                    Box::new(move || at_once(|| _ = run(&mut first), || _ = run(&mut second))),
                ],
            });
        }
    }
    let others: [(&str, EncodePiece); 2] = [
        ("zstd -1", |piece| zstd::bulk::compress(piece, 1).expect("Zstandard compresses any bytes")),
        ("lz4", lz4_flex::block::compress),
    ];
    for (name, encode) in others {
        let run = move || original.chunks(chunk_size).map(|piece| encode(piece).len()).sum();
        ways.push(Way {
            name: name.to_owned(),
            stored: run(),
            runs: [Box::new(move || _ = run()), Box::new(move || at_once(|| _ = run(), || _ = run()))],
        });
    }

    let (named, mut runs): (Vec<_>, Vec<_>) = ways.into_iter().map(|way| ((way.name, way.stored), way.runs)).unzip();
    let mut runs: Vec<_> = runs.drain(..).flatten().collect();
    let times = settings.best_of(&mut runs);
    let zstd = named.iter().position(|(name, _)| name == "zstd -1").map(|at| times[2 * at]);
    for ((name, stored), times) in named.iter().zip(times.as_chunks().0) {
        report(settings, what, &options, name, (original.len(), *stored), *times, (2, zstd));
    }
}

/// Prints and records a line: bytes of the original and of what is stored; the times on one thread and on two, which encode
/// `originals.0` originals; and the time that Zstandard takes, if that is known.
fn report(
    settings: &mut Settings,
    what: &str,
    options: &Options,
    name: &str,
    (len, stored): (usize, usize),
    times: [Duration; 2],
    (originals, zstd): (usize, Option<Duration>),
) {
    let (one, two) = (speed(len, times[0]), speed(originals * len, times[1]));
    let ratio = zstd.map(|zstd| zstd.as_secs_f64() / times[0].as_secs_f64());
    let shown = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let percent = stored as f64 * 100.0 / len as f64;
    let label = label(what, options);
    println!("{label}{name:<21}{percent:>7.2}{shown:>9}{one:>7.2}{two:>11.2}{:>6.2}", two / one);
    settings.record(&json!({
        "bench": "encode", "what": what, "bytes": len, "mode": name_of(options.mode),
        "chunk_kib": options.chunk_size >> 10, "implementation": name, "percent": percent,
        "of_zstd": ratio, "gb_s": one, "two_threads_gb_s": two,
    }));
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
