//! Registries on loopback: kiln's own, and Debian's docker-registry.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    command::command,
    kiln::Kiln,
    service::{free_port, stop, wait_for_port},
};

/// A registry; stopped when it is dropped.
pub struct Registry {
    server: Child,
    port: u16,
    directory: TempDir,
}

impl Registry {
    /// `kiln registry serve`.
    pub fn kiln(kiln: &Kiln) -> Self {
        Self::kiln_with(kiln, &[])
    }

    /// The same with further options.
    pub fn kiln_with(kiln: &Kiln, options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-registry-").tempdir().expect("a directory");
        kiln.account().take(directory.path());
        Self::kiln_in(kiln, options, directory)
    }

    /// `kiln registry serve` with the directory of one that has ended.
    pub fn serve_again(mut self, kiln: &Kiln) -> Self {
        self.halt();
        let empty = tempfile::tempdir().expect("a directory");
        let directory = std::mem::replace(&mut self.directory, empty);
        Self::kiln_in(kiln, &[], directory)
    }

    fn kiln_in(kiln: &Kiln, options: &[&str], directory: TempDir) -> Self {
        let port = free_port();
        let data = directory.path().join("data").to_str().expect("a temporary path is text").to_owned();
        let mut serve = kiln.command(["registry", "serve", "--addr", &format!("127.0.0.1:{port}"), "--data", &data]);
        serve.args(options);
        Self::start(serve, port, directory)
    }

    /// Debian's docker-registry.
    pub fn distribution() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-registry-").tempdir().expect("a directory");
        let port = free_port();
        let config = directory.path().join("config.yml");
        let data = directory.path().join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
             enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        fs::write(&config, text).expect("a config file");
        let mut serve = command("docker-registry", ["serve"]);
        serve.arg(config);
        Self::start(serve, port, directory)
    }

    fn start(mut serve: Command, port: u16, directory: TempDir) -> Self {
        let log = directory.path().join("log");
        let file = File::create(&log).expect("a log file");
        let mut server = serve
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .spawn()
            .expect("a registry starts");
        let up = wait_for_port(port, || matches!(server.try_wait(), Ok(None)));
        let registry = Self { server, port, directory };
        assert!(up, "the registry does not answer:\n{}", registry.log());
        registry
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Ends the server, and keeps its directory.
    pub fn halt(&mut self) {
        stop(&mut self.server);
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A reference to this repository and tag.
    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        stop(&mut self.server);
    }
}
