//! What `--cache-from` and `--cache-to` name.

use std::fmt;
use std::path::PathBuf;

use kiln_image::Reference;
use kiln_store::layer::Compression;

/// A place for a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// One document with all records, under a tag of a registry; or an image with its cache inside.
    Registry(Reference),
    /// Each record under a tag of its own, found by its key.
    Keyed(Reference),
    /// An OCI layout directory, and the tag or digest in it.
    Local(PathBuf, String),
    /// In the image itself.
    Inline,
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(out, "{}", reference.familiar()),
            Self::Keyed(reference) => write!(out, "{} (a tag for each step)", reference.familiar_name()),
            Self::Local(path, tag) => write!(out, "{} ({tag})", path.display()),
            Self::Inline => out.write_str("the image"),
        }
    }
}

/// Where a cache goes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the flag")]
pub struct Target {
    /// Where.
    pub location: Location,
    /// `mode=max`: the steps of every stage, not only the result's.
    pub all_stages: bool,
    /// `mounts=true`: what is in cache mounts too.
    pub mounts: bool,
    /// `ignore-error=true`.
    pub ignore_error: bool,
    /// How layers are compressed that are not compressed yet.
    pub compression: Compression,
    /// `force-compression=true`: those that came in another form, too.
    pub force_compression: bool,
    /// `reset=true`: a directory forgets what nothing in it leads to any more.
    pub reset: bool,
}

impl Target {
    /// A place for the steps of all stages, each under a tag of its own.
    pub fn keyed(repository: Reference) -> Self {
        Self { all_stages: true, ..Self::plain(Location::Keyed(repository)) }
    }

    fn plain(location: Location) -> Self {
        Self {
            location,
            all_stages: false,
            mounts: false,
            ignore_error: false,
            compression: Compression::Gzip,
            force_compression: false,
            reset: false,
        }
    }
}

/// What is wrong with a cache option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cache {text:?}: {reason}")]
pub struct Wrong {
    text: String,
    reason: String,
}

/// The types of caches, for messages.
const TYPES: &str = "registry, keyed, local and inline";
/// Options of BuildKit's that change nothing here: what kiln writes is an OCI image manifest in any case.
const WITHOUT_EFFECT: [&str; 4] = ["image-manifest", "oci-mediatypes", "compression-level", "registry.insecure"];

/// The options of one flag.
struct Options<'t> {
    text: &'t str,
    kind: Option<&'t str>,
    pairs: Vec<(&'t str, &'t str)>,
}

impl<'t> Options<'t> {
    fn parse(text: &'t str) -> Self {
        let mut options = Self { text, kind: None, pairs: Vec::new() };
        if !text.contains('=') {
            return options;
        }
        for option in text.split(',') {
            match option.split_once('=').unwrap_or((option, "true")) {
                ("type", kind) => options.kind = Some(kind),
                pair => options.pairs.push(pair),
            }
        }
        options
    }

    fn wrong(&self, reason: impl Into<String>) -> Wrong {
        Wrong { text: self.text.to_owned(), reason: reason.into() }
    }

    fn value(&self, names: &[&str]) -> Option<&'t str> {
        self.pairs.iter().rev().find(|(name, _)| names.contains(name)).map(|(_, value)| *value)
    }

    fn reference(&self, text: &str) -> Result<Reference, Wrong> {
        Reference::parse(text).map_err(|error| self.wrong(error.to_string()))
    }

    fn location(&self, directory: &[&str]) -> Result<Location, Wrong> {
        let needed = |names: &[&str]| self.value(names).ok_or_else(|| self.wrong(format!("{}= is missing", names[0])));
        match self.kind {
            // As buildah: a repository without a tag has a tag for each step.
            None if self.pairs.is_empty() => {
                let reference = self.reference(self.text)?;
                Ok(if has_tag(self.text) { Location::Registry(reference) } else { Location::Keyed(reference) })
            }
            None => Err(self.wrong(format!("type= is missing; there are {TYPES}"))),
            Some("registry") => Ok(Location::Registry(self.reference(needed(&["ref"])?)?)),
            Some("keyed") => Ok(Location::Keyed(self.reference(needed(&["ref"])?)?)),
            Some("local") => {
                let tag = self.value(&["digest", "tag"]).unwrap_or("latest");
                Ok(Location::Local(PathBuf::from(needed(directory)?), tag.to_owned()))
            }
            Some("inline") => Ok(Location::Inline),
            Some(kind @ ("gha" | "s3" | "azblob")) => {
                Err(self.wrong(format!("type={kind} needs that service; kiln keeps caches as {TYPES}")))
            }
            Some(kind) => Err(self.wrong(format!("there is no type {kind}; there are {TYPES}"))),
        }
    }

    fn is(&self, name: &str) -> Result<bool, Wrong> {
        match self.value(&[name]) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(self.wrong(format!("{name} is true or false, not {other}"))),
        }
    }

    fn allow_only(&self, names: &[&str]) -> Result<(), Wrong> {
        let unknown = self.pairs.iter().map(|(name, _)| name);
        match unknown.into_iter().find(|name| !names.contains(name) && !WITHOUT_EFFECT.contains(name)) {
            Some(name) => Err(self.wrong(format!("unknown option {name}; there are {}", names.join(", ")))),
            None => Ok(()),
        }
    }
}

/// Whether a name was written with a tag or a digest.
fn has_tag(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|name| name.contains([':', '@']))
}

/// The places that one `--cache-from` names: `type=registry|keyed,ref=NAME`, `type=local,src=DIR`, or just a name, which
/// may be that of an image or cache, and that of a repository with a tag for each step. Names may be joined by commas.
///
/// # Errors
/// It cannot be understood.
pub fn sources(text: &str) -> Result<Vec<Location>, Wrong> {
    if text.contains(',') && !text.contains('=') {
        let each: Vec<Vec<Location>> = text.split(',').map(sources).collect::<Result<_, _>>()?;
        return Ok(each.into_iter().flatten().collect());
    }
    let options = Options::parse(text);
    let location = options.location(&["src", "source"])?;
    options.allow_only(&["ref", "src", "source", "tag", "digest"])?;
    Ok(match location {
        Location::Keyed(reference) if options.kind.is_none() => {
            vec![Location::Registry(reference.clone()), Location::Keyed(reference)]
        }
        location => vec![location],
    })
}

/// `--cache-to`: `type=registry|keyed|local|inline` with `ref=` or `dest=`, `mode=min|max`, `mounts=true`,
/// `compression=`, `force-compression=true`, `ignore-error=true`, `tag=`, `reset=true`.
///
/// # Errors
/// It cannot be understood.
pub fn target(text: &str) -> Result<Target, Wrong> {
    let options = Options::parse(text);
    let location = options.location(&["dest"])?;
    options.allow_only(&[
        "ref",
        "dest",
        "tag",
        "mode",
        "mounts",
        "compression",
        "force-compression",
        "ignore-error",
        "reset",
    ])?;
    let all_stages = match options.value(&["mode"]) {
        None => options.kind.is_none(),
        Some("min") => false,
        Some("max") => true,
        Some(mode) => return Err(options.wrong(format!("mode is min or max, not {mode}"))),
    };
    let compression = match options.value(&["compression"]) {
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("uncompressed") => Compression::None,
        Some(other) => return Err(options.wrong(format!("compression is gzip, zstd or uncompressed, not {other}"))),
    };
    let mounts = options.is("mounts")?;
    if location == Location::Inline && (mounts || all_stages) {
        return Err(options.wrong("an image has room for its own steps only: mode=max and mounts=true need a registry"));
    }
    Ok(Target {
        all_stages,
        mounts,
        ignore_error: options.is("ignore-error")?,
        compression,
        force_compression: options.is("force-compression")?,
        reset: options.is("reset")?,
        ..Target::plain(location)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let reference = |text: &str| Reference::parse(text).expect(text);
        let from = |text: &str| sources(text).expect(text);
        assert_eq!(from("a/b:1"), [Location::Registry(reference("a/b:1"))]);
        let both = [Location::Registry(reference("r:5/a/b")), Location::Keyed(reference("r:5/a/b"))];
        assert_eq!(from("r:5/a/b"), both);
        assert_eq!(from("a:1,b:2"), [Location::Registry(reference("a:1")), Location::Registry(reference("b:2"))]);
        assert_eq!(from("type=local,src=/x"), [Location::Local("/x".into(), "latest".to_owned())]);
        let max = target("type=registry,ref=a:1,mode=max,compression=zstd,mounts=true,image-manifest=true");
        let max = max.expect("a target");
        assert!(max.all_stages && max.mounts && max.compression == Compression::Zstd);
        let keyed = target("type=keyed,ref=a").expect("a target");
        assert!(!keyed.all_stages && keyed.location == Location::Keyed(reference("a")));
        assert!(target("r:5/a").expect("a target").all_stages);
        for (wrong, part) in [
            ("type=gha", "service"),
            ("type=s3,bucket=x", "service"),
            ("type=tape", "registry, keyed"),
            ("type=registry", "ref="),
            ("ref=a", "type="),
            ("type=inline,mounts=true", "registry"),
            ("type=local,dest=/x,mode=mid", "min or max"),
            ("type=local,dest=/x,colour=red", "colour"),
        ] {
            let message = target(wrong).expect_err(wrong).to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
