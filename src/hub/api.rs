//! What can be asked of the Hub and what it answers.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use ureq::Body;
use ureq::http::header::LINK;
use ureq::http::{HeaderMap, Response};

use super::client::{Call, read};
use super::digest::ContentId;
use super::repo::encode;
use super::{Error, ErrorKind, Hub, RepoId, RepoPath, Result, Source};

/// A repo at one revision.
#[derive(Clone, Debug)]
pub struct Revision {
    pub repo: RepoId,
    /// The commit, by 40 digits.
    pub commit: String,
    pub private: bool,
    /// How many files it has, if that is known.
    pub files: Option<usize>,
}

/// A file in a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: RepoPath,
    /// Its size in bytes.
    pub size: u64,
    pub id: ContentId,
}

/// A repo as lists of repos have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub repo: RepoId,
    pub private: bool,
}

#[derive(Deserialize)]
struct InfoJson {
    sha: Option<String>,
    #[serde(default)]
    private: bool,
    /// All files; their names are asked for with their hashes.
    siblings: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct TreeJson {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<LfsJson>,
}

#[derive(Deserialize)]
struct LfsJson {
    oid: String,
    size: u64,
}

#[derive(Deserialize)]
struct ListedJson {
    id: String,
    #[serde(default)]
    private: bool,
}

impl Hub {
    /// The commit that a revision is now.
    ///
    /// # Errors
    /// When there is none, among others.
    pub fn revision(&self, source: &Source) -> Result<Revision> {
        let subject = source.to_string();
        let revision = encode(&source.revision, false);
        let url = self.api(&format!("models/{}/revision/{revision}", source.repo));
        let info: InfoJson = parse(self.send(&Call::get(url, &subject))?, &subject)?;
        let commit = info.sha.filter(|sha| super::repo::is_commit(sha)).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("{subject}: the Hub does not say which commit it is"))
        })?;
        let files = info.siblings.map(|files| files.len());
        Ok(Revision { repo: source.repo.clone(), commit, private: info.private, files })
    }

    /// All files of a repo at a commit.
    ///
    /// # Errors
    /// When one of them has an impossible name or no id, or some are kept back, among others.
    pub fn files(&self, revision: &Revision) -> Result<Vec<File>> {
        let subject = revision.repo.as_str();
        let first = self.api(&format!("models/{}/tree/{}?recursive=true", revision.repo, revision.commit));
        let entries: Vec<TreeJson> = self.pages(first, subject)?;
        let files = entries.into_iter().filter(|entry| entry.kind == "file").map(|entry| {
            let (id, size) = entry.lfs.map_or((entry.oid, entry.size), |lfs| (lfs.oid, lfs.size));
            let id = ContentId::parse(&id).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, format!("{subject}: the Hub lists {} with no hash", entry.path))
            })?;
            Ok(File { path: RepoPath::parse(&entry.path)?, size, id })
        });
        let files: Vec<File> = files.collect::<Result<_>>()?;
        // A long list comes in pages, and there are mirrors that know of the first alone.
        match revision.files {
            Some(count) if files.len() < count => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{subject}: it has {count} files, but the server lists {} of them; if it is a mirror, ask the Hub itself (HF_ENDPOINT)",
                    files.len()
                ),
            )),
            _ => Ok(files),
        }
    }

    /// Where the contents of a file are asked for.
    pub fn file_url(&self, revision: &Revision, path: &RepoPath) -> String {
        let endpoint = &self.settings().endpoint;
        format!("{endpoint}/{}/resolve/{}/{}", revision.repo, revision.commit, encode(path.as_str(), true))
    }

    /// The name of the user whose token this is.
    ///
    /// # Errors
    /// When there is none.
    pub fn user(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Json {
            name: String,
        }
        if self.settings().token.is_none() {
            let message = "nobody is logged in: set HF_TOKEN, or name a user";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let subject = "your account";
        let json: Json = parse(self.send(&Call::get(self.api("whoami-v2"), subject))?, subject)?;
        Ok(json.name)
    }

    /// The model repos of a user or an organisation.
    ///
    /// # Errors
    /// Those of any request.
    pub fn models_of(&self, owner: &str) -> Result<Vec<Listed>> {
        let first = self.api(&format!("models?author={}&limit=1000", encode(owner, false)));
        let entries: Vec<ListedJson> = self.pages(first, owner)?;
        let repos = entries
            .into_iter()
            .filter_map(|entry| Some(Listed { repo: RepoId::parse(&entry.id).ok()?, private: entry.private }));
        Ok(repos.collect())
    }

    /// All entries of a list that comes in pages.
    fn pages<T: DeserializeOwned>(&self, first: String, subject: &str) -> Result<Vec<T>> {
        let (mut entries, mut next) = (Vec::new(), Some(first));
        while let Some(url) = next {
            let response = self.send(&Call::get(url, subject))?;
            // Whoever else it names gets nothing from us.
            next = next_page(response.headers()).filter(|url| self.is_trusted(url));
            entries.extend(parse::<Vec<T>>(response, subject)?);
        }
        Ok(entries)
    }
}

/// The JSON of an answer.
///
/// # Errors
/// When it is something else.
pub fn parse<T: DeserializeOwned>(response: Response<Body>, subject: &str) -> Result<T> {
    let bytes = read(response, subject)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, format!("{subject}: the answer is not one of a Hub: {e}")))
}

/// What `Link: <URL>; rel="next"` says.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    link.split(',').find_map(|link| {
        let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        rest.contains("rel=\"next\"").then(|| url.to_owned())
    })
}
