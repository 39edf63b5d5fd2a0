//! The index of a directory that the Python package prepared for the Hub.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ORIGINAL_NAME;
use crate::container::shown_name;
use crate::error::{Error, Result};
use crate::original::{Original, PlainFile};

/// The name of the index.
pub const HUB_INDEX: &str = "bigsmall.index.json";

/// The name of the same in another form, which the package reads faster.
pub const HUB_INDEX_BINARY: &str = "bigsmall.index.bin";

/// The name of the index that loaders of safetensors files look for.
pub const LOADER_INDEX: &str = "model.safetensors.index.json";

/// The longest index that is read.
const LONGEST_INDEX: u64 = 256 << 20;

/// Which tensors are in which file, and which are not stored because they equal another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubIndex {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
    /// For each tensor that is not stored the one that it equals.
    duplicates: BTreeMap<String, String>,
    total_size: u64,
}

impl HubIndex {
    /// The index beside the file at `path`, if there is one.
    ///
    /// # Errors
    /// Those of reading and of [`parse`](HubIndex::parse).
    pub fn beside(path: &Path) -> Result<Option<HubIndex>> {
        let path = path.with_file_name(HUB_INDEX);
        if path.is_file() { HubIndex::open(&path).map(Some) } else { Ok(None) }
    }

    /// The index in the file at `path`.
    ///
    /// # Errors
    /// As [`beside`](HubIndex::beside).
    pub fn open(path: &Path) -> Result<HubIndex> {
        HubIndex::read(&PlainFile::open(path)?).map_err(|e| if e.io_error().is_some() { e } else { e.in_file(path) })
    }

    /// The index in this file.
    ///
    /// # Errors
    /// As [`beside`](HubIndex::beside); the error does not name the file.
    pub fn read(file: &PlainFile) -> Result<HubIndex> {
        if file.len() > LONGEST_INDEX {
            return Err(Error::corrupt("too long for an index"));
        }
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes)?;
        HubIndex::parse(&bytes)
    }

    /// The index in these bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is none.
    pub fn parse(bytes: &[u8]) -> Result<HubIndex> {
        let json: Value = serde_json::from_slice(bytes).map_err(|e| Error::corrupt(format!("the index: {e}")))?;
        let corrupt = |what: &str| Error::corrupt(format!("the index has {what}"));
        let weights = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| corrupt("no weight_map"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let weight_map = weights.iter().map(|(name, file)| Some((name.clone(), text(file)?))).collect::<Option<_>>();
        let metadata = json.get("metadata");
        let duplicates = match metadata.and_then(|metadata| metadata.get("duplicate_map")) {
            None | Some(Value::Null) => Some(BTreeMap::new()),
            Some(Value::Object(map)) => {
                map.iter().map(|(alias, of)| Some((alias.clone(), text(of.get("master")?)?))).collect()
            }
            Some(_) => None,
        };
        Ok(HubIndex {
            weight_map: weight_map.ok_or_else(|| corrupt("a weight_map of no file names"))?,
            duplicates: duplicates.ok_or_else(|| corrupt("a duplicate_map that names no masters"))?,
            total_size: metadata.and_then(|m| m.get("total_raw_size")).and_then(Value::as_u64).unwrap_or(0),
        })
    }

    /// The tensors that belong into the file called `file` without being stored there, and the one that each equals.
    pub fn aliases_in<'a>(&'a self, file: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let here = move |name: &str| self.weight_map.get(name).is_some_and(|other| other == file);
        // Where an alias is not in the map, it is with its master.
        let belongs = move |(alias, master): &(&str, &str)| {
            if self.weight_map.contains_key(*alias) { here(alias) } else { here(master) }
        };
        self.duplicates.iter().map(|(alias, master)| (alias.as_str(), master.as_str())).filter(belongs)
    }

    /// How many files the tensors are in.
    pub fn files(&self) -> usize {
        self.weight_map.values().collect::<BTreeSet<_>>().len()
    }

    /// The index of the same tensors as loaders of safetensors files expect it, with the names of the originals.
    pub fn for_loaders(&self) -> String {
        let rename = |file: &str| match shown_name(OsStr::new(file), ORIGINAL_NAME) {
            Some(name) => name.to_string_lossy().into_owned(),
            None => file.to_owned(),
        };
        let mut map: Map<String, Value> =
            self.weight_map.iter().map(|(name, file)| (name.clone(), rename(file).into())).collect();
        for (alias, master) in &self.duplicates {
            if let (false, Some(file)) = (map.contains_key(alias), self.weight_map.get(master)) {
                map.insert(alias.clone(), rename(file).into());
            }
        }
        let index = json!({ "metadata": { "total_size": self.total_size }, "weight_map": map });
        serde_json::to_string_pretty(&index).expect("a map of text is JSON") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_go_where_the_index_says_or_to_their_masters() {
        let index = HubIndex::parse(
            br#"{"metadata": {"total_raw_size": 9, "duplicate_map": {"c": {"master": "a"}, "d": {"master": "b"}}},
                "weight_map": {"a": "1.bs", "b": "2.bs", "c": "1.bs"}}"#,
        )
        .unwrap();
        assert_eq!(index.aliases_in("1.bs").collect::<Vec<_>>(), [("c", "a")]);
        assert_eq!(index.aliases_in("2.bs").collect::<Vec<_>>(), [("d", "b")]);
        assert_eq!(index.files(), 2);
        let loaders: Value = serde_json::from_str(&index.for_loaders()).unwrap();
        assert_eq!(
            loaders["weight_map"],
            json!({ "a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors", "d": "2.safetensors" })
        );
        assert_eq!(loaders["metadata"]["total_size"], 9);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "[]", "{}", r#"{"weight_map": {"a": 1}}"#] {
            assert!(HubIndex::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let no_master = r#"{"weight_map": {}, "metadata": {"duplicate_map": {"a": {}}}}"#;
        assert!(HubIndex::parse(no_master.as_bytes()).is_err());
    }
}
