//! `bigsmall compress --auto-delta`: which model each of the new files is to be a patch of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bigsmall_codec::Progress;
use bigsmall_fs::models::{Depth, in_directory};
use serde::Serialize;

use crate::base::{Bases, model_of};
use crate::failure::Failure;
use crate::search::{self, Found, Outcome, Places};
use crate::ui::size::show_size;
use crate::ui::{count, percent, printable};

/// The base of a model that is to be compressed, or that there is none.
pub struct Choice {
    /// The files of the model.
    sources: Vec<PathBuf>,
    outcome: Outcome,
    /// The base that was found.
    bases: Bases,
}

/// A choice for programs.
#[derive(Serialize)]
pub struct JsonChoice {
    sources: Vec<String>,
    /// The files of the base; none when no base pays.
    base: Vec<String>,
    models_compared: u64,
    expected_patch_bytes: Option<u64>,
    expected_container_bytes: Option<u64>,
}

/// Chooses a base for each model among the files `sources`, which lie at `root`.
///
/// # Errors
/// Those of the search, and when what was found cannot be read any more.
pub fn choose(
    root: &Path,
    sources: &[PathBuf],
    places: Places<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Choice>, Failure> {
    let models = models(root, sources)?;
    models.into_iter().map(|sources| choice(sources, places, progress)).collect()
}

/// The files by the model that they are of. A file that is part of a model which is not complete is a model of its own.
fn models(root: &Path, sources: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, Failure> {
    let mut left: HashSet<&Path> = sources.iter().map(PathBuf::as_path).collect();
    let mut models = Vec::new();
    if root.is_dir() {
        let found = in_directory(root, Depth::AllBelow);
        for model in found.map_err(|e| Failure::new(format!("{}: cannot be read: {e}", root.display())))? {
            let paths: Vec<PathBuf> = model.parts.into_iter().map(|part| part.path).collect();
            if paths.iter().all(|path| left.contains(path.as_path())) {
                left.retain(|left| !paths.iter().any(|path| path == left));
                models.push(paths);
            }
        }
    }
    models.extend(sources.iter().filter(|source| left.contains(source.as_path())).map(|source| vec![source.clone()]));
    Ok(models)
}

fn choice(sources: Vec<PathBuf>, places: Places<'_>, progress: &dyn Progress) -> Result<Choice, Failure> {
    // What has no tensors has no base.
    let outcome = match model_of(&sources) {
        Ok(tuned) => search::find(&tuned, &sources, places, progress)?,
        Err(_) => Outcome { found: None, looked_at: 0 },
    };
    let bases = match &outcome.found {
        Some(found) => Bases::of(model_of(&found.files)?),
        None => Bases::default(),
    };
    Ok(Choice { sources, outcome, bases })
}

/// The base that was chosen for a file.
pub fn base_of<'a>(choices: &'a [Choice], source: &Path) -> Option<&'a Bases> {
    choices.iter().find(|choice| choice.sources.iter().any(|path| path == source)).map(|choice| &choice.bases)
}

/// The choices for people.
pub fn describe(choices: &[Choice]) -> String {
    choices.iter().map(|choice| printable(&choice.line()).replace('\n', "\\n") + "\n").collect()
}

impl Choice {
    /// Whether there is a base that pays.
    pub fn is_found(&self) -> bool {
        self.outcome.found.is_some()
    }

    fn line(&self) -> String {
        let name = name_of(&self.sources);
        let compared = count(self.outcome.looked_at, "model");
        match &self.outcome.found {
            Some(Found { files, estimate }) => format!(
                "{name}: of {compared}, {} is its base; a patch should take {}{}, a container alone {}",
                name_of(files),
                show_size(estimate.patch),
                percent(estimate.patch, estimate.container)
                    .map_or(String::new(), |percent| format!(" ({percent:.0} % of it)")),
                show_size(estimate.container)
            ),
            None => format!("{name}: of {compared}, none is a base that pays: alone it is smallest"),
        }
    }

    pub fn json(&self) -> JsonChoice {
        let names = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
        let found = self.outcome.found.as_ref();
        JsonChoice {
            sources: names(&self.sources),
            base: names(found.map_or(&[], |found| &found.files)),
            models_compared: self.outcome.looked_at,
            expected_patch_bytes: found.map(|found| found.estimate.patch),
            expected_container_bytes: found.map(|found| found.estimate.container),
        }
    }
}

/// What a model is called: its file, or the first of them and how many follow.
fn name_of(files: &[PathBuf]) -> String {
    match files {
        [] => String::new(),
        [file] => file.display().to_string(),
        [first, others @ ..] => format!("{} and {}", first.display(), count(others.len() as u64, "other file")),
    }
}
