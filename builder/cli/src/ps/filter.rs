//! `ps --filter`.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
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
    /// The layers of the image.
    Ancestor(Vec<DiffId>),
    Before(i64),
    Since(i64),
    Volume(String),
    Network(String),
    Expose(String),
    Health(String),
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
        "name" => ("name", Filter::Name(value.trim_start_matches(['^', '/']).trim_end_matches('$').to_owned())),
        "label" => ("label", Filter::Label(text)),
        "status" => match value {
            "created" | "running" | "paused" | "restarting" | "exited" | "dead" | "removing" => {
                ("status", Filter::Status(text))
            }
            _ => bail!("expected created, running, paused, restarting or exited"),
        },
        "exited" => ("exited", Filter::Exited(value.parse().context("expected an exit status")?)),
        "ancestor" => ("ancestor", Filter::Ancestor(Image::find(store, value)?.layers)),
        "before" => ("before", Filter::Before(created()?)),
        "since" => ("since", Filter::Since(created()?)),
        "volume" => ("volume", Filter::Volume(text)),
        "network" => ("network", Filter::Network(text)),
        "expose" => ("expose", Filter::Expose(text)),
        "health" => ("health", Filter::Health(text)),
        _ => bail!(
            "there are id, name, label, status, exited, ancestor, before, since, volume, network, expose and health"
        ),
    })
}

impl Filter {
    fn holds(&self, container: &Container) -> bool {
        let (record, state, settings) = (&container.record, &container.state, &container.record.settings);
        match self {
            Self::Id(text) => record.id.starts_with(text.as_str()),
            Self::Name(text) => record.name.contains(text.as_str()),
            Self::Label(text) => has_label(&settings.labels, text),
            Self::Status(text) => state.phase.name() == text,
            Self::Exited(status) => !state.is_alive() && state.phase.name() == "exited" && state.status == *status,
            Self::Ancestor(layers) => record.layers.starts_with(layers),
            Self::Before(time) => record.created < *time,
            Self::Since(time) => record.created > *time,
            Self::Volume(text) => settings.mounts.iter().any(|mount| {
                let named = match &mount.source {
                    MountSource::Volume { name, .. } => name == text,
                    MountSource::Bind(path) => path.as_os_str() == text.as_str(),
                    MountSource::Tmpfs { .. } => false,
                };
                named || mount.target.as_os_str() == text.as_str()
            }),
            Self::Network(text) => crate::resources::networks(container).split(',').any(|network| network == text),
            Self::Expose(text) => settings
                .network
                .exposed
                .iter()
                .any(|port| port.to_string() == *text || port.number.to_string() == *text),
            Self::Health(text) => {
                let status = state.health.as_ref().map_or("none", |health| health.status.as_str());
                status == text
            }
        }
    }
}
