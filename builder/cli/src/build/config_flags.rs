//! Flags that change the result's config, and its times.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use kiln_build::request::{ConfigEdits, EnvEdit};

/// What is changed of the result when its last instruction is done.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The image's configuration")]
pub(super) struct ConfigArgs {
    /// Give the image a variable; without `=` its value is that of the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Take a variable from the image
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Take a label from the image
    #[arg(long, value_name = "KEY")]
    unsetlabel: Vec<String>,
    /// Take a volume from the image
    #[arg(long, value_name = "PATH")]
    unsetvolume: Vec<String>,
    /// Take an exposed port from the image
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    unsetexpose: Vec<String>,
    /// Take the entrypoint from the image
    #[arg(long)]
    unsetentrypoint: bool,
    /// Take the health check from the image
    #[arg(long)]
    unsethealthcheck: bool,
    /// Keep the base image's labels
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    inherit_labels: bool,
    /// The image of the first FROM
    #[arg(long, value_name = "IMAGE")]
    from: Option<String>,
    /// The version of the operating system that the image needs
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// A feature of the operating system that the image needs; with `-` behind it, does not
    #[arg(long, value_name = "FEATURE")]
    os_feature: Vec<String>,
    /// Read build arguments from a file, NAME=VALUE in each line
    #[arg(long, value_name = "FILE")]
    build_arg_file: Vec<PathBuf>,
    /// Set every time of the image to this one, in seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// The same as SOURCE_DATE_EPOCH
    #[arg(long, value_name = "SECONDS", conflicts_with = "timestamp")]
    source_date_epoch: Option<i64>,
    /// Set back later times of new files: what SOURCE_DATE_EPOCH does by itself
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rewrite_timestamp: Option<bool>,
}

impl ConfigArgs {
    pub(super) fn edits(&self) -> anyhow::Result<ConfigEdits> {
        let mut env = Vec::new();
        for text in &self.env {
            match text.split_once('=') {
                Some(("", _)) => bail!("--env {text:?} has no name"),
                Some((name, value)) => env.push(EnvEdit::Set(name.to_owned(), value.to_owned())),
                None => env.extend(std::env::var(text).ok().map(|value| EnvEdit::Set(text.clone(), value))),
            }
        }
        env.extend(self.unsetenv.iter().cloned().map(EnvEdit::Unset));
        Ok(ConfigEdits {
            env,
            unset_labels: self.unsetlabel.clone(),
            drop_inherited_labels: !self.inherit_labels,
            unset_volumes: self.unsetvolume.clone(),
            unset_ports: self.unsetexpose.clone(),
            unset_entrypoint: self.unsetentrypoint,
            unset_healthcheck: self.unsethealthcheck,
            first_from: self.from.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_feature.clone(),
        })
    }

    /// The time that the flags say.
    pub(super) fn epoch(&self) -> Option<i64> {
        self.timestamp.or(self.source_date_epoch)
    }

    /// Adds what files say to the arguments of the command line, which win.
    pub(super) fn read_build_args(&self, into: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
        for path in &self.build_arg_file {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let Some((name, value)) = line.split_once('=') else {
                    bail!("{}: {line:?} is not NAME=VALUE", path.display());
                };
                into.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        Ok(())
    }
}
