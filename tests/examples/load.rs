//! Load on a registry from many connections at once, for what wrk cannot measure.
//!
//!   load head HOST:PORT PATH CONNECTIONS SECONDS     HEAD requests; prints how many a second were answered by 200
//!   load pull HOST:PORT PATH CONNECTIONS TIMES       every client reads the whole answer so often; prints MB/s
//!   load upload HOST:PORT REPOSITORY CONNECTIONS PROMISED SENT
//!       every client promises an upload of so many bytes and sends some of them; all hold what they have open until
//!       the last one is there, then go away; prints MB/s

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Small: hundreds of clients share one processor's cache.
const STACK: usize = 128 << 10;
const PIECE: usize = 64 << 10;
/// What has to be asked for by name.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["head", host, path, connections, seconds] => head(host, path, number(connections), number(seconds)),
        ["pull", host, path, connections, times] => pull(host, path, number(connections), number(times)),
        ["upload", host, repository, connections, promised, sent] => {
            upload(host, repository, number(connections), number(promised), number(sent))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "read the first lines of its source")),
    };
    match done {
        Ok(result) => {
            println!("{result:.1}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Runs `client` in so many threads; an error of one is everybody's.
fn everybody(count: u64, client: impl Fn() -> io::Result<()> + Sync) -> io::Result<()> {
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, &client);
        let clients: Vec<_> = (0..count).map(start).collect::<io::Result<_>>()?;
        for client in clients {
            client.join().map_err(|_| io::Error::other("a client panicked"))??;
        }
        Ok(())
    })
}

fn connect(host: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(PIECE, stream))
}

/// Sends a request without a body, and reads the head of its answer: its status and length.
fn ask(stream: &mut BufReader<TcpStream>, request: &str) -> io::Result<(u16, u64)> {
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut status, mut length, mut line) = (0, 0, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if status == 0 {
            status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(1);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            return Ok((status, length));
        }
    }
}

fn expect(status: u16, wanted: u16) -> io::Result<()> {
    if status == wanted { Ok(()) } else { Err(io::Error::other(format!("answered by {status}, not {wanted}"))) }
}

fn head(host: &str, path: &str, connections: u64, seconds: u64) -> io::Result<f64> {
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {MANIFEST}\r\n\r\n");
    let answered = AtomicU64::new(0);
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    everybody(connections, || {
        let mut stream = connect(host)?;
        while Instant::now() < end {
            expect(ask(&mut stream, &request)?.0, 200)?;
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(answered.into_inner() as f64 / started.elapsed().as_secs_f64())
}

fn pull(host: &str, path: &str, connections: u64, times: u64) -> io::Result<f64> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n");
    let received = AtomicU64::new(0);
    let started = Instant::now();
    everybody(connections, || {
        let mut stream = connect(host)?;
        let mut buffer = vec![0; PIECE];
        for _ in 0..times {
            let (status, length) = ask(&mut stream, &request)?;
            expect(status, 200)?;
            let mut left = length;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                let count = stream.read(&mut buffer[..want])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= count as u64;
            }
            received.fetch_add(length, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(received.into_inner() as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn upload(host: &str, repository: &str, connections: u64, promised: u64, sent: u64) -> io::Result<f64> {
    let everyone = Barrier::new(usize::try_from(connections).unwrap_or(1));
    let started = Instant::now();
    everybody(connections, || {
        let digest = "0".repeat(64);
        let mut stream = TcpStream::connect(host)?;
        write!(
            stream,
            "POST /v2/{repository}/blobs/uploads/?digest=sha256:{digest} HTTP/1.1\r\nHost: {host}\r\nContent-Type: \
             application/octet-stream\r\nContent-Length: {promised}\r\n\r\n"
        )?;
        let piece = vec![7; PIECE];
        let mut left = sent.min(promised);
        let mut result = Ok(());
        while left > 0 && result.is_ok() {
            let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            result = stream.write_all(&piece[..count]);
            left -= count as u64;
        }
        everyone.wait();
        result
    })?;
    Ok((connections * sent.min(promised)) as f64 / 1e6 / started.elapsed().as_secs_f64())
}
