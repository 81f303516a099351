//! What is said once for all builds: `$XDG_CONFIG_HOME/kiln/config.toml` (`~/.config/kiln/config.toml`), and for
//! everybody on the machine `/etc/kiln/config.toml`. Flags and variables of the environment go before both.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The machine's.
const EVERYBODYS: &str = "/etc/kiln/config.toml";

/// A configuration file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// About builds.
    #[serde(default)]
    pub(crate) build: Build,
}

/// `[build]`
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Build {
    /// `--cache-limit`: how much the build cache may take, such as `20g`.
    pub(crate) cache_limit: Option<String>,
}

impl Config {
    /// Reads both files; what the user's says goes first.
    ///
    /// # Errors
    /// One of them cannot be read, or says what nobody knows.
    pub(crate) fn read() -> Result<Self> {
        let own = users().map_or_else(|| Ok(Self::default()), |path| Self::read_file(&path))?;
        if own.build.cache_limit.is_some() {
            return Ok(own);
        }
        Self::read_file(Path::new(EVERYBODYS))
    }

    fn read_file(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("read the configuration {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read the configuration {}", path.display())),
        }
    }
}

fn users() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(home.join("kiln/config.toml"))
}
