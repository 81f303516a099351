//! A server on an ephemeral port, and an HTTP client simple enough to misbehave on purpose.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_registry_server::{Config, Server};
use kiln_store::Digest;
use kiln_store::digest::{Algorithm, Hasher};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A running server; stopped gracefully when it is dropped.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    root: PathBuf,
    directory: Option<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with(false)
    }

    pub(crate) fn start_with(sparse: bool) -> Self {
        Self::configured(|config| config.accept_sparse = sparse)
    }

    /// In a directory of its own, configured otherwise than by default.
    pub(crate) fn configured(configure: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        configure(&mut config);
        let mut registry = Self::serve_config(&config);
        registry.directory = Some(directory);
        registry
    }

    /// Serves a directory that somebody else owns.
    pub(crate) fn serve(root: &Path) -> Self {
        Self::serve_config(&config(root))
    }

    /// As configured, but at a free port of loopback.
    pub(crate) fn serve_config(config: &Config) -> Self {
        let mut config = config.clone();
        config.http.listen = vec![([127, 0, 0, 1], 0).into()];
        let server = Server::bind(&config).unwrap();
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(server.serve(async { drop(stopped.await) })).unwrap();
        });
        Self { address, root: config.data, directory: None, stop: Some(stop), thread: Some(thread) }
    }

    /// The same directory, served by a new server.
    pub(crate) fn restart(self) -> Self {
        self.restart_configured(|_| {})
    }

    pub(crate) fn restart_configured(mut self, configure: impl FnOnce(&mut Config)) -> Self {
        let directory = self.directory.take();
        let mut config = config(&self.root);
        drop(self);
        configure(&mut config);
        let mut registry = Self::serve_config(&config);
        registry.directory = directory;
        registry
    }

    /// Ends the server and keeps its directory.
    pub(crate) fn stop(mut self) -> TempDir {
        self.directory.take().unwrap()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn client(&self) -> Client {
        Client { address: self.address }
    }
}

/// A free port on loopback.
pub(crate) fn config(root: &Path) -> Config {
    let mut config = Config::new(root);
    config.http.listen = vec![([127, 0, 0, 1], 0).into()];
    config
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// One request, one connection.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The header, which must be there.
    #[track_caller]
    pub(crate) fn must(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    #[track_caller]
    pub(crate) fn status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }

    /// The status, with the specification's error code in the body.
    #[track_caller]
    pub(crate) fn fails(self, status: u16, code: &str) -> Self {
        let reply = self.status(status);
        assert_eq!(reply.json()["errors"][0]["code"], code, "{}", reply.json());
        reply
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.head(method, target, headers, Some(body.len()));
        stream.write_all(body).unwrap();
        read_reply(stream, method)
    }

    /// A request to a server that may be killed at any time: `None` when there was no whole answer.
    pub(crate) fn attempt(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let reply = parse_reply(bytes)?;
        let length = reply.header("content-length").and_then(|text| text.parse().ok());
        let whole = method == "HEAD" || reply.status == 204 || length == Some(reply.body.len());
        whole.then_some(reply)
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.request("GET", target, &[], b"")
    }

    pub(crate) fn head_of(&self, target: &str) -> Reply {
        self.request("HEAD", target, &[], b"")
    }

    pub(crate) fn delete(&self, target: &str) -> Reply {
        self.request("DELETE", target, &[], b"")
    }

    /// Sends a request's head; without a length the body will be chunked.
    pub(crate) fn head(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        length: Option<usize>,
    ) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&match length {
            Some(length) => format!("Content-Length: {length}\r\n\r\n"),
            None => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        });
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// Starts an upload; its address.
    pub(crate) fn start_upload(&self, repository: &str) -> String {
        let reply = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").status(202);
        assert_eq!(reply.must("range"), "0-0");
        reply.must("location").to_owned()
    }

    /// Pushes a blob at once.
    #[track_caller]
    pub(crate) fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let reply = self.request("POST", &target, &[], content).status(201);
        assert_eq!(reply.must("docker-content-digest"), digest.to_string());
        digest
    }

    #[track_caller]
    pub(crate) fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Reply {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_IMAGE);
        self.request("PUT", &target, &[("Content-Type", media_type)], manifest.to_string().as_bytes())
    }

    /// Pushes an image of one layer; its digest.
    #[track_caller]
    pub(crate) fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        self.push_blob(repository, b"{}");
        self.push_blob(repository, layer);
        let manifest = image(layer);
        self.put_manifest(repository, tag, &manifest).status(201);
        Digest::of(manifest.to_string().as_bytes())
    }
}

/// Reads an answer to the end of its connection.
pub(crate) fn read_reply(mut stream: TcpStream, method: &str) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let reply = parse_reply(bytes).expect("an answer");
    if method != "HEAD" && ![204, 304].contains(&reply.status) {
        assert_eq!(reply.must("content-length"), reply.body.len().to_string());
    } else {
        assert!(reply.body.is_empty());
    }
    reply
}

fn parse_reply(mut bytes: Vec<u8>) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let body = bytes.split_off(end + 4);
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .map(|line| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())))
        .collect::<Option<_>>()?;
    Some(Reply { status, headers, body })
}

pub(crate) fn sha512(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(content);
    hasher.finish()
}

/// Bytes that do not repeat, and differ by seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len()})
}

/// An image manifest with the config `{}` and one layer.
pub(crate) fn image(layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
}
