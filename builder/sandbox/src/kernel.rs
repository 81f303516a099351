//! What a sandbox sees and changes of the kernel: namespaces that it shares, names, settings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::mount::{clone_path, failed};
use crate::process::Error;
use crate::spec::{Kernel, Network, Sharing, Spec};
use crate::system_call::{raise_loopback, unshare};

/// Makes the namespaces of a spec, or joins those that it shares; the pid namespace is there already.
pub(crate) fn make_namespaces(spec: &Spec) -> Result<(), Error> {
    let kernel = &spec.kernel;
    let mut flags = UnshareFlags::NEWNS;
    let others = [
        (kernel.ipc, UnshareFlags::NEWIPC, "ipc", LinkNameSpaceType::InterProcessCommunication),
        (kernel.uts, UnshareFlags::NEWUTS, "uts", LinkNameSpaceType::HostNameAndNISDomainName),
        (kernel.cgroup, UnshareFlags::NEWCGROUP, "cgroup", LinkNameSpaceType::ControlGroup),
    ];
    for (sharing, flag, name, kind) in others {
        match sharing {
            Sharing::Own => flags |= flag,
            Sharing::Host => {}
            Sharing::Of(pid) => join(&PathBuf::from(format!("/proc/{pid}/ns/{name}")), kind)?,
        }
    }
    match &spec.network {
        Network::None => flags |= UnshareFlags::NEWNET,
        Network::Joined(path) => join(path, LinkNameSpaceType::Network)?,
        Network::Host => {}
    }
    unshare(flags).map_err(failed("make namespaces"))?;
    if kernel.uts == Sharing::Own {
        rustix::system::sethostname(spec.hostname.as_bytes())
            .map_err(failed(format!("set the host name {:?}", spec.hostname)))?;
        if !kernel.domainname.is_empty() {
            rustix::system::setdomainname(kernel.domainname.as_bytes())
                .map_err(failed(format!("set the domain name {:?}", kernel.domainname)))?;
        }
    }
    if spec.network == Network::None {
        raise_loopback().map_err(failed("bring the loopback interface up"))?;
    }
    Ok(())
}

fn join(path: &Path, kind: LinkNameSpaceType) -> Result<(), Error> {
    let namespace = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let joined = namespace.and_then(|namespace| move_into_link_name_space(namespace.as_fd(), Some(kind)));
    joined.map_err(failed(format!("join the namespace {}", path.display())))
}

/// Changes the settings, while the host's /proc is still visible.
pub(crate) fn change_settings(spec: &Spec) -> Result<(), Error> {
    for (name, value) in &spec.kernel.sysctls {
        let step = || failed::<io::Error>(format!("set sysctl {name} to {value}"));
        let path = setting(name, &spec.kernel, &spec.network).map_err(|why| step()(io::Error::other(why)))?;
        std::fs::write(path, value).map_err(step())?;
    }
    if let Some(score) = spec.kernel.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(failed(format!("set the out-of-memory score to {score}")))?;
    }
    Ok(())
}

/// The file of a setting, if it is one of a namespace that is the sandbox's own: all others are the host's.
///
/// # Errors
/// Why it may not be set.
pub fn setting(name: &str, kernel: &Kernel, network: &Network) -> Result<PathBuf, String> {
    let foreign = || format!("sysctl {name:?} is not in a separate kernel namespace");
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let parts: Vec<&str> = name.split(['.', '/']).collect();
    if !parts.iter().all(|part| is_plain(part)) {
        return Err(foreign());
    }
    let is_own = match parts.as_slice() {
        ["net", ..] => *network != Network::Host,
        ["kernel", "msgmax" | "msgmnb" | "msgmni" | "sem" | "shmall" | "shmmax" | "shmmni" | "shm_rmid_forced"]
        | ["fs", "mqueue", _] => kernel.ipc == Sharing::Own,
        ["kernel", "domainname" | "hostname"] => kernel.uts == Sharing::Own,
        _ => false,
    };
    if is_own { Ok(Path::new("/proc/sys").join(parts.join("/"))) } else { Err(foreign()) }
}

/// The /dev/shm that goes with a shared ipc namespace; none with one of the sandbox's own.
pub(crate) fn shared_memory(sharing: Sharing) -> io::Result<Option<OwnedFd>> {
    let place = Path::new("/dev/shm");
    match sharing {
        Sharing::Own => Ok(None),
        Sharing::Host => clone_path(place).map(Some),
        Sharing::Of(pid) => {
            let open = |path: &str| openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let (own, theirs) = (open("/proc/self/ns/mnt")?, open(&format!("/proc/{pid}/ns/mnt"))?);
            move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Mount))?;
            let mount = clone_path(place);
            move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))?;
            mount.map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_own_namespaces_are_changed() {
        let own = Kernel::default();
        let path = |name: &str, network: &Network| setting(name, &own, network).ok();
        let forward = PathBuf::from("/proc/sys/net/ipv4/ip_forward");
        assert_eq!(path("net.ipv4.ip_forward", &Network::None), Some(forward.clone()));
        assert_eq!(path("net/ipv4/ip_forward", &Network::None), Some(forward));
        assert_eq!(path("net.ipv4.ip_forward", &Network::Host), None);
        assert!(path("kernel.shmmax", &Network::Host).is_some());
        for wrong in
            ["kernel.core_pattern", "vm.swappiness", "net.../../kernel.core_pattern", "net..x", "", "kernel.sem.x"]
        {
            assert_eq!(path(wrong, &Network::None), None, "{wrong}");
        }
        let shared = Kernel { ipc: Sharing::Host, uts: Sharing::Host, ..Kernel::default() };
        assert!(setting("kernel.shmmax", &shared, &Network::None).is_err());
        assert!(setting("kernel.domainname", &shared, &Network::None).is_err());
    }
}
