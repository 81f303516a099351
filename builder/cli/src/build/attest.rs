//! `--attest`, `--provenance`, `--sbom`: what is said of the image besides.

use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use kiln_build::Request;
use kiln_build::provenance::{Mode, Recorded, provenance};
use kiln_build::sbom::sbom;
use kiln_image::attestation::Attestation;
use kiln_image::{Image, Platform};
use kiln_store::Store;

/// The flags.
#[derive(clap::Args)]
pub(crate) struct AttestArgs {
    /// Say something of the image: type=provenance[,mode=min|max] or type=sbom
    #[arg(long = "attest", value_name = "SPEC")]
    attest: Vec<String>,
    /// Say where the image comes from: --attest=type=provenance; true, false, mode=min or mode=max
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// Say what the image has installed: --attest=type=sbom; true or false
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
}

/// What is to be said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    provenance: Option<Mode>,
    sbom: bool,
}

impl AttestArgs {
    /// Later ones replace earlier ones, and the short forms come last, as docker's.
    pub(super) fn parse(&self) -> anyhow::Result<Wanted> {
        let mut wanted = Wanted::default();
        for text in &self.attest {
            let mut kind = None;
            let mut rest = Vec::new();
            for option in text.split(',') {
                match option.split_once('=') {
                    Some(("type", value)) => kind = Some(value),
                    _ => rest.push(option),
                }
            }
            match kind {
                Some("provenance") => wanted.provenance = provenance_mode(&rest)?,
                Some("sbom") => wanted.sbom = is_wanted(&rest)?,
                _ => bail!("attestation {text:?} needs type=provenance or type=sbom"),
            }
        }
        if let Some(text) = &self.provenance {
            wanted.provenance = provenance_mode(&text.split(',').collect::<Vec<_>>())?;
        }
        if let Some(text) = &self.sbom {
            wanted.sbom = is_wanted(&text.split(',').collect::<Vec<_>>())?;
        }
        Ok(wanted)
    }
}

fn provenance_mode(options: &[&str]) -> anyhow::Result<Option<Mode>> {
    let mut mode = Some(Mode::Min);
    for option in options {
        mode = match option.split_once('=').unwrap_or((option, "")) {
            ("true", "") | ("mode", "min") | ("disabled", "false") => Some(Mode::Min),
            ("mode", "max") => Some(Mode::Max),
            ("false", "") | ("disabled", "true") => None,
            ("version", "v1") => mode,
            ("version", other) => bail!("provenance of version {other:?} is not written any more; expected v1"),
            _ => bail!("unknown provenance option {option:?}; expected true, false, mode=min or mode=max"),
        };
    }
    Ok(mode)
}

fn is_wanted(options: &[&str]) -> anyhow::Result<bool> {
    let mut wanted = true;
    for option in options {
        wanted = match option.split_once('=').unwrap_or((option, "")) {
            ("true", "") | ("disabled", "false") => true,
            ("false", "") | ("disabled", "true") => false,
            ("generator", _) => bail!("kiln reads the package databases itself: there is no generator to choose"),
            _ => bail!("unknown sbom option {option:?}; expected true or false"),
        };
    }
    Ok(wanted)
}

impl Wanted {
    /// What is said of the image for a platform.
    pub(super) fn say(
        self,
        store: &Store,
        (platform, image): (&Platform, &Image),
        request: &Request,
        images: &Recorded<'_>,
        started: Timestamp,
    ) -> anyhow::Result<Vec<Attestation>> {
        let mut attestations = Vec::new();
        let started = request.epoch.and_then(|epoch| Timestamp::from_second(epoch).ok()).unwrap_or(started);
        if let Some(mode) = self.provenance {
            attestations.push(provenance(request, platform, images, mode, started)?);
        }
        if self.sbom {
            let name = request.names.first().map_or_else(|| image.id.to_string(), |name| name.familiar());
            attestations.push(sbom(store, image, &name, started)?);
        }
        Ok(attestations)
    }
}

/// Writes what is said beside an image's files: `provenance.json` and `sbom.spdx.json`.
pub(super) fn write(attestations: &[Attestation], directory: &Path) -> anyhow::Result<()> {
    for attestation in attestations {
        let name = if attestation.predicate_type.contains("spdx") { "sbom.spdx.json" } else { "provenance.json" };
        let path = directory.join(name);
        let text = serde_json::to_vec(&attestation.statement(&[]))?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(attest: &[&str], provenance: Option<&str>, sbom: Option<&str>) -> anyhow::Result<Wanted> {
        AttestArgs {
            attest: attest.iter().map(|text| (*text).to_owned()).collect(),
            provenance: provenance.map(str::to_owned),
            sbom: sbom.map(str::to_owned),
        }
        .parse()
    }

    #[test]
    fn attestations() {
        let of = |provenance, sbom| Wanted { provenance, sbom };
        assert_eq!(wanted(&[], None, None).unwrap(), Wanted::default());
        assert_eq!(wanted(&[], Some("true"), Some("true")).unwrap(), of(Some(Mode::Min), true));
        assert_eq!(wanted(&["type=provenance,mode=max", "type=sbom"], None, None).unwrap(), of(Some(Mode::Max), true));
        assert_eq!(wanted(&["type=provenance,mode=max"], Some("false"), None).unwrap(), of(None, false));
        for (attest, provenance, sbom) in
            [(vec!["type=what"], None, None), (vec![], Some("mode=most"), None), (vec![], None, Some("generator=x"))]
        {
            assert!(wanted(&attest, provenance, sbom).is_err());
        }
    }
}
