//! Which models there are in a directory, and where those of the Hugging Face Hub are: where bases of patches are looked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bigsmall_codec::container::EXTENSION;

/// The extensions of files that hold tensors.
const WEIGHTS: [&str; 3] = [EXTENSION, "safetensors", "gguf"];

/// A file that belongs to a model.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, links followed.
    pub metadata: Metadata,
}

/// The files of a model: one, or the parts that it is divided into.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// By name.
    pub parts: Vec<Part>,
}

impl ModelFiles {
    /// The model that consists of these files.
    ///
    /// # Errors
    /// When one is not there, or is no file.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<ModelFiles> {
        let part = |path: PathBuf| {
            let metadata = fs::metadata(&path)?;
            if metadata.is_file() { Ok(Part { path, metadata }) } else { Err(io::ErrorKind::InvalidInput.into()) }
        };
        Ok(ModelFiles { parts: paths.into_iter().map(part).collect::<io::Result<_>>()? })
    }

    /// Device and inode of each file: two names of a file lead to one model.
    pub fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        self.parts.iter().map(|part| (part.metadata.dev(), part.metadata.ino()))
    }
}

/// How much of a directory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What is in it.
    Itself,
    /// Also what is in the directories below it. Links are followed.
    AllBelow,
}

/// The models in a directory, by the names of their files. Models of which a part is missing are left out, and so are directories that cannot
/// be read.
///
/// # Errors
/// When the directory itself cannot be read.
pub fn in_directory(directory: &Path, depth: Depth) -> io::Result<Vec<ModelFiles>> {
    let mut found = Found::default();
    let metadata = fs::metadata(directory)?;
    found.add(directory, depth, &mut vec![(metadata.dev(), metadata.ino())])?;
    let complete = |(_, parts): &(PathBuf, BTreeMap<String, Part>)| {
        let first = parts.values().next().and_then(|part| part_of(part.path.file_name()));
        first.is_none_or(|(_, of)| parts.len() as u64 == of)
    };
    let models = found.models.into_iter().filter(complete);
    Ok(models.map(|(_, parts)| ModelFiles { parts: parts.into_values().collect() }).collect())
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    /// By what their parts have in common; the parts by their numbers. Of one that is there twice, as container and original, either will do.
    models: BTreeMap<PathBuf, BTreeMap<String, Part>>,
}

impl Found {
    /// Adds what is in a directory. `above` are the directories that lead to it, itself included.
    fn add(&mut self, directory: &Path, depth: Depth, above: &mut Vec<(u64, u64)>) -> io::Result<()> {
        let mut names: Vec<_> = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        names.sort_unstable();
        for name in names {
            let path = directory.join(name);
            let weights = path.extension().is_some_and(|extension| WEIGHTS.iter().any(|known| extension == *known));
            if depth == Depth::Itself && !weights {
                continue;
            }
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_file() && weights {
                let (whole, number) = whole_of(&path);
                self.models.entry(whole).or_default().entry(number).or_insert(Part { path, metadata });
            } else if metadata.is_dir() && depth == Depth::AllBelow {
                let place = (metadata.dev(), metadata.ino());
                if !above.contains(&place) {
                    above.push(place);
                    let _ = self.add(&path, depth, above);
                    above.pop();
                }
            }
        }
        Ok(())
    }
}

/// What the parts of one model have in common, their path without extension and number, and the number of this one.
fn whole_of(path: &Path) -> (PathBuf, String) {
    let named = path.file_stem().and_then(OsStr::to_str).zip(part_of(path.file_name()));
    match named {
        Some((stem, (number, _))) => (path.with_file_name(stem.replacen(&number, "", 1)), number),
        None => (path.to_owned(), String::new()),
    }
}

/// The number of a part, with the dashes around it, and how many there are, as in `model-00001-of-00003.safetensors`.
fn part_of(name: Option<&OsStr>) -> Option<(String, u64)> {
    let stem = Path::new(name?).file_stem()?.to_str()?;
    let (start, parts) = stem.rsplit_once("-of-")?;
    let (_, number) = start.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(parts)).then_some(())?;
    Some((format!("-{number}-of-"), parts.parse().ok()?))
}

/// Where the cache of the Hugging Face Hub is, as its own library finds it; `None` when there is none.
pub fn hub_cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let home = || variable("HF_HOME").or_else(|| Some(cache()?.join("huggingface")));
    variable("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub"))).filter(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_model_belong_together() {
        let whole = |name: &str| whole_of(Path::new(name)).0;
        assert_eq!(whole("a/model-00001-of-00002.bs"), whole("a/model-00002-of-00002.safetensors"));
        for other in ["b/model-00001-of-00002.bs", "a/model-00001-of-00003.bs", "a/x-00001-of-00002.bs", "a/model.bs"] {
            assert_ne!(whole("a/model-00001-of-00002.bs"), whole(other));
        }
        assert_eq!(part_of(Some("model-00001-of-00003.safetensors".as_ref())), Some(("-00001-of-".to_owned(), 3)));
        for name in ["model.bs", "one-of-many.bs", "-1-of-.bs", "1-of-2.bs"] {
            assert_eq!(part_of(Some(name.as_ref())), None, "{name}");
        }
    }

    #[test]
    fn models_are_found_in_and_below_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in [
            "a.bs",
            "b/m-1-of-2.gguf",
            "b/m-2-of-2.gguf",
            "b/m-2-of-2.safetensors",
            "b/half-1-of-2.bs",
            "b/config.json",
            "c.safetensors",
        ] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("..", root.join("b/up")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("d.bs")).unwrap();
        let names = |depth| {
            let models = in_directory(root, depth).unwrap();
            let names = models.iter().map(|model| {
                model.parts.iter().map(|part| part.path.strip_prefix(root).unwrap().display().to_string()).collect()
            });
            names.collect::<Vec<Vec<String>>>()
        };
        assert_eq!(names(Depth::Itself), [["a.bs"], ["c.safetensors"]]);
        let expected: [&[&str]; 3] = [&["a.bs"], &["b/m-1-of-2.gguf", "b/m-2-of-2.gguf"], &["c.safetensors"]];
        assert_eq!(names(Depth::AllBelow), expected);
        assert!(in_directory(&root.join("nothing"), Depth::Itself).is_err());
    }
}
