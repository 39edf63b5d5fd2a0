//! The models that were seen, with their sketches: `bigsmall/models.json` in the user's cache directory.
//!
//! It saves reading models again, and finds them again where no directory is named. It may be deleted at any time; what is wrong with
//! it is ignored, and it is written anew as a whole. Of two commands that write it at once, the later one's is kept.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bigsmall_codec::output::{Attributes, Existing, NewFile};
use bigsmall_codec::sketch::{Sampled, Sketch};
use bigsmall_fs::models::{ModelFiles, Part};
use serde::{Deserialize, Serialize};

use crate::ui::hex;

/// The version of the file; another one is taken for none.
const VERSION: u32 = 2;

/// How many models are kept, those seen last, and the most bytes of a file that is read: a model takes some 35 kB.
const MOST_MODELS: usize = 256;
const MOST_BYTES: u64 = 64 << 20;

/// The models that were seen.
#[derive(Default)]
pub struct Registry {
    /// Where it is; `None` when the user has no place for it.
    path: Option<PathBuf>,
    models: Vec<Seen>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    version: u32,
    models: Vec<Seen>,
}

/// A model as it was when it was seen.
#[derive(Serialize, Deserialize)]
struct Seen {
    files: Vec<SeenFile>,
    /// When, in seconds since 1970.
    seen: u64,
    /// Bytes of its tensors.
    tensor_bytes: u64,
    samples: Vec<Sample>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct SeenFile {
    path: String,
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct Sample {
    tensor: String,
    dtype: String,
    shape: Vec<u64>,
    weight: f64,
    /// Hexadecimal digits.
    values: String,
}

impl Registry {
    /// What is known; nothing if there is no such file, or it is not what it should be.
    pub fn load() -> Registry {
        let path = place();
        let models = path.as_deref().and_then(read).unwrap_or_default();
        Registry { path, models }
    }

    /// The models that are still what they were.
    pub fn models(&self) -> Vec<ModelFiles> {
        self.models.iter().filter_map(Seen::candidate).collect()
    }

    /// The sketch of a model, if that is what it was.
    pub fn sketch(&self, model: &ModelFiles) -> Option<Sketch> {
        let files = seen_files(model)?;
        self.models.iter().find(|seen| seen.files == files)?.sketch()
    }

    /// Keeps the sketch of a model.
    pub fn remember(&mut self, model: &ModelFiles, sketch: &Sketch) {
        // Names that are not Unicode are not kept.
        let Some(files) = seen_files(model) else { return };
        let same_place = |seen: &Seen| seen.files.iter().map(|file| &file.path).eq(files.iter().map(|file| &file.path));
        self.models.retain(|seen| !same_place(seen));
        let samples = sketch.samples.iter().map(|sample| Sample {
            tensor: sample.name.clone(),
            dtype: sample.dtype.clone(),
            shape: sample.shape.clone(),
            weight: sample.weight,
            values: hex(&sample.values),
        });
        let seen = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.models.push(Seen { files, seen, tensor_bytes: sketch.len, samples: samples.collect() });
    }

    /// Writes it, if it can be written: it is worth having, but nothing depends on it.
    pub fn save(mut self) {
        let Some(path) = self.path else { return };
        self.models.sort_by_key(|seen| std::cmp::Reverse(seen.seen));
        self.models.truncate(MOST_MODELS);
        let json = serde_json::to_vec(&Json { version: VERSION, models: self.models });
        let json = json.expect("numbers and names only");
        if let Err(error) = write(&path, &json) {
            tracing::debug!("{}: {error}", path.display());
        }
    }
}

fn write(path: &Path, json: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(path.parent().expect("it lies in a directory"))?;
    let mut file = NewFile::create(path, Existing::Replace)?;
    file.write_all(json)?;
    let attributes = Attributes::of(&file.file().metadata()?);
    Ok(file.commit(&attributes)?)
}

fn read(path: &Path) -> Option<Vec<Seen>> {
    let mut json = Vec::new();
    File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut json).ok()?;
    let Json { version, models } = serde_json::from_slice(&json).ok()?;
    (version == VERSION).then_some(models)
}

/// Where it is.
fn place() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(cache.join("bigsmall").join("models.json"))
}

/// The files of a model as they are now; `None` when a name is not Unicode.
fn seen_files(model: &ModelFiles) -> Option<Vec<SeenFile>> {
    let seen = |Part { path, metadata }: &Part| {
        Some(SeenFile {
            path: path.to_str()?.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    };
    model.parts.iter().map(seen).collect()
}

impl Seen {
    /// The model, if its files are still what they were.
    fn candidate(&self) -> Option<ModelFiles> {
        let now = ModelFiles::of(self.files.iter().map(|file| PathBuf::from(&file.path))).ok()?;
        (!now.parts.is_empty() && seen_files(&now)? == self.files).then_some(now)
    }

    fn sketch(&self) -> Option<Sketch> {
        let sampled = |sample: &Sample| {
            Some(Sampled {
                name: sample.tensor.clone(),
                dtype: sample.dtype.clone(),
                shape: sample.shape.clone(),
                weight: Some(sample.weight).filter(|weight| weight.is_finite() && *weight >= 0.0)?,
                values: unhex(&sample.values)?,
            })
        };
        let samples = self.samples.iter().map(sampled).collect::<Option<Vec<_>>>()?;
        Some(Sketch { samples, len: self.tensor_bytes })
    }
}

/// What [`hex`] was made of.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_is_found_until_it_changes() {
        let path = std::env::temp_dir().join(format!("bigsmall-registry-test-{}", std::process::id()));
        fs::write(&path, "model").unwrap();
        let model = || ModelFiles::of([path.clone()]).unwrap();
        let sample = |values: &[u8]| Sampled {
            name: "a".to_owned(),
            dtype: "BF16".to_owned(),
            shape: vec![1],
            weight: 2.0,
            values: values.to_vec(),
        };
        let sketch = |values| Sketch { samples: vec![sample(values)], len: 2 };
        let mut registry = Registry::default();
        registry.remember(&model(), &sketch(&[1, 2]));
        registry.remember(&model(), &sketch(&[0x0f, 0xf0]));
        assert_eq!(registry.models()[0].parts[0].path, path);
        assert_eq!(registry.sketch(&model()), Some(sketch(&[0x0f, 0xf0])));
        fs::write(&path, "longer").unwrap();
        assert_eq!(registry.models().len(), 0);
        assert_eq!(registry.sketch(&model()), None);
        fs::remove_file(&path).unwrap();
        assert_eq!((unhex("0"), unhex("0g"), unhex("Ff00")), (None, None, Some(vec![255, 0])));
    }
}
