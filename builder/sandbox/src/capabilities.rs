//! Capability sets by name.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::process::Error;
use crate::spec::Security;

/// By number, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What docker gives a container.
const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

fn every() -> CapabilitySet {
    CapabilitySet::from_bits_retain((1 << NAMES.len()) - 1)
}

/// The set by a user's word: a name in any case, with or without `CAP_`, or `ALL`.
fn parse(name: &str) -> Result<CapabilitySet, Error> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(every());
    }
    match NAMES.iter().position(|known| *known == bare) {
        Some(number) => Ok(CapabilitySet::from_bits_retain(1 << number)),
        None => Err(Error::Setup {
            step: format!("look up capability {name:?}"),
            source: io::Error::new(io::ErrorKind::InvalidInput, "there is no capability of that name"),
        }),
    }
}

/// What the sandbox's processes may have at most. A single name wins over the other list's `ALL`, as docker's.
pub(crate) fn allowed(security: &Security) -> Result<CapabilitySet, Error> {
    if security.privileged {
        return Ok(every());
    }
    let sets = |names: &[String]| names.iter().map(|name| parse(name)).collect::<Result<Vec<_>, _>>();
    let (added, dropped) = (sets(&security.cap_add)?, sets(&security.cap_drop)?);
    let all = |set: &CapabilitySet| *set == every();
    let mut result = DEFAULT;
    if added.iter().any(all) {
        result = every();
    } else if dropped.iter().any(all) {
        result = CapabilitySet::empty();
    }
    for set in dropped.iter().filter(|set| !all(set)) {
        result.remove(*set);
    }
    for set in added.iter().filter(|set| !all(set)) {
        result.insert(*set);
    }
    Ok(result)
}

/// Their names, as an OCI runtime reads them.
pub(crate) fn names(set: CapabilitySet) -> Vec<String> {
    let has = |number: &usize| set.contains(CapabilitySet::from_bits_retain(1 << number));
    (0..NAMES.len()).filter(has).map(|number| format!("CAP_{}", NAMES[number])).collect()
}

/// Takes the rest away for good: from the bounding set, and what an exec could inherit.
pub(crate) fn limit(allowed: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if allowed.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // This kernel's last one was the one before.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..sets })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> u64 {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let security = Security { cap_add: names(add), cap_drop: names(drop), ..Security::default() };
        allowed(&security).expect("known names").bits()
    }

    #[test]
    fn sets_are_dockers() {
        assert_eq!(set(&[], &[]), 0xa804_25fb);
        assert_eq!(set(&["cap_net_admin"], &["MKNOD"]), 0xa004_35fb);
        assert_eq!(set(&["CHOWN"], &["ALL"]), 1);
        assert_eq!(set(&["ALL"], &["CHOWN"]), every().bits() - 1);
        assert!(parse("FLY").is_err());
    }
}
