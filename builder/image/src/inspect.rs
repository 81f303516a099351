//! An image as `docker image inspect` describes it.

use kiln_store::{Digest, Store};
use serde_json::{Map, Value, json};

use crate::config::RunConfig;
use crate::index::names_with;
use crate::{Error, Image, ImageConfig, Reference, Result, listing};

/// What is said of an image without a time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// The image with the names of docker's fields; its own names, and those of indexes that have it.
///
/// # Errors
/// The store cannot be read.
pub fn inspect_json(store: &Store, image: &Image) -> Result<Value> {
    let mut names = image.names(store)?;
    names.extend(names_with(store, &image.id)?);
    let tags: Vec<String> = names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
    let digests: Vec<String> = names.iter().filter(|name| name.tag().is_none()).map(Reference::familiar).collect();
    describe(&image.config, &image.id, &tags, &digests, listing::size(store, image)?)
}

/// An image, wherever it is, of its config and what is known of it besides.
pub(crate) fn describe(
    config: &ImageConfig,
    id: &Digest,
    tags: &[String],
    digests: &[String],
    size: u64,
) -> Result<Value> {
    let comment = config.history.last().and_then(|step| step.comment.clone()).unwrap_or_default();
    let mut described = json!({
        "Id": id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment,
        "Created": config.created.as_deref().unwrap_or(NO_TIME),
        "DockerVersion": config.other.get("docker_version").and_then(Value::as_str).unwrap_or_default(),
        "Author": config.author.as_deref().unwrap_or_default(),
        "Config": run_config(&config.config)?,
        "Architecture": config.architecture,
    });
    let rest = json!({
        "Os": config.os,
        "Size": size,
        "RootFS": {"Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids},
    });
    if let (Value::Object(described), Value::Object(rest)) = (&mut described, rest) {
        if let Some(variant) = &config.variant {
            described.insert("Variant".to_owned(), json!(variant));
        }
        described.extend(rest);
    }
    Ok(described)
}

/// The run configuration with the fields that docker always shows.
fn run_config(config: &RunConfig) -> Result<Value> {
    let mut shown = Map::new();
    shown.insert("User".to_owned(), json!(""));
    for name in ["Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"] {
        shown.insert(name.to_owned(), Value::Null);
    }
    shown.insert("WorkingDir".to_owned(), json!(""));
    match serde_json::to_value(config).map_err(Error::json("image config"))? {
        Value::Object(known) => shown.extend(known),
        other => return Ok(other),
    }
    Ok(Value::Object(shown))
}
