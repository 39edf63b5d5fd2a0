//! What can be saved of a damaged container: the tensors that are sound.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::Progress;
use crate::container::{Container, Tensor};
use crate::error::{Error, Result};
use crate::original::Original;
use crate::output::NewFile;
use crate::stream::cancelled;

/// Bytes that are copied at a time.
const PIECE: u64 = 8 << 20;

/// Largest header of a safetensors file whose metadata is looked for: what its own readers accept.
const LARGEST_HEADER: u64 = 100_000_000;

/// Writes a safetensors file of the tensors of `container` but for those whose positions are in `lost`, and of the metadata
/// of the original if it is sound. Gives the number of tensors written.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when no tensor is left; those of reading the tensors and
/// of writing.
pub fn salvage(container: &Container, lost: &BTreeSet<usize>, out: &NewFile, progress: &dyn Progress) -> Result<u64> {
    let sound: Vec<&Tensor> =
        container.tensors().iter().enumerate().filter(|(number, _)| !lost.contains(number)).map(|(_, t)| t).collect();
    if sound.is_empty() {
        return Err(Error::invalid("no tensor is left that could be saved"));
    }
    let mut header = Map::new();
    if let Some(metadata) = metadata(container) {
        header.insert("__metadata__".to_owned(), metadata);
    }
    let mut end = 0;
    for tensor in &sound {
        let start = end;
        end += tensor.range.end - tensor.range.start;
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    out.reserve(8 + header.len() as u64 + end)?;
    out.write_at(0, &(header.len() as u64).to_le_bytes())?;
    out.write_at(8, &header)?;
    let (mut at, mut piece) = (8 + header.len() as u64, Vec::new());
    for tensor in &sound {
        for start in tensor.range.clone().step_by(PIECE as usize) {
            if progress.cancelled() {
                return Err(cancelled());
            }
            piece.resize((tensor.range.end - start).min(PIECE) as usize, 0);
            container.read_at(start, &mut piece)?;
            out.write_at(at, &piece)?;
            at += piece.len() as u64;
            progress.advance(piece.len() as u64);
        }
    }
    Ok(sound.len() as u64)
}

/// The metadata in the header of the original.
fn metadata(container: &Container) -> Option<Value> {
    let mut len = [0; 8];
    container.read_at(0, &mut len).ok()?;
    let len = u64::from_le_bytes(len);
    if len > LARGEST_HEADER.min(container.len() - 8) {
        return None;
    }
    let mut header = vec![0; len as usize];
    container.read_at(8, &mut header).ok()?;
    serde_json::from_slice::<Map<String, Value>>(&header).ok()?.remove("__metadata__")
}
