//! Things that run beside a test, on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a service may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port of the loopback interface that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Waits until somebody listens on the port; false when nobody does after a minute, or when `alive` says no.
pub fn wait_for_port(port: u16, mut alive: impl FnMut() -> bool) -> bool {
    wait_until(|| TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok(), &mut alive)
}

pub(crate) fn wait_for_file(path: &Path, mut alive: impl FnMut() -> bool) -> bool {
    wait_until(|| path.exists(), &mut alive)
}

fn wait_until(mut ready: impl FnMut() -> bool, alive: &mut dyn FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if ready() {
            return true;
        }
        if !alive() {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Until something holds, on a machine however slow.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE * 2, "still not: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a child of ours; one that is gone already needs none.
pub fn signal(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

/// Asks a child of ours to end, and insists after ten seconds. A foreground `kiln run` kills its container when it is
/// asked for the third time.
pub(crate) fn stop(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    signal(child, Signal::TERM);
    if !ends_within(child, Duration::from_secs(10)) {
        signal(child, Signal::TERM);
        std::thread::sleep(Duration::from_millis(50));
        signal(child, Signal::TERM);
        ends_within(child, Duration::from_secs(10));
    }
    drop(child.kill());
    drop(child.wait());
}

fn ends_within(child: &mut Child, patience: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < patience {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}
