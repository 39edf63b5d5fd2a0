//! Which name a container shows its original under.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The extension of a container's name.
pub const EXTENSION: &str = "bs";

/// The name under which a container called `container` shows its original: the container's name with `.bs` replaced by
/// the extension of the original's recorded name, unless it stands there already: both `x.bs` and
/// `x.gguf.bs` show `x.gguf`. `None` when `container` does not end in `.bs` or is
/// nothing but that.
///
/// The name follows the container, not the record, so that renaming a container renames what it shows.
pub fn shown_name(container: &OsStr, original_name: &str) -> Option<OsString> {
    let container = Path::new(container);
    if container.extension()? != EXTENSION {
        return None;
    }
    let mut shown = container.file_stem()?.to_owned();
    if let Some(extension) = Path::new(original_name).extension()
        && Path::new(&shown).extension() != Some(extension)
    {
        shown.push(".");
        shown.push(extension);
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_container() {
        let shown = |container: &str, original| {
            shown_name(OsStr::new(container), original).map(|name| name.into_string().unwrap())
        };
        assert_eq!(shown("a.bs", "model.safetensors").as_deref(), Some("a.safetensors"));
        assert_eq!(
            shown("model-00001-of-00002.bs", "x.safetensors").as_deref(),
            Some("model-00001-of-00002.safetensors")
        );
        assert_eq!(shown("v1.5.bs", "w.gguf").as_deref(), Some("v1.5.gguf"));
        assert_eq!(shown("w.gguf.bs", "w.gguf").as_deref(), Some("w.gguf"));
        assert_eq!(shown("w.safetensors.bs", "w.gguf").as_deref(), Some("w.safetensors.gguf"));
        assert_eq!(shown(".gguf.bs", "w.gguf").as_deref(), Some(".gguf.gguf"));
        assert_eq!(shown("raw.bs", "README").as_deref(), Some("raw"));
        assert_eq!(shown("a.safetensors", "a.safetensors"), None);
        assert_eq!(shown(".bs", "a.safetensors"), None);
        assert_eq!(shown("bs", "a.safetensors"), None);
    }
}
