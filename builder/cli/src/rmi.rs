//! `kiln rmi`: taking names away, and images that have none left.

use std::io::{self, Write};

use anyhow::{Context, Result, anyhow, bail};
use kiln_image::index::StoredIndex;
use kiln_image::{Image, Platform, Reference, remote};
use kiln_store::Store;

use crate::images::shown_id;
use crate::pull::runtime;
use crate::registry_access::AccessArgs;

/// Remove images
#[derive(Debug, clap::Args)]
pub(crate) struct RmiArgs {
    /// The images: names, ids, or beginnings of ids; docker://NAME deletes a tag at its registry
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image though several repositories name it or a stopped container uses it
    #[arg(short, long)]
    force: bool,
    /// Accepted for docker's sake: kiln keeps no untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Of names that stand for several images, only that for this platform; may be repeated
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Removes names and images.
///
/// # Errors
/// An image is missing or still needed; the others are removed all the same.
pub(crate) fn run(args: &RmiArgs, store: &Store) -> Result<()> {
    let mut failures = Vec::new();
    for text in &args.images {
        let removed = match text.strip_prefix("docker://") {
            Some(_) if !args.platform.is_empty() => Err(anyhow!("{text}: --platform is for images of the store")),
            Some(name) => remove_remote(name, &args.access),
            None if args.platform.is_empty() => remove(store, text, args.force),
            None => args.platform.iter().try_for_each(|platform| remove_platform(store, text, platform, args.force)),
        };
        if let Err(error) = removed {
            failures.push(format!("{error:#}"));
        }
    }
    // Another kiln that is at work keeps everything: the next removal frees it.
    store.collect_garbage(&crate::cache::kept_layers(store)?.into_iter().collect::<Vec<_>>())?;
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// Deletes a tag, or the manifest of a digest, at its registry.
fn remove_remote(name: &str, access: &AccessArgs) -> Result<()> {
    let reference = Reference::parse(name)?;
    let deleted = runtime()?.block_on(remote::delete(&reference, &access.options()?));
    let deleted = deleted.with_context(|| format!("delete docker://{}", reference.familiar()))?;
    let mut out = io::stdout().lock();
    writeln!(out, "Untagged: docker://{}", reference.familiar())?;
    if let Some(digest) = deleted {
        writeln!(out, "Deleted: {}@{digest}", reference.familiar_name())?;
    }
    Ok(())
}

fn remove(store: &Store, text: &str, force: bool) -> Result<()> {
    if let Ok(reference) = Reference::parse(text)
        && let Some(index) = StoredIndex::open(store, &reference)?
    {
        let mut out = io::stdout().lock();
        for name in index.remove(store)? {
            writeln!(out, "Untagged: {}", name.familiar())?;
        }
        return Ok(());
    }
    let image = Image::find(store, text)?;
    let names = image.names(store)?;
    let name = named(&names, text);
    let going = match &name {
        Some(name) => going_with(name, &names),
        None => {
            let mut repositories: Vec<String> = names.iter().map(Reference::name).collect();
            repositories.dedup();
            if repositories.len() > 1 && !force {
                let id = shown_id(&image.id, false);
                bail!(
                    "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
                );
            }
            names.clone()
        }
    };
    let last = going.len() == names.len();
    let kept = last && is_kept_by_container(store, &image, name.as_ref(), force)?;
    let mut out = io::stdout().lock();
    for name in &going {
        store.remove_reference(&name.tagged_name())?;
        writeln!(out, "Untagged: {}", name.familiar())?;
    }
    if last && !kept {
        store.remove_image(&image.id)?;
        writeln!(out, "Deleted: {}", image.id)?;
    }
    Ok(())
}

/// Removes what a name has for one platform; the name stays, with what it has for others.
fn remove_platform(store: &Store, text: &str, platform: &Platform, force: bool) -> Result<()> {
    let lacking =
        || format!("image with reference {text} was found but does not provide the specified platform ({platform})");
    let index = Reference::parse(text).ok().map(|name| StoredIndex::open(store, &name)).transpose()?.flatten();
    let Some(index) = index else {
        if !platform.accepts(&Image::find(store, text)?.platform()) {
            bail!(lacking());
        }
        return remove(store, text, force);
    };
    let image = index.image(store, platform)?.with_context(lacking)?;
    if is_kept_by_container(store, &image, Some(&index.name), force)? {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    for name in index.remove_image(store, &image)? {
        writeln!(out, "Untagged: {}", name.familiar())?;
    }
    if store.image(&image.id)?.is_none() {
        writeln!(out, "Deleted: {}", image.id)?;
    }
    Ok(())
}

/// Whether a running container keeps the image, though its last name may be taken by force.
///
/// # Errors
/// A container uses the image, and force is missing or would not help.
fn is_kept_by_container(store: &Store, image: &Image, name: Option<&Reference>, force: bool) -> Result<bool> {
    let users = kiln_container::users_of_image(store, &image.id)?;
    let running = users.iter().find(|user| user.state.is_alive());
    let Some(user) = running.or(users.first()) else { return Ok(false) };
    let (id, runs, user) = (shown_id(&image.id, false), user.state.is_alive(), user.record.short_id());
    match (name, force, runs) {
        (Some(_), true, running) => Ok(running),
        (None, true, false) => Ok(false),
        (Some(name), false, _) => bail!(
            "conflict: unable to remove repository reference {:?} (must force) - container {user} is using its \
             referenced image {id}",
            name.familiar()
        ),
        (None, _, true) => {
            bail!(
                "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {user}"
            )
        }
        (None, false, false) => {
            bail!("conflict: unable to delete {id} (must be forced) - image is being used by stopped container {user}")
        }
    }
}

/// The name of the image that was meant, if it was a name and not an id.
fn named(names: &[Reference], text: &str) -> Option<Reference> {
    let wanted = Reference::parse(text).ok()?;
    let wanted = match wanted.digest() {
        Some(digest) => wanted.with_digest(*digest),
        None => wanted,
    };
    names.contains(&wanted).then_some(wanted)
}

/// A name, and when it is the last tag of its repository, the digests that were pulled and pushed there.
fn going_with(name: &Reference, names: &[Reference]) -> Vec<Reference> {
    let same_repository = |other: &&Reference| other.name() == name.name();
    let other_tags = names.iter().filter(same_repository).any(|other| other.tag().is_some() && other != name);
    let mut going = vec![name.clone()];
    if !other_tags {
        let digests = names.iter().filter(same_repository).filter(|other| other.tag().is_none() && *other != name);
        going.extend(digests.cloned());
    }
    going
}

#[cfg(test)]
mod tests {
    use kiln_store::Digest;

    use super::*;

    #[test]
    fn the_last_tag_takes_its_digests_along() {
        let name = |text: &str| Reference::parse(text).expect(text);
        let digest = name("a").with_digest(Digest::of(b"x"));
        let other = name("b").with_digest(Digest::of(b"x"));
        let names = [name("a:1"), name("a:2"), digest.clone(), other];
        assert_eq!(going_with(&names[0], &names), [name("a:1")]);
        assert_eq!(going_with(&names[0], &[name("a:1"), digest.clone(), names[3].clone()]), [name("a:1"), digest]);
    }
}
