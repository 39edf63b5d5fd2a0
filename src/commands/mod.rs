//! The commands, a file each.

#[cfg(feature = "hub")]
mod against_hub;
pub mod apply;
mod auto_delta;
pub mod benchmark;
pub mod completions;
pub mod compress;
pub mod decompress;
pub mod diff;
pub mod doctor;
#[cfg(feature = "cuda")]
pub mod gpu_probe;
mod hub_index;
mod in_place;
pub mod info;
pub mod man;
pub mod migrate;
pub mod mount;
pub mod mount_helper;
pub mod mounts;
#[cfg(feature = "hub")]
pub mod pipeline;
pub mod protect;
#[cfg(feature = "hub")]
pub mod pull;
#[cfg(feature = "hub")]
pub mod push;
pub mod repair;
pub mod report;
pub mod scan;
pub mod stat;
#[cfg(feature = "hub")]
pub mod status;
pub mod umount;
pub mod verify;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bigsmall_codec::container::EXTENSION;
use bigsmall_codec::diff::Tensor;
use bigsmall_codec::patch::Model;
use bigsmall_codec::{Error, ErrorKind};

use crate::failure::Failure;
use crate::tree::{Oddities, Tree};

pub use compress::{container_name, holds_weights};

/// The error of reading the container at `path`, naming it. Errors of reading files name them already.
fn in_container(error: Error, path: &Path) -> Error {
    match error.kind() {
        ErrorKind::Corrupt
        | ErrorKind::NotAContainer
        | ErrorKind::Unsupported
        | ErrorKind::BaseMissing
        | ErrorKind::WrongBase => error.in_file(path),
        _ => error,
    }
}

/// Whether the name of a file is that of a container.
pub fn has_container_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// The files in and below `directory` that are named as containers are.
fn containers_in(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let files = Tree::read(directory, Oddities::Skip)?.files.into_iter().map(|file| file.path);
    let containers: Vec<PathBuf> = files.filter(|path| has_container_name(path)).collect();
    if containers.is_empty() {
        return Err(Failure::new(format!("{}: there is no container (*.{EXTENSION}) in it", directory.display())));
    }
    Ok(containers)
}

/// The tensors of a model, to compare them with those of another. Those of files in directories of the model are called by these too, as
/// in `unet/conv_in.weight`: the parts of a pipeline have names in common.
///
/// # Errors
/// When two tensors have one name.
pub fn tensors_of(model: &Model) -> Result<Vec<Tensor<'_>>, Failure> {
    let mut names = HashMap::new();
    let mut tensors = Vec::with_capacity(model.tensors().len());
    for tensor in model.tensors() {
        let file = model.file_name(tensor.file);
        let name = match file.rsplit_once('/') {
            Some((directory, _)) => format!("{directory}/{}", tensor.name).into(),
            None => tensor.name.as_str().into(),
        };
        let view = Tensor { name, ..model.view(tensor) };
        if let Some(other) = names.insert(view.name.clone(), file) {
            return Err(Failure::new(format!(
                "{}: tensor \"{}\" is in {other} and in {file}: give one of them alone",
                model.name(),
                view.name
            )));
        }
        tensors.push(view);
    }
    Ok(tensors)
}
