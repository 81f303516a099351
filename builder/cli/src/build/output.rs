//! `--output`.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kiln_image::registry::{self, TransferProgress};
use kiln_image::{Image, Reference, archive, layout};
use kiln_store::Store;
use kiln_store::layer::Compression;

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// The store: always.
    Store,
    /// A registry, under the image's names.
    Push,
    /// An archive that docker and OCI tools read; `-` is standard output.
    Archive(PathBuf),
    /// An OCI layout directory.
    Layout(PathBuf),
    /// The files, in a directory.
    Directory(PathBuf),
    /// The files, in a tar.
    Tar(PathBuf),
}

impl Output {
    /// Parses `type=…,dest=…`, a directory, or `-`.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        if text == "-" {
            return Ok(Self::Tar(PathBuf::from("-")));
        }
        if !text.contains('=') {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        let (mut kind, mut destination, mut tar, mut push) = ("", None, true, false);
        for option in text.split(',') {
            match option.split_once('=') {
                Some(("type", value)) => kind = value,
                Some(("dest", value)) => destination = Some(PathBuf::from(value)),
                Some(("tar", value)) => tar = value != "false",
                Some(("push", value)) => push = value == "true",
                Some(("name" | "compression" | "oci-mediatypes" | "rewrite-timestamp", _)) => {
                    bail!("output {text:?}: {option} is not supported yet")
                }
                _ => bail!("output {text:?}: unknown option {option:?}"),
            }
        }
        let place = || destination.clone().with_context(|| format!("output {text:?} needs dest=PATH"));
        Ok(match kind {
            "image" if push => Self::Push,
            "image" => Self::Store,
            "docker" => destination.clone().map_or(Self::Store, Self::Archive),
            "registry" => Self::Push,
            "oci" if tar => Self::Archive(place()?),
            "oci" => Self::Layout(place()?),
            "local" => Self::Directory(place()?),
            "tar" => Self::Tar(destination.clone().unwrap_or_else(|| PathBuf::from("-"))),
            other => bail!("output type {other:?} is unknown; expected image, registry, docker, oci, local or tar"),
        })
    }

    /// Sends the image there.
    pub(super) fn write(
        &self,
        store: &Store,
        image: &Image,
        names: &[Reference],
        options: &registry::Options,
        progress: &dyn TransferProgress,
    ) -> anyhow::Result<()> {
        match self {
            Self::Store => Ok(()),
            Self::Push => {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
                for name in names {
                    runtime.block_on(registry::push(store, image, name, Compression::Gzip, options, progress))?;
                }
                Ok(())
            }
            Self::Archive(path) => {
                let images = [(image.clone(), names.to_vec())];
                to_file(path, |out| Ok(archive::save(store, &images, Compression::Gzip, out)?))
            }
            Self::Layout(directory) => Ok(layout::save(store, image, names.first(), Compression::Gzip, directory)?),
            Self::Directory(directory) => Ok(kiln_build::export::to_directory(store, image, directory)?),
            Self::Tar(path) => to_file(path, |out| Ok(kiln_build::export::to_tar(store, image, out)?)),
        }
    }
}

/// Writes a file that appears only when it is whole; `-` is standard output.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            bail!("an archive is not for a terminal: say where it goes with dest=FILE");
        }
        let mut out = BufWriter::with_capacity(1 << 20, stdout.lock());
        write(&mut out)?;
        return Ok(out.flush()?);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = std::fs::File::create(&partial).map_err(anyhow::Error::from).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        out.flush()?;
        Ok(std::fs::rename(&partial, path)?)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::Output;
    use std::path::PathBuf;

    #[test]
    fn outputs() {
        let path = PathBuf::from("x");
        assert_eq!(Output::parse("x").unwrap(), Output::Directory(path.clone()));
        assert_eq!(Output::parse("-").unwrap(), Output::Tar(PathBuf::from("-")));
        assert_eq!(Output::parse("type=oci,dest=x").unwrap(), Output::Archive(path.clone()));
        assert_eq!(Output::parse("type=oci,dest=x,tar=false").unwrap(), Output::Layout(path.clone()));
        assert_eq!(Output::parse("type=local,dest=x").unwrap(), Output::Directory(path));
        assert_eq!(Output::parse("type=image,push=true").unwrap(), Output::Push);
        assert!(Output::parse("type=what,dest=x").is_err());
        assert!(Output::parse("type=local").is_err());
    }
}
