//! The text of `--output`: BuildKit's words.

use std::path::PathBuf;

use anyhow::{Context, bail};
use kiln_image::Reference;
use kiln_image::annotation::Annotation;
use kiln_image::bundle::Form;
use kiln_store::layer::Compression;

use super::{Kind, Output};

/// What the options say, until all are read.
struct Spec<'a> {
    text: &'a str,
    kind: String,
    destination: Option<PathBuf>,
    tar: bool,
    push: bool,
    output: Output,
}

impl Output {
    /// Parses `type=…,dest=…`, a directory, or `-`; `form` is what the other flags say of the image.
    pub(crate) fn parse(text: &str, form: &Form) -> anyhow::Result<Self> {
        if text == "-" {
            return Ok(Self::new(Kind::Tar(PathBuf::from("-")), form.clone()));
        }
        let options = fields(text);
        if let [only] = options.as_slice()
            && !only.contains('=')
        {
            return Ok(Self::new(Kind::Directory(PathBuf::from(text)), form.clone()));
        }
        let output = Self::new(Kind::Store, form.clone());
        let mut spec = Spec { text, kind: String::new(), destination: None, tar: true, push: false, output };
        for option in options {
            let (key, value) =
                option.split_once('=').with_context(|| format!("output {text:?}: {option:?} is not KEY=VALUE"))?;
            spec.take(key, value)?;
        }
        spec.finish()
    }
}

impl Spec<'_> {
    fn take(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let text = self.text;
        let yes = || boolean(value).with_context(|| format!("output {text:?}: {key}={value}"));
        let form = &mut self.output.form;
        match key {
            "type" => value.clone_into(&mut self.kind),
            "dest" => self.destination = Some(PathBuf::from(value)),
            "tar" => self.tar = yes()?,
            "push" => self.push = yes()?,
            "name" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    self.output.names.push(Reference::parse(name)?);
                }
            }
            "push-by-digest" => self.output.by_digest = yes()?,
            "registry.insecure" => self.output.insecure = yes()?,
            "platform-split" => self.output.split = Some(yes()?),
            "compression" => form.compression = compression(value)?,
            "compression-level" => {
                let level = value.parse().with_context(|| format!("output {text:?}: {value:?} is no level"))?;
                form.level = Some(level).filter(|level| *level >= 0);
            }
            "force-compression" => form.forced = yes()?,
            "oci-mediatypes" => form.docker_types = !yes()?,
            // Times are set back whenever SOURCE_DATE_EPOCH says to when; what is in the store is unpacked when it is
            // needed; and a store keeps what it is given.
            "rewrite-timestamp" | "unpack" | "store" | "name-canonical" => drop(yes()?),
            "dangling-name-prefix" | "buildinfo" | "buildinfo-attrs" | "attestation-prefix" => {
                bail!("output {text:?}: kiln has no {key}")
            }
            _ => match Annotation::of_option(key, value) {
                Some(annotation) => form.annotations.push(annotation?),
                None => bail!("output {text:?}: unknown option {key:?}"),
            },
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Output> {
        let Self { text, kind, destination, tar, push, mut output } = self;
        if output.form.compression == Compression::None && output.form.level.is_some() {
            bail!("output {text:?}: what is not compressed has no compression-level");
        }
        let place = || destination.clone().with_context(|| format!("output {text:?} needs dest=PATH"));
        let standard_output = || destination.clone().unwrap_or_else(|| PathBuf::from("-"));
        output.kind = match kind.as_str() {
            "image" if push => Kind::Push,
            "image" => Kind::Store,
            "docker" if destination.is_none() => Kind::Store,
            "registry" => Kind::Push,
            "oci" | "docker" if !tar => Kind::Layout(place()?),
            "oci" | "docker" => Kind::Archive { path: standard_output(), docker: kind == "docker" },
            "local" => Kind::Directory(place()?),
            "tar" => Kind::Tar(standard_output()),
            "" => bail!("output {text:?} needs type=image, registry, docker, oci, local or tar"),
            other => bail!("output type {other:?} is unknown; expected image, registry, docker, oci, local or tar"),
        };
        Ok(output)
    }
}

/// BuildKit's words for compressions, and buildah's.
pub(crate) fn compression(text: &str) -> anyhow::Result<Compression> {
    Ok(match text {
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        "uncompressed" | "none" => Compression::None,
        "estargz" | "zstd:chunked" => {
            bail!("compression {text:?} is not supported; expected gzip, zstd or uncompressed")
        }
        other => bail!("compression {other:?} is unknown; expected gzip, zstd or uncompressed"),
    })
}

fn boolean(text: &str) -> anyhow::Result<bool> {
    match text.to_lowercase().as_str() {
        "" | "true" | "1" | "t" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => bail!("{text:?} is neither true nor false"),
    }
}

/// The fields of one line of comma-separated values: what is in quotes may have commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(field) = fields.last_mut() else { break };
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Output> {
        Output::parse(text, &Form::default())
    }

    #[test]
    fn outputs() {
        let path = PathBuf::from("x");
        let kind = |text: &str| parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).kind;
        let standard = PathBuf::from("-");
        assert_eq!(kind("x"), Kind::Directory(path.clone()));
        assert_eq!(kind("-"), Kind::Tar(standard.clone()));
        assert_eq!(kind("type=oci,dest=x"), Kind::Archive { path: path.clone(), docker: false });
        assert_eq!(kind("type=oci"), Kind::Archive { path: standard.clone(), docker: false });
        assert_eq!(kind("type=docker,dest=x"), Kind::Archive { path: path.clone(), docker: true });
        assert_eq!(kind("type=oci,dest=x,tar=false"), Kind::Layout(path.clone()));
        assert_eq!(kind("type=local,dest=x"), Kind::Directory(path));
        assert_eq!(kind("type=tar"), Kind::Tar(standard));
        assert_eq!(kind("type=docker"), Kind::Store);
        assert_eq!(kind("type=image,push=true"), Kind::Push);
        assert_eq!(kind("type=registry"), Kind::Push);
        for wrong in
            ["type=local", "type=what,dest=x", "type=oci,dest=x,what=1", "dest=x", "type=oci,dest", "type=oci,tar=9"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_form_of_an_image() {
        let output = parse(
            r#"type=image,"name=a,b:2",compression=zstd,compression-level=9,force-compression=true,oci-mediatypes=false,annotation-index.k=v"#,
        )
        .unwrap();
        assert_eq!(output.names.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:latest", "b:2"]);
        assert_eq!((output.form.compression, output.form.level), (Compression::Zstd, Some(9)));
        assert!(output.form.forced && output.form.docker_types);
        assert_eq!(output.form.annotations.len(), 1);
        assert_eq!(parse("type=image,compression-level=-1").unwrap().form.level, None);
        for wrong in ["compression=estargz", "compression=x", "compression=uncompressed,compression-level=1", "push=x"]
        {
            assert!(parse(&format!("type=image,{wrong}")).is_err(), "{wrong}");
        }
    }
}
