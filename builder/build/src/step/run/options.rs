//! What the build's options make of every RUN step.

use kiln_sandbox::spec::{Mount, Security};

use crate::context::Context;
use crate::key::KeyBuilder;
use crate::request::{ContextDirectory, RunOptions, Volume};
use crate::selection::select_path;
use crate::{Error, Result};

/// Adds what a step could see of them to its key.
pub(super) fn add(key: &mut KeyBuilder, options: &RunOptions) -> Result<()> {
    for (name, (soft, hard)) in &options.rlimits {
        key.part(format!("ulimit {name}"), format!("{soft}:{hard}"));
    }
    let lists = [
        ("cap-add", &options.cap_add),
        ("cap-drop", &options.cap_drop),
        ("dns", &options.dns),
        ("dns-search", &options.dns_search),
        ("dns-option", &options.dns_options),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        key.part(name, list.join(" "));
    }
    let switches = [
        ("seccomp", options.seccomp_unconfined),
        ("no-new-privileges", options.no_new_privileges),
        ("no-hosts", options.no_hosts),
    ];
    for (name, _) in switches.into_iter().filter(|(_, given)| *given) {
        key.part(name, "given");
    }
    if let Some(hostname) = &options.hostname {
        key.part("hostname", hostname);
    }
    options.volumes.iter().try_for_each(|volume| add_volume(key, volume))
}

/// A volume counts by its content, unless it was given a word that stands for it.
fn add_volume(key: &mut KeyBuilder, volume: &Volume) -> Result<()> {
    let name = format!("volume {}", volume.target);
    if let Some(salt) = &volume.salt {
        key.part(name, format!("readonly={} salt={salt}", volume.readonly));
        return Ok(());
    }
    key.part(name, format!("readonly={}", volume.readonly));
    let io = |error| Error::io("look at volume", &volume.source, error);
    let whole = volume.source.canonicalize().map_err(io)?;
    let (directory, path) = match (whole.is_dir(), whole.parent(), whole.file_name()) {
        (false, Some(parent), Some(name)) => (parent.to_path_buf(), name.to_string_lossy().into_owned()),
        _ => (whole.clone(), String::new()),
    };
    let tree = Context::without_memory(&ContextDirectory { path: directory, ignore: None })?;
    key.files(&select_path(&tree, &path)?, false);
    Ok(())
}

pub(super) fn volumes(options: &RunOptions) -> Vec<Mount> {
    let mount = |volume: &Volume| Mount::Bind {
        source: volume.source.clone(),
        target: volume.target.clone().into(),
        readonly: volume.readonly,
    };
    options.volumes.iter().map(mount).collect()
}

pub(super) fn security(options: &RunOptions, insecure: bool) -> Security {
    Security {
        privileged: insecure,
        cap_add: options.cap_add.clone(),
        cap_drop: options.cap_drop.clone(),
        seccomp: !options.seccomp_unconfined,
        no_new_privileges: options.no_new_privileges,
    }
}

/// The host's resolver, as far as the options say nothing else.
pub(super) fn resolv_conf(options: &RunOptions) -> String {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let replaced = [
        ("nameserver", !options.dns.is_empty()),
        ("search", !options.dns_search.is_empty()),
        ("options", !options.dns_options.is_empty()),
    ];
    let is_kept =
        |line: &&str| !replaced.iter().any(|(word, given)| *given && line.split_whitespace().next() == Some(word));
    let mut text: String = own.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
    for server in &options.dns {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // A single dot means no search at all, as docker's.
    if !options.dns_search.is_empty() && options.dns_search != ["."] {
        text.push_str(&format!("search {}\n", options.dns_search.join(" ")));
    }
    if !options.dns_options.is_empty() {
        text.push_str(&format!("options {}\n", options.dns_options.join(" ")));
    }
    text
}

pub(super) fn hosts(hostname: &str, added: &[(String, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in added {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}
