//! A library in the place of NVIDIA's driver: kernels run on the processor, or it is a driver that does not work.

#![allow(dead_code, reason = "each of the test programs that include this file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The folder of one that works, for `LD_LIBRARY_PATH`.
pub static WORKING: LazyLock<PathBuf> = LazyLock::new(|| compile("working", None));

/// The folder of one that does this when it is started.
pub fn broken(name: &str, what_it_does: &str) -> PathBuf {
    compile(name, Some(what_it_does))
}

fn compile(name: &str, what_it_does: Option<&str>) -> PathBuf {
    // Of the program, and of the C interface.
    let codec =
        ["codec", ".."].map(|codec| Path::new(env!("CARGO_MANIFEST_DIR")).join(codec).join("src/cuda/emulator"));
    let sources = codec.into_iter().find(|sources| sources.is_dir()).expect("the emulator is part of the codec");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("driver-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or("c++".into()));
    compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fno-strict-aliasing"]);
    compiler.args(["-fPIC", "-shared", "-I"]).arg(&sources);
    compiler.args(what_it_does.map(|does| format!("-DBREAK={does}")));
    compiler.args([sources.join("libcuda.cpp"), sources.join("fibres.cpp")]).arg("-o").arg(folder.join("libcuda.so.1"));
    let compiled = compiler.output().expect("a C++ compiler is needed to test GPUs: install g++, or set CXX");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    folder
}
