//! Flags that say what the image is for, how it is packed, and who is told of it.

use std::path::PathBuf;

use anyhow::{Context, bail};
use kiln_image::annotation::Annotation;
use kiln_image::bundle::{Form, PackedBundle};
use kiln_image::{Image, Platform, Reference};
use kiln_store::layer::Compression;
use serde_json::{Map, Value, json};

use super::output::spec::compression;

/// The flags.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The image")]
pub(super) struct ImageArgs {
    /// Build for these platforms: OS/ARCH[/VARIANT]; of several, the result is an index
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<String>,
    /// Build for this operating system [default: this machine's]
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Build for this architecture [default: this machine's]
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Build for this variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
    /// Annotate the image: [manifest|index|manifest-descriptor|index-descriptor[[PLATFORM]]:]KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Media types of the image: oci or docker
    #[arg(long, value_name = "FORMAT", default_value = "oci")]
    format: String,
    /// Compress layers so: gzip, zstd or uncompressed
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// How hard: 0 to 9 of gzip, 1 to 22 of zstd
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i32>,
    /// Compress the base image's layers anew, too
    #[arg(long)]
    force_compression: bool,
    /// Add the image to the index of this name, which is made when there is none
    #[arg(long, value_name = "NAME")]
    pub(super) manifest: Option<Reference>,
    /// Write what was made to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write the image id without `sha256:` to a file
    #[arg(long, value_name = "FILE")]
    iidfile_raw: Option<PathBuf>,
}

impl ImageArgs {
    /// What is built for, each once.
    pub(super) fn platforms(&self) -> anyhow::Result<Vec<Platform>> {
        let mut platforms = Vec::new();
        for text in self.platform.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            let platform = if text == "local" { Platform::host() } else { Platform::parse(text)? };
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        if platforms.is_empty() {
            let host = Platform::host();
            let os = self.os.as_deref().unwrap_or(&host.os);
            let architecture = self.arch.as_deref().unwrap_or(&host.architecture);
            platforms.push(Platform::parse(&match &self.variant {
                Some(variant) => format!("{os}/{architecture}/{variant}"),
                None => format!("{os}/{architecture}"),
            })?);
        }
        Ok(platforms)
    }

    /// How the image is packed when an output does not say.
    pub(super) fn form(&self) -> anyhow::Result<Form> {
        let docker_types = match self.format.as_str() {
            "oci" => false,
            "docker" | "v2s2" => true,
            other => bail!("--format {other:?} is unknown; expected oci or docker"),
        };
        let annotations = self.annotation.iter().map(|text| Annotation::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let compression = self.compression_format.as_deref().map_or(Ok(Compression::Gzip), compression)?;
        Ok(Form {
            compression,
            level: self.compression_level.filter(|_| compression != Compression::None),
            forced: self.force_compression,
            docker_types,
            annotations: annotations.into_iter().flatten().collect(),
        })
    }

    /// The id, where it was asked for: of an index, its digest.
    pub(super) fn deliver_id(&self, id: &kiln_store::Digest) -> anyhow::Result<()> {
        let texts = [(&self.iidfile, id.to_string()), (&self.iidfile_raw, id.hex())];
        for (path, text) in texts {
            let Some(path) = path else { continue };
            std::fs::write(path, text).with_context(|| format!("write the image id to {}", path.display()))?;
        }
        Ok(())
    }

    /// BuildKit's description of what was made.
    pub(super) fn deliver_metadata(
        &self,
        packed: &PackedBundle,
        image: &Image,
        names: &[Reference],
    ) -> anyhow::Result<()> {
        let Some(path) = &self.metadata_file else { return Ok(()) };
        let mut all: Map<String, Value> = Map::new();
        if let Some(config) = packed.config() {
            all.insert("containerimage.config.digest".to_owned(), config.to_string().into());
        }
        let mut descriptor = serde_json::to_value(&packed.root)?;
        if let (Some(config), Some(fields)) = (packed.config(), descriptor.as_object_mut()) {
            let annotations = fields.entry("annotations").or_insert_with(|| json!({}));
            annotations["config.digest"] = config.to_string().into();
            annotations["org.opencontainers.image.created"] = image.config.created.clone().into();
        }
        all.insert("containerimage.descriptor".to_owned(), descriptor);
        all.insert("containerimage.digest".to_owned(), packed.root.digest.to_string().into());
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(Reference::tagged_name).collect();
            all.insert("image.name".to_owned(), names.join(",").into());
        }
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(path, text).with_context(|| format!("write the metadata to {}", path.display()))
    }
}
