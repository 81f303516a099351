//! `--build-context`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kiln_build::locate;
use kiln_build::remote::{Location, Remote};
use kiln_build::request::{ContextDirectory, NamedContext, context_name};
use kiln_image::Reference;

/// `NAME=PLACE`.
pub(super) fn parse(text: &str) -> anyhow::Result<(String, NamedContext)> {
    let Some((name, place)) = text.split_once('=').filter(|(name, place)| !name.is_empty() && !place.is_empty()) else {
        bail!("context {text:?} is not NAME=PLACE");
    };
    let context = place_of(place).with_context(|| format!("context {name:?}"))?;
    Ok((context_name(name), context))
}

fn place_of(place: &str) -> anyhow::Result<NamedContext> {
    if let Some(image) = place.strip_prefix("docker-image://") {
        return Ok(NamedContext::Image(Reference::parse(image)?));
    }
    if let Some(layout) = place.strip_prefix("oci-layout://") {
        let (directory, wanted) = split_layout(layout);
        return Ok(NamedContext::Layout(directory, wanted));
    }
    match Location::parse(place).map_err(anyhow::Error::msg)? {
        Location::Http(url) => Ok(NamedContext::Remote(Remote::Http(url))),
        Location::Git(git) => Ok(NamedContext::Remote(Remote::Git(git))),
        Location::Stdin => bail!("standard input is the main context only"),
        Location::Path(path) if path.is_dir() => {
            let ignore = locate::ignore_file(None, None, &path)?;
            Ok(NamedContext::Directory(ContextDirectory { path, ignore }))
        }
        Location::Path(path) => bail!("{} is not a directory", path.display()),
    }
}

/// `DIR`, `DIR:TAG`, `DIR@sha256:…`.
fn split_layout(text: &str) -> (PathBuf, Option<String>) {
    if Path::new(text).is_dir() {
        return (PathBuf::from(text), None);
    }
    if let Some((directory, digest)) = text.split_once('@') {
        let directory =
            directory.rsplit_once(':').filter(|_| !Path::new(directory).is_dir()).map_or(directory, |(d, _)| d);
        return (PathBuf::from(directory), Some(digest.to_owned()));
    }
    match text.rsplit_once(':') {
        Some((directory, tag)) => (PathBuf::from(directory), Some(tag.to_owned())),
        None => (PathBuf::from(text), None),
    }
}
