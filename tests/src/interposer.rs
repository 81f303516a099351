//! A server between a client and a registry, which passes requests on, answers some itself, or breaks off answers.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// What becomes of a request.
pub enum Answer {
    /// The registry answers.
    Pass,
    /// The registry answers, and the connection ends after so many bytes of the answer, its head included.
    Cut(usize),
    /// This status, these further lines of the head, and an empty body.
    Own(&'static str, String),
}

/// The server; its threads end with the process.
pub struct Interposer {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Interposer {
    /// Before the server at `upstream`. `decide` is told the head of each request, and how many came before.
    pub fn new(upstream: &str, decide: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (upstream, decide, log) = (upstream.to_owned(), Arc::new(decide), Arc::clone(&seen));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, decide, log) = (upstream.clone(), Arc::clone(&decide), Arc::clone(&log));
                // A client that goes away is no failure of the test.
                thread::spawn(move || drop(serve(client, &upstream, &*decide, &log)));
            }
        });
        Self { port, seen }
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A reference to this repository and tag.
    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    /// The heads of all requests.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A request's first lines, to the empty one.
pub(crate) fn read_head(client: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// One request for each connection.
fn serve(
    mut client: TcpStream,
    upstream: &str,
    decide: &dyn Fn(&str, usize) -> Answer,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let head = read_head(&mut client)?;
    let before = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(head.clone());
        seen.len() - 1
    };
    let length = match decide(&head, before) {
        Answer::Own(status, lines) => {
            write!(client, "HTTP/1.1 {status}\r\n{lines}Content-Length: 0\r\nConnection: close\r\n\r\n")?;
            return client.shutdown(Shutdown::Both);
        }
        Answer::Pass => u64::MAX,
        Answer::Cut(length) => length as u64,
    };
    let (first, rest) = head.split_once("\r\n").unwrap_or_default();
    let mut server = TcpStream::connect(upstream)?;
    write!(server, "{first}\r\nConnection: close\r\n{rest}")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    // A body, if there is one; it ends with the connection.
    thread::spawn(move || drop(io::copy(&mut from, &mut to)));
    io::copy(&mut server.take(length), &mut client)?;
    client.shutdown(Shutdown::Both)
}
