//! As much of a file as is measured with.

use std::collections::HashMap;

use bigsmall_codec::scan::{OriginalTensor, pattern, tensors};
use bigsmall_codec::{Memory, Original, PlainFile};
use serde_json::{Map, json};

use crate::failure::Failure;

/// A file in memory, or some of its tensors as a safetensors file.
pub struct Portion {
    pub source: Memory,
    /// Bytes of the file.
    pub whole_len: u64,
}

/// All of `file`, which is called `name`, or whole tensors of it that have not more than so many bytes, some of each kind of layer.
///
/// # Errors
/// When it cannot be read, is empty, or can only be had whole and is larger.
pub fn of(file: &PlainFile, name: &str, most: u64) -> Result<Portion, Failure> {
    let whole_len = file.len();
    if whole_len == 0 {
        return Err(Failure::new(format!("{name}: is empty: nothing to measure with")));
    }
    let source = if whole_len <= most { read(file, 0, whole_len)? } else { some_tensors(file, name, most)? };
    Ok(Portion { source: Memory::new(source), whole_len })
}

fn read(file: &PlainFile, offset: u64, len: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; len as usize];
    file.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

fn some_tensors(file: &PlainFile, name: &str, most: u64) -> Result<Vec<u8>, Failure> {
    let mut all = tensors(file)?;
    let is_safetensors = read(file, 0, 4)? != b"GGUF" && !all.is_empty();
    if !is_safetensors {
        return Err(Failure::new(format!(
            "{name}: is larger than what is measured with, and only safetensors files are measured in part\n\
             --sample {} takes all of it",
            file.len()
        )));
    }
    // First one of each kind of layer, then a second, ...
    let mut seen = HashMap::<String, u64>::new();
    all.sort_by_cached_key(|tensor| {
        let number = seen.entry(pattern(&tensor.name)).or_default();
        *number += 1;
        *number
    });
    let mut room = most;
    let chosen = all.iter().filter(|tensor| {
        let fits = len(tensor) <= room;
        room -= if fits { len(tensor) } else { 0 };
        fits && len(tensor) > 0
    });
    let chosen: Vec<&OriginalTensor> = chosen.collect();
    if chosen.is_empty() {
        return Err(Failure::new(format!(
            "{name}: each of its tensors is larger than {most} bytes\nGive --sample more"
        )));
    }
    let mut end = 0;
    let mut header = Map::new();
    for tensor in &chosen {
        let start = end;
        end += len(tensor);
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).expect("names and numbers can be written as JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.reserve(end as usize);
    for tensor in &chosen {
        bytes.extend(read(file, tensor.range.start, len(tensor))?);
    }
    Ok(bytes)
}

fn len(tensor: &OriginalTensor) -> u64 {
    tensor.range.end - tensor.range.start
}
