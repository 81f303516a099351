//! Flags that hold for every RUN step.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kiln_build::request::{Entitlements, PROXIES, RunOptions, Volume};

use crate::create::limits::LimitArgs;

/// What RUN steps are given, or kept from.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "RUN steps")]
pub(super) struct StepArgs {
    /// Offer an ssh agent to RUN --mount=type=ssh: default, or ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]", num_args = 0..=1, default_missing_value = "default")]
    ssh: Vec<String>,
    /// Let steps ask for more: security.insecure, network.host
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Limit a resource: nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Give steps a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability from steps
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=unconfined or no-new-privileges
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Name servers instead of the host's
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search domains instead of the host's
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Options of the resolver instead of the host's
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Leave the image's /etc/hosts as it is
    #[arg(long)]
    no_hosts: bool,
    /// Show a directory of the host to every step; its content, or `salt=`, is part of the cache key
    #[arg(short, long, value_name = "HOST:STEP[:ro,rw,salt=TEXT]")]
    volume: Vec<String>,
    #[command(flatten)]
    limits: LimitArgs,
    /// How steps are isolated: default, oci, rootless and chroot all mean kiln's own sandbox
    #[arg(long, value_name = "TYPE", default_value = "default")]
    isolation: String,
    /// User namespace of steps: host; private or container, which an ordinary user's steps have anyway
    #[arg(long, value_name = "MODE", default_value = "")]
    userns: String,
    /// Leave the image's /etc/hostname as it is, which kiln does anyway
    #[arg(long)]
    no_hostname: bool,
    /// Pass HTTP_PROXY and the like on from kiln's own environment; images and cache keys do not have them
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    http_proxy: bool,
}

impl StepArgs {
    pub(super) fn options(&self, build_args: &BTreeMap<String, String>) -> anyhow::Result<RunOptions> {
        let mut options = RunOptions {
            rlimits: self.ulimit.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_options: self.dns_option.clone(),
            no_hosts: self.no_hosts,
            hostname: build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned().filter(|name| !name.is_empty()),
            volumes: self.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
            limits: self.limits.limits()?,
            cgroup_parent: self.limits.cgroup_parent.clone(),
            proxies: if self.http_proxy { own_proxies() } else { BTreeMap::new() },
            ..RunOptions::default()
        };
        self.check_namespaces()?;
        for option in &self.security_opt {
            match option.replace(':', "=").as_str() {
                "seccomp=unconfined" => options.seccomp_unconfined = true,
                "no-new-privileges" | "no-new-privileges=true" => options.no_new_privileges = true,
                // Neither is there to be switched off.
                "label=disable" | "apparmor=unconfined" | "no-new-privileges=false" => {}
                _ => bail!("--security-opt {option:?} is unknown; expected seccomp=unconfined or no-new-privileges"),
            }
        }
        Ok(options)
    }

    /// There is one kind of sandbox: what asks for another is told so.
    fn check_namespaces(&self) -> anyhow::Result<()> {
        match self.isolation.as_str() {
            "" | "default" | "oci" | "rootless" | "chroot" => {}
            "process" | "hyperv" => bail!("--isolation {}: that is Windows'", self.isolation),
            other => bail!("--isolation {other:?} is unknown; expected default, oci, rootless or chroot"),
        }
        let is_root = std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
        match self.userns.as_str() {
            "" | "host" => Ok(()),
            "private" | "container" | "auto" | "keep-id" if !is_root => Ok(()),
            "private" | "container" | "auto" => bail!(
                "--userns {}: root's steps have no user namespace of their own; build as an ordinary user, whose steps \
                 have one",
                self.userns
            ),
            other => bail!("--userns {other:?} is not supported; expected host, private or container"),
        }
    }

    pub(super) fn entitlements(&self) -> anyhow::Result<Entitlements> {
        let mut entitlements = Entitlements::default();
        for name in self.allow.iter().flat_map(|list| list.split(',')) {
            match name {
                "security.insecure" => entitlements.insecure = true,
                "network.host" => entitlements.host_network = true,
                other => bail!("--allow {other:?} is unknown; expected security.insecure or network.host"),
            }
        }
        Ok(entitlements)
    }

    /// The sockets of agents, by id.
    pub(super) fn agents(&self) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        self.ssh.iter().map(|text| agent(text)).collect()
    }
}

/// Proxy settings of kiln's own environment.
fn own_proxies() -> BTreeMap<String, String> {
    PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

fn agent(text: &str) -> anyhow::Result<(String, PathBuf)> {
    let (id, place) = text.split_once('=').unwrap_or((text, ""));
    let socket = match place {
        "" => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).with_context(|| {
            format!("--ssh {id}: SSH_AUTH_SOCK is not set: start an agent, or say which with --ssh {id}=SOCKET")
        })?,
        place => PathBuf::from(place),
    };
    let kind = std::fs::metadata(&socket).with_context(|| format!("--ssh {id}: look at {}", socket.display()))?;
    if !kind.file_type().is_socket() {
        bail!("--ssh {id}: {} is no agent's socket; give a key to an agent with ssh-add", socket.display());
    }
    Ok((id.to_owned(), socket))
}

/// `nofile=1024:2048`; a single number is both.
fn ulimit(text: &str) -> anyhow::Result<(String, (u64, u64))> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let wrong = || format!("ulimit {text:?} is not NAME=SOFT[:HARD]");
    let (name, values) = text.split_once('=').with_context(wrong)?;
    if !NAMES.contains(&name) {
        bail!("ulimit {name:?} is unknown; expected one of {}", NAMES.join(", "));
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text.parse::<u64>().with_context(wrong),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        bail!("ulimit {text:?}: the soft limit is above the hard one");
    }
    Ok((name.to_owned(), (soft, hard)))
}

/// `HOST:STEP[:OPTIONS]`.
fn volume(text: &str) -> anyhow::Result<Volume> {
    let mut parts = text.splitn(3, ':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        bail!("volume {text:?} is not HOST:STEP[:OPTIONS]");
    };
    if !target.starts_with('/') || !Path::new(source).is_absolute() {
        bail!("volume {text:?}: both paths are to be absolute");
    }
    let mut volume = Volume { source: source.into(), target: target.to_owned(), readonly: false, salt: None };
    for option in parts.next().unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("salt", salt)) => volume.salt = Some(salt.to_owned()),
            None if option == "ro" => volume.readonly = true,
            // Labels are for SELinux, which kiln leaves alone.
            None if matches!(option, "rw" | "z" | "Z" | "rprivate" | "private") => {}
            _ => bail!("volume {text:?}: unknown option {option:?}; expected ro, rw or salt=TEXT"),
        }
    }
    std::fs::metadata(&volume.source).with_context(|| format!("volume {text:?}"))?;
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::{ulimit, volume};

    #[test]
    fn limits_and_volumes() {
        assert_eq!(ulimit("nofile=1:2").unwrap(), ("nofile".to_owned(), (1, 2)));
        assert_eq!(ulimit("core=-1").unwrap().1, (u64::MAX, u64::MAX));
        for wrong in ["nofile", "x=1", "nofile=2:1", "nofile=a"] {
            assert!(ulimit(wrong).is_err(), "{wrong}");
        }
        let parsed = volume("/:/host:ro,salt=1").unwrap();
        assert!(parsed.readonly && parsed.salt.as_deref() == Some("1"));
        for wrong in ["/", "a:/b", "/:b", "/:/b:what", "/no/such/path:/b"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }
}
