//! The server of large files. Those who come have a signed address and no other right.

use std::sync::Arc;

use super::LocalHub;
use super::http::{Request, Response};
use super::repos::sha256;

impl LocalHub {
    pub(super) fn answer_storage(&self, request: &Request) -> Response {
        if let Some(token) = request.header("authorization") {
            let leak = format!("{} {}: {token}", request.method, request.path);
            self.shared.state.lock().unwrap().leaks.push(leak);
        }
        if request.parameter("signature").as_deref() != Some("valid") {
            return Response::status(403);
        }
        let parts: Vec<&str> = request.path.split('/').skip(1).collect();
        let mut state = self.shared.state.lock().unwrap();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET" | "HEAD", ["objects", oid]) => match state.objects.get(*oid) {
                Some(content) => {
                    let content = Arc::clone(content);
                    drop(state);
                    Response::contents(content).with("ETag", "\"of the storage alone\"").in_range(request)
                }
                None => Response::status(404),
            },
            ("PUT", ["objects", oid]) => {
                drop(state);
                if sha256(&request.body) != *oid {
                    return Response::status(400);
                }
                self.shared.state.lock().unwrap().objects.insert((*oid).to_owned(), Arc::new(request.body.clone()));
                Response::status(200)
            }
            ("PUT", ["objects", oid, number]) => {
                let number: usize = number.parse().unwrap();
                if number < 1 || state.part_size.is_none_or(|size| request.body.len() > size) {
                    return Response::status(400);
                }
                state.parts.insert(((*oid).to_owned(), number), request.body.clone());
                Response::status(200).with("ETag", format!("\"part {number}\""))
            }
            _ => Response::status(404),
        }
    }

    /// Puts the parts of a large file together.
    pub(super) fn complete(&self, request: &Request) -> Response {
        let json: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let oid = json["oid"].as_str().unwrap().to_owned();
        let mut state = self.shared.state.lock().unwrap();
        let mut whole = Vec::new();
        for (at, part) in json["parts"].as_array().unwrap().iter().enumerate() {
            let number = at + 1;
            if part["partNumber"] != number || part["etag"] != format!("\"part {number}\"") {
                return Response::status(400);
            }
            match state.parts.remove(&(oid.clone(), number)) {
                Some(bytes) => whole.extend(bytes),
                None => return Response::status(400),
            }
        }
        if sha256(&whole) != oid {
            return Response::status(400);
        }
        state.objects.insert(oid, Arc::new(whole));
        Response::status(200)
    }
}
