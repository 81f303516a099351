//! Debian's `docker-registry` (the distribution project's), on a free port.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct DebianRegistry {
    server: Child,
    pub port: u16,
    _directory: TempDir,
}

/// The line of htpasswd for `USER` and `PASSWORD`.
const HTPASSWD: &str = "kiln:$2b$04$nqtWa.zLw3Iizcerg5aBje3tPvGXvyPrBc1/HNv1WSRw4ZazoA5n6\n";
pub const USER: &str = "kiln";
pub const PASSWORD: &str = "open sesame";

impl DebianRegistry {
    pub fn open() -> Self {
        Self::start("")
    }

    pub fn with_password() -> Self {
        Self::start("auth:\n  htpasswd:\n    realm: test\n    path: htpasswd\n")
    }

    fn start(auth: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: data\n{auth}http:\n  addr: \
             127.0.0.1:{port}\n"
        );
        std::fs::write(directory.path().join("config.yml"), config).expect("config");
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD).expect("htpasswd");
        let server = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { server, port, _directory: directory }
    }

    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}
