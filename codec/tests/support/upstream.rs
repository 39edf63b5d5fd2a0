//! Files of the Python package taken apart and put together, for tests that forge them. Written from what is known of the
//! format, with nothing of the reader.

#![allow(dead_code, reason = "each of the test programs that include this file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What a file is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub version: u16,
    pub header: Value,
    pub data: Vec<u8>,
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its entry in the header. Offset and length are set when a file is made of it, and the MD5 is left away, so that what
    /// finds a forgery is not the MD5.
    pub entry: Value,
    pub blob: Vec<u8>,
}

impl Parts {
    pub fn of(file: &[u8]) -> Parts {
        let data = 10 + u32::from_le_bytes(file[6..10].try_into().unwrap()) as usize;
        Parts {
            version: u16::from_le_bytes([file[4], file[5]]),
            header: serde_json::from_slice(&file[10..data]).unwrap(),
            data: file[data..].to_vec(),
        }
    }

    pub fn file(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap();
        let mut file = b"BGSM".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((header.len() as u32).to_le_bytes());
        file.extend(header);
        file.extend(&self.data);
        file
    }

    pub fn tensors(&mut self) -> &mut Vec<Value> {
        self.header["tensors"].as_array_mut().unwrap()
    }

    /// Leaves away what every tensor's MD5 should be.
    pub fn without_md5s(mut self) -> Parts {
        self.tensors().iter_mut().for_each(|entry| entry["md5"] = Value::Null);
        self
    }
}

impl Stored {
    pub fn new(dtype: &str, shape: &[u64], codec: &str, extra: Value, blob: impl Into<Vec<u8>>) -> Stored {
        let entry = json!({ "name": "t", "dtype": dtype, "shape": shape, "codec": codec, "extra": extra });
        Stored { entry, blob: blob.into() }
    }

    /// The first tensor of a fixture that is stored by `codec`.
    pub fn of_fixture(fixture: &str, codec: &str) -> Stored {
        let mut parts = Parts::of(&fs::read(fixtures().join(fixture).join("model.bs")).unwrap());
        let data = parts.data.clone();
        let entry = parts.tensors().iter().find(|entry| entry["codec"] == codec).expect("a tensor of that codec");
        let number = |key: &str| entry[key].as_u64().unwrap() as usize;
        let blob = data[number("offset")..][..number("compressed_bytes")].to_vec();
        Stored { entry: entry.clone(), blob }
    }

    /// The file of this tensor alone.
    pub fn file(&self) -> Vec<u8> {
        file(std::slice::from_ref(self))
    }
}

/// The file of these tensors.
pub fn file(tensors: &[Stored]) -> Vec<u8> {
    let mut data = Vec::new();
    let entries = tensors.iter().map(|Stored { entry, blob }| {
        let mut entry = entry.clone();
        (entry["offset"], entry["compressed_bytes"]) = (data.len().into(), blob.len().into());
        entry["md5"] = Value::Null;
        data.extend(blob);
        entry
    });
    let header = json!({ "tensors": entries.collect::<Vec<_>>() });
    Parts { version: 1, header, data }.file()
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstream")
}

/// All files of the fixtures.
pub fn containers() -> Vec<PathBuf> {
    let entries = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let directories = entries(&fixtures()).into_iter().filter(|path| path.is_dir());
    let mut containers: Vec<PathBuf> = directories
        .flat_map(|directory| entries(&directory))
        .filter(|path| path.extension().is_some_and(|extension| extension == "bs"))
        .collect();
    containers.sort();
    containers
}
