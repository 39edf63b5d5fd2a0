//! The interface as C and Python see it: a program that the host's compiler made, and a script.

#[cfg(feature = "cuda")]
#[path = "../../../tests/cli/driver.rs"]
mod driver;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bigsmall_codec::container::{compress, compress_patch};
use bigsmall_codec::patch::Model;
use bigsmall_codec::{Memory, Options};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Where cargo has put the library.
fn library_folder() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    assert!(folder.join("libbigsmall.so").exists(), "there is no libbigsmall.so in {}", folder.display());
    folder
}

/// The program of this source.
fn program_of(source: &str, folder: &Path) -> PathBuf {
    let program = folder.join(source).with_extension("");
    let compiled = Command::new(std::env::var_os("CC").unwrap_or("cc".into()))
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I"])
        .arg(here().join("include"))
        .arg(here().join("tests").join(source))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(library_folder())
        .args(["-lbigsmall", "-ldl"])
        .arg(format!("-Wl,-rpath,{}", library_folder().display()))
        .output()
        .expect("a C compiler is needed to test the C interface: install gcc, or set CC");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    program
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What the program and the script say about a file, which must be the same.
fn said(program: &Path, files: &[&Path]) -> String {
    let c = Command::new(program).args(files).output().unwrap();
    let python = Command::new("python3")
        .arg(here().join("tests/bigsmall.py"))
        .arg(library_folder().join("libbigsmall.so"))
        .args(files)
        .output()
        .expect("Python is needed to test that it can use the C interface");
    assert_eq!(text(&c), text(&python), "C and Python");
    assert_eq!(c.status.code(), python.status.code());
    text(&c)
}

/// A file of three tensors: BF16, F32 with so much added to its elements, and one of no elements.
fn model(added: f32) -> Vec<u8> {
    let floats: Vec<f32> = (0..30_000).map(|at| (at as f32 * 0.37).sin() + added).collect();
    let wide: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    let short: Vec<u8> = floats.iter().flat_map(|float| ((float.to_bits() >> 16) as u16).to_le_bytes()).collect();
    let (all, middle) = (wide.len() + short.len(), short.len());
    let header = format!(
        r#"{{"a.weight":{{"dtype":"BF16","shape":[300,100],"data_offsets":[0,{middle}]}},"b":{{"dtype":"F32","shape":[30000],"data_offsets":[{middle},{all}]}},"none":{{"dtype":"F8_E5M2","shape":[0,7],"data_offsets":[{all},{all}]}}}}"#
    );
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &short, &wide].concat()
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// What is said about such a file.
fn expected(model: &[u8]) -> String {
    let data = &model[8 + u64::from_le_bytes(model[..8].try_into().unwrap()) as usize..];
    let (short, wide) = data.split_at(60_000);
    format!(
        "{} bytes\na.weight BF16 4:16 [300, 100] 60000 {:016x}\nb F32 2:32 [30000] 120000 {:016x}\nnone F8_E5M2 12:8 [0, 7] 0 {:016x}\n",
        model.len(),
        fnv(short),
        fnv(wide),
        fnv(&[])
    )
}

#[test]
fn c_and_python_see_what_is_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let program = program_of("example.c", folder.path());
    let (base, tuned) = (model(0.0), model(0.0001));
    std::fs::write(path("plain.safetensors"), &base).unwrap();
    let mut stored = Vec::new();
    compress(&Memory::new(base.clone()), "plain.safetensors", &Options::default(), &mut stored, &()).unwrap();
    std::fs::write(path("model.bs"), &stored).unwrap();
    let (mut known, mut patch) = (Model::new("plain"), Vec::new());
    known.add("plain.safetensors", Arc::new(Memory::new(base.clone()))).unwrap();
    let tuned_file = Memory::new(tuned.clone());
    compress_patch(&tuned_file, "tuned.safetensors", &Options::default(), &known, &mut patch, &()).unwrap();
    std::fs::write(path("patch.bs"), &patch).unwrap();

    assert_eq!(said(&program, &[&path("plain.safetensors")]), expected(&base));
    assert_eq!(said(&program, &[&path("model.bs")]), expected(&base));
    for its_base in ["plain.safetensors", "model.bs"] {
        assert_eq!(said(&program, &[&path("patch.bs"), &path(its_base)]), expected(&tuned), "{its_base}");
    }

    let missing = said(&program, &[&path("missing.bs")]);
    assert!(missing.starts_with("error 9: ") && missing.contains("missing.bs"), "{missing}");
    let alone = said(&program, &[&path("patch.bs")]);
    assert!(alone.starts_with("error 6: ") && alone.contains("\"plain\""), "{alone}");
    std::fs::write(path("other.safetensors"), model(1.0)).unwrap();
    let wrong = said(&program, &[&path("patch.bs"), &path("other.safetensors")]);
    assert!(wrong.starts_with("error 7: ") && wrong.contains("patch.bs"), "{wrong}");
    std::fs::write(path("text.txt"), "no model at all").unwrap();
    let nothing = said(&program, &[&path("text.txt")]);
    assert!(nothing.starts_with("error 2: ") && nothing.contains("text.txt"), "{nothing}");
    let middle = stored.len() / 2;
    stored[middle] ^= 1;
    std::fs::write(path("model.bs"), &stored).unwrap();
    let damaged = said(&program, &[&path("model.bs")]);
    assert!(damaged.contains("error 1: "), "{damaged}");
}

/// With a library in the place of the driver.
#[cfg(feature = "cuda")]
#[test]
fn tensors_are_left_on_a_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let program = program_of("gpu.c", folder.path());
    let original = model(0.0);
    std::fs::write(path("plain.safetensors"), &original).unwrap();
    let mut stored = Vec::new();
    compress(&Memory::new(original.clone()), "plain.safetensors", &Options::default(), &mut stored, &()).unwrap();
    std::fs::write(path("model.bs"), &stored).unwrap();
    let data = &original[8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize..];
    let (short, wide) = data.split_at(60_000);
    let expected =
        format!("a.weight 60000 {:016x}\nb 120000 {:016x}\nnone 0 {:016x}\n", fnv(short), fnv(wide), fnv(&[]));
    for name in ["plain.safetensors", "model.bs"] {
        let run = Command::new(&program).arg(path(name)).env("LD_LIBRARY_PATH", &*driver::WORKING).output().unwrap();
        assert_eq!((text(&run), run.status.code()), (expected.clone(), Some(0)), "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    use bigsmall::*;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.safetensors");
    std::fs::write(&path, model(0.0)).unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut file = std::ptr::null_mut();
    // SAFETY: pointers are null, or to what is alive and can be written.
    unsafe {
        assert_eq!(bigsmall_open(std::ptr::null(), std::ptr::null(), 0, &mut file), Code::InvalidArgument);
        assert_eq!(bigsmall_open(path.as_ptr(), std::ptr::null(), 1, &mut file), Code::InvalidArgument);
        assert_eq!(bigsmall_open(path.as_ptr(), std::ptr::null(), 0, std::ptr::null_mut()), Code::InvalidArgument);
        assert_eq!(bigsmall_open(path.as_ptr(), std::ptr::null(), 0, &mut file), Code::Ok);
        let len = bigsmall_len(file);
        let mut bytes = vec![0u8; 200];
        let to = bytes.as_mut_ptr().cast();
        assert_eq!(bigsmall_read(file, len - 200, to, 200), Code::Ok);
        assert_eq!(bigsmall_read(file, len - 199, to, 200), Code::InvalidArgument);
        assert_eq!(bigsmall_read(file, u64::MAX, to, 200), Code::InvalidArgument);
        assert_eq!(bigsmall_read(file, 0, std::ptr::null_mut(), 1), Code::InvalidArgument);
        assert_eq!(bigsmall_read(file, len, std::ptr::null_mut(), 0), Code::Ok);
        assert_eq!(bigsmall_read(std::ptr::null(), 0, to, 1), Code::InvalidArgument);
        let mut tensor = std::mem::MaybeUninit::<Tensor>::uninit();
        assert_eq!(bigsmall_tensor_at(file, 2, tensor.as_mut_ptr()), Code::Ok);
        assert_eq!(bigsmall_tensor_at(file, 3, tensor.as_mut_ptr()), Code::InvalidArgument);
        assert_eq!(bigsmall_tensor_at(file, 0, std::ptr::null_mut()), Code::InvalidArgument);
        assert_eq!(bigsmall_find(file, c"b".as_ptr(), tensor.as_mut_ptr()), Code::Ok);
        assert_eq!(bigsmall_find(file, c"c".as_ptr(), tensor.as_mut_ptr()), Code::InvalidArgument);
        let said = std::ffi::CStr::from_ptr(bigsmall_error()).to_str().unwrap();
        assert_eq!(said, "there is no tensor \"c\"");
        let mut gpu = std::ptr::null_mut();
        let opened = bigsmall_gpu_open(1000, &mut gpu);
        assert_eq!(opened, if cfg!(feature = "cuda") { Code::Device } else { Code::Unsupported });
        bigsmall_gpu_close(gpu);
        bigsmall_close(file);
        bigsmall_close(std::ptr::null_mut());
        assert_eq!((bigsmall_len(std::ptr::null()), bigsmall_tensor_count(std::ptr::null())), (0, 0));
    }
}
