//! What to run, and in what.

mod path;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything the child needs to know; it travels to it as JSON.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Spec {
    /// The root file system.
    pub root: Root,
    /// Mounts in order, after /proc, /dev, /sys and the like.
    pub mounts: Vec<Mount>,
    /// The argument vector; the first is looked up in PATH of `env`.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute; created (owned by the user) when missing and `create_cwd`.
    #[serde(with = "path")]
    pub cwd: PathBuf,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The UTS namespace's name.
    pub hostname: String,
    /// The network.
    pub network: Network,
    /// Content of /etc/resolv.conf, when the sandbox has one; never left in the layer.
    pub resolv_conf: Option<String>,
    /// Content of /etc/hosts; never left in the layer.
    pub hosts: Option<String>,
    /// Size of /dev/shm in bytes; 64 MiB when not given.
    pub shm_size: Option<u64>,
    /// Capabilities, seccomp, read-only paths.
    pub security: Security,
    /// Resource limits by name (`nofile`), soft and hard; raising one is best effort.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Give the child a terminal of its own.
    pub terminal: bool,
    /// Rows and columns of that terminal.
    #[serde(default)]
    pub terminal_size: Option<(u16, u16)>,
    /// The first process is an init of kiln's own, which passes signals on to the command and reaps orphans.
    #[serde(default)]
    pub init: bool,
    /// `args` are those of this [program](crate::program) of kiln's own, and no command.
    #[serde(default)]
    pub program: Option<String>,
    /// Devices of the host that work in it.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Control group directories that the first process moves into (see [`crate::cgroup::Cgroup::directories`]).
    #[serde(default, with = "path::list")]
    pub cgroups: Vec<PathBuf>,
    /// What it sees and changes of the kernel.
    #[serde(default)]
    pub kernel: Kernel,
}

/// What a sandbox sees and changes of the kernel, beyond its files: by default, nothing but its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// Processes; only its own or the host's.
    pub pid: Sharing,
    /// Queues, semaphores and shared memory, /dev/shm among it.
    pub ipc: Sharing,
    /// Host and domain name.
    pub uts: Sharing,
    /// Its view of control groups.
    pub cgroup: Sharing,
    /// The domain name.
    pub domainname: String,
    /// Settings by name (`net.ipv4.ip_forward`), of its own namespaces only.
    pub sysctls: BTreeMap<String, String>,
    /// How readily its processes are killed when the machine is out of memory: -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// Whose namespace it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Sharing {
    /// The sandbox's own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// That of the process with this pid.
    Of(i32),
}

/// A device file of the host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// Path on the host.
    #[serde(with = "path")]
    pub source: PathBuf,
    /// Path in the sandbox.
    #[serde(with = "path")]
    pub target: PathBuf,
    /// Only to be read.
    pub readonly: bool,
}

/// A command to execute in a sandbox that runs.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// The pid of the sandbox's first process.
    pub pid: i32,
    /// The argument vector; the first is looked up in PATH of `env`.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute, in the sandbox.
    #[serde(with = "path")]
    pub cwd: PathBuf,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// What it may do.
    pub security: Security,
    /// Resource limits.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Give it a terminal of its own.
    pub terminal: bool,
    /// Rows and columns of that terminal.
    pub terminal_size: Option<(u16, u16)>,
    /// `args` are those of this [program](crate::program) of kiln's own, and no command.
    pub program: Option<String>,
    /// Control group directories that the command moves into.
    #[serde(default, with = "path::list")]
    pub cgroups: Vec<PathBuf>,
}

/// The root file system: an overlay.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Root {
    /// Lower directories, topmost first; may be empty.
    #[serde(with = "path::list")]
    pub lower: Vec<PathBuf>,
    /// Upper directory. Its own mode and owner are those of `/` in the sandbox.
    #[serde(with = "path")]
    pub upper: PathBuf,
    /// Work directory, on the same file system.
    #[serde(with = "path")]
    pub work: PathBuf,
    /// An empty scratch directory of the caller's for mount points that the layers lack: it becomes the lowest layer,
    /// so that mount points never appear in `upper`.
    #[serde(with = "path")]
    pub stubs: PathBuf,
    /// No writes at all.
    pub readonly: bool,
    /// No `fsync` inside reaches the disk, and the end does not flush the file system: for content that its owner
    /// settles by itself, or does not need after a crash of the machine.
    pub volatile: bool,
}

/// One more mount.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Path on the host.
        #[serde(with = "path")]
        source: PathBuf,
        /// Path in the sandbox; symlinks are followed inside it, a missing one is made.
        #[serde(with = "path")]
        target: PathBuf,
        /// No writes.
        readonly: bool,
    },
    /// The same, and what the host mounts below it later shows there, too.
    Slave {
        /// Path on the host.
        #[serde(with = "path")]
        source: PathBuf,
        /// Path in the sandbox.
        #[serde(with = "path")]
        target: PathBuf,
        /// No writes.
        readonly: bool,
    },
    /// An overlay over host directories whose writes go to `upper` (a writable bind mount of build content).
    Overlay {
        /// Lower directories, topmost first.
        #[serde(with = "path::list")]
        lower: Vec<PathBuf>,
        /// Upper directory; `None` is read-only.
        #[serde(with = "path::pair")]
        upper: Option<(PathBuf, PathBuf)>,
        /// A path below the merged root to mount, symlinks followed inside it.
        #[serde(with = "path")]
        source: PathBuf,
        /// Path in the sandbox.
        #[serde(with = "path")]
        target: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// Path in the sandbox.
        #[serde(with = "path")]
        target: PathBuf,
        /// Bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
    /// A file with this content, in memory only, read-only: a secret.
    Secret {
        /// Path in the sandbox.
        #[serde(with = "path")]
        target: PathBuf,
        /// The bytes.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl Mount {
    /// Whether mounts that the host makes later show in it.
    pub(crate) fn is_slave(&self) -> bool {
        matches!(self, Self::Slave { .. })
    }
}

/// The network.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Network {
    /// The host's.
    Host,
    /// A namespace of its own with nothing but `lo`.
    None,
    /// This one, as /proc names it; it is open when the sandbox starts.
    Joined(PathBuf),
}

/// What the process may do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// All capabilities, no seccomp, writable /sys and /proc, host devices.
    pub privileged: bool,
    /// Capabilities added to docker's default set, by name without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities taken from it; `ALL` takes all.
    pub cap_drop: Vec<String>,
    /// Docker's default seccomp profile.
    pub seccomp: bool,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self { privileged: false, cap_add: Vec::new(), cap_drop: Vec::new(), seccomp: true, no_new_privileges: false }
    }
}
