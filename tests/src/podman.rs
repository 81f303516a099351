//! podman with storage of its own in a temporary directory.

use std::process::Command;

use tempfile::TempDir;

use crate::command::{Outcome, command, run};

/// podman as root, with runc: on hosts with hybrid cgroups crun refuses to start.
pub struct Podman {
    directory: TempDir,
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Podman {
    /// With empty storage.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-podman-").tempdir().expect("a directory for podman");
        Self { directory }
    }

    /// A podman command line, ready to run.
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let path = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("podman");
        command.arg("--root").arg(path("storage")).arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
        command.args(["--storage-driver", "overlay", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        command.args(["--events-backend", "none"]);
        command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
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

    /// The options of `podman run` that make a container start where the host's limits are low.
    pub const RUN: [&'static str; 5] =
        ["run", "--rm", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"];
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.command(["rm", "--all", "--force"]).output());
        drop(command("umount", ["-R", "-l"]).arg(self.directory.path().join("storage/overlay")).output());
    }
}
