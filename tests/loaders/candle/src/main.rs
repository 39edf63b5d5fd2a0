//! Loads every tensor of the safetensors files of two directories with candle and compares them, to the bit: candle-loader
//! PLAIN SHOWN. Exits with 3 when they differ.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{Device, Tensor};

/// What a difference is reported with; 1 is any other failure.
const DIFFERENT: u8 = 3;

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory can be listed");
    let paths = entries.map(|entry| entry.expect("its entries too").path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    files.sort();
    files
}

/// The elements of a tensor as bytes, by way of integers, so that each bit counts.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let mut bytes = Vec::new();
    tensor.write_bytes(&mut bytes).expect("candle writes to memory");
    bytes
}

fn main() -> ExitCode {
    let directories: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [plain, shown] = &directories[..] else { panic!("usage: candle-loader PLAIN SHOWN") };
    let mut compared = 0;
    let (plain, shown) = (files(plain), files(shown));
    assert!(!plain.is_empty() && plain.len() == shown.len(), "as many files, and some");
    for (plain, shown) in plain.iter().zip(&shown) {
        // SAFETY: nobody changes the files meanwhile.
        let [plain, shown] = [plain, shown].map(|path| unsafe { MmapedSafetensors::new(path) }.expect("candle opens it"));
        let names = |file: &MmapedSafetensors| file.tensors().into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
        if names(&plain) != names(&shown) {
            return ExitCode::from(DIFFERENT);
        }
        for name in names(&plain) {
            let [a, b] = [&plain, &shown].map(|file| file.load(&name, &Device::Cpu).expect("candle loads it"));
            if (a.dtype(), a.dims()) != (b.dtype(), b.dims()) || bytes(&a) != bytes(&b) {
                println!("{name} differs");
                return ExitCode::from(DIFFERENT);
            }
            compared += 1;
        }
    }
    println!("candle: {compared} tensors are the same");
    ExitCode::SUCCESS
}
