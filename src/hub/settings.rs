//! Where the Hub is, who asks, and where its cache lies, as the environment says it to all tools of the Hub.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::{Error, ErrorKind, Result};

/// The Hub that everybody means.
const ENDPOINT: &str = "https://huggingface.co";

/// The longest token file that is read, in bytes.
const LONGEST_TOKEN: u64 = 4096;

/// A token, which nothing but the header of a request shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, unless it is empty or could not stand in a header.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Token(text.to_owned()))
    }

    /// The value of the header that shows it to the Hub.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// `text` without the token, should it be in there: a server can send anything.
    pub fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, "[token]")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What the environment says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the Hub is, without a slash at the end.
    pub endpoint: String,
    pub token: Option<Token>,
    /// The directory of the cache.
    pub cache: PathBuf,
    /// Whether nothing may be asked of the Hub.
    pub offline: bool,
    /// The certificates to trust, in PEM, in the place of those that are built in.
    pub certificates: Option<PathBuf>,
}

impl Settings {
    /// The settings that this process was started with.
    ///
    /// # Errors
    /// When a variable makes no sense, naming it.
    pub fn from_environment() -> Result<Settings> {
        Settings::from(|name| std::env::var_os(name))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Result<Settings> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let is_true = |name: &str| {
            text(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let home = set("HOME").map(PathBuf::from);
        let path = |name: &str| set(name).map(|value| expand(PathBuf::from(value), home.as_ref()));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::new(
                ErrorKind::Other,
                format!("HF_ENDPOINT is {endpoint:?}, not the address of a Hub such as {ENDPOINT}"),
            ));
        }
        let directory = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface")));
        let missing = || Error::new(ErrorKind::Other, "there is no home directory: set HF_HOME");
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| directory.as_ref().map(|home| home.join("hub"))).ok_or_else(missing)?;
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| Token::new(&text(name)?));
        let file = path("HF_TOKEN_PATH").or_else(|| directory.map(|home| home.join("token")));
        let implicit = !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        let token = token.or_else(|| file.filter(|_| implicit).and_then(|file| read_token(&file)));
        let certificates = path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE"));
        Ok(Settings { endpoint, token, cache, offline: is_true("HF_HUB_OFFLINE"), certificates })
    }
}

/// `path` with the home directory in the place of `~`.
fn expand(path: PathBuf, home: Option<&PathBuf>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// The token in the file that logging in leaves, if there is one.
fn read_token(path: &std::path::Path) -> Option<Token> {
    let metadata = std::fs::metadata(path).ok()?;
    let readable = metadata.is_file() && metadata.len() <= LONGEST_TOKEN;
    Token::new(&std::fs::read_to_string(path).ok().filter(|_| readable)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_environment_is_read_as_other_tools_read_it() {
        let plain = settings(&[("HOME", "/home/me")]).unwrap();
        assert_eq!(plain.endpoint, ENDPOINT);
        assert_eq!(plain.cache.to_str(), Some("/home/me/.cache/huggingface/hub"));
        assert_eq!((plain.token.as_ref(), plain.offline), (None, false));
        let home = settings(&[("HOME", "/home/me"), ("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(home.cache.to_str(), Some("/home/me/hf/hub"));
        assert_eq!(settings(&[("XDG_CACHE_HOME", "/c")]).unwrap().cache.to_str(), Some("/c/huggingface/hub"));
        let all = settings(&[
            ("HF_ENDPOINT", "http://127.0.0.1:80/"),
            ("HF_HUB_CACHE", "/cache"),
            ("HF_TOKEN", " hf_abc\n"),
            ("HF_HUB_OFFLINE", "true"),
        ]);
        let all = all.unwrap();
        assert_eq!((all.endpoint.as_str(), all.cache.to_str()), ("http://127.0.0.1:80", Some("/cache")));
        assert_eq!((all.token.unwrap().header().as_str(), all.offline), ("Bearer hf_abc", true));
        assert!(settings(&[("HOME", "/"), ("HF_ENDPOINT", "huggingface.co")]).is_err());
        assert!(settings(&[]).is_err());
    }

    #[test]
    fn a_token_is_read_from_its_file_and_shown_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_str().unwrap();
        std::fs::write(directory.path().join("token"), "hf_secret\n").unwrap();
        let found = settings(&[("HF_HOME", home)]).unwrap();
        assert_eq!(found.token, Token::new("hf_secret"));
        assert!(!format!("{found:?}").contains("secret"));
        assert_eq!(found.token.unwrap().hide_in("not hf_secret!"), "not [token]!");
        let disabled = settings(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap();
        assert_eq!(disabled.token, None);
        assert_eq!(Token::new("a\nb"), None);
    }
}
