//! What this machine lets kiln do, for `kiln info`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::channel::Message;
use crate::process::launch;
use crate::root::Layers;
use crate::system_call::unshare;
use crate::user_namespace::{self, IdKind, Identity, find_program, ranges};

/// One finding.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// e.g. "user namespaces".
    pub name: String,
    /// Whether it can be used.
    pub available: bool,
    /// What was found, in a few words.
    pub detail: String,
    /// What to install or change, when something is missing.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(name: &str, available: bool, detail: impl Into<String>, remedy: &str) -> Self {
        let remedy = (!available && !remedy.is_empty()).then(|| remedy.to_owned());
        Self { name: name.to_owned(), available, detail: detail.into(), remedy }
    }
}

/// What a throw-away child found by trying: each is what went wrong, if something did.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Trial {
    namespace: Option<String>,
    overlay: Option<String>,
}

/// Looks at the machine as this user sees it: user namespaces, subuids, overlay, cgroups, seccomp, network parts.
/// Whether this process has [entered](user_namespace::enter) its user namespace already makes no difference, but the
/// subordinate ids are then counted from its mapping.
pub fn probe() -> Vec<Finding> {
    let trial = ask();
    let mut findings = vec![kernel()];
    findings.extend(identity(&trial));
    let overlay = trial.overlay.as_deref();
    findings.push(Finding::new(
        "overlay",
        overlay.is_none(),
        overlay.unwrap_or("can be mounted"),
        "modprobe overlay; an ordinary user needs Linux 5.11 or newer",
    ));
    findings.push(seccomp());
    findings.push(cgroups());
    findings.extend(network());
    findings
}

fn ask() -> Trial {
    let asked = launch().and_then(|(mut child, channel)| {
        let reply = channel.send(&Message::Probe, &[]).and_then(|()| channel.receive());
        drop(channel);
        let _ = child.wait();
        reply
    });
    match asked {
        Ok(Some((Message::Probed(trial), _))) => trial,
        Ok(_) => Trial { namespace: Some("the trial ended early".to_owned()), overlay: Some("not tried".to_owned()) },
        Err(error) => Trial { namespace: Some(error.to_string()), overlay: Some("not tried".to_owned()) },
    }
}

/// In the child: becomes root if it is not, and mounts an overlay.
pub(crate) fn try_out() -> Trial {
    let identity = match user_namespace::enter() {
        Ok(identity) => identity,
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            return Trial { namespace: Some(format!("{error}{source}")), overlay: Some("not tried".to_owned()) };
        }
    };
    Trial { namespace: None, overlay: try_overlay(identity).err() }
}

fn try_overlay(identity: Identity) -> Result<(), String> {
    use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
    let text = |error: &dyn std::error::Error| error.to_string();
    unshare(rustix::thread::UnshareFlags::NEWNS).map_err(|error| text(&error))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|error| text(&error))?;
    let memory = crate::mount::create("tmpfs", &[], MountAttrFlags::empty()).map_err(|error| text(&error))?;
    let place = Path::new("/tmp");
    crate::mount::attach_path(&memory, place).map_err(|error| text(&error))?;
    let [lower, upper, work, root] = ["lower", "upper", "work", "root"].map(|name| place.join(name));
    for directory in [&lower, &upper, &work, &root] {
        std::fs::create_dir(directory).map_err(|error| text(&error))?;
    }
    let layers = Layers {
        lower: vec![&lower],
        upper: Some((&upper, &work)),
        volatile: true,
        user_attributes: identity != Identity::Root,
    };
    let describe = |error: crate::process::Error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    };
    layers.open().and_then(|layers| layers.mount(&root)).map(drop).map_err(describe)
}

/// Major and minor number.
pub(crate) fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = kernel_version();
    let detail = if version >= (6, 5) { release } else { format!("{release}, fewer layers before 6.5") };
    Finding::new("kernel", version >= (5, 12), detail, "Linux 5.12 or newer")
}

fn identity(trial: &Trial) -> Vec<Finding> {
    let uid = rustix::process::geteuid().as_raw();
    let remedy = user_namespace::remedy().unwrap_or_else(|| "run kiln as root, or see the message".to_owned());
    let detail = match &trial.namespace {
        Some(problem) => problem.clone(),
        None if uid == 0 && matches!(Identity::current(), Ok(Identity::Root)) => "root needs none".to_owned(),
        None => "can be made".to_owned(),
    };
    let mut findings = vec![Finding::new("user namespaces", trial.namespace.is_none(), detail, &remedy)];
    if uid == 0 {
        return findings;
    }
    for (name, kind, file) in [("subuids", IdKind::User, "/etc/subuid"), ("subgids", IdKind::Group, "/etc/subgid")] {
        let count: u64 = ranges(kind, uid).iter().map(|(_, count)| u64::from(*count)).sum();
        let detail = format!("{count} in {file}");
        let remedy = "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 <user>";
        findings.push(Finding::new(name, count >= 65_535, detail, remedy));
    }
    for name in ["newuidmap", "newgidmap"] {
        findings.push(program(name, "uidmap"));
    }
    findings
}

fn program(name: &str, package: &str) -> Finding {
    let found = find_program(name);
    let detail = found.as_ref().map_or("not installed".to_owned(), |path| path.display().to_string());
    Finding::new(name, found.is_some(), detail, &format!("apt install {package}"))
}

fn seccomp() -> Finding {
    let available = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let filters = available.contains("errno");
    Finding::new(
        "seccomp",
        filters,
        if filters { "filters" } else { "no filters" },
        "a kernel with CONFIG_SECCOMP_FILTER",
    )
}

/// Limits, `stats` and `pause` need a group that this user may make.
fn cgroups() -> Finding {
    let found = cgroup::survey();
    let holds = found.iter().any(|(_, controllers, can)| *can && controllers.iter().any(|name| name == "memory"));
    let version = found.first().map_or("none", |(version, ..)| version.as_str());
    let controllers: Vec<String> = found.iter().flat_map(|(_, controllers, _)| controllers.clone()).collect();
    let hybrid = if version == "v1" && Path::new("/sys/fs/cgroup/unified").exists() { " (hybrid)" } else { "" };
    let whose = if holds || found.is_empty() { "" } else { " (none of it is this user's: limits do not hold)" };
    let detail = format!("{version}{hybrid}: {}{whose}", controllers.join(" "));
    let remedy = match version {
        "v2" => "systemd-run --user --scope -p Delegate=yes kiln …, or run kiln as root",
        _ => "boot with systemd.unified_cgroup_hierarchy=1, or run kiln as root",
    };
    Finding::new("cgroups", holds, detail, remedy)
}

/// Bridges, addresses, packet filter rules, ports and names are kiln's own; only an ordinary user's containers need a
/// program to reach other machines.
fn network() -> Vec<Finding> {
    let own = "bridges, published ports and names need no other program";
    let mut findings = vec![Finding::new("networks", true, own, "")];
    if rustix::process::geteuid().is_root() && matches!(Identity::current(), Ok(Identity::Root)) {
        return findings;
    }
    let finding = match user_namespace::shared::egress_program() {
        Ok((name, _)) => Finding::new("way out of networks", true, format!("by {name}"), ""),
        Err((why, remedy)) => {
            let detail = format!("containers reach each other and are reached, but no other machines: {why}");
            Finding::new("way out of networks", false, detail, &format!("{remedy}; or --network host"))
        }
    };
    findings.push(finding);
    findings
}
