//! Changes of the result's config that no instruction makes.

use kiln_image::ImageConfig;

/// What is set and unset of the result's config when its last instruction has been worked in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigEdits {
    /// `--env` and `--unsetenv`, in the order of the command line.
    pub env: Vec<EnvEdit>,
    /// `--unsetlabel`.
    pub unset_labels: Vec<String>,
    /// `--inherit-labels=false`: labels of the base image go.
    pub drop_inherited_labels: bool,
    /// `--unsetvolume`.
    pub unset_volumes: Vec<String>,
    /// `--unsetexpose`: `80` or `80/tcp`.
    pub unset_ports: Vec<String>,
    /// `--unsetentrypoint`.
    pub unset_entrypoint: bool,
    /// `--unsethealthcheck`.
    pub unset_healthcheck: bool,
    /// `--from`: the image of the first FROM.
    pub first_from: Option<String>,
    /// `--os-version`.
    pub os_version: Option<String>,
    /// `--os-feature`; one that ends in `-` is taken away.
    pub os_features: Vec<String>,
}

/// A variable of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvEdit {
    /// Gets a value.
    Set(String, String),
    /// Goes.
    Unset(String),
}

impl ConfigEdits {
    /// Works the changes in.
    pub(crate) fn apply(&self, config: &mut ImageConfig) {
        let run = &mut config.config;
        for edit in &self.env {
            let env = run.env.get_or_insert_default();
            match edit {
                EnvEdit::Set(name, value) => {
                    let line = format!("{name}={value}");
                    match env.iter_mut().find(|line| name_of(line) == name) {
                        Some(known) => *known = line,
                        None => env.push(line),
                    }
                }
                EnvEdit::Unset(name) => env.retain(|line| name_of(line) != name),
            }
        }
        if let Some(labels) = &mut run.labels {
            self.unset_labels.iter().for_each(|name| drop(labels.remove(name)));
        }
        if let Some(volumes) = &mut run.volumes {
            self.unset_volumes.iter().for_each(|path| drop(volumes.remove(path)));
        }
        if let Some(ports) = &mut run.exposed_ports {
            for port in &self.unset_ports {
                let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
                ports.remove(&port);
            }
        }
        if self.unset_entrypoint {
            run.entrypoint = None;
        }
        if self.unset_healthcheck {
            run.healthcheck = None;
        }
        if let Some(version) = &self.os_version {
            config.other.insert("os.version".to_owned(), version.clone().into());
        }
        for feature in &self.os_features {
            edit_feature(config, feature);
        }
    }
}

fn name_of(line: &str) -> &str {
    line.split_once('=').map_or(line, |(name, _)| name)
}

fn edit_feature(config: &mut ImageConfig, written: &str) {
    let (name, remove) = written.strip_suffix('-').map_or((written, false), |name| (name, true));
    let features = config.other.entry("os.features").or_insert_with(|| serde_json::Value::Array(Vec::new()));
    let Some(list) = features.as_array_mut() else { return };
    list.retain(|feature| feature.as_str() != Some(name));
    if !remove {
        list.push(name.into());
    }
    if list.is_empty() {
        config.other.remove("os.features");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_worked_in() {
        let mut config = ImageConfig::default();
        config.config.env = Some(vec!["A=1".to_owned(), "B=2".to_owned()]);
        config.config.entrypoint = Some(vec!["x".to_owned()]);
        let edits = ConfigEdits {
            env: vec![EnvEdit::Set("B".into(), "3".into()), EnvEdit::Unset("A".into())],
            unset_entrypoint: true,
            os_features: vec!["x".into(), "y".into(), "x-".into()],
            ..ConfigEdits::default()
        };
        edits.apply(&mut config);
        assert_eq!(config.config.env, Some(vec!["B=3".to_owned()]));
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.other["os.features"], serde_json::json!(["y"]));
    }
}
