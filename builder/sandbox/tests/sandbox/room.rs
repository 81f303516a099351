//! A root file system and a place for one sandbox's layers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_sandbox::process::{Error, Stdio};
use kiln_sandbox::spec::{Network, Root, Security};
use kiln_sandbox::user_namespace::Identity;
use kiln_sandbox::{Exit, Sandbox, Spec};

pub(crate) struct Room {
    pub(crate) identity: Identity,
    place: tempfile::TempDir,
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

const APPLETS: [&str; 30] = [
    "sh", "true", "false", "cat", "ls", "id", "echo", "mkdir", "rm", "mv", "chmod", "chown", "touch", "sleep", "kill",
    "hostname", "mount", "unshare", "ps", "stat", "readlink", "tty", "ln", "grep", "ip", "env", "mknod", "wc", "rmdir",
    "pwd",
];

impl Room {
    pub(crate) fn new(identity: Identity) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let room = Self { identity, place };
        let base = room.path("base");
        for directory in ["bin", "etc", "tmp"] {
            fs::create_dir_all(base.join(directory)).expect("mkdir");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is installed"), base.join("bin/busybox")).expect("copy");
        for applet in APPLETS {
            symlink("busybox", base.join("bin").join(applet)).expect("symlink");
        }
        for directory in ["upper", "work", "stubs"] {
            fs::create_dir(room.path(directory)).expect("mkdir");
            fs::set_permissions(room.path(directory), fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        room
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn base(&self, name: &str) -> PathBuf {
        self.path("base").join(name)
    }

    pub(crate) fn upper(&self, name: &str) -> PathBuf {
        self.path("upper").join(name)
    }

    pub(crate) fn spec(&self, args: &[&str]) -> Spec {
        Spec {
            root: Root {
                lower: vec![self.path("base")],
                upper: self.path("upper"),
                work: self.path("work"),
                stubs: self.path("stubs"),
                readonly: false,
                volatile: true,
            },
            mounts: Vec::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/nowhere:/bin".to_owned(), "HOME=/root".to_owned()],
            cwd: PathBuf::from("/"),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            hostname: "room".to_owned(),
            network: Network::Host,
            resolv_conf: Some("nameserver 192.0.2.1\n".to_owned()),
            hosts: Some("127.0.0.1 localhost\n".to_owned()),
            shm_size: None,
            security: Security::default(),
            rlimits: BTreeMap::new(),
            terminal: false,
            terminal_size: None,
            init: false,
            program: None,
            devices: Vec::new(),
            cgroups: Vec::new(),
            kernel: kiln_sandbox::spec::Kernel::default(),
        }
    }

    /// A script in the sandbox; must be started.
    pub(crate) fn shell(&self, script: &str) -> Outcome {
        self.run(&self.spec(&["sh", "-c", script])).expect("started")
    }

    pub(crate) fn run(&self, spec: &Spec) -> Result<Outcome, Error> {
        let mut sandbox = Sandbox::spawn(spec, Stdio::Null, Stdio::Pipe, Stdio::Pipe)?;
        let stderr = sandbox.stderr.take();
        let reader = std::thread::spawn(move || read(stderr));
        let stdout = read(sandbox.stdout.take());
        let stderr = reader.join().expect("joined");
        Ok(Outcome { exit: sandbox.wait().expect("waited for"), stdout, stderr })
    }

    /// All that is in the upper directory: `d etc`, `f etc/x`, `l`, `c` (a whiteout).
    pub(crate) fn written(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.path("upper"), Path::new(""), &mut found);
        found.sort();
        found
    }
}

pub(crate) fn read(from: Option<OwnedFd>) -> String {
    let mut bytes = Vec::new();
    // A terminal ends with EIO.
    let _ = File::from(from.expect("a pipe")).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn list(root: &Path, below: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).expect("a directory") {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        let kind = entry.metadata().expect("metadata");
        let letter = match kind.file_type() {
            kind if kind.is_dir() => 'd',
            kind if kind.is_symlink() => 'l',
            kind if kind.is_char_device() => 'c',
            _ => 'f',
        };
        found.push(format!("{letter} {}", path.display()));
        if kind.is_dir() {
            list(root, &path, found);
        }
    }
}

pub(crate) fn mtime(path: &Path) -> (i64, i64) {
    let metadata = fs::symlink_metadata(path).expect("metadata");
    (metadata.mtime(), metadata.mtime_nsec())
}

impl Outcome {
    /// Trimmed standard output of a success.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.exit, Exit::Code(0), "{}", self.stderr);
        self.stdout.trim_end()
    }
}
