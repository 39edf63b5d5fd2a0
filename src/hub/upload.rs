//! Putting files into a repo: large ones first, by the Git LFS protocol, then all of them in one commit.
//!
//! Until the commit nothing shows, and after it everything does. What the Hub has of the large ones is not sent again, so an
//! upload that was interrupted goes on with the file at which it stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bigsmall_codec::Progress;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Body;
use ureq::http::header::ETAG;
use ureq::http::{Method, Response};

use super::api::{Revision, parse};
use super::client::{Call, Content, read};
use super::digest::{ContentId, Hasher};
use super::repo::{MAIN, encode};
use super::workers::Watch;
use super::{Error, ErrorKind, Hub, RepoId, RepoPath, Result, Source};

/// Bytes of a file that the Hub is shown to decide how to store it.
const SAMPLE: usize = 512;

/// Files that are asked about at a time.
const BATCH: usize = 256;

/// The largest file that goes into the commit itself, which is in memory. The Hub has larger ones uploaded.
const LARGEST_IN_COMMIT: u64 = 32 << 20;

/// The type of requests and answers of the LFS protocol.
const LFS_TYPE: &str = "application/vnd.git-lfs+json";

/// The ways of the LFS protocol that are spoken.
const TRANSFERS: [&str; 2] = ["basic", "multipart"];

/// A file to be in the repo.
#[derive(Clone, Debug)]
pub struct Item {
    pub path: RepoPath,
    pub contents: Contents,
    pub size: u64,
    /// The SHA-256.
    pub sha256: [u8; 32],
}

/// Where the contents of an [`Item`] are.
#[derive(Clone, Debug)]
pub enum Contents {
    File(PathBuf),
    Text(String),
    /// At the Hub, where they were uploaded before; they may be gone from here.
    Uploaded,
}

impl Item {
    /// An item of a file, which is read and hashed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: RepoPath, file: PathBuf, watch: &Watch<'_>) -> Result<Item> {
        let (size, id) = hash(&file, &ContentId::Sha256([0; 32]), watch)?;
        let ContentId::Sha256(sha256) = id else { unreachable!("it was asked for one") };
        Ok(Item { path, contents: Contents::File(file), size, sha256 })
    }

    /// An item of a text.
    pub fn of_text(path: RepoPath, text: String) -> Item {
        let mut hasher = Hasher::like(&ContentId::Sha256([0; 32]), 0);
        hasher.update(text.as_bytes());
        let ContentId::Sha256(sha256) = hasher.finish() else { unreachable!("it was asked for one") };
        Item { path, size: text.len() as u64, contents: Contents::Text(text), sha256 }
    }

    /// Whether the contents have this id.
    fn is(&self, id: &ContentId, size: u64, watch: &Watch<'_>) -> Result<bool> {
        if self.size != size {
            return Ok(false);
        }
        match (id, &self.contents) {
            (ContentId::Sha256(sha256), _) => Ok(*sha256 == self.sha256),
            (ContentId::GitBlob(_), Contents::File(file)) => Ok(hash(file, id, watch)?.1 == *id),
            (ContentId::GitBlob(_), Contents::Text(text)) => {
                let mut hasher = Hasher::like(id, size);
                hasher.update(text.as_bytes());
                Ok(hasher.finish() == *id)
            }
            (ContentId::GitBlob(_), Contents::Uploaded) => Ok(false),
        }
    }

    /// The first `limit` bytes, or all.
    fn read(&self, limit: u64) -> Result<Vec<u8>> {
        match &self.contents {
            Contents::Text(text) => Ok(text.as_bytes()[..text.len().min(limit as usize)].to_vec()),
            Contents::Uploaded => Ok(Vec::new()),
            Contents::File(path) => {
                let mut bytes = Vec::new();
                let file = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
                file.map_err(|e| Error::file(path, "cannot be read", &e))?;
                Ok(bytes)
            }
        }
    }
}

/// The size of a file and its id of the same kind as `like`.
fn hash(path: &std::path::Path, like: &ContentId, watch: &Watch<'_>) -> Result<(u64, ContentId)> {
    let cannot = |e: io::Error| Error::file(path, "cannot be read", &e);
    let mut file = fs::File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    let mut hasher = Hasher::like(like, size);
    let mut read = 0;
    let hashed = hasher.read(&mut file, |len| {
        read += len;
        watch.check().map_err(|_| io::ErrorKind::Other.into())
    });
    watch.check()?;
    hashed.map_err(cannot)?;
    if read != size {
        return Err(Error::new(ErrorKind::Other, format!("{}: the file changed while it was read", path.display())));
    }
    Ok((size, hasher.finish()))
}

/// How the Hub wants a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the commit.
    Commit,
    /// Uploaded before.
    Lfs,
    /// Not at all: a `.gitignore` in the repo names it.
    Ignored,
}

/// What is left to do for a repo to have certain files.
#[derive(Debug)]
pub struct Plan {
    /// What it is now.
    pub base: Revision,
    /// The items that it has not, and how it wants them.
    pub missing: Vec<(Item, Way)>,
}

#[derive(Deserialize)]
struct PreuploadJson {
    files: Vec<PreuploadFileJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreuploadFileJson {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

#[derive(Deserialize)]
struct BatchJson {
    /// How large files are to be sent; basic if it is not said.
    transfer: Option<String>,
    objects: Vec<ObjectJson>,
}

#[derive(Deserialize)]
struct ObjectJson {
    oid: String,
    actions: Option<ActionsJson>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ActionsJson {
    upload: Option<ActionJson>,
    verify: Option<ActionJson>,
}

#[derive(Deserialize)]
struct ActionJson {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitJson {
    commit_oid: String,
}

impl Hub {
    /// Makes sure that there is such a repo, private if `private`, and such a branch in it; says what it is.
    ///
    /// # Errors
    /// When it may not be made, or is public and should not be.
    pub fn ensure_branch(&self, target: &Source, private: bool) -> Result<Revision> {
        let repo = &target.repo;
        if self.settings().token.is_none() {
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "{repo}: to upload takes a token: set HF_TOKEN to one that may write, from {}/settings/tokens",
                    self.settings().endpoint
                ),
            ));
        }
        let main = Source { repo: repo.clone(), revision: MAIN.to_owned() };
        let revision = match self.revision(&main) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.create(repo, private)?;
                self.revision(&main)?
            }
            other => other?,
        };
        if private && !revision.private {
            return Err(Error::new(
                ErrorKind::Other,
                format!(
                    "{repo}: is public already, so --private would not be true; change it in the settings of the repo"
                ),
            ));
        }
        if target.revision == MAIN {
            return Ok(revision);
        }
        match self.revision(target) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let url = self.api(&format!("models/{repo}/branch/{}", encode(&target.revision, false)));
                self.send(&Call::post(url, b"{}", repo.as_str()))?;
                self.revision(target)
            }
            other => other,
        }
    }

    fn create(&self, repo: &RepoId, private: bool) -> Result<()> {
        let user = self.user()?;
        let owner = repo.owner().filter(|owner| *owner != user);
        let json = json!({ "name": repo.name(), "organization": owner, "type": "model", "private": private });
        let sent = self.send(&Call::post(self.api("repos/create"), json.to_string().as_bytes(), repo.as_str()));
        match sent {
            // Made by somebody else in between.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// The text of a small file; `None` when there is none.
    ///
    /// # Errors
    /// Those of any request.
    pub fn text(&self, revision: &Revision, path: &RepoPath) -> Result<Option<String>> {
        let subject = revision.repo.as_str();
        match self.send(&Call::get(self.file_url(revision, path), subject)) {
            Ok(response) => Ok(Some(String::from_utf8_lossy(&read(response, subject)?).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is left to do for `base` to have these files.
    ///
    /// # Errors
    /// Those of any request, and of reading the files.
    pub fn plan(&self, base: &Revision, branch: &str, items: Vec<Item>, watch: &Watch<'_>) -> Result<Plan> {
        let there: BTreeMap<RepoPath, super::api::File> =
            self.files(base)?.into_iter().map(|file| (file.path.clone(), file)).collect();
        let mut wanted = Vec::new();
        for item in items {
            let same = there.get(&item.path).map_or(Ok(false), |file| item.is(&file.id, file.size, watch))?;
            if !same {
                wanted.push(item);
            }
        }
        let ways = self.ways(&base.repo, branch, &wanted)?;
        Ok(Plan { base: base.clone(), missing: wanted.into_iter().zip(ways).collect() })
    }

    /// How the Hub wants these files.
    ///
    /// # Errors
    /// Those of any request, and of reading the files.
    pub fn ways(&self, repo: &RepoId, branch: &str, items: &[Item]) -> Result<Vec<Way>> {
        let url = self.api(&format!("models/{repo}/preupload/{}", encode(branch, false)));
        let mut ways = Vec::with_capacity(items.len());
        for batch in items.chunks(BATCH) {
            let files = batch.iter().map(|item| {
                let sample = BASE64_STANDARD.encode(item.read(SAMPLE as u64)?);
                Ok(json!({ "path": item.path.as_str(), "sample": sample, "size": item.size }))
            });
            let json = json!({ "files": files.collect::<Result<Vec<_>>>()? }).to_string();
            let answer: PreuploadJson =
                parse(self.send(&Call::post(url.clone(), json.as_bytes(), repo.as_str()))?, repo.as_str())?;
            for item in batch {
                let file = answer.files.iter().find(|file| file.path == item.path.as_str());
                ways.push(match (file, &item.contents) {
                    (Some(file), _) if file.should_ignore => Way::Ignored,
                    (_, Contents::Uploaded) => Way::Lfs,
                    // The storage takes no empty files.
                    (Some(file), _) if file.upload_mode == "lfs" && item.size > 0 => Way::Lfs,
                    (Some(_), _) if item.size <= LARGEST_IN_COMMIT => Way::Commit,
                    (Some(_), _) => {
                        let message = "the Hub wants it in the commit, for which it is too large";
                        return Err(Error::new(ErrorKind::Other, format!("{repo}, {}: {message}", item.path)));
                    }
                    (None, _) => {
                        let message = "the Hub does not say how it wants this file";
                        return Err(Error::new(ErrorKind::Corrupt, format!("{repo}, {}: {message}", item.path)));
                    }
                });
            }
        }
        Ok(ways)
    }

    /// Uploads a large file, unless the Hub has its contents. Says how many bytes were sent.
    ///
    /// # Errors
    /// When it does not get through.
    pub fn upload(&self, repo: &RepoId, branch: &str, item: &Item, watch: &Watch<'_>) -> Result<u64> {
        let Contents::File(path) = &item.contents else { return Ok(0) };
        watch.set_file(item.path.as_str());
        let subject = format!("{repo}, {}", item.path);
        let oid = ContentId::Sha256(item.sha256).to_string();
        let object = self.batch(repo, branch, &oid, item.size, &subject)?;
        let Some(ActionsJson { upload: Some(upload), verify }) = object.actions else {
            watch.advance(item.size);
            return Ok(0);
        };
        match upload.header.get("chunk_size") {
            None => {
                self.put(&upload.href, path, 0, item.size, &subject, watch)?;
            }
            Some(size) => {
                let size = size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|&size| size > 0);
                self.put_parts(&upload, size.unwrap_or(item.size), path, item.size, &oid, &subject, watch)?;
            }
        }
        if let Some(verify) = verify {
            let json = json!({ "oid": oid, "size": item.size }).to_string();
            self.send(&Call::post(verify.href, json.as_bytes(), &subject))?;
        }
        Ok(item.size)
    }

    /// What is to be done with a large file.
    fn batch(&self, repo: &RepoId, branch: &str, oid: &str, size: u64, subject: &str) -> Result<ObjectJson> {
        let url = format!("{}/{repo}.git/info/lfs/objects/batch", self.settings().endpoint);
        let json = json!({
            "operation": "upload", "transfers": TRANSFERS, "hash_algo": "sha256",
            "objects": [{ "oid": oid, "size": size }], "ref": { "name": branch },
        });
        let json = json.to_string();
        let call = Call {
            content: Content::Bytes(json.as_bytes(), LFS_TYPE),
            headers: vec![("accept", LFS_TYPE.to_owned())],
            ..Call::post(url, &[], subject)
        };
        let answer: BatchJson = parse(self.send(&call)?, subject)?;
        if let Some(other) = answer.transfer.filter(|transfer| !TRANSFERS.contains(&transfer.as_str())) {
            let message = format!(
                "{subject}: the Hub takes it by {other:?} alone, which this program does not speak\n\
                 upload the directory with its own client: hf upload {repo} DIR"
            );
            return Err(Error::new(ErrorKind::Other, message));
        }
        let object = answer.objects.into_iter().find(|object| object.oid == oid);
        match object {
            Some(ObjectJson { error: Some(error), .. }) => {
                let reason = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
                Err(Error::new(ErrorKind::Other, format!("{subject}: the Hub does not take it: {reason}")))
            }
            Some(object) => Ok(object),
            None => Err(Error::new(ErrorKind::Corrupt, format!("{subject}: the Hub does not say where it goes"))),
        }
    }

    /// Sends bytes of a file.
    fn put(
        &self,
        url: &str,
        path: &std::path::Path,
        start: u64,
        len: u64,
        subject: &str,
        watch: &Watch<'_>,
    ) -> Result<Response<Body>> {
        let open = || -> Result<Box<dyn Read + '_>> {
            let file = fs::File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(start)).map(|_| file));
            let file = file.map_err(|e| Error::file(path, "cannot be read", &e))?;
            Ok(Box::new(Watched { file: file.take(len), watch }))
        };
        let content = Content::Stream(len, &open);
        self.send(&Call { method: Method::PUT, content, is_file: true, ..Call::get(url.to_owned(), subject) })
    }

    /// Sends a file in parts of `part` bytes, each to an address of its own, and says that it is complete.
    #[allow(clippy::too_many_arguments, reason = "they are what the protocol asks for")]
    fn put_parts(
        &self,
        upload: &ActionJson,
        part: u64,
        path: &std::path::Path,
        size: u64,
        oid: &str,
        subject: &str,
        watch: &Watch<'_>,
    ) -> Result<()> {
        let numbered = upload.header.iter().filter_map(|(name, url)| Some((name.parse::<u64>().ok()?, url.as_str()?)));
        let urls: BTreeMap<u64, &str> = numbered.collect();
        if urls.len() as u64 != size.div_ceil(part) {
            let message =
                format!("{subject}: the Hub wants {} parts of {part} bytes, which do not make {size}", urls.len());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let mut parts = Vec::with_capacity(urls.len());
        for (at, url) in urls.values().enumerate() {
            let start = at as u64 * part;
            let response = self.put(url, path, start, part.min(size - start), subject, watch)?;
            let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let etag = etag.ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, format!("{subject}: part {} was taken without a receipt", at + 1))
            })?;
            parts.push(json!({ "partNumber": at + 1, "etag": etag }));
        }
        let json = json!({ "oid": oid, "parts": parts }).to_string();
        let content = Content::Bytes(json.as_bytes(), LFS_TYPE);
        self.send(&Call { content, ..Call::post(upload.href.clone(), &[], subject) })?;
        Ok(())
    }

    /// Puts everything that a plan lists into the branch at once. Large files are uploaded already. Gives the commit.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the branch is no longer what the plan is based on.
    pub fn commit(&self, plan: &Plan, branch: &str, message: &str) -> Result<String> {
        let header = json!({ "summary": message, "description": "", "parentCommit": plan.base.commit });
        let mut lines = json!({ "key": "header", "value": header }).to_string() + "\n";
        for (item, way) in &plan.missing {
            let line = match way {
                Way::Ignored => continue,
                Way::Lfs => {
                    let oid = ContentId::Sha256(item.sha256).to_string();
                    let value = json!({ "path": item.path.as_str(), "algo": "sha256", "oid": oid, "size": item.size });
                    json!({ "key": "lfsFile", "value": value })
                }
                Way::Commit => {
                    let content = BASE64_STANDARD.encode(item.read(LARGEST_IN_COMMIT + 1)?);
                    let value = json!({ "path": item.path.as_str(), "content": content, "encoding": "base64" });
                    json!({ "key": "file", "value": value })
                }
            };
            lines += &(line.to_string() + "\n");
        }
        let repo = plan.base.repo.as_str();
        let url = self.api(&format!("models/{repo}/commit/{}", encode(branch, false)));
        let content = Content::Bytes(lines.as_bytes(), "application/x-ndjson");
        // If the answer is lost the commit may have been made.
        let call = Call { content, repeatable: false, ..Call::post(url, &[], repo) };
        Ok(parse::<CommitJson>(self.send(&call)?, repo)?.commit_oid)
    }
}

/// A part of a file on its way, which can be called back.
struct Watched<'a> {
    file: io::Take<fs::File>,
    watch: &'a Watch<'a>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.check().map_err(|_| io::Error::other("interrupted"))?;
        let len = self.file.read(buffer)?;
        self.watch.advance(len as u64);
        Ok(len)
    }
}
