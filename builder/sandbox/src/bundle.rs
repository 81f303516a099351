//! A sandbox for somebody else to run: its spec as a bundle of the OCI runtime specification, and its root mounted.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::UnshareFlags;
use serde_json::{Map, Value, json};

use crate::capabilities;
use crate::cgroup::Limits;
use crate::mount::{attach_path, create, failed};
use crate::process::Error;
use crate::root::protection::{HIDDEN, READ_ONLY};
use crate::root::target::Kind;
use crate::root::{Layers, stubs};
use crate::seccomp::{self, Subject};
use crate::spec::{Device, Mount, Network, Sharing, Spec};
use crate::system_call::unshare;
use crate::user_namespace::Identity;

/// The version of the specification that `config.json` follows.
const VERSION: &str = "1.0.2";

/// What a bundle says beyond its spec.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// `annotations`
    pub annotations: Vec<(String, String)>,
    /// `linux.resources`
    pub limits: Limits,
    /// `linux.cgroupsPath`, for root
    pub cgroup: PathBuf,
}

/// A bundle with its root mounted, in a mount namespace that this process has for itself from here on.
#[derive(Debug)]
pub struct Bundle {
    /// Its directory.
    pub path: PathBuf,
}

impl Bundle {
    /// Makes it in an existing directory. Only for a process with a single thread.
    ///
    /// # Errors
    /// The root cannot be mounted, or the directory not be written.
    pub fn prepare(spec: &Spec, path: &Path, extra: &Extra) -> Result<Self, Error> {
        let write = |name: &str, content: &str| -> Result<PathBuf, Error> {
            let file = path.join(name);
            std::fs::write(&file, content).map_err(failed(format!("write {}", file.display())))?;
            Ok(file)
        };
        let mut files = Vec::new();
        for (name, content) in [("hosts", &spec.hosts), ("resolv.conf", &spec.resolv_conf)] {
            if let Some(content) = content {
                files.push((write(name, content)?, PathBuf::from("/etc").join(name)));
            }
        }
        let identity = Identity::current().map_err(failed("read the user mapping"))?;
        let config = config(spec, extra, &files, identity)?;
        write("config.json", &config.to_string())?;
        let root = path.join("rootfs");
        std::fs::create_dir_all(&root).map_err(failed(format!("make {}", root.display())))?;
        mount(spec, &files, &root, identity)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = unmount(self.path.join("rootfs"), UnmountFlags::DETACH);
    }
}

fn mount(spec: &Spec, files: &[(PathBuf, PathBuf)], place: &Path, identity: Identity) -> Result<(), Error> {
    unshare(UnshareFlags::NEWNS).map_err(failed("make a mount namespace for the bundle"))?;
    let propagation = match spec.mounts.iter().any(Mount::is_slave) {
        true => MountPropagationFlags::DOWNSTREAM,
        false => MountPropagationFlags::PRIVATE,
    };
    mount_change("/", propagation | MountPropagationFlags::REC).map_err(failed("make the mounts private"))?;
    // A host with both versions of control groups has an empty tree of version 2, by which some runtimes take it for
    // one that has no other.
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.join("cgroup.controllers").exists() && unmount(unified, UnmountFlags::DETACH).is_err() {
        // A user's mount namespace may hide what it got from the host, and not take it away.
        let empty = create("tmpfs", &[("mode", Some("555")), ("size", Some("4k"))], MountAttrFlags::empty());
        let _ = empty.and_then(|empty| attach_path(empty, unified));
    }
    let root = &spec.root;
    let is_file = |source: &Path| source.metadata().is_ok_and(|metadata| !metadata.is_dir());
    let kind = |source: &Path| if is_file(source) { Kind::File } else { Kind::Directory };
    let standard = ["proc", "dev", "sys"].map(|name| (Path::new(name), Kind::Directory));
    let named = files.iter().map(|(source, target)| (target.as_path(), kind(source)));
    let mounted = spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Bind { source, target, .. } | Mount::Slave { source, target, .. } => {
            Some((target.as_path(), kind(source)))
        }
        Mount::Tmpfs { target, .. } => Some((target.as_path(), Kind::Directory)),
        Mount::Overlay { .. } | Mount::Secret { .. } => None,
    });
    // The runtime makes what it needs in its own /dev.
    let mounted = mounted.filter(|(target, _)| !target.starts_with("/dev"));
    stubs::create(&root.stubs, standard.into_iter().chain(named).chain(mounted))
        .map_err(failed(format!("make mount points in {}", root.stubs.display())))?;
    let lower = root.lower.iter().chain([&root.stubs]).map(PathBuf::as_path).collect();
    let layers = Layers {
        lower,
        upper: Some((&root.upper, &root.work)),
        volatile: root.volatile,
        user_attributes: identity != Identity::Root,
    };
    layers.open()?.mount(place).map(drop)
}

fn config(spec: &Spec, extra: &Extra, files: &[(PathBuf, PathBuf)], identity: Identity) -> Result<Value, Error> {
    let mut config = json!({
        "ociVersion": VERSION,
        "process": process(spec)?,
        "root": {"path": "rootfs", "readonly": spec.root.readonly},
        "mounts": mounts(spec, files, identity),
        "annotations": extra.annotations.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "linux": linux(spec, extra, identity)?,
    });
    if spec.kernel.uts == Sharing::Own
        && let Some(config) = config.as_object_mut()
    {
        config.insert("hostname".to_owned(), json!(spec.hostname));
    }
    Ok(config)
}

fn process(spec: &Spec) -> Result<Value, Error> {
    let allowed = capabilities::names(capabilities::allowed(&spec.security)?);
    // As docker's: only root has them from the beginning.
    let own = if spec.uid == 0 { allowed.clone() } else { Vec::new() };
    let limits = spec.rlimits.iter().map(|(name, (soft, hard))| {
        json!({"type": format!("RLIMIT_{}", name.to_ascii_uppercase()), "soft": soft, "hard": hard})
    });
    let mut process = json!({
        "terminal": spec.terminal,
        "user": {"uid": spec.uid, "gid": spec.gid, "additionalGids": spec.groups},
        "args": spec.args,
        "env": spec.env,
        "cwd": spec.cwd,
        "capabilities": {"bounding": allowed, "effective": own, "permitted": own},
        "rlimits": limits.collect::<Vec<_>>(),
        "noNewPrivileges": spec.security.no_new_privileges,
    });
    if let Some(process) = process.as_object_mut() {
        if let Some(score) = spec.kernel.oom_score_adj {
            process.insert("oomScoreAdj".to_owned(), json!(score));
        }
        if let Some((rows, columns)) = spec.terminal_size {
            process.insert("consoleSize".to_owned(), json!({"height": rows, "width": columns}));
        }
    }
    Ok(process)
}

fn mounts(spec: &Spec, files: &[(PathBuf, PathBuf)], identity: Identity) -> Vec<Value> {
    let one = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let bound_as = |propagation: &str, source: &Path, target: &Path, readonly: bool| {
        let options = ["rbind", propagation, if readonly { "ro" } else { "rw" }];
        json!({"destination": target, "type": "bind", "source": source, "options": options})
    };
    let bound = |source: &Path, target: &Path, readonly: bool| bound_as("rprivate", source, target, readonly);
    let access = if spec.security.privileged { "rw" } else { "ro" };
    let shm = format!("size={}", spec.shm_size.unwrap_or(64 << 20));
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if identity != Identity::Single {
        pts.push("gid=5");
    }
    let mut all = vec![
        one("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        one("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        one("/dev/pts", "devpts", &pts),
        one("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    // A user namespace may show only the devices of a network namespace of its own: the host's tree then.
    all.push(match identity != Identity::Root && spec.network == Network::Host {
        true => json!({"destination": "/sys", "type": "bind", "source": "/sys",
            "options": ["rbind", "rslave", "nosuid", "noexec", "nodev", "ro"]}),
        false => one("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
    });
    all.push(match spec.kernel.ipc {
        Sharing::Host => bound(Path::new("/dev/shm"), Path::new("/dev/shm"), false),
        _ => one("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    });
    all.extend(files.iter().map(|(source, target)| bound(source, target, false)));
    all.extend(spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Bind { source, target, readonly } => Some(bound(source, target, *readonly)),
        Mount::Slave { source, target, readonly } => Some(bound_as("rslave", source, target, *readonly)),
        Mount::Tmpfs { target, size, mode } => {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), format!("mode={mode:o}")];
            options.extend(size.map(|size| format!("size={size}")));
            Some(json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}))
        }
        Mount::Overlay { .. } | Mount::Secret { .. } => None,
    }));
    all
}

fn linux(spec: &Spec, extra: &Extra, identity: Identity) -> Result<Value, Error> {
    let mut linux = Map::new();
    linux.insert("namespaces".to_owned(), namespaces(spec));
    if spec.mounts.iter().any(Mount::is_slave) {
        linux.insert("rootfsPropagation".to_owned(), json!("rslave"));
    }
    // An ordinary user's runtime makes one where it may, and does without where it may not, unless it is told a place.
    if identity == Identity::Root {
        linux.insert("cgroupsPath".to_owned(), json!(extra.cgroup));
    }
    linux.insert("sysctl".to_owned(), json!(spec.kernel.sysctls));
    let (devices, rules) = devices(spec)?;
    linux.insert("devices".to_owned(), json!(devices));
    linux.insert("resources".to_owned(), resources(&extra.limits, &rules));
    if !spec.security.privileged {
        let rooted = |paths: &[&str]| paths.iter().map(|path| format!("/{path}")).collect::<Vec<_>>();
        linux.insert("maskedPaths".to_owned(), json!(rooted(&HIDDEN)));
        linux.insert("readonlyPaths".to_owned(), json!(rooted(&READ_ONLY)));
        if spec.security.seccomp {
            let capabilities = capabilities::allowed(&spec.security)?;
            let subject = Subject { capabilities, single_id: identity == Identity::Single };
            linux.insert("seccomp".to_owned(), seccomp::document(subject));
        }
    }
    Ok(Value::Object(linux))
}

fn namespaces(spec: &Spec) -> Value {
    let mut all = vec![json!({"type": "mount"})];
    let kernel = &spec.kernel;
    let named = [("pid", kernel.pid), ("ipc", kernel.ipc), ("uts", kernel.uts), ("cgroup", kernel.cgroup)];
    for (name, sharing) in named {
        match sharing {
            Sharing::Own => all.push(json!({"type": name})),
            Sharing::Host => {}
            Sharing::Of(pid) => all.push(json!({"type": name, "path": format!("/proc/{pid}/ns/{name}")})),
        }
    }
    match &spec.network {
        Network::Host => {}
        Network::None => all.push(json!({"type": "network"})),
        Network::Joined(path) => all.push(json!({"type": "network", "path": path})),
    }
    json!(all)
}

/// The devices that are asked for, and the rules about devices.
fn devices(spec: &Spec) -> Result<(Vec<Value>, Vec<Value>), Error> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let (mut devices, mut rules) = (Vec::new(), vec![json!({"allow": spec.security.privileged, "access": "rwm"})]);
    for Device { source, target, readonly } in &spec.devices {
        let step = || failed::<io::Error>(format!("look at the device {}", source.display()));
        let metadata = source.metadata().map_err(step())?;
        let kind = if metadata.file_type().is_block_device() { "b" } else { "c" };
        let number = metadata.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        devices.push(json!({"path": target, "type": kind, "major": major, "minor": minor,
            "fileMode": metadata.mode() & 0o777, "uid": 0, "gid": 0}));
        let access = if *readonly { "r" } else { "rwm" };
        rules.push(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}));
    }
    Ok((devices, rules))
}

fn resources(limits: &Limits, rules: &[Value]) -> Value {
    let some = |pairs: Vec<(&str, Option<Value>)>| -> Value {
        pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
    };
    let number = |value: Option<u64>| value.map(|value| json!(value));
    let swap = limits.memory.map(|memory| match limits.memory_swap {
        None | Some(0) => json!(memory.saturating_mul(2)),
        Some(swap) => json!(swap),
    });
    let memory = some(vec![
        ("limit", number(limits.memory)),
        ("swap", swap),
        ("reservation", number(limits.memory_reservation)),
        ("swappiness", number(limits.swappiness)),
    ]);
    let cpu = some(vec![
        ("quota", limits.cpu_quota.map(|quota| json!(quota))),
        ("period", number(limits.cpu_period)),
        ("shares", number(limits.cpu_shares)),
        ("cpus", limits.cpuset_cpus.as_ref().map(|cpus| json!(cpus))),
        ("mems", limits.cpuset_mems.as_ref().map(|mems| json!(mems))),
    ]);
    let filled = |value: Value| Some(value).filter(|value| value.as_object().is_some_and(|fields| !fields.is_empty()));
    some(vec![
        ("devices", Some(json!(rules))),
        ("memory", filled(memory)),
        ("cpu", filled(cpu)),
        ("pids", limits.pids.map(|count| json!({"limit": count}))),
        ("blockIO", limits.blkio_weight.map(|weight| json!({"weight": weight}))),
    ])
}
