//! The values of build flags.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use kiln_build::request::Secret;

/// `NAME=VALUE`, or `NAME` with the value from the environment; unset ones are left out, as docker does.
pub(super) fn build_args(given: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    given.iter().filter_map(pair).collect()
}

/// Whether a build argument is there and says yes.
pub(super) fn is_given(build_args: &BTreeMap<String, String>, name: &str) -> bool {
    build_args.get(name).is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// SOURCE_DATE_EPOCH of kiln's own environment is a build argument, as with buildx.
pub(super) fn add_epoch(build_args: &mut BTreeMap<String, String>) {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(text);
    }
}

/// SOURCE_DATE_EPOCH of the build arguments; empty is none.
pub(super) fn epoch(build_args: &BTreeMap<String, String>) -> anyhow::Result<Option<i64>> {
    let Some(text) = build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.parse().with_context(|| format!("SOURCE_DATE_EPOCH {text:?} is not a number of seconds"))?;
    Ok(Some(seconds))
}

/// `KEY=VALUE`, or `KEY` alone.
pub(super) fn labels(given: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut labels = Vec::with_capacity(given.len());
    for text in given {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            bail!("label {text:?} has no key");
        }
        labels.push((key.to_owned(), value.to_owned()));
    }
    Ok(labels)
}

/// `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`.
pub(super) fn secret(text: &str) -> anyhow::Result<(String, Secret)> {
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for option in text.split(',') {
        match option.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => source = Some(value.to_owned()),
            Some(("env", value)) => variable = Some(value.to_owned()),
            Some(("type", value)) => kind = Some(value),
            _ => bail!("secret {text:?}: unknown option {option:?}; expected id, src, env or type"),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else { bail!("secret {text:?} has no id") };
    let secret = match (source, variable, kind) {
        (Some(source), None, Some("env")) => Secret::Environment(source),
        (Some(path), None, _) => Secret::File(path.into()),
        (None, Some(name), _) => Secret::Environment(name),
        (None, None, Some("env")) => Secret::Environment(id.clone()),
        (None, None, _) if std::env::var_os(&id).is_some() => Secret::Environment(id.clone()),
        (None, None, _) => Secret::File(id.clone().into()),
        (Some(_), Some(_), _) => bail!("secret {text:?} has both src and env"),
    };
    if let Secret::File(path) = &secret {
        std::fs::metadata(path).with_context(|| format!("secret {id:?}: read {}", path.display()))?;
    }
    Ok((id, secret))
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`.
pub(super) fn host(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once(['=', ':']) {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => {
            Ok((name.to_owned(), address.trim_matches(['[', ']']).to_owned()))
        }
        _ => bail!("host {text:?} is not NAME:ADDRESS"),
    }
}

/// `64m`, `1g`, `1024`: bytes.
pub(super) fn size(text: &str) -> anyhow::Result<u64> {
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match lower[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => bail!("size {text:?} has an unknown unit; expected b, k, m or g"),
    };
    let number: u64 = digits.parse().with_context(|| format!("size {text:?} is not a number"))?;
    number.checked_mul(scale).with_context(|| format!("size {text:?} is too large"))
}
