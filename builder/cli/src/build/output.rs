//! `--output`: where a result goes.

pub(super) mod spec;

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use kiln_build::export;
use kiln_image::bundle::{Bundle, Form, Member};
use kiln_image::registry::{self, TransferProgress};
use kiln_image::{Image, Platform, Reference};
use kiln_store::Store;

use crate::save::save_file;

/// Where a result goes, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) kind: Kind,
    /// `name=`: what it is called there, unless `--tag` says.
    pub(super) names: Vec<Reference>,
    /// How images are packed.
    pub(super) form: Form,
    /// `push-by-digest`: under no tag.
    by_digest: bool,
    /// `registry.insecure`
    insecure: bool,
    /// `platform-split`: a directory for the platform even when there is only one.
    split: Option<bool>,
}

/// Where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The store: always.
    Store,
    /// A registry, under the image's names.
    Push,
    /// An archive; `-` is standard output. docker's holds one image.
    Archive { path: PathBuf, docker: bool },
    /// An OCI layout directory.
    Layout(PathBuf),
    /// The files, in a directory.
    Directory(PathBuf),
    /// The files, in a tar.
    Tar(PathBuf),
}

/// What is sent, and how.
pub(super) struct Sending<'a> {
    pub(super) store: &'a Store,
    pub(super) bundle: &'a Bundle,
    /// The names of the build.
    pub(super) names: &'a [Reference],
    pub(super) options: &'a registry::Options,
    pub(super) progress: &'a dyn TransferProgress,
}

impl Output {
    /// There, in that form.
    pub(super) fn new(kind: Kind, form: Form) -> Self {
        Self { kind, names: Vec::new(), form, by_digest: false, insecure: false, split: None }
    }

    /// Whether the image is in it, and not only its files.
    pub(super) fn is_image(&self) -> bool {
        !matches!(self.kind, Kind::Directory(_) | Kind::Tar(_))
    }

    /// Whether it is a push under the image's names, in the plain form and with the options of all others.
    pub(super) fn is_plain_push(&self) -> bool {
        *self == Self::new(Kind::Push, Form::default())
    }

    /// Says so when it cannot hold what is built.
    pub(super) fn check(&self, platforms: usize) -> anyhow::Result<()> {
        match &self.kind {
            Kind::Archive { docker: true, .. } if platforms > 1 => bail!(
                "docker's archive holds the image of one platform: use type=oci, or give --platform one platform only"
            ),
            Kind::Directory(_) | Kind::Tar(_) if platforms > 1 && self.split == Some(false) => {
                bail!("platform-split=false: the files of several platforms would lie on each other")
            }
            _ => Ok(()),
        }
    }

    /// Sends the image there.
    pub(super) fn write(&self, sending: &Sending<'_>) -> anyhow::Result<()> {
        let Sending { store, bundle, .. } = sending;
        let names = if sending.names.is_empty() { &self.names } else { sending.names };
        match &self.kind {
            Kind::Store => {
                if self.form != Form::default() || bundle.is_index() {
                    bundle.pack(store, &self.form, names)?.keep(store, names)?;
                }
                Ok(())
            }
            Kind::Push => self.push(sending, names),
            Kind::Archive { path, .. } => {
                let packed = bundle.pack(store, &self.form, names)?;
                to_file(path, |out| Ok(packed.save_archive(store, names, out)?))
            }
            Kind::Layout(directory) => {
                Ok(bundle.pack(store, &self.form, names)?.save_layout(store, names, directory)?)
            }
            Kind::Directory(directory) => {
                for (name, member) in self.parts(bundle) {
                    let directory = directory.join(name);
                    export::to_directory(store, &member.image, &directory)?;
                    super::attest::write(&member.attestations, &directory)?;
                }
                Ok(())
            }
            Kind::Tar(path) => {
                let parts: Vec<(String, &Image)> =
                    self.parts(bundle).into_iter().map(|(name, member)| (name, &member.image)).collect();
                to_file(path, |out| Ok(export::to_tar(store, &parts, out)?))
            }
        }
    }

    /// The images with the directories that their files go to.
    fn parts<'a>(&self, bundle: &'a Bundle) -> Vec<(String, &'a Member)> {
        let split = self.split.unwrap_or(bundle.members.len() > 1);
        let directory = |platform: &Platform| platform.to_string().replace('/', "_");
        let part = |member: &'a Member| (if split { directory(&member.platform) } else { String::new() }, member);
        bundle.members.iter().map(part).collect()
    }

    fn push(&self, sending: &Sending<'_>, names: &[Reference]) -> anyhow::Result<()> {
        let Sending { store, bundle, progress, .. } = *sending;
        let mut options = sending.options.clone();
        options.insecure |= self.insecure;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        if let ([member], false, false) = (bundle.members.as_slice(), bundle.is_index(), self.by_digest)
            && self.form == Form::default()
        {
            // Layers are sent while they are compressed.
            for name in names {
                let compression = self.form.compression;
                runtime.block_on(registry::push(store, &member.image, name, compression, &options, progress))?;
            }
            return Ok(());
        }
        let packed = bundle.pack(store, &self.form, names)?;
        for name in names {
            runtime.block_on(packed.push(store, name, self.by_digest, &options, progress))?;
        }
        Ok(())
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
    save_file(path, 0o666, write)
}
