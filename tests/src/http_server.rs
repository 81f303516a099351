//! A web server on loopback: files by path, with the validators that caches ask for, and a list of what was asked.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// What the server sends as the time of every file: Wed, 21 Oct 2015 07:28:00 GMT.
pub const LAST_MODIFIED: u64 = 1_445_412_480;

/// The server; its thread ends with the process.
pub struct HttpServer {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    /// `GET /path 200`, in order.
    log: Vec<String>,
    /// The answer to everything.
    failure: Option<u16>,
}

impl HttpServer {
    /// Starts it with these files: path (`/a/b`) and content.
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let server = Self { port, shared: Arc::default() };
        files.iter().for_each(|(path, content)| server.put(path, content));
        let shared = Arc::clone(&server.shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away is no failure of the server.
                thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        server
    }

    /// Starts one that answers with this status, whatever it is asked.
    pub fn failing(status: u16) -> Self {
        let server = Self::start(&[]);
        server.shared.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(status);
        server
    }

    /// Adds or replaces a file.
    pub fn put(&self, path: &str, content: &[u8]) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).files.insert(path.to_owned(), content.to_vec());
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What was asked since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner).log)
    }
}

fn answer(stream: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
    let mut validator = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("if-none-match")) {
            value.trim().clone_into(&mut validator);
        }
    }
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let content = shared.files.get(&path).cloned();
    let etag = content.as_ref().map(|content| format!("\"{}-{:x}\"", content.len(), checksum(content)));
    let (status, body) = match (content, &etag) {
        (Some(_), Some(etag)) if *etag == validator => ("304 Not Modified", Vec::new()),
        (Some(content), _) => ("200 OK", content),
        (None, _) => ("404 Not Found", b"no such file\n".to_vec()),
    };
    let status = shared.failure.map_or_else(|| status.to_owned(), |status| format!("{status} Failure"));
    shared.log.push(format!("{} {path} {}", request.split(' ').next().unwrap_or_default(), &status[..3]));
    drop(shared);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())?;
    write!(stream, "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n")?;
    if let Some(etag) = etag {
        write!(stream, "ETag: {etag}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&body)
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum: u32, byte| sum.rotate_left(5) ^ u32::from(*byte))
}
