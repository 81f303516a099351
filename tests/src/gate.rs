//! A proxy before a registry that lets requests through only together.

use std::{
    io::{self, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::interposer::read_head;

/// Requests for a blob wait here until so many of them are made at once; those that wait for too long get no answer.
pub struct Gate {
    port: u16,
    passed: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
}

struct Barrier {
    wanted: usize,
    waiting: Mutex<usize>,
    all: Condvar,
    passed: Arc<AtomicUsize>,
    turned_away: Arc<AtomicUsize>,
}

impl Gate {
    /// Before the server at `upstream`: requests whose path ends with one of `paths` wait until all have come.
    pub fn new(upstream: &str, paths: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let [passed, turned_away] = [0, 0].map(|count| Arc::new(AtomicUsize::new(count)));
        let barrier = Barrier {
            wanted: paths.len(),
            waiting: Mutex::new(0),
            all: Condvar::new(),
            passed: Arc::clone(&passed),
            turned_away: Arc::clone(&turned_away),
        };
        let (upstream, paths, barrier) = (upstream.to_owned(), paths.to_owned(), Arc::new(barrier));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (upstream, paths, barrier) = (upstream.clone(), paths.clone(), Arc::clone(&barrier));
                // A client that goes away is no failure of the test.
                thread::spawn(move || drop(pass(stream, &upstream, &paths, &barrier)));
            }
        });
        Self { port, passed, turned_away }
    }

    /// A reference to this repository and tag.
    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    /// How many requests waited for each other and went through.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// How many waited for too long.
    pub fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::SeqCst)
    }
}

/// One request for each connection.
fn pass(mut client: TcpStream, upstream: &str, paths: &[String], barrier: &Barrier) -> io::Result<()> {
    let head = read_head(&mut client)?;
    let (first, rest) = head.split_once("\r\n").unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default();
    if paths.iter().any(|wanted| path.ends_with(wanted)) {
        let mut waiting = barrier.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting += 1;
        barrier.all.notify_all();
        let (_all, timeout) = barrier
            .all
            .wait_timeout_while(waiting, Duration::from_secs(60), |waiting| *waiting < barrier.wanted)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            barrier.turned_away.fetch_add(1, Ordering::SeqCst);
            return client.shutdown(Shutdown::Both);
        }
        barrier.passed.fetch_add(1, Ordering::SeqCst);
    }
    let mut server = TcpStream::connect(upstream)?;
    write!(server, "{first}\r\nConnection: close\r\n{rest}")?;
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}
