//! The options of a container that concern the kernel's namespaces and settings, its log, and an OCI runtime.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use kiln_container::{LogLimits, Namespace, Namespaces};

use super::{bytes, label};

/// Namespaces, settings, log.
#[derive(Debug, clap::Args)]
pub(crate) struct KernelArgs {
    /// Processes that it sees: host, container:NAME, or its own
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pid: String,
    /// Shared memory: host, container:NAME, private or shareable
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    ipc: String,
    /// Host name: host, or its own
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    uts: String,
    /// User namespace: host is the only one there is
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    userns: String,
    /// View of control groups: host or private
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    cgroupns: String,
    /// Setting of the kernel, of its own namespaces: net.ipv4.ip_forward=1
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// How readily it is killed when the machine is out of memory: -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    oom_score_adj: Option<i32>,
    /// Domain name in the container
    #[arg(long, value_name = "NAME")]
    pub(super) domainname: Option<String>,
    /// What is said of it to an OCI runtime: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Where its output is kept: json-file, local or k8s-file are kiln's own log, none keeps nothing
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Of the log: max-size=10m, max-file=3
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
}

impl KernelArgs {
    pub(super) fn namespaces(&self) -> Result<Namespaces> {
        if !matches!(self.userns.as_str(), "" | "host") {
            bail!("--userns {:?}: the containers of a user are all in one user namespace; expected host", self.userns);
        }
        Ok(Namespaces {
            pid: Namespace::parse("--pid", &self.pid)?,
            ipc: Namespace::parse("--ipc", &self.ipc)?,
            uts: Namespace::parse("--uts", &self.uts)?,
            cgroup: Namespace::parse("--cgroupns", &self.cgroupns)?,
        })
    }

    pub(super) fn sysctls(&self) -> Result<BTreeMap<String, String>> {
        let pair = |text: &String| {
            let (name, value) =
                text.split_once('=').with_context(|| format!("invalid sysctl {text:?}; expected NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        self.sysctl.iter().map(pair).collect()
    }

    pub(super) fn oom_score_adj(&self) -> Result<Option<i32>> {
        match self.oom_score_adj {
            Some(score) if !(-1000..=1000).contains(&score) => {
                bail!("Invalid value {score}, range for oom score adj is [-1000, 1000]")
            }
            score => Ok(score),
        }
    }

    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        self.annotation.iter().cloned().map(label).collect()
    }

    pub(super) fn log_driver(&self) -> Result<Option<String>> {
        match self.log_driver.as_deref() {
            Some(driver) if !["none", "json-file", "local", "k8s-file"].contains(&driver) => {
                bail!("logger: no log driver named {driver:?}; expected json-file, local, k8s-file or none")
            }
            _ => Ok(self.log_driver.clone()),
        }
    }

    pub(super) fn log_limits(&self) -> Result<LogLimits> {
        let mut limits = LogLimits::default();
        for text in &self.log_opt {
            match text.split_once('=').unwrap_or((text, "")) {
                ("max-size", "-1") => limits.size = None,
                ("max-size", value) => limits.size = Some(bytes(value)?).filter(|size| *size > 0),
                ("max-file", value) => {
                    let count = value.parse().ok().filter(|count| *count > 0);
                    limits.files = Some(count.with_context(|| format!("max-file {value:?} is no number above 0"))?);
                }
                // How docker writes the files: kiln has one way.
                ("compress" | "mode" | "max-buffer-size" | "tag" | "labels" | "env", _) => {}
                (other, _) => bail!("unknown log opt {other:?}; expected max-size or max-file"),
            }
        }
        if limits.files.is_some_and(|count| count > 1) && limits.size.is_none() {
            bail!("max-file without max-size: a log of any size is never the last one");
        }
        Ok(limits)
    }
}
