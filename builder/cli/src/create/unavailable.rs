//! Flags of docker's for what kiln has not: what they ask for anyway is taken, all else is refused with a word on what to
//! do instead.

use anyhow::{Result, bail};

/// GPUs, quotas, drivers, real-time.
#[derive(Debug, clap::Args)]
pub(crate) struct UnavailableArgs {
    /// GPUs: kiln passes none on by itself (see --device)
    #[arg(long, value_name = "GPUS")]
    gpus: Option<String>,
    /// Isolation: there is only `default`
    #[arg(long, value_name = "KIND", default_value = "default", hide_default_value = true)]
    isolation: String,
    /// Options of the storage: there are none
    #[arg(long, value_name = "NAME=VALUE")]
    storage_opt: Vec<String>,
    /// Driver of volumes: there is only `local`
    #[arg(long, value_name = "DRIVER", default_value = "local", hide_default_value = true)]
    volume_driver: String,
    /// Rule for devices: files of devices work only when they are given with --device
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Processes are always killed when their memory is used up
    #[arg(long)]
    oom_kill_disable: bool,
    /// Real-time period: there is none
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Real-time runtime: there is none
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<u64>,
}

impl UnavailableArgs {
    /// Refuses what would not be as it was asked for.
    pub(super) fn check(&self) -> Result<()> {
        if self.gpus.is_some() {
            bail!(
                "could not select device driver \"\" with capabilities: [[gpu]]: kiln passes no GPU on by itself; give \
                 the container its device files with --device, and the driver's libraries with -v"
            );
        }
        if !matches!(self.isolation.as_str(), "default" | "") {
            bail!("invalid isolation {:?}: there is only default", self.isolation);
        }
        if let Some(option) = self.storage_opt.first() {
            bail!("--storage-opt {option:?}: the storage has no quotas; limit a directory with --tmpfs PATH:size=…");
        }
        if !matches!(self.volume_driver.as_str(), "local" | "") {
            bail!("there is no volume driver {:?}: expected local", self.volume_driver);
        }
        if let Some(rule) = self.device_cgroup_rule.first() {
            bail!(
                "--device-cgroup-rule {rule:?}: name the devices with --device, or run the container with --privileged"
            );
        }
        if self.cpu_rt_period.is_some() || self.cpu_rt_runtime.is_some() {
            bail!("kiln does not give real-time processor time: leave out --cpu-rt-period and --cpu-rt-runtime");
        }
        if self.oom_kill_disable {
            // As docker's, where the kernel cannot do it.
            crate::failure::tell("WARNING: --oom-kill-disable is discarded\n");
        }
        Ok(())
    }
}
