//! Names of repos, revisions and files, none of which is trusted.

use std::fmt;
use std::path::{Component, Path};

use super::{Error, ErrorKind, Result};

/// The revision that is meant when none is given.
pub const MAIN: &str = "main";

/// The longest part of a repo's name.
const LONGEST_PART: usize = 96;

/// The name of a model repo: `org/name`, or `name` for some old ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoId(String);

impl RepoId {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> std::result::Result<RepoId, String> {
        let part = |part: &str| {
            !part.is_empty()
                && part.len() <= LONGEST_PART
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
                && !part.contains("..")
                && !part.contains("--")
        };
        let mut parts = text.split('/');
        let (first, second, rest) = (parts.next(), parts.next(), parts.next());
        let fits = rest.is_none() && first.is_some_and(part) && second.is_none_or(part);
        fits.then(|| RepoId(text.to_owned())).ok_or_else(|| format!("{text:?} is no repo's name, such as org/name"))
    }

    /// As the user writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without that of its owner.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The owner, if it is part of the name.
    pub fn owner(&self) -> Option<&str> {
        self.0.split_once('/').map(|(owner, _)| owner)
    }

    /// What the cache calls its directory.
    pub fn cache_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `REPO[@REVISION]`, as commands take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub repo: RepoId,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Source {
    /// Reads `REPO` or `REPO@REVISION`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> std::result::Result<Source, String> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, MAIN));
        Ok(Source { repo: RepoId::parse(repo)?, revision: parse_revision(revision)? })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            MAIN => write!(f, "{}", self.repo),
            revision => write!(f, "{}@{revision}", self.repo),
        }
    }
}

/// Reads the name of a branch, a tag or a commit. It becomes part of a path in the cache.
///
/// # Errors
/// What is wrong with it.
pub fn parse_revision(text: &str) -> std::result::Result<String, String> {
    let fits = text.len() <= 255 && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    match RepoPath::parse(text) {
        Ok(_) if fits => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no branch, tag or commit")),
    }
}

/// Whether a revision is a commit, so that no name leads to another one tomorrow.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The path of a file in a repo, which stays below the directory that it is put in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

impl RepoPath {
    /// Takes a path as the Hub writes it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it could lead anywhere else.
    pub fn parse(text: &str) -> Result<RepoPath> {
        let normal = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
        let clean =
            !text.is_empty() && !text.contains('\0') && text.split('/').all(|part| !part.is_empty() && part != ".");
        if normal && clean {
            return Ok(RepoPath(text.to_owned()));
        }
        Err(Error::new(ErrorKind::Corrupt, format!("the Hub lists a file {text:?}, which is no path to be written to")))
    }

    /// The path of a file below a directory, as the Hub is to know it.
    ///
    /// # Errors
    /// When it is not Unicode.
    pub fn of(relative: &Path) -> Result<RepoPath> {
        let text = relative.to_str().ok_or_else(|| {
            Error::new(ErrorKind::Other, format!("{}: its name is not Unicode; rename it", relative.display()))
        })?;
        RepoPath::parse(text)
    }

    /// As the Hub writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it lies below a directory.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `text` as one part of the path of a URL; slashes stay if `slashes`.
pub fn encode(text: &str, slashes: bool) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut url, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(char::from(byte)),
            b'/' if slashes => url.push('/'),
            _ => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repos() {
        for name in ["org/name", "gpt2", "Qwen/Qwen2.5-0.5B_x", "a/b"] {
            assert_eq!(RepoId::parse(name).unwrap().as_str(), name);
        }
        let long = "x".repeat(97);
        for name in
            ["", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a b/c", "a/b--c", "-a/b", "a/b.", "ä/b", long.as_str()]
        {
            assert!(RepoId::parse(name).is_err(), "{name}");
        }
        assert_eq!(RepoId::parse("org/name").unwrap().cache_name(), "models--org--name");
        assert_eq!(RepoId::parse("org/name").unwrap().owner(), Some("org"));
    }

    #[test]
    fn revisions() {
        let source = Source::parse("org/name@refs/pr/1").unwrap();
        assert_eq!((source.repo.as_str(), source.revision.as_str()), ("org/name", "refs/pr/1"));
        assert_eq!(source.to_string(), "org/name@refs/pr/1");
        assert_eq!(Source::parse("org/name").unwrap().to_string(), "org/name");
        for text in ["org/name@", "org/name@../x", "org/name@a b", "org/name@/x"] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
        assert!(is_commit(&"0a".repeat(20)) && !is_commit("main"));
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["a", "a/b.bin", ".gitattributes", "a b/ä", "..a"] {
            assert_eq!(RepoPath::parse(path).unwrap().as_str(), path);
        }
        for path in ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a/.", "a/", "a\0b"] {
            assert_eq!(RepoPath::parse(path).unwrap_err().kind(), ErrorKind::Corrupt, "{path}");
        }
    }

    #[test]
    fn urls_hold_no_odd_characters() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ä?#.x", true), "a%20b/%C3%A4%3F%23.x");
    }
}
