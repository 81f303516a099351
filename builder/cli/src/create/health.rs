//! The options of a container's health check.

use anyhow::{Result, bail};
use kiln_image::config::Healthcheck;

use super::duration;

/// `--health-*`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    /// Command that tells whether the container works
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks (30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_interval: Option<i64>,
    /// How long one may take (30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_timeout: Option<i64>,
    /// How many failures one after the other make it unhealthy (3)
    #[arg(long, value_name = "N")]
    health_retries: Option<i64>,
    /// How long failures do not count at first
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_period: Option<i64>,
    /// Time between two checks during that time (5s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_interval: Option<i64>,
    /// No check, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// What is said of the check, if anything is.
    pub(super) fn check(&self) -> Result<Option<Healthcheck>> {
        let test = if self.no_healthcheck {
            Some(vec!["NONE".to_owned()])
        } else {
            self.health_cmd.as_ref().map(|line| vec!["CMD-SHELL".to_owned(), line.clone()])
        };
        let health = Healthcheck {
            test,
            interval: self.health_interval.unwrap_or(0),
            timeout: self.health_timeout.unwrap_or(0),
            start_period: self.health_start_period.unwrap_or(0),
            start_interval: self.health_start_interval.unwrap_or(0),
            retries: self.health_retries.unwrap_or(0),
        };
        let durations =
            [self.health_interval, self.health_timeout, self.health_start_period, self.health_start_interval];
        let says_more = durations.iter().chain([&self.health_retries]).any(Option::is_some);
        if self.no_healthcheck && (says_more || self.health_cmd.is_some()) {
            bail!("--no-healthcheck conflicts with --health-* options");
        }
        Ok((health != Healthcheck::default()).then_some(health))
    }
}
