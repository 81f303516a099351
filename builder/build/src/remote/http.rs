//! Files behind HTTP: asked for again only with the validators of what is here, and verified when a checksum is given.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use kiln_store::changeset::Bytes;
use kiln_store::digest::Hasher;
use kiln_store::layer_writer::{Attributes, Content};
use kiln_store::{DiffId, Digest};
use reqwest::header::{
    CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Response, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};

use super::{Fetched, Form, Site};
use crate::{Error, Result, archive, error};

/// The name of a file whose URL gives none, as BuildKit's.
const UNNAMED: &str = "__unnamed__";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
const REDIRECT_LIMIT: usize = 10;

/// What is known of a URL.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    etag: Option<String>,
    modified: Option<String>,
    fetched: Fetched,
}

pub(super) fn fetch(site: &Site<'_>, url: &str, checksum: Option<&str>, form: Form) -> Result<Fetched> {
    let wanted = checksum.map(parse_checksum).transpose()?;
    let parsed: Url = url.parse().map_err(|error| wrong(url, format!("not a URL: {error}")))?;
    let form_word = if form == Form::File { "file" } else { "unpacked" };
    let key = site.key("http", &[url, checksum.unwrap_or_default(), form_word]);
    let known = site.recall(&key, |known: &Known| known.fetched.layer)?;
    if let (Some(known), Some(_)) = (&known, &wanted) {
        return Ok(known.fetched.clone()); // the checksum says what it is, whatever the server says now
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| wrong(url, format!("start the network runtime: {error}")))?;
    let response = runtime.block_on(request(&parsed, known.as_ref()))?;
    if let (StatusCode::NOT_MODIFIED, Some(known)) = (response.status(), &known) {
        return Ok(known.fetched.clone());
    }
    if !response.status().is_success() {
        return Err(wrong(url, format!("the server says {}", response.status())));
    }
    let headers = response.headers().clone();
    let staging = site.store.stage()?;
    let path = staging.scratch("download")?.join("file");
    let io = |error| Error::io("write", &path, error);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
    let actual = runtime.block_on(download(response, &mut file, url, wanted.as_ref()))?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != actual) {
        return Err(wrong(url, format!("digest mismatch: expected {wanted}, got {actual}")));
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let fetched = keep(site, &parsed, &headers, &mut file, form)?;
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let known = Known { etag: text(ETAG), modified: text(LAST_MODIFIED), fetched: fetched.clone() };
    if wanted.is_some() || known.etag.is_some() || known.modified.is_some() {
        site.remember(key, &known, fetched.layer)?;
    }
    Ok(fetched)
}

fn parse_checksum(text: &str) -> Result<Digest> {
    text.parse().map_err(|_| wrong(text, "not a checksum: expected sha256:<64 hex digits>".to_owned()))
}

fn wrong(url: &str, reason: String) -> Error {
    Error::Remote { address: shown(url), reason }
}

/// Without what may be secret.
fn shown(url: &str) -> String {
    let Ok(mut parsed) = url.parse::<Url>() else { return url.to_owned() };
    parsed.set_query(None);
    let _ = parsed.set_password(None);
    parsed.to_string()
}

async fn request(url: &Url, known: Option<&Known>) -> Result<Response> {
    // The only fault it knows is that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: reqwest::Error| wrong(url.as_str(), error::chain(&error.without_url()));
    let agent = concat!("kiln/", env!("CARGO_PKG_VERSION"));
    let mut builder = reqwest::Client::builder()
        .user_agent(agent)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirect::Policy::limited(REDIRECT_LIMIT));
    builder = match url.host_str() {
        Some("127.0.0.1" | "localhost" | "[::1]") => builder.no_proxy(),
        _ => kiln_image::registry::proxied(builder).map_err(failed)?,
    };
    let client = builder.build().map_err(failed)?;
    let mut request = client.get(url.clone());
    if let Some(known) = known {
        match (&known.etag, &known.modified) {
            (Some(etag), _) => request = request.header(IF_NONE_MATCH, etag),
            (None, Some(modified)) => request = request.header(IF_MODIFIED_SINCE, modified),
            (None, None) => {}
        }
    }
    request.send().await.map_err(failed)
}

/// Writes the body while it comes; returns its digest.
async fn download(mut response: Response, file: &mut File, url: &str, wanted: Option<&Digest>) -> Result<Digest> {
    let algorithm = wanted.map_or(kiln_store::digest::Algorithm::Sha256, |digest| digest.algorithm());
    let mut hasher = Hasher::new(algorithm);
    let failed = |error: reqwest::Error| wrong(url, error::chain(&error.without_url()));
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(|error| wrong(url, format!("write what came: {error}")))?;
    }
    Ok(hasher.finish())
}

fn keep(site: &Site<'_>, url: &Url, headers: &HeaderMap, file: &mut File, form: Form) -> Result<Fetched> {
    if form == Form::Unpacked && archive::is_archive(file).map_err(|error| Error::io("read", url.as_str(), error))? {
        return Ok(Fetched { layer: site.unpack(file, url.path())?, name: None });
    }
    let name = name_of(url, headers);
    let layer = put(site, &name, file, modified(headers))?;
    Ok(Fetched { layer, name: Some(name) })
}

fn put(site: &Site<'_>, name: &str, file: &mut File, mtime: i64) -> Result<DiffId> {
    let attributes = Attributes { uid: 0, gid: 0, mode: 0o600, mtime: (mtime, 0) };
    site.layer(|writer| Ok(writer.put_file(name.as_ref(), Content::File(Bytes::Stream(file)), attributes, &[])?))
}

/// The last name of the URL's path, else what the server calls it.
fn name_of(url: &Url, headers: &HeaderMap) -> String {
    let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy();
    let written = decoded.rsplit('/').next().unwrap_or_default();
    let disposition = headers.get(CONTENT_DISPOSITION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = disposition.split(';').find_map(|part| part.trim().strip_prefix("filename="));
    let given = given.map(|name| name.trim_matches('"')).and_then(|name| name.rsplit(['/', '\\']).next());
    let usable = |name: &&str| !matches!(*name, "" | "." | "..") && !name.contains('\0') && name.len() <= 255;
    Some(written).filter(usable).or(given.filter(usable)).unwrap_or(UNNAMED).to_owned()
}

/// Seconds since 1970, or 0 when the server does not say.
fn modified(headers: &HeaderMap) -> i64 {
    let text = headers.get(LAST_MODIFIED).and_then(|value| value.to_str().ok()).unwrap_or_default();
    jiff::fmt::rfc2822::parse(text).map_or(0, |time| time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: D1.11-5
    #[test]
    fn names_come_from_the_path_or_the_server() {
        let name = |url: &str, disposition: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_DISPOSITION, disposition.parse().unwrap());
            name_of(&url.parse().unwrap(), &headers)
        };
        assert_eq!(name("http://h/a/b.txt?x=1", ""), "b.txt");
        assert_eq!(name("http://h/a%20b", "attachment; filename=\"c\""), "a b");
        assert_eq!(name("http://h/", "attachment; filename=\"c.tgz\""), "c.tgz");
        assert_eq!(name("http://h/", "attachment; filename=\"../../c\""), "c");
        assert_eq!(name("http://h/", ""), UNNAMED);
        let mut headers = HeaderMap::new();
        headers.insert(LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
        assert_eq!(modified(&headers), 1_445_412_480);
    }
}
