//! Finding the base of a fine-tune: among the models in some directories, in the cache of Hugging Face, and among those seen before.
//!
//! What a patch over each would cost is estimated from [sketches](bigsmall_codec::sketch) of both. Sketches of models that were looked
//! at are kept in the [registry], so that none is read twice.

mod registry;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use bigsmall_codec::Progress;
use bigsmall_codec::diff::Tensor;
use bigsmall_codec::patch::{Model, plain};
use bigsmall_codec::sketch::{Estimate, Sketch, ranked};
use bigsmall_fs::models::{Depth, ModelFiles, hub_cache, in_directory};

use crate::base::model_of;
use crate::commands::tensors_of;
use crate::failure::Failure;
use crate::interrupt;
use registry::Registry;

/// What a search has come to.
#[derive(Debug)]
pub struct Outcome {
    /// The best base, if one pays.
    pub found: Option<Found>,
    /// How many models were compared.
    pub looked_at: u64,
}

/// A base over which a patch pays.
#[derive(Debug)]
pub struct Found {
    /// The files that it consists of.
    pub files: Vec<PathBuf>,
    /// What the patch is expected to cost, and what a container would.
    pub estimate: Estimate,
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Besides the cache of Hugging Face and the models that are known from before.
    pub directories: &'a [PathBuf],
    /// Whether what is looked at is remembered; if not, nothing is written.
    pub remember: bool,
}

/// The best base of the model `tuned`, which consists of `files`.
///
/// # Errors
/// When `tuned` or one of the directories cannot be read, and when it is interrupted. What cannot be read elsewhere is passed over.
pub fn find(tuned: &Model, files: &[PathBuf], places: Places<'_>, progress: &dyn Progress) -> Result<Outcome, Failure> {
    let tensors = tensors_of(tuned)?;
    let sketch = Sketch::of(&tensors)?;
    let mut registry = Registry::load();
    let own = ModelFiles::of(files.iter().filter_map(|file| std::path::absolute(file).ok())).ok();
    let mut models = Vec::new();
    for directory in places.directories {
        let found = std::path::absolute(directory).and_then(|directory| in_directory(&directory, Depth::AllBelow));
        models.extend(found.map_err(|e| Failure::new(format!("{}: cannot be read: {e}", directory.display())))?);
    }
    // Whoever has no cache of Hugging Face has no base there.
    let cached = hub_cache().and_then(|cache| in_directory(&std::path::absolute(cache).ok()?, Depth::AllBelow).ok());
    models.extend(cached.into_iter().flatten());
    models.extend(registry.models());
    let own_files: HashSet<_> = own.iter().flat_map(ModelFiles::places).collect();
    let (mut seen, mut compared) = (HashSet::new(), Vec::new());
    for candidate in models {
        if progress.cancelled() {
            return Err(interrupt::failure());
        }
        let places: Vec<_> = candidate.places().collect();
        if places.iter().any(|place| own_files.contains(place)) || !seen.insert(places) {
            continue;
        }
        if let Some(sketch) = registry.sketch(&candidate).or_else(|| read(&candidate, &tensors)) {
            registry.remember(&candidate, &sketch);
            compared.push((candidate, sketch));
        }
    }
    if places.remember {
        if let Some(own) = own {
            registry.remember(&own, &sketch);
        }
        registry.save();
    }
    let best = ranked(&sketch, compared.iter().map(|(candidate, sketch)| (candidate, sketch))).into_iter().next();
    let found = best.map(|(candidate, estimate)| Found { files: paths(candidate), estimate });
    Ok(Outcome { found, looked_at: compared.len() as u64 })
}

/// The sketch of a candidate; `None` when it cannot be read, or has next to nothing in common with these tensors by name and shape, so
/// that there is no need to.
fn read(candidate: &ModelFiles, tuned: &[Tensor<'_>]) -> Option<Sketch> {
    let model = model_of(&paths(candidate)).ok()?;
    let tensors = tensors_of(&model).ok()?;
    let by_name: HashMap<_, &Tensor<'_>> = tensors.iter().map(|tensor| (plain(&tensor.name), tensor)).collect();
    let common = tuned.iter().filter(|tensor| {
        by_name
            .get(&plain(&tensor.name))
            .is_some_and(|other| (other.dtype, other.shape) == (tensor.dtype, tensor.shape))
    });
    (common.map(Tensor::byte_len).sum::<u64>() * 10 > tuned.iter().map(Tensor::byte_len).sum()).then_some(())?;
    Sketch::of(&tensors).ok()
}

fn paths(model: &ModelFiles) -> Vec<PathBuf> {
    model.parts.iter().map(|part| part.path.clone()).collect()
}
