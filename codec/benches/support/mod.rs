//! What the benches share: their options, their files, and how they time and report.

#![allow(dead_code, reason = "no bench needs all of it")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bigsmall_codec::bench::implementations;
use bigsmall_codec::container::{Mode, Options};
use serde_json::Value;

/// The files of `data/` that are coded, and what they hold.
const FILES: [(&str, &str); 20] = [
    ("BF16", "minilm-bf16/model.safetensors"),
    ("BF16, conv net", "crepe-bf16/model.safetensors"),
    ("F16", "minilm-f16/model.safetensors"),
    ("F16, embeddings", "wordllama-f16/model.safetensors"),
    ("F32", "minilm-f32/model.safetensors"),
    ("F32, conv net", "crepe-f32/model.safetensors"),
    ("BF16 in F32", "minilm-bf16-in-f32/model.safetensors"),
    ("F8_E4M3", "minilm-fp8/model.safetensors"),
    ("F8_E5M2", "minilm-e5m2/model.safetensors"),
    ("I8", "minilm-i8/model.safetensors"),
    ("GGUF F16", "llama-f16/model.gguf"),
    ("GGUF Q8_0", "llama-q8_0/model.gguf"),
    ("GGUF Q6_K", "llama-q6_k/model.gguf"),
    ("GGUF Q5_K_M", "llama-q5_k_m/model.gguf"),
    ("GGUF Q4_K_M", "llama-q4_k_m/model.gguf"),
    ("GGUF Q4_0", "llama-q4_0/model.gguf"),
    ("GGUF Q3_K_M", "llama-q3_k_m/model.gguf"),
    ("GGUF Q2_K", "llama-q2_k/model.gguf"),
    ("GGUF IQ4_XS", "llama-iq4_xs/model.gguf"),
    ("BF16, 1.2 GB", "large-bf16/model.safetensors"),
];

/// How long the ways of one case are measured in turn, and how often at least: the best of them counts, since whatever else
/// the machine does only ever makes a run slower.
const TIME: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

/// What a bench is asked for: `cargo bench --bench NAME -- [--quick] [--json FILE] [--file FILE] [--implementation NAME] [FILTER...]`.
#[derive(Debug)]
pub struct Settings {
    /// Whether one look at little data is enough.
    pub quick: bool,
    filters: Vec<String>,
    json: Option<File>,
    /// The files to measure instead of those of `data/`.
    files: Vec<String>,
    /// The implementation to measure alone.
    implementation: Option<String>,
}

impl Settings {
    /// Those of the command line.
    pub fn read() -> Settings {
        let value = |option: &str, value: Option<String>| value.unwrap_or_else(|| panic!("{option} needs a value"));
        let mut settings =
            Settings { quick: false, filters: Vec::new(), json: None, files: Vec::new(), implementation: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => settings.quick = true,
                "--file" => settings.files.push(value("--file", arguments.next())),
                "--implementation" => settings.implementation = Some(value("--implementation", arguments.next())),
                "--json" => {
                    let path = value("--json", arguments.next());
                    let file = OpenOptions::new().append(true).create(true).open(&path);
                    settings.json = Some(file.unwrap_or_else(|e| panic!("{path}: {e}")));
                }
                "--bench" => {} // which cargo adds
                option if option.starts_with('-') => panic!("{option} is no option of this bench"),
                _ => settings.filters.push(argument),
            }
        }
        settings
    }

    /// Whether a line with this label is wanted: one that holds any of the filters.
    pub fn wants(&self, label: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| label.contains(filter.as_str()))
    }

    /// Adds a line to the file that `--json` names, if it does.
    pub fn record(&mut self, line: &Value) {
        if let Some(json) = &mut self.json {
            writeln!(json, "{line}").expect("the results can be written");
        }
    }

    /// The implementations of this processor that are wanted.
    ///
    /// # Panics
    /// When it lacks the one that is asked for.
    pub fn implementations(&self) -> Vec<&'static str> {
        let wanted = |name: &&str| self.implementation.as_deref().is_none_or(|wanted| wanted == *name);
        let all: Vec<_> = implementations().filter(wanted).collect();
        assert!(!all.is_empty(), "this processor has no implementation {:?}", self.implementation);
        all
    }

    /// The files that are wanted, each with what it is called: those of `data/`, or with `--quick` some rows of them, which are in
    /// the repository, or those that `--file` names.
    ///
    /// `with_large` adds one that is too large to be decoded into memory many times.
    pub fn files(&self, with_large: bool) -> Vec<(String, PathBuf)> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        if !self.files.is_empty() {
            return self.files.iter().map(|file| (file.clone(), PathBuf::from(file))).collect();
        }
        if self.quick {
            return vec![("slices".to_owned(), here.join("tests/slices/slices.safetensors"))];
        }
        let files = FILES.iter().take(FILES.len() - usize::from(!with_large));
        files.map(|&(what, path)| (what.to_owned(), here.join("../data").join(path))).collect()
    }

    /// The best time of each of these ways, measured in turn: all of them have good and bad luck with the machine alike.
    pub fn best_of(&self, ways: &mut [Box<dyn FnMut() + '_>]) -> Vec<Duration> {
        let mut best = vec![Duration::MAX; ways.len()];
        let start = Instant::now();
        let mut rounds = 0;
        while rounds < if self.quick { 1 } else { ROUNDS } || (!self.quick && start.elapsed() < TIME) {
            for (best, way) in best.iter_mut().zip(&mut *ways) {
                let start = Instant::now();
                way();
                *best = start.elapsed().min(*best);
            }
            rounds += 1;
        }
        best
    }
}

/// The modes and chunk sizes that are measured: each mode with its own, and the default mode with some others.
pub fn cases() -> impl Iterator<Item = Options> {
    let of = |mode: Mode, chunk_size| Options { mode, chunk_size };
    let others = [64 << 10, 1 << 20].map(|chunk_size| of(Mode::Balanced, chunk_size));
    [Mode::Balanced, Mode::Storage, Mode::Inference].map(|mode| of(mode, mode.chunk_size())).into_iter().chain(others)
}

/// What a mode is called on the command line.
pub fn name_of(mode: Mode) -> &'static str {
    match mode {
        Mode::Storage => "storage",
        Mode::Balanced => "balanced",
        Mode::Inference => "inference",
    }
}

/// The bytes of a file.
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}: run scripts/test-data.sh", path.display()))
}

/// Billions of bytes a second.
pub fn speed(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// Copies all of `from` at once.
pub fn copy(from: &[u8], to: &mut [u8]) {
    to.copy_from_slice(std::hint::black_box(from));
}

/// Copies `from` piece by piece: a copy longer than the caches goes around them, which is not always faster.
pub fn copy_pieces(from: &[u8], to: &mut [u8], piece: usize) {
    for (from, to) in from.chunks(piece).zip(to.chunks_mut(piece)) {
        copy(from, to);
    }
}

/// Runs both at the same time, on a thread each.
pub fn at_once(first: impl FnOnce() + Send, second: impl FnOnce()) {
    std::thread::scope(|scope| {
        scope.spawn(first);
        second();
    });
}
