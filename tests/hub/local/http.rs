//! HTTP/1.1 over a connection: requests in, answers out, some of them broken on purpose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Wrong;

/// The longest head of a request.
const LONGEST_HEAD: usize = 64 << 10;

pub struct Request {
    pub method: String,
    /// Without the query, not decoded.
    pub path: String,
    pub query: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(known, _)| *known == name).map(|(_, value)| decode(value))
    }
}

/// `text` without percent signs.
pub fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, others)) = rest.split_first() {
        let code = (first == b'%').then(|| others.get(..2)).flatten();
        match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &others[2..]).1,
            None => (bytes.push(first), rest = others).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
    /// The part of the body that is sent.
    range: std::ops::Range<usize>,
}

impl Response {
    pub fn status(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Arc::default(), range: 0..0 }
    }

    pub fn json(value: &serde_json::Value) -> Response {
        Response::contents(Arc::new(value.to_string().into_bytes())).with("Content-Type", "application/json")
    }

    /// A refusal as the Hub words it.
    pub fn refuse(status: u16, code: &str, message: &str) -> Response {
        let body = serde_json::json!({ "error": message });
        let refusal = Response::json(&body).but(status).with("X-Error-Message", message);
        if code.is_empty() { refusal } else { refusal.with("X-Error-Code", code) }
    }

    /// The same with another status.
    pub fn but(self, status: u16) -> Response {
        Response { status, ..self }
    }

    pub fn contents(body: Arc<Vec<u8>>) -> Response {
        Response { status: 200, headers: Vec::new(), range: 0..body.len(), body }
    }

    pub fn without(mut self, name: &str) -> Response {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The part of the body that the request asks for.
    pub fn in_range(mut self, request: &Request) -> Response {
        let total = self.body.len();
        self = self.with("Accept-Ranges", "bytes");
        let Some(range) = request.header("range").and_then(|range| range.strip_prefix("bytes=")) else { return self };
        let (start, end) = range.split_once('-').unwrap();
        let (start, end): (Option<usize>, Option<usize>) = (start.parse().ok(), end.parse().ok());
        let (start, end) = match (start, end) {
            (Some(start), end) => (start, end.map_or(total, |end| (end + 1).min(total))),
            (None, last) => (total - last.unwrap().min(total), total),
        };
        if start >= total {
            return Response::status(416).with("Content-Range", format!("bytes */{total}"));
        }
        self.range = start..end;
        self.status = 206;
        self.with("Content-Range", format!("bytes {start}-{}/{total}", end - 1))
    }
}

/// Answers the requests that come on a connection until it ends.
pub fn serve(stream: TcpStream, rate: &AtomicU64, answer: impl Fn(&Request) -> (Response, Option<Wrong>)) {
    let mut out = stream.try_clone().unwrap();
    let mut input = BufReader::with_capacity(1 << 20, stream);
    while let Some(request) = read(&mut input, &mut out) {
        let (response, wrong) = answer(&request);
        if write(&mut out, rate.load(Ordering::Relaxed), &request, &response, wrong.as_ref()).is_err()
            || wrong.is_some()
        {
            return;
        }
    }
}

fn read(input: &mut impl BufRead, out: &mut impl Write) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if input.read_until(b'\n', &mut head).ok()? == 0 || head.len() > LONGEST_HEAD {
            return None;
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(&head).ok()?;
    let (path, query) = parsed.path?.split_once('?').unwrap_or((parsed.path?, ""));
    let mut request = Request {
        method: parsed.method?.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|field| (field.name.to_lowercase(), String::from_utf8_lossy(field.value).into_owned()))
            .collect(),
        body: Vec::new(),
    };
    if request.header("expect").is_some() {
        out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if let Some(len) = request.header("content-length") {
        let len: usize = len.parse().ok()?;
        let mut body = Vec::with_capacity(len);
        input.take(len as u64).read_to_end(&mut body).ok()?;
        if body.len() < len {
            return None;
        }
        request.body = body;
    } else if request.header("transfer-encoding").is_some() {
        request.body = read_chunks(input)?;
    }
    Some(request)
}

fn read_chunks(input: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let len = u64::from_str_radix(line.trim(), 16).ok()?;
        input.take(len).read_to_end(&mut body).ok()?;
        input.read_line(&mut String::new()).ok()?;
        if len == 0 {
            return Some(body);
        }
    }
}

fn write(
    out: &mut impl Write,
    rate: u64,
    request: &Request,
    response: &Response,
    wrong: Option<&Wrong>,
) -> std::io::Result<()> {
    let body = &response.body[response.range.clone()];
    let len = match wrong {
        Some(Wrong::Length(more)) => body.len() as i64 + more,
        _ => body.len() as i64,
    };
    let mut head = format!("HTTP/1.1 {} Status\r\n", response.status);
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {len}\r\n\r\n");
    out.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match wrong {
        Some(Wrong::Cut(after)) => out.write_all(&body[..(*after).min(body.len())]),
        Some(Wrong::Flip) => {
            let mut body = body.to_vec();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            out.write_all(&body)
        }
        _ => write_at(out, rate, body),
    }
}

/// Writes at most `rate` bytes a second; 0 for as many as can be.
fn write_at(out: &mut impl Write, rate: u64, body: &[u8]) -> std::io::Result<()> {
    /// Pieces in a second.
    const PIECES: u64 = 50;
    if rate == 0 {
        return out.write_all(body);
    }
    let start = Instant::now();
    for (number, piece) in body.chunks((rate / PIECES).max(1) as usize).enumerate() {
        out.write_all(piece)?;
        let due = Duration::from_secs(number as u64 + 1) / PIECES as u32;
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(())
}
