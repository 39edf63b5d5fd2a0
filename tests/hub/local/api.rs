//! The API: what is asked under which path, who may, and the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::http::{Request, Response, decode};
use super::repos::{Entry, Repo, State, Tree};
use super::{LocalHub, READ_TOKEN, TOKEN, USER};

/// The right that a request has.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Right {
    Nobody,
    Read,
    Write,
}

impl LocalHub {
    pub(super) fn answer_api(&self, request: &Request) -> Response {
        let right = match request.header("authorization").map(|value| value.strip_prefix("Bearer ").unwrap_or("")) {
            None => Right::Nobody,
            Some(TOKEN) => Right::Write,
            Some(READ_TOKEN) => Right::Read,
            Some(_) => return Response::refuse(401, "", "Invalid credentials in Authorization header"),
        };
        let parts: Vec<String> = request.path.split('/').skip(1).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["api", "whoami-v2"]) if right == Right::Nobody => Response::refuse(401, "", "who?"),
            ("GET", ["api", "whoami-v2"]) => Response::json(&json!({ "type": "user", "name": USER, "orgs": [] })),
            ("GET", ["api", "models"]) => self.models(request, right),
            ("POST", ["api", "repos", "create"]) => self.create(request, right),
            (_, ["api", "models", owner, name, rest @ ..]) => {
                self.in_repo(request, right, &format!("{owner}/{name}"), rest)
            }
            ("POST", [owner, name, "info", "lfs", rest @ ..]) => {
                let repo = format!("{owner}/{}", name.trim_end_matches(".git"));
                self.lfs(request, right, &repo, rest)
            }
            ("GET" | "HEAD", [owner, name, "resolve", revision, path @ ..]) => {
                self.resolve(request, right, &format!("{owner}/{name}"), revision, &path.join("/"))
            }
            _ => Response::refuse(404, "", "there is nothing here"),
        }
    }

    /// A repo that the request may see.
    fn visible<'a>(&self, state: &'a State, repo: &str, right: Right) -> Result<&'a Repo, Response> {
        match state.repos.get(repo) {
            Some(found) if !found.private || right > Right::Nobody => Ok(found),
            _ if right == Right::Nobody => Err(Response::refuse(401, "RepoNotFound", "Repository not found")),
            _ => Err(Response::refuse(404, "RepoNotFound", "Repository not found")),
        }
    }

    fn models(&self, request: &Request, right: Right) -> Response {
        let state = self.shared.state.lock().unwrap();
        let author = request.parameter("author").map(|author| author + "/").unwrap_or_default();
        let visible = state
            .repos
            .iter()
            .filter(|(name, repo)| name.starts_with(&author) && (!repo.private || right > Right::Nobody));
        let entries: Vec<Value> =
            visible.map(|(name, repo)| json!({ "id": name, "modelId": name, "private": repo.private })).collect();
        self.page(request, &entries)
    }

    /// One page of a list, and where the next one is.
    fn page(&self, request: &Request, entries: &[Value]) -> Response {
        let start: usize = request.parameter("cursor").map_or(0, |cursor| cursor.parse().unwrap());
        let end = entries.len().min(start + self.shared.page.load(Ordering::Relaxed));
        let page = Response::json(&Value::from(entries[start..end].to_vec()));
        if end == entries.len() {
            return page;
        }
        let others = request.query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let query: Vec<String> = others.map(str::to_owned).chain([format!("cursor={end}")]).collect();
        page.with("Link", format!("<{}{}?{}>; rel=\"next\"", self.endpoint(), request.path, query.join("&")))
    }

    fn create(&self, request: &Request, right: Right) -> Response {
        if right < Right::Write {
            return Response::refuse(if right == Right::Nobody { 401 } else { 403 }, "", "You may not create repos");
        }
        let json: Value = serde_json::from_slice(&request.body).unwrap();
        let owner = json["organization"].as_str().unwrap_or(USER);
        let repo = format!("{owner}/{}", json["name"].as_str().unwrap());
        let mut state = self.shared.state.lock().unwrap();
        let url = format!("{}/{repo}", self.endpoint());
        if state.repos.contains_key(&repo) {
            return Response::json(&json!({ "error": "exists already", "url": url })).but(409);
        }
        let private = json["private"].as_bool().unwrap_or(false) || json["visibility"] == "private";
        state.repos.insert(repo.clone(), Repo { private, ..Repo::default() });
        let attributes = Arc::new(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n".to_vec());
        let tree = Tree::from([(".gitattributes".to_owned(), Entry { content: attributes, lfs: None })]);
        state.commit(&repo, "main", tree);
        Response::json(&json!({ "url": url, "name": repo, "id": repo }))
    }

    fn in_repo(&self, request: &Request, right: Right, name: &str, rest: &[&str]) -> Response {
        let mut state = self.shared.state.lock().unwrap();
        let repo = match self.visible(&state, name, right) {
            Ok(repo) => repo.clone(),
            Err(refusal) => return refusal,
        };
        let writes = matches!(rest.first(), Some(&("preupload" | "commit" | "branch")));
        if writes && right < Right::Write {
            return Response::refuse(403, "", "You may not write to this repo");
        }
        let revision = *rest.get(1).unwrap_or(&"main");
        if let ("POST", ["branch", branch]) = (request.method.as_str(), rest) {
            if repo.branches.contains_key(*branch) {
                return Response::refuse(409, "", "the branch exists already");
            }
            let start = repo.branches["main"].clone();
            state.repos.get_mut(name).unwrap().branches.insert((*branch).to_owned(), start);
            return Response::json(&json!({}));
        }
        let Some(commit) = repo.resolve(revision) else {
            return Response::refuse(404, "RevisionNotFound", "Invalid rev id");
        };
        let tree = &repo.commits[&commit];
        match (request.method.as_str(), rest) {
            ("GET" | "HEAD", [] | ["revision", _]) => {
                let siblings: Vec<Value> = tree.keys().map(|path| json!({ "rfilename": path })).collect();
                Response::json(&json!({
                    "id": name, "modelId": name, "sha": commit, "private": repo.private, "gated": repo.gated,
                    "disabled": false, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
                }))
            }
            ("GET", ["tree", _, below @ ..]) => {
                let below = below.join("/");
                drop(state);
                self.page(request, &list(tree, &below, request.parameter("recursive").is_some()))
            }
            ("POST", ["paths-info", _]) => {
                // As a form sends it.
                let form = String::from_utf8_lossy(&request.body).replace('+', " ");
                let paths: Vec<String> =
                    form.split('&').filter_map(|pair| pair.strip_prefix("paths=")).map(decode).collect();
                let found = list(tree, "", true).into_iter();
                Response::json(&found.filter(|entry| paths.iter().any(|path| entry["path"] == path.as_str())).collect())
            }
            ("POST", ["preupload", _]) => {
                let json: Value = serde_json::from_slice(&request.body).unwrap();
                let files = json["files"].as_array().unwrap().iter().map(|file| {
                    let path = file["path"].as_str().unwrap();
                    let sample = BASE64_STANDARD.decode(file["sample"].as_str().unwrap()).unwrap();
                    let large = path.ends_with(".safetensors") || path.ends_with(".gguf") || sample.contains(&0);
                    let mode = if large { "lfs" } else { "regular" };
                    let oid = tree.get(path).map(Entry::oid);
                    json!({ "path": path, "uploadMode": mode, "shouldIgnore": path.ends_with(".ignored"), "oid": oid })
                });
                Response::json(&json!({ "files": files.collect::<Vec<_>>() }))
            }
            ("POST", ["commit", branch]) => {
                commit_to(&mut state, request, name, branch, &commit, tree, self.endpoint())
            }
            _ => Response::refuse(404, "", "there is nothing here"),
        }
    }

    fn lfs(&self, request: &Request, right: Right, name: &str, rest: &[&str]) -> Response {
        if right < Right::Write && !matches!(rest, ["complete"]) {
            return Response::refuse(403, "", "You may not write to this repo");
        }
        let json: Value = serde_json::from_slice(&request.body).unwrap();
        match rest {
            ["complete"] => self.complete(request),
            ["verify"] => {
                let state = self.shared.state.lock().unwrap();
                let object = state.objects.get(json["oid"].as_str().unwrap());
                let there = object.is_some_and(|object| json["size"] == object.len());
                Response::status(if there { 200 } else { 404 })
            }
            ["objects", "batch"] => {
                let state = self.shared.state.lock().unwrap();
                if let Err(refusal) = self.visible(&state, name, right) {
                    return refusal;
                }
                let objects = json["objects"].as_array().unwrap().iter().map(|object| {
                    let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap());
                    if state.objects.contains_key(oid) {
                        return json!({ "oid": oid, "size": size });
                    }
                    let verify = json!({ "href": format!("{}/{name}.git/info/lfs/verify", self.endpoint()) });
                    let upload = self.upload(name, oid, size, state.part_size);
                    json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
                });
                let transfer = if state.xet_alone { "xet" } else { "basic" };
                Response::json(&json!({ "transfer": transfer, "objects": objects.collect::<Vec<_>>() }))
            }
            _ => Response::status(404),
        }
    }

    /// Where a large file goes.
    fn upload(&self, name: &str, oid: &str, size: u64, part_size: Option<usize>) -> Value {
        let storage = &self.shared.storage;
        match part_size {
            Some(part) if size > part as u64 => {
                let mut header = BTreeMap::from([("chunk_size".to_owned(), part.to_string())]);
                for number in 1..=size.div_ceil(part as u64) {
                    header.insert(format!("{number:05}"), format!("{storage}/objects/{oid}/{number}?signature=valid"));
                }
                json!({ "href": format!("{}/{name}.git/info/lfs/complete", self.endpoint()), "header": header })
            }
            _ => json!({ "href": format!("{storage}/objects/{oid}?signature=valid") }),
        }
    }

    fn resolve(&self, request: &Request, right: Right, name: &str, revision: &str, path: &str) -> Response {
        let state = self.shared.state.lock().unwrap();
        let repo = match self.visible(&state, name, right) {
            Ok(repo) => repo,
            Err(refusal) => return refusal,
        };
        if repo.gated && right == Right::Nobody {
            return Response::refuse(401, "GatedRepo", "Access to this model is restricted");
        }
        let Some(commit) = repo.resolve(revision) else {
            return Response::refuse(404, "RevisionNotFound", "Invalid rev id");
        };
        let Some(entry) = repo.commits[&commit].get(path) else {
            return Response::refuse(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", commit);
        };
        match &entry.lfs {
            Some(oid) => Response::status(302)
                .with("X-Linked-Etag", format!("\"{oid}\""))
                .with("X-Linked-Size", entry.content.len().to_string())
                .with("ETag", format!("\"{}\"", entry.oid()))
                .with("Location", format!("{}/objects/{oid}?signature=valid", self.shared.storage)),
            None => Response::contents(Arc::clone(&entry.content))
                .with("ETag", format!("\"{}\"", entry.oid()))
                .in_range(request),
        }
        .with("X-Repo-Commit", commit)
    }
}

/// The files below a path, and the directories if not all that is in them is wanted too.
fn list(tree: &Tree, below: &str, recursive: bool) -> Vec<Value> {
    let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
    let (mut entries, mut directories) = (Vec::new(), BTreeSet::new());
    for (path, entry) in tree {
        let Some(inside) = path.strip_prefix(&prefix) else { continue };
        for (at, _) in inside.match_indices('/') {
            let directory = format!("{prefix}{}", &inside[..at]);
            if (recursive || !inside[..at].contains('/')) && directories.insert(directory.clone()) {
                entries.push(json!({ "type": "directory", "path": directory, "oid": "0".repeat(40), "size": 0 }));
            }
        }
        if recursive || !inside.contains('/') {
            let size = entry.content.len();
            let mut json = json!({ "type": "file", "path": path, "oid": entry.oid(), "size": size });
            if let Some(oid) = &entry.lfs {
                json["lfs"] = json!({ "oid": oid, "size": size, "pointerSize": 134 });
            }
            entries.push(json);
        }
    }
    entries
}

/// Makes a commit of the operations that a request lists.
fn commit_to(
    state: &mut State,
    request: &Request,
    name: &str,
    branch: &str,
    parent: &str,
    tree: &Tree,
    endpoint: &str,
) -> Response {
    let mut tree = tree.clone();
    for line in request.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).unwrap();
        let value = &line["value"];
        let path = value["path"].as_str().unwrap_or_default().to_owned();
        match line["key"].as_str().unwrap() {
            "header" => {
                if value["parentCommit"].as_str().is_some_and(|expected| expected != parent) {
                    return Response::refuse(412, "", "A commit has happened since. Please refresh and try again.");
                }
            }
            "file" => {
                let content = BASE64_STANDARD.decode(value["content"].as_str().unwrap()).unwrap();
                tree.insert(path, Entry { content: Arc::new(content), lfs: None });
            }
            "lfsFile" => {
                let oid = value["oid"].as_str().unwrap();
                let Some(content) = state.objects.get(oid) else {
                    return Response::refuse(400, "", "an LFS file of the commit was not uploaded");
                };
                tree.insert(path, Entry { content: Arc::clone(content), lfs: Some(oid.to_owned()) });
            }
            "deletedFile" => {
                tree.remove(&path);
            }
            key => return Response::refuse(400, "", key),
        }
    }
    let commit = state.commit(name, branch, tree);
    let url = format!("{endpoint}/{name}/commit/{commit}");
    Response::json(&json!({ "success": true, "commitOid": commit, "commitUrl": url, "hookOutput": "" }))
}
