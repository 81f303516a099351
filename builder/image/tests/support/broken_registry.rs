//! A registry that misbehaves as told: it wants tokens, breaks off, is busy, lies.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use kiln_image::Image;
use kiln_image::manifest::pack;
use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The first answer to each blob ends in its middle.
    BreaksOff,
    /// As [`Fault::BreaksOff`], and ranges are not understood.
    BreaksOffWithoutRanges,
    /// Every address is unavailable the first time.
    Busy,
    /// Blobs have one byte changed.
    Corrupt,
    /// The manifest is endless.
    EndlessManifest,
    /// Bearer tokens are wanted, and each is good for three requests.
    Tokens,
    /// Uploads break off that have no length yet.
    BreaksStreams,
}

pub struct BrokenRegistry {
    pub port: u16,
    /// The requests: method, path, range.
    pub seen: Arc<Mutex<Vec<String>>>,
}

struct State {
    fault: Fault,
    port: u16,
    files: Mutex<HashMap<String, Vec<u8>>>,
    asked: Mutex<HashMap<String, u32>>,
    seen: Arc<Mutex<Vec<String>>>,
    /// The current token, and how many requests it is still good for.
    token: Mutex<(u32, u32)>,
}

impl BrokenRegistry {
    /// Serves the image as `app:1`.
    pub fn start(store: &Store, image: &Image, fault: Fault) -> Self {
        let packed = pack(store, image, Compression::Gzip).expect("manifest");
        let manifest: serde_json::Value = serde_json::from_slice(&packed.bytes).expect("json");
        let mut files = HashMap::from([("/v2/".to_owned(), b"{}".to_vec())]);
        let layers = manifest["layers"].as_array().expect("layers").iter();
        for descriptor in layers.chain([&manifest["config"]]) {
            let digest: Digest = descriptor["digest"].as_str().expect("digest").parse().expect("digest");
            let mut bytes = store.blobs().read(&digest, 64 << 20).expect("blob");
            if fault == Fault::Corrupt {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            files.insert(format!("/v2/app/blobs/{digest}"), bytes);
        }
        let bytes = if fault == Fault::EndlessManifest { vec![b' '; 64 << 20] } else { packed.bytes };
        files.insert("/v2/app/manifests/1".to_owned(), bytes);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (asked, token) = (Mutex::default(), Mutex::default());
        let files = Mutex::new(files);
        let state = Arc::new(State { fault, port, files, asked, seen: Arc::clone(&seen), token });
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || state.serve(&connection));
            }
        });
        Self { port, seen }
    }

    pub fn requests(&self, part: &str) -> Vec<String> {
        self.seen.lock().expect("lock").iter().filter(|line| line.contains(part)).cloned().collect()
    }
}

impl State {
    /// One request for each connection, which is closed then.
    fn serve(&self, connection: &TcpStream) {
        let mut reader = BufReader::new(connection);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(1..) if line.trim_end().is_empty() => break,
                Ok(1..) => lines.push(line.trim_end().to_owned()),
                _ => return,
            }
        }
        let request = lines.remove(0);
        let headers: HashMap<String, String> = lines
            .iter()
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
            .collect();
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let range = headers.get("range").cloned();
        self.seen.lock().expect("lock").push(format!("{request} {}", range.as_deref().unwrap_or("-")));
        let mut connection = connection;
        let answer = match request.split(' ').next() {
            Some("POST") => respond("202 Accepted", "Location: /v2/app/blobs/uploads/1\r\n", b""),
            Some("PATCH") => {
                let _ = reader.read_exact(&mut [0; 1 << 10]);
                return;
            }
            Some("PUT") => {
                let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("the whole body");
                let name = match path.split_once("?digest=") {
                    Some((_, digest)) => format!("/v2/app/blobs/{}", digest.replace("%3A", ":")),
                    None => path.clone(),
                };
                self.files.lock().expect("lock").insert(name, body);
                respond("201 Created", "", b"")
            }
            Some("HEAD") if !self.files.lock().expect("lock").contains_key(&path) => respond("404 Not Found", "", b""),
            _ => self.answer(&path, range.as_deref(), headers.get("authorization").map(String::as_str)),
        };
        let _ = connection.write_all(&answer);
        let _ = connection.shutdown(std::net::Shutdown::Write);
        let _ = connection.read(&mut [0; 1]);
    }

    fn answer(&self, path: &str, range: Option<&str>, authorization: Option<&str>) -> Vec<u8> {
        let times = {
            let mut asked = self.asked.lock().expect("lock");
            let times = asked.entry(path.to_owned()).or_default();
            *times += 1;
            *times
        };
        if path.starts_with("/token?") {
            let mut token = self.token.lock().expect("lock");
            *token = (token.0 + 1, 3);
            return respond("200 OK", "", format!("{{\"token\":\"t{}\"}}", token.0).as_bytes());
        }
        if self.fault == Fault::Tokens && path != "/v2/" {
            let mut token = self.token.lock().expect("lock");
            if token.1 == 0 || authorization != Some(&format!("Bearer t{}", token.0)) {
                let challenge = format!(
                    "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{}/token\",service=\"s\"\r\n",
                    self.port
                );
                return respond("401 Unauthorized", &challenge, b"{}");
            }
            token.1 -= 1;
        }
        if self.fault == Fault::Busy && times == 1 && path != "/v2/" {
            return respond("503 Service Unavailable", "", b"");
        }
        let files = self.files.lock().expect("lock");
        let Some(bytes) = files.get(path) else { return respond("404 Not Found", "", b"{}") };
        let breaks = matches!(self.fault, Fault::BreaksOff | Fault::BreaksOffWithoutRanges);
        if breaks && times == 1 && path.contains("/blobs/") {
            let mut answer = respond("200 OK", "", bytes);
            answer.truncate(answer.len() - bytes.len() / 2);
            return answer;
        }
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match start {
            Some(start) if self.fault != Fault::BreaksOffWithoutRanges => {
                let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                respond("206 Partial Content", &range, &bytes[start..])
            }
            _ => respond("200 OK", "", bytes),
        }
    }
}

fn respond(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
