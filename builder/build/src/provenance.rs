//! Where an image comes from: a predicate of SLSA's provenance, version 1.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kiln_image::attestation::{Attestation, package_url};
use kiln_image::{Image, Platform, Reference};
use serde_json::{Map, Value, json};

use crate::plan::{self, ImageSource};
use crate::{Request, Result};

const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters mean: BuildKit's definition, whose shape this has.
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What it was made from.
    Min,
    /// Also the Dockerfile, its steps and the build arguments.
    Max,
}

/// Remembers the images that a build takes.
pub struct Recorded<'a> {
    images: &'a dyn ImageSource,
    taken: Mutex<Vec<(Reference, Platform, Image)>>,
}

impl<'a> Recorded<'a> {
    /// Takes them from `images`.
    pub fn new(images: &'a dyn ImageSource) -> Self {
        Self { images, taken: Mutex::default() }
    }

    fn dependencies(&self) -> Vec<Value> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let dependency = |(reference, platform, image): &(Reference, Platform, Image)| {
            let digest = image.manifest.unwrap_or(image.id);
            json!({"uri": package_url(reference, platform), "digest": {"sha256": digest.hex()}})
        };
        taken.iter().map(dependency).collect()
    }
}

impl ImageSource for Recorded<'_> {
    /// What was taken is not asked for again.
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, image)) = taken.iter().find(|(known, of, _)| known == reference && of == platform) {
            return Ok(image.clone());
        }
        drop(taken);
        let image = self.images.image(reference, platform)?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.iter().any(|(known, of, _)| known == reference && of == platform) {
            taken.push((reference.clone(), platform.clone(), image.clone()));
        }
        Ok(image)
    }

    fn layout(&self, directory: &Path, wanted: Option<&str>, platform: &Platform) -> Result<Image> {
        self.images.layout(directory, wanted, platform)
    }
}

/// What is said of the image for one of the platforms of a build that took these images.
///
/// # Errors
/// The Dockerfile cannot be planned again.
pub fn provenance(
    request: &Request,
    platform: &Platform,
    images: &Recorded<'_>,
    mode: Mode,
    started: Timestamp,
) -> Result<Attestation> {
    if request.other_platforms.is_empty() {
        return statement(request, images, mode, started);
    }
    // Of all the images, those that this one was made from.
    let request = Request { platform: platform.clone(), other_platforms: Vec::new(), ..request.clone() };
    let images = Recorded::new(images);
    plan::make(&kiln_grammar::parse(&request.dockerfile)?, &request, &images)?;
    statement(&request, &images, mode, started)
}

fn statement(request: &Request, images: &Recorded<'_>, mode: Mode, started: Timestamp) -> Result<Attestation> {
    let mut parameters = Map::new();
    if let Some(target) = &request.target {
        parameters.insert("target".to_owned(), target.clone().into());
    }
    if request.no_cache {
        parameters.insert("no-cache".to_owned(), "".into());
    }
    let mut internal = json!({"builderPlatform": Platform::host().to_string()});
    if mode == Mode::Max {
        let args = request.build_args.iter().map(|(name, value)| (format!("build-arg:{name}"), value.clone().into()));
        parameters.extend(args);
        let labels = request.labels.iter().map(|(key, value)| (format!("label:{key}"), value.clone().into()));
        parameters.extend(labels);
        internal["buildConfig"] = steps(request, images)?;
    }
    let secrets: Vec<Value> = request.secrets.keys().map(|id| json!({"id": id, "optional": true})).collect();
    let mut asked = json!({"frontend": "dockerfile.v0", "args": parameters});
    if !secrets.is_empty() {
        asked["secrets"] = secrets.into();
    }
    let finished = match request.epoch {
        Some(_) => started,
        None => Timestamp::now(),
    };
    let mut metadata = json!({"startedOn": started.to_string(), "finishedOn": finished.to_string()});
    if mode == Mode::Max {
        let text = String::from_utf8_lossy(&request.dockerfile);
        metadata["buildkit_metadata"] = json!({
            "source": {"infos": [{"filename": request.dockerfile_name, "language": "Dockerfile", "data": text}]},
        });
    }
    let predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configSource": {"path": file_name(&request.dockerfile_name)}, "request": asked},
            "internalParameters": internal,
            "resolvedDependencies": images.dependencies(),
        },
        "runDetails": {
            "builder": {"id": "", "version": {"kiln": env!("CARGO_PKG_VERSION")}},
            "metadata": metadata,
        },
    });
    Ok(Attestation { predicate_type: PREDICATE.to_owned(), predicate })
}

/// Where the Dockerfile lay on this machine is nobody's business.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The vertices with what they depend on.
fn steps(request: &Request, images: &Recorded<'_>) -> Result<Value> {
    let dockerfile = kiln_grammar::parse(&request.dockerfile)?;
    let plan = plan::make(&dockerfile, request, images)?;
    let step = |(number, vertex): (usize, &plan::Vertex)| {
        let inputs: Vec<String> = vertex.inputs().iter().map(|input| format!("step{input}")).collect();
        json!({"id": format!("step{number}"), "name": vertex.name, "inputs": inputs})
    };
    let steps: Vec<Value> = plan.vertices.iter().enumerate().map(step).collect();
    Ok(json!({"llbDefinition": steps}))
}
