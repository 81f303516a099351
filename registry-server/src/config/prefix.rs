//! The path that everything of the registry is below, where a proxy gives it a part of a host only.

use std::str::FromStr;

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use serde::{Deserialize, Serialize};

/// `/registry`; or nothing, when a host is the registry's alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !["", ".", ".."].contains(&name) && name.bytes().all(plain)
        };
        let names = path.strip_prefix('/').map(|names| names.split('/').all(is_plain));
        if path.is_empty() || names == Some(true) {
            return Ok(Self(path.to_owned()));
        }
        Err(format!("{text:?} is no prefix: it is a path like \"/registry/\" of letters, digits and any of -._~"))
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl Prefix {
    /// The path, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes it from a request's address; `false` when that is not below it.
    pub(crate) fn take_from(&self, uri: &mut Uri) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(rest) = uri.path_and_query().and_then(|path| path.as_str().strip_prefix(&self.0)) else {
            return false;
        };
        let path: Result<PathAndQuery, _> = match rest.as_bytes().first() {
            Some(b'/') => rest.parse(),
            None | Some(b'?') => format!("/{rest}").parse(),
            Some(_) => return false,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = path.ok();
        match Uri::from_parts(parts) {
            Ok(rest) => *uri = rest,
            Err(_) => return false,
        }
        true
    }

    /// Puts it before the paths that an answer's headers lead to.
    pub(crate) fn put_into(&self, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        for (name, before) in [(header::LOCATION, ""), (header::LINK, "<")] {
            let led = headers.get(&name).and_then(|value| value.to_str().ok()?.strip_prefix(before));
            let led = led.filter(|rest| rest.starts_with('/')).map(|rest| format!("{before}{}{rest}", self.0));
            if let Some(value) = led.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_plain_path() {
        for (text, path) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/b-c/", "/a/b-c"), ("/v2", "/v2")] {
            assert_eq!(text.parse(), Ok(Prefix(path.to_owned())), "{text}");
        }
        for text in ["a", "a/", "//", "/a//b", "/../a", "/a/./b", "/a b", "/a%20", "/a?b", "https://host/a", "/é"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_below_it_loses_it_and_gets_it_back() {
        let prefix: Prefix = "/a/b/".parse().unwrap();
        for (asked, meant) in [
            ("/a/b/v2/", Some("/v2/")),
            ("/a/b", Some("/")),
            ("/a/b?q=x", Some("/?q=x")),
            ("/a/b/a/b?n=1", Some("/a/b?n=1")),
            ("https://host:1/a/b/v2/", Some("https://host:1/v2/")),
            ("/a/bc/v2/", None),
            ("/v2/", None),
            ("/", None),
            ("*", None),
        ] {
            let mut uri: Uri = asked.parse().unwrap();
            assert_eq!(prefix.take_from(&mut uri).then(|| uri.to_string()).as_deref(), meant, "{asked}");
        }
        let led = |name: &str, text: &'static str| {
            let name: header::HeaderName = name.parse().unwrap();
            let mut headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(text))]);
            prefix.put_into(&mut headers);
            headers[&name].to_str().unwrap().to_owned()
        };
        assert_eq!(led("location", "/v2/a/blobs/x"), "/a/b/v2/a/blobs/x");
        assert_eq!(led("link", "</v2/_catalog?n=1>; rel=\"next\""), "</a/b/v2/_catalog?n=1>; rel=\"next\"");
        assert_eq!(led("location", "https://elsewhere/"), "https://elsewhere/");
    }
}
