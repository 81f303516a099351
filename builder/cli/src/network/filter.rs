//! `--filter` of `network ls` and `network prune`. Values of one name are alternatives; names add up.

use anyhow::{Context, Result, bail};
use jiff::{Span, Timestamp};
use kiln_container::network::{self, Network, PREDEFINED};
use kiln_store::Store;

#[derive(Debug)]
pub(super) struct Filter {
    name: String,
    value: String,
}

const NAMES: [&str; 9] = ["driver", "id", "label", "label!", "name", "scope", "type", "dangling", "until"];

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').with_context(|| format!("filter {text:?} is not NAME=VALUE"))?;
        if !NAMES.contains(&name) {
            bail!("filter {text:?}: there are {}", NAMES.join(", "));
        }
        if name == "until" {
            until(value)?;
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }

    fn keeps(&self, store: &Store, network: &Network) -> Result<bool> {
        let value = self.value.as_str();
        let has_label = || match value.split_once('=') {
            Some((name, wanted)) => network.labels.get(name).is_some_and(|value| value == wanted),
            None => network.labels.contains_key(value),
        };
        let predefined = PREDEFINED.contains(&network.name.as_str());
        Ok(match self.name.as_str() {
            "driver" => network.driver == value,
            "id" => network.id.starts_with(value),
            "name" => network.name.contains(value),
            "scope" => value == "local",
            "label" => has_label(),
            "label!" => !has_label(),
            "type" => predefined == (value == "builtin"),
            "dangling" => {
                let unused = !predefined && network::users(store.root(), network)?.is_empty();
                unused == matches!(value, "true" | "1")
            }
            _ => network.created < until(value)?.as_second(),
        })
    }
}

/// A moment, or how long ago it was: `24h`, `2026-01-02T15:04:05Z`, seconds since 1970.
fn until(text: &str) -> Result<Timestamp> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Timestamp::from_second(seconds)?);
    }
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let ago: Span =
        text.parse().with_context(|| format!("filter until={text}: expected a time, or a duration such as 24h"))?;
    Ok(Timestamp::now().checked_sub(ago)?)
}

pub(super) fn keeps(filters: &[Filter], store: &Store, network: &Network) -> Result<bool> {
    for filter in filters {
        let same = filters.iter().filter(|other| other.name == filter.name);
        let mut any = false;
        for filter in same {
            any |= filter.keeps(store, network)?;
        }
        if !any {
            return Ok(false);
        }
    }
    Ok(true)
}
