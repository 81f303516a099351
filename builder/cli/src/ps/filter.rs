//! `ps --filter`.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use kiln_container::network::Port;
use kiln_container::{Container, MountSource, find};
use kiln_image::Image;
use kiln_store::{DiffId, Store};

use crate::volume::has_label;

/// Those of one kind are alternatives, kinds must all hold.
pub(super) struct Filters(HashMap<&'static str, Vec<Filter>>);

enum Filter {
    Id(String),
    Name(String),
    Label(String),
    Status(String),
    Exited(u8),
    /// The layers of the image, when there is one.
    Ancestor(Option<Vec<DiffId>>),
    Before(i64),
    Since(i64),
    Volume(String),
    Network(String),
    /// Ports that are published, or exposed.
    Publish(Vec<Port>),
    Expose(Vec<Port>),
    Health(String),
    /// A swarm's: there are none.
    IsTask(bool),
}

impl Filters {
    pub(super) fn parse(store: &Store, all: &[Container], texts: &[String]) -> Result<Self> {
        let mut filters: HashMap<&'static str, Vec<Filter>> = HashMap::new();
        for text in texts {
            let (key, value) = text.split_once('=').with_context(|| format!("filter {text:?} is not NAME=VALUE"))?;
            let (kind, filter) = parse(store, all, key, value).with_context(|| format!("filter {text:?}"))?;
            filters.entry(kind).or_default().push(filter);
        }
        Ok(Self(filters))
    }

    /// Whether they speak of containers that do not run.
    pub(super) fn name_states(&self) -> bool {
        self.0.contains_key("status") || self.0.contains_key("exited")
    }

    pub(super) fn hold(&self, container: &Container) -> bool {
        self.0.values().all(|alternatives| alternatives.iter().any(|filter| filter.holds(container)))
    }
}

fn parse(store: &Store, all: &[Container], key: &str, value: &str) -> Result<(&'static str, Filter)> {
    let text = value.to_owned();
    let created = || -> Result<i64> {
        let known = all.iter().find(|one| one.record.name == value || one.record.id == value);
        Ok(match known {
            Some(one) => one.record.created,
            None => find(store, value)?.record.created,
        })
    };
    Ok(match key {
        "id" => ("id", Filter::Id(text)),
        "name" => ("name", Filter::Name(text)),
        "label" => ("label", Filter::Label(text)),
        "status" => match value {
            "created" | "running" | "paused" | "restarting" | "exited" | "dead" | "removing" => {
                ("status", Filter::Status(text))
            }
            _ => bail!("expected created, running, paused, restarting or exited"),
        },
        "exited" => ("exited", Filter::Exited(value.parse().context("expected an exit status")?)),
        // Nothing descends from an image that is not there.
        "ancestor" => ("ancestor", Filter::Ancestor(Image::find(store, value).map(|image| image.layers).ok())),
        "before" => ("before", Filter::Before(created()?)),
        "since" => ("since", Filter::Since(created()?)),
        "volume" => ("volume", Filter::Volume(text)),
        "network" => ("network", Filter::Network(text)),
        "publish" => ("publish", Filter::Publish(Port::parse_range(value)?)),
        "expose" => ("expose", Filter::Expose(Port::parse_range(value)?)),
        "health" => match value {
            "none" | "starting" | "healthy" | "unhealthy" => ("health", Filter::Health(text)),
            _ => bail!("expected none, starting, healthy or unhealthy"),
        },
        "is-task" => match value {
            "true" | "1" => ("is-task", Filter::IsTask(true)),
            "false" | "0" => ("is-task", Filter::IsTask(false)),
            _ => bail!("expected true or false"),
        },
        _ => bail!(
            "there are id, name, label, status, exited, ancestor, before, since, volume, network, publish, expose, \
             health and is-task"
        ),
    })
}

impl Filter {
    fn holds(&self, container: &Container) -> bool {
        let (record, state, settings) = (&container.record, &container.state, &container.record.settings);
        match self {
            Self::Id(text) => record.id.starts_with(text.as_str()),
            Self::Name(text) => is_named(&record.name, text),
            Self::Label(text) => has_label(&settings.labels, text),
            Self::Status(text) => state.phase.name() == text,
            Self::Exited(status) => !state.is_alive() && state.phase.name() == "exited" && state.status == *status,
            Self::Ancestor(layers) => layers.as_ref().is_some_and(|layers| record.layers.starts_with(layers)),
            Self::Before(time) => record.created < *time,
            Self::Since(time) => record.created > *time,
            Self::Volume(text) => settings.mounts.iter().any(|mount| {
                let named = match &mount.source {
                    MountSource::Volume { name, .. } => name == text,
                    MountSource::Bind(path) => path.as_os_str() == text.as_str(),
                    MountSource::Image { .. } | MountSource::Tmpfs { .. } => false,
                };
                named || mount.target.as_os_str() == text.as_str()
            }),
            Self::Network(text) => crate::resources::networks(container).split(',').any(|network| network == text),
            Self::Publish(ports) => settings.network.publish.iter().any(|publish| ports.contains(&publish.port)),
            // docker counts what is published among it.
            Self::Expose(ports) => {
                let published = settings.network.publish.iter().map(|publish| publish.port);
                settings.network.exposed.iter().copied().chain(published).any(|port| ports.contains(&port))
            }
            Self::IsTask(wanted) => !wanted,
            Self::Health(text) => {
                let status = state.health.as_ref().map_or("none", |health| health.status.as_str());
                status == text
            }
        }
    }
}

/// As docker's regular expressions are used: `web`, `^web$`, `^/web`; a name has none of their other letters but the dot.
fn is_named(name: &str, text: &str) -> bool {
    let (text, begins) = text.strip_prefix('^').map_or((text, false), |rest| (rest, true));
    let text = text.strip_prefix('/').unwrap_or(text);
    let (text, ends) = text.strip_suffix('$').map_or((text, false), |rest| (rest, true));
    match (begins, ends) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn names_as_in_dockers_examples() {
        let table = [
            ("web", "web", true),
            ("my-web-1", "web", true),
            ("my-web", "^web", false),
            ("web-1", "^web", true),
            ("web-1", "^web$", false),
            ("web", "^/web$", true),
            ("my-web", "web$", true),
        ];
        for (name, text, holds) in table {
            assert_eq!(is_named(name, text), holds, "{name} {text}");
        }
    }
}
