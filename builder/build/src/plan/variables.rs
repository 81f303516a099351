//! The variables an instruction sees.

use std::collections::BTreeMap;

use kiln_grammar::expand::Variables;
use kiln_image::Platform;

use crate::Request;

/// Proxy settings that need no ARG and leave no trace.
pub const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// ARGs that precede the first FROM, and the platform's.
#[derive(Debug, Clone, Default)]
pub(super) struct GlobalScope(pub(super) BTreeMap<String, Option<String>>);

impl GlobalScope {
    /// The automatic platform arguments; `--build-arg` overrides them.
    pub(super) fn platform(request: &Request, platform: &Platform, target: &str) -> Self {
        let host = Platform::host();
        let mut values = BTreeMap::new();
        for (prefix, platform) in [("BUILD", &host), ("TARGET", platform)] {
            let variant = platform.variant.clone().unwrap_or_default();
            values.insert(format!("{prefix}PLATFORM"), Some(platform.to_string()));
            values.insert(format!("{prefix}OS"), Some(platform.os.clone()));
            values.insert(format!("{prefix}ARCH"), Some(platform.architecture.clone()));
            values.insert(format!("{prefix}VARIANT"), Some(variant));
        }
        values.insert("TARGETSTAGE".to_owned(), Some(target.to_owned()));
        for (name, value) in &mut values {
            if let Some(given) = request.build_args.get(name) {
                *value = Some(given.clone());
            }
        }
        Self(values)
    }
}

impl Variables for GlobalScope {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().flatten()
    }
}

/// What a stage's instructions see: ENV wins over ARG.
#[derive(Debug, Clone, Default)]
pub(super) struct StageScope {
    /// The config's environment, in order.
    pub(super) env: Vec<(String, String)>,
    /// Declared ARGs, in order of their first declaration.
    pub(super) args: Vec<(String, Option<String>)>,
}

impl StageScope {
    /// Splits `NAME=value` lines of a config.
    pub(super) fn from_config(env: &[String]) -> Self {
        let env = env
            .iter()
            .map(|line| match line.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (line.clone(), String::new()),
            })
            .collect();
        Self { env, args: Vec::new() }
    }

    /// Sets an ENV.
    pub(super) fn set_env(&mut self, name: String, value: String) {
        match self.env.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.env.push((name, value)),
        }
    }

    /// Declares an ARG.
    pub(super) fn set_arg(&mut self, name: String, value: Option<String>) {
        match self.args.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.args.push((name, value)),
        }
    }

    fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The `|N NAME=value …` words that history puts before a RUN.
    pub(super) fn history_words(&self) -> Vec<String> {
        let mut words = Vec::with_capacity(self.args.len() + 1);
        if !self.args.is_empty() {
            words.push(format!("|{}", self.args.len()));
        }
        for (name, value) in &self.args {
            let value = self.env_value(name).or(value.as_deref()).unwrap_or_default();
            words.push(format!("{name}={value}"));
        }
        words
    }

    /// What a RUN's process sees: ARGs that have a value, and ENV over them.
    pub(super) fn process_env(&self) -> Vec<(String, String)> {
        let args = self.args.iter().filter(|(name, _)| self.env_value(name).is_none());
        let set = args.filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        self.env.iter().cloned().chain(set).collect()
    }
}

impl Variables for StageScope {
    fn get(&self, name: &str) -> Option<String> {
        match self.env_value(name) {
            Some(value) => Some(value.to_owned()),
            None => self.args.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone()),
        }
    }
}
