//! When registries are asked for base images, and how.

use anyhow::bail;
use kiln_build::base_image::Pull;

/// The flags.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Base images")]
pub(super) struct PullArgs {
    /// Ask the registry for base images even when they are here; or always, newer, missing, never
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pull: Option<String>,
    /// --pull=always
    #[arg(long, hide = true, conflicts_with_all = ["pull", "pull_never"])]
    pull_always: bool,
    /// --pull=never
    #[arg(long, hide = true, conflicts_with = "pull")]
    pull_never: bool,
}

impl PullArgs {
    pub(super) fn policy(&self) -> anyhow::Result<Pull> {
        let policy = match (self.pull_always, self.pull_never) {
            (true, _) => "always",
            (_, true) => "never",
            _ => self.pull.as_deref().unwrap_or("missing"),
        };
        Ok(match policy {
            "always" | "true" => Pull::Always,
            "newer" | "ifnewer" => Pull::Newer,
            "missing" | "ifmissing" | "false" => Pull::Missing,
            "never" => Pull::Never,
            other => bail!("--pull {other:?} is unknown; expected always, newer, missing or never"),
        })
    }
}
