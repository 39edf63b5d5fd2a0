//! Requests to the Hub: which may be repeated and when, who gets the token, and what a refusal means.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use super::settings::Settings;
use super::{Error, ErrorKind, Result};
use crate::interrupt;

/// How often a request is made that fails and fails, none of its bytes getting through.
const ATTEMPTS: u32 = 6;

/// The pause before the second attempt; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that a server can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A connection on which nothing moves for so long is given up and made anew.
const STALL: Duration = Duration::from_secs(10);

/// How long an answer may take that is no file, a commit of thousands of files included.
const ANSWER: Duration = Duration::from_secs(120);

/// The longest answer that is no file, in bytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// The longest explanation of a refusal that is shown.
const LONGEST_REASON: usize = 300;

const REDIRECTS: u32 = 5;

/// The header that says, on the redirect to a file, what the file's id is. [`Hub::attempt`] puts it on the file itself.
pub const LINKED_ETAG: &str = "x-linked-etag";

/// The Hub, as this process was told to find it.
pub struct Hub {
    settings: Settings,
    /// For what is short.
    answers: Agent,
    /// For files: they may take any time, but not stand still.
    files: Agent,
}

/// What is sent with a request. It can be sent again.
pub enum Content<'a> {
    Nothing,
    /// Bytes of this type.
    Bytes(&'a [u8], &'static str),
    /// As many bytes as the reader that it makes gives.
    Stream(u64, &'a dyn Fn() -> Result<Box<dyn Read + 'a>>),
}

/// A request and what to make of its failure.
pub struct Call<'a> {
    pub method: Method,
    pub url: String,
    pub content: Content<'a>,
    pub headers: Vec<(&'static str, String)>,
    /// What it is about, for messages.
    pub subject: &'a str,
    /// Whether a request whose answer was lost may be made again.
    pub repeatable: bool,
    /// Whether what comes or goes is a file.
    pub is_file: bool,
}

impl<'a> Call<'a> {
    /// A request for what lies at `url`.
    pub fn get(url: String, subject: &'a str) -> Call<'a> {
        let headers = Vec::new();
        Call { method: Method::GET, url, content: Content::Nothing, headers, subject, repeatable: true, is_file: false }
    }

    /// A request that sends JSON.
    pub fn post(url: String, json: &'a [u8], subject: &'a str) -> Call<'a> {
        let content = Content::Bytes(json, "application/json");
        Call { method: Method::POST, content, ..Call::get(url, subject) }
    }
}

/// How often something was tried without getting any further, and how long to wait.
#[derive(Debug, Default)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// Something came through: whatever failed before is forgotten.
    pub fn restore(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, as long as the server asked for.
    ///
    /// # Errors
    /// `error` when it was tried often enough, or the server asks for more patience than anybody has.
    pub fn wait(&mut self, error: Error, asked: Option<Duration>) -> Result<()> {
        self.failures += 1;
        if self.failures >= ATTEMPTS || error.kind() == ErrorKind::Interrupted {
            return Err(error);
        }
        let pause = asked.unwrap_or(PAUSE * 2u32.pow(self.failures - 1));
        if pause > LONGEST_PAUSE {
            let seconds = pause.as_secs();
            return Err(Error::new(
                error.kind(),
                format!("{error}\nit asks for {seconds} seconds of patience: try later"),
            ));
        }
        let end = Instant::now() + pause;
        while interrupt::caught().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
        Err(Error::interrupted())
    }
}

/// How one attempt failed.
pub enum Failed {
    /// It will fail again.
    Final(Error),
    /// It may be otherwise another time, after the pause that the server asked for.
    Passing(Error, Option<Duration>),
}

impl Hub {
    /// The Hub of these settings.
    ///
    /// # Errors
    /// When nothing may be asked of it.
    pub fn new(settings: Settings) -> Result<Hub> {
        if settings.offline {
            return Err(Error::new(
                ErrorKind::Unreachable,
                "HF_HUB_OFFLINE is set, so nothing is asked of the Hub; unset it for this command",
            ));
        }
        let tls = TlsConfig::builder().root_certs(trusted(&settings)?).build();
        let config = || {
            Agent::config_builder()
                .tls_config(tls.clone())
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("bigsmall/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(STALL))
        };
        let answers = config().timeout_global(Some(ANSWER)).build().new_agent();
        let files = config()
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .build()
            .new_agent();
        Ok(Hub { settings, answers, files })
    }

    /// Where it is and who asks.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A URL of its API.
    pub fn api(&self, path: &str) -> String {
        format!("{}/api/{path}", self.settings.endpoint)
    }

    /// Makes a request until it is answered, and gives the answer, which is no refusal.
    ///
    /// # Errors
    /// When it is refused, or the Hub cannot be reached for long.
    pub fn send(&self, call: &Call<'_>) -> Result<Response<Body>> {
        let mut patience = Patience::default();
        loop {
            match self.attempt(call) {
                Ok(response) => return Ok(response),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Passing(error, pause)) => patience.wait(error, pause)?,
            }
        }
    }

    /// Makes a request once, following redirects.
    ///
    /// # Errors
    /// How it failed.
    pub fn attempt(&self, call: &Call<'_>) -> std::result::Result<Response<Body>, Failed> {
        let (mut url, mut redirects, mut linked) = (call.url.clone(), 0, None);
        loop {
            if interrupt::caught().is_some() {
                return Err(Failed::Final(Error::interrupted()));
            }
            let mut response = self.exchange(call, &url)?;
            let status = response.status();
            linked = response.headers().get(LINKED_ETAG).cloned().or(linked);
            if status.is_success() {
                linked.map(|etag| response.headers_mut().insert(LINKED_ETAG, etag));
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            match location.filter(|_| status.is_redirection() && call.method == Method::GET) {
                Some(_) if redirects == REDIRECTS => {
                    let message = format!("{}: the Hub leads from one place to another without end", call.subject);
                    return Err(Failed::Final(Error::new(ErrorKind::Unreachable, message)));
                }
                Some(location) => url = self.resolve(&url, location),
                None => return Err(self.refusal(call, response)),
            }
            redirects += 1;
        }
    }

    /// Where `location` leads from `url`.
    fn resolve(&self, url: &str, location: &str) -> String {
        match location.strip_prefix('/') {
            Some(_) => format!("{}{location}", origin(url)),
            None => location.to_owned(),
        }
    }

    /// Whether the token may be shown to who answers at `url`.
    pub fn is_trusted(&self, url: &str) -> bool {
        origin(url) == origin(&self.settings.endpoint)
    }

    fn exchange(&self, call: &Call<'_>, url: &str) -> std::result::Result<Response<Body>, Failed> {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        if let Some(token) = self.settings.token.as_ref().filter(|_| self.is_trusted(url)) {
            request = request.header(AUTHORIZATION, token.header());
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        match call.content {
            Content::Nothing => self.run(call, request.body(SendBody::none())),
            Content::Bytes(mut bytes, kind) => {
                request = request.header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, bytes.len());
                self.run(call, request.body(SendBody::from_reader(&mut bytes)))
            }
            Content::Stream(len, open) => {
                request = request.header(CONTENT_LENGTH, len);
                let mut reader = open().map_err(Failed::Final)?;
                self.run(call, request.body(SendBody::from_reader(&mut reader)))
            }
        }
    }

    fn run(
        &self,
        call: &Call<'_>,
        request: ureq::http::Result<Request<SendBody<'_>>>,
    ) -> std::result::Result<Response<Body>, Failed> {
        // What the server sends as a place, or the user as an endpoint, may be no URL.
        let no_url = |e| {
            let message = format!("{}: the address of the Hub or one that it sends is wrong: {e}", call.subject);
            Failed::Final(Error::new(ErrorKind::Unreachable, message))
        };
        let agent = if call.is_file { &self.files } else { &self.answers };
        agent.run(request.map_err(no_url)?).map_err(|error| self.broken(call, &error))
    }

    /// What the failure of an exchange means.
    fn broken(&self, call: &Call<'_>, error: &ureq::Error) -> Failed {
        let error = Error::new(
            ErrorKind::Unreachable,
            self.hide(&format!("{}: cannot reach {}: {error}", call.subject, self.settings.endpoint)),
        );
        if call.repeatable { Failed::Passing(error, None) } else { Failed::Final(error) }
    }

    /// What an answer means that is not what was asked for.
    fn refusal(&self, call: &Call<'_>, response: Response<Body>) -> Failed {
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status, parts.headers);
        let mut text = Vec::new();
        let _ = body.into_reader().take(1 << 16).read_to_end(&mut text);
        let reason = self.hide(&reason(&headers, &text));
        let code = headers.get("x-error-code").and_then(|value| value.to_str().ok()).unwrap_or("");
        let (kind, what) = self.meaning(status, code);
        let reason = if reason.is_empty() { String::new() } else { format!("\nthe Hub says: {reason}") };
        let error = Error::new(kind, format!("{}: {what}{reason}", call.subject));
        let busy = matches!(status.as_u16(), 429 | 503);
        match status.as_u16() {
            408 | 429 | 500 | 502 | 503 | 504 if call.repeatable || busy => Failed::Passing(error, pause(&headers)),
            _ => Failed::Final(error),
        }
    }

    /// What a status means and what to do about it.
    fn meaning(&self, status: StatusCode, code: &str) -> (ErrorKind, String) {
        let endpoint = &self.settings.endpoint;
        let known = self.settings.token.is_some();
        match (status.as_u16(), code) {
            (_, "GatedRepo") => (
                ErrorKind::Denied,
                format!("is gated: ask for access on its page at {endpoint}, and set HF_TOKEN to a token of yours"),
            ),
            (401, _) if known => (
                ErrorKind::Denied,
                format!(
                    "the Hub refuses the token, which is wrong or has expired (401)\n\
                     make one at {endpoint}/settings/tokens and set HF_TOKEN to it, or log in with `hf auth login`"
                ),
            ),
            (401, _) => (
                ErrorKind::Denied,
                format!(
                    "there is no such repo, or it is private (401)\n\
                     check its name; for a private one set HF_TOKEN to a token from {endpoint}/settings/tokens"
                ),
            ),
            (403, _) => (
                ErrorKind::Denied,
                format!(
                    "the token may not do this (403)\n\
                     it needs the right to it, for uploads the one to write: see {endpoint}/settings/tokens"
                ),
            ),
            (404, "RevisionNotFound") => {
                (ErrorKind::NotFound, "there is no such branch, tag or commit in the repo (404)".to_owned())
            }
            (404, "EntryNotFound") => (ErrorKind::NotFound, "there is no such file in the repo (404)".to_owned()),
            (404, _) => (
                ErrorKind::NotFound,
                "there is no such repo or revision, or none that you may see (404)\n\
                 check its name; for a private one set HF_TOKEN to a token that may read it"
                    .to_owned(),
            ),
            (409 | 412, _) => {
                (ErrorKind::Conflict, format!("the repo was changed by somebody else ({})", status.as_u16()))
            }
            (416, _) => (ErrorKind::Corrupt, "the file is shorter than the Hub lists it (416)".to_owned()),
            (429, _) => (ErrorKind::Unreachable, "the Hub has been asked too much (429)".to_owned()),
            (500..600, _) => (ErrorKind::Unreachable, format!("the Hub has a fault ({})", status.as_u16())),
            _ => (ErrorKind::Other, format!("the Hub refuses ({})", status.as_u16())),
        }
    }

    /// `text` without the token.
    fn hide(&self, text: &str) -> String {
        self.settings.token.as_ref().map_or_else(|| text.to_owned(), |token| token.hide_in(text))
    }
}

/// The certificates that whoever calls itself the Hub must have one of.
fn trusted(settings: &Settings) -> Result<RootCerts> {
    let Some(path) = &settings.certificates else { return Ok(RootCerts::WebPki) };
    let pem = std::fs::read(path)
        .map_err(|e| Error::file(path, "cannot be read; SSL_CERT_FILE or REQUESTS_CA_BUNDLE names it", &e))?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        let message = "there is no certificate in it (PEM), and SSL_CERT_FILE or REQUESTS_CA_BUNDLE names it";
        return Err(Error::new(ErrorKind::Other, format!("{}: {message}", path.display())));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// All of an answer that is no file.
///
/// # Errors
/// When it is cut or too long.
pub fn read(response: Response<Body>, subject: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = response.into_body().into_reader().take(LONGEST_ANSWER + 1).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 <= LONGEST_ANSWER => Ok(bytes),
        Ok(_) => {
            Err(Error::new(ErrorKind::Corrupt, format!("{subject}: the Hub's answer is longer than any should be")))
        }
        Err(e) => Err(Error::new(ErrorKind::Unreachable, format!("{subject}: the Hub's answer was cut: {e}"))),
    }
}

/// The scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Why a request was refused, in the server's words.
fn reason(headers: &HeaderMap, body: &[u8]) -> String {
    let header = headers.get("x-error-message").and_then(|value| value.to_str().ok());
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = json.as_ref().and_then(|json| json.get("error").or_else(|| json.get("message"))?.as_str());
    let text = header.or(error).unwrap_or("").trim();
    text.chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How long the server asks to wait: `Retry-After: 7`, or `RateLimit: "api";r=0;t=7`.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text(RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
    let limit = || text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    after.or_else(limit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_apart_by_scheme_host_and_port() {
        assert_eq!(origin("https://huggingface.co/api/x?y"), "https://huggingface.co");
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
        assert_ne!(origin("http://127.0.0.1:80/"), origin("http://127.0.0.1:81/"));
        assert_ne!(origin("https://huggingface.co.evil.org/"), origin("https://huggingface.co/"));
        assert_eq!(origin("https://huggingface.co?x"), "https://huggingface.co");
    }

    #[test]
    fn servers_say_how_long_to_wait() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                ureq::http::HeaderName::from_static(name),
                ureq::http::HeaderValue::from_static(value),
            )])
        };
        assert_eq!(pause(&headers("retry-after", "7")), Some(Duration::from_secs(7)));
        assert_eq!(pause(&headers("ratelimit", "\"api\";r=0;t=9")), Some(Duration::from_secs(9)));
        assert_eq!(pause(&headers("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")), None);
    }

    #[test]
    fn patience_ends() {
        let error = || Error::new(ErrorKind::Unreachable, "no");
        let mut patience = Patience { failures: ATTEMPTS - 1 };
        assert_eq!(patience.wait(error(), None).unwrap_err().to_string(), "no");
        patience.restore();
        let asked = patience.wait(error(), Some(Duration::from_secs(3600))).unwrap_err();
        assert!(asked.to_string().contains("3600"), "{asked}");
        assert!(patience.wait(error(), Some(Duration::ZERO)).is_ok());
    }
}
