//! A docker daemon of our own (Debian's docker.io, with the BuildKit inside it), in a temporary directory.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    command::{Outcome, command, run},
    fixtures::{busybox_tar, debian_tar},
    image_archive::{ArchivedImage, read_archive},
    kiln::BASE_PATH,
    service::{stop, wait_for_file},
};

/// The client of the package: another one may come first on PATH and ask for plugins.
const CLIENT: &str = "/usr/bin/docker";
const DAEMON: &str = "/usr/sbin/dockerd";

/// The daemon; stopped when it is dropped.
pub struct Docker {
    daemon: Child,
    directory: TempDir,
}

impl Docker {
    /// Starts it. Without a bridge: what the tests build and run uses the host's network.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-docker-").tempdir().expect("a directory for docker");
        let path = |name: &str| directory.path().join(name).to_str().expect("a temporary path is text").to_owned();
        let log = File::create(path("log")).expect("a log file");
        let socket = format!("unix://{}", path("socket"));
        let options = ["--data-root", &path("data"), "--exec-root", &path("exec"), "-p", &path("pid"), "-H", &socket];
        let mut daemon = command(DAEMON, options)
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--insecure-registry=127.0.0.0/8"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {DAEMON} (the package docker.io): {error}"));
        let up = wait_for_file(Path::new(&path("socket")), || matches!(daemon.try_wait(), Ok(None)));
        let docker = Self { daemon, directory };
        assert!(up, "docker does not start:\n{}", docker.log());
        docker.run(["version"]);
        docker
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A docker command line, ready to run.
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut command = Command::new(CLIENT);
        command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        command
            .env("DOCKER_HOST", format!("unix://{}", self.directory.path().join("socket").display()))
            .env("DOCKER_BUILDKIT", "1")
            .env("DOCKER_CONFIG", self.directory.path().join("config"));
        command
    }

    /// Runs it; it must succeed.
    #[track_caller]
    pub fn run<I, S>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        run(self.command(arguments)).success()
    }

    /// With `busybox:latest`, from the same tar and with the same configuration as in kiln.
    pub fn import_busybox(self) -> Self {
        self.import(&busybox_tar(), r#"CMD ["sh"]"#, "busybox:latest")
    }

    /// With `debian:12`, likewise.
    pub fn import_debian(self) -> Self {
        self.import(&debian_tar(), r#"CMD ["bash"]"#, "debian:12")
    }

    fn import(self, tar: &Path, command: &str, name: &str) -> Self {
        let tar = tar.to_str().expect("the cache's path is text");
        self.run(["import", "-c", command, "-c", BASE_PATH, tar, name]);
        self
    }

    /// What `save` writes, taken apart.
    #[track_caller]
    pub fn saved(&self, image: &str) -> ArchivedImage {
        let archive = self.run(["save", image]).bytes;
        read_archive(&archive).unwrap_or_else(|error| panic!("what docker saved of {image}: {error}")).remove(0)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        stop(&mut self.daemon);
        // Mounts that the daemon leaves behind keep the directory from being removed.
        for place in ["data/overlay2", "exec/netns/default"] {
            drop(command("umount", ["-R", "-l"]).arg(self.directory.path().join(place)).output());
        }
    }
}
