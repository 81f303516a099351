//! Images changed on the way: their layers compressed otherwise, their manifests in OCI's words or docker's.

use std::collections::HashMap;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use kiln_store::Digest;
use kiln_store::digest::Algorithm;
use kiln_store::layer::{Compression, recompress_stream};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::Source;
use super::part::Part;
use crate::hashed::Hashed;
use crate::manifest::links::Links;
use crate::manifest::{
    DOCKER_CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Document, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
    docker_layer_type, oci_layer_type,
};
use crate::registry::TransferProgress;
use crate::registry::content::Content;
use crate::registry::download::Download;
use crate::registry::repository::Fetched;
use crate::{Error, Result};

/// What BuildKit's attestations are attached to, in an index.
pub(super) const ATTESTED: &str = "vnd.docker.reference.digest";
/// What annotations of a layer say about where in its compressed bytes something is.
const OF_THE_BYTES: [&str; 2] = ["io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz/"];

/// Whose media types manifests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestType {
    /// OCI's.
    Oci,
    /// docker's, schema 2; it has no words for zstd, annotations and what is no image.
    Docker,
}

/// What becomes of images on the way; by default nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conversion {
    /// How layers are compressed, those that are so already left as they are.
    pub compression: Option<Compression>,
    /// How hard that tries: 0 to 9 of gzip, 1 to 22 of zstd.
    pub level: Option<i32>,
    /// Layers that are compressed so already are compressed anew, too.
    pub forced: bool,
    /// What manifests are; as they were, if nobody says.
    pub manifest_type: Option<ManifestType>,
}

impl Conversion {
    /// Whether every byte stays as it is.
    pub fn is_nothing(&self) -> bool {
        self.compression.is_none() && self.manifest_type.is_none()
    }

    /// Whether a layer is to be compressed anew.
    fn changes(&self, layer: &Descriptor) -> Option<Compression> {
        let known = compression_of(layer)?;
        self.compression.filter(|wanted| self.forced || *wanted != known)
    }
}

/// How a layer that may be compressed anew is compressed.
fn compression_of(layer: &Descriptor) -> Option<Compression> {
    let media_type = oci_layer_type(&layer.media_type);
    [Compression::None, Compression::Gzip, Compression::Zstd].into_iter().find(|one| one.media_type() == media_type)
}

/// The conversion of one copy: what was compressed anew is kept for the other images that have it.
pub(super) struct Converter {
    conversion: Conversion,
    made: Mutex<HashMap<Digest, (Descriptor, Content)>>,
}

impl Converter {
    pub(super) fn new(conversion: Conversion) -> Self {
        Self { conversion, made: Mutex::default() }
    }

    /// What is copied instead of a manifest that is no index, and whatever of its blobs the source does not have.
    pub(super) async fn manifest(
        &self,
        source: &Source,
        manifest: Fetched,
        progress: &dyn TransferProgress,
    ) -> Result<(Fetched, HashMap<Digest, Content>)> {
        let mut contents = HashMap::new();
        if self.conversion.is_nothing() {
            return Ok((manifest, contents));
        }
        let what = format!("manifest {}", manifest.digest);
        let mut layers = match Document::parse(&manifest.bytes, &what) {
            Ok(Document::Manifest(image)) => image.layers,
            // What is no image stays what it is.
            _ if self.conversion.manifest_type != Some(ManifestType::Docker) => return Ok((manifest, contents)),
            Ok(Document::Index(_)) => return Err(Error::invalid(what, "an index, not an image")),
            Err(error) => return Err(error),
        };
        for layer in &mut layers {
            if let Some(compression) = self.conversion.changes(layer) {
                let (descriptor, content) = self.layer(source, layer, compression, progress).await?;
                contents.insert(descriptor.digest, content);
                *layer = descriptor;
            }
        }
        let own = if manifest.media_type == DOCKER_MANIFEST { ManifestType::Docker } else { ManifestType::Oci };
        let zstd = layers.iter().any(|layer| compression_of(layer) == Some(Compression::Zstd));
        let words = match self.conversion.manifest_type {
            Some(ManifestType::Docker) if zstd => {
                return Err(Error::invalid(what, "docker's manifests know no zstd: use OCI's, or compress by gzip"));
            }
            Some(words) => words,
            None if zstd => ManifestType::Oci,
            None => own,
        };
        if contents.is_empty() && words == own {
            return Ok((manifest, contents));
        }
        Ok((rewritten(&manifest, &layers, words, &what)?, contents))
    }

    /// What is copied instead of an index whose entries became `children`.
    pub(super) fn index(&self, index: Fetched, links: &Links, children: &[Fetched]) -> Result<Fetched> {
        if self.conversion.is_nothing() {
            return Ok(index);
        }
        let own = if index.media_type == DOCKER_INDEX { ManifestType::Docker } else { ManifestType::Oci };
        let oci = children.iter().any(|child| matches!(child.media_type.as_str(), OCI_MANIFEST | OCI_INDEX));
        let words = match self.conversion.manifest_type {
            Some(words) => words,
            None if oci => ManifestType::Oci,
            None => own,
        };
        let became: HashMap<Digest, &Fetched> =
            links.manifests.iter().zip(children).map(|(entry, child)| (entry.digest, child)).collect();
        if words == own && became.iter().all(|(digest, child)| *digest == child.digest) {
            return Ok(index);
        }
        let what = format!("index {}", index.digest);
        let mut document = object(&index.bytes, &what)?;
        let entries = document.get_mut("manifests").and_then(Value::as_array_mut).into_iter().flatten();
        // As they are but for what changed: platforms have more than is read here.
        for (entry, child) in entries.filter_map(Value::as_object_mut).zip(children) {
            let attested = entry.get_mut("annotations").and_then(|annotations| annotations.get_mut(ATTESTED));
            if let Some(attested) = attested
                && let Some(digest) = attested.as_str().and_then(|digest| digest.parse::<Digest>().ok())
                && let Some(child) = became.get(&digest)
            {
                *attested = child.digest.to_string().into();
            }
            entry.insert("mediaType".to_owned(), child.media_type.clone().into());
            entry.insert("digest".to_owned(), child.digest.to_string().into());
            entry.insert("size".to_owned(), child.bytes.len().into());
            entry.remove("data");
            if words == ManifestType::Docker {
                entry.retain(|key, _| matches!(key.as_str(), "mediaType" | "digest" | "size" | "platform" | "urls"));
            }
        }
        written(document, if words == ManifestType::Docker { DOCKER_INDEX } else { OCI_INDEX }, words, &what)
    }

    /// A layer, compressed anew: into a file without a name.
    async fn layer(
        &self,
        source: &Source,
        layer: &Descriptor,
        compression: Compression,
        progress: &dyn TransferProgress,
    ) -> Result<(Descriptor, Content)> {
        let mut made = self.made.lock().await;
        if let Some(known) = made.get(&layer.digest) {
            return Ok(known.clone());
        }
        progress.begin(&layer.digest, layer.size, false);
        let input: Box<dyn Read + Send> = match source.content(layer)? {
            Content::File { file, offset } => Box::new(Part { file, offset, size: layer.size }.reader()),
            Content::Remote(repository) => Box::new(Download::start(&repository, layer).into_reader()),
        };
        let (old, level) = (layer.clone(), self.conversion.level);
        let working = tokio::task::spawn_blocking(move || recompress(input, &old, compression, level));
        let done = working.await.map_err(|error| Error::invalid("compressing a layer", error.to_string()))??;
        progress.finish(&layer.digest);
        made.insert(layer.digest, done.clone());
        Ok(done)
    }
}

fn recompress(
    input: Box<dyn Read + Send>,
    layer: &Descriptor,
    compression: Compression,
    level: Option<i32>,
) -> Result<(Descriptor, Content)> {
    let mut input = Hashed::new(input, layer.digest.algorithm());
    let file = tempfile::tempfile().map_err(Error::stream("make a temporary file"))?;
    let mut output = Hashed::new(file, Algorithm::Sha256);
    recompress_stream(&mut input, compression, level, &mut output)?;
    // Whatever follows the last member belongs to the blob, too.
    io::copy(&mut input, &mut io::sink()).map_err(Error::stream("read a layer"))?;
    let (_, actual, _) = input.finish();
    if actual != layer.digest {
        let (expected, actual) = (Box::new(layer.digest), Box::new(actual));
        return Err(Error::DigestMismatch { what: "layer".to_owned(), expected, actual });
    }
    let (mut file, digest, size) = output.finish();
    let mut descriptor = Descriptor { media_type: compression.media_type().to_owned(), digest, size, ..layer.clone() };
    descriptor.annotations.retain(|key, _| !OF_THE_BYTES.iter().any(|prefix| key.starts_with(prefix)));
    descriptor.other.remove("data");
    file.rewind().map_err(Error::stream("read a temporary file"))?;
    Ok((descriptor, Content::File { file: Arc::new(file), offset: 0 }))
}

/// An image's manifest with these layers, in these words.
fn rewritten(manifest: &Fetched, layers: &[Descriptor], words: ManifestType, what: &str) -> Result<Fetched> {
    let (own, config_type) = match words {
        ManifestType::Docker => (DOCKER_MANIFEST, DOCKER_CONFIG),
        ManifestType::Oci => (OCI_MANIFEST, OCI_CONFIG),
    };
    let layers = layers.iter().map(|layer| {
        let media_type = oci_layer_type(&layer.media_type);
        let media_type = if words == ManifestType::Docker { docker_layer_type(media_type) } else { media_type };
        if words == ManifestType::Docker && !media_type.starts_with("application/vnd.docker.") {
            return Err(Error::invalid(what, format!("docker's manifests have no word for {media_type}")));
        }
        Ok(Descriptor { media_type: media_type.to_owned(), ..layer.clone() })
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let mut document = object(&manifest.bytes, what)?;
    if words == ManifestType::Docker && document.contains_key("subject") {
        return Err(Error::invalid(what, "it refers to another manifest, for which docker's have no word"));
    }
    if let Some(config) = document.get_mut("config").and_then(Value::as_object_mut) {
        config.insert("mediaType".to_owned(), config_type.into());
    }
    document.insert("layers".to_owned(), descriptors(layers, words, what)?);
    written(document, own, words, what)
}

fn object(bytes: &[u8], what: &str) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(Error::json(what))
}

fn descriptors(mut all: Vec<Descriptor>, words: ManifestType, what: &str) -> Result<Value> {
    if words == ManifestType::Docker {
        for one in &mut all {
            one.annotations.clear();
            one.other.retain(|key, _| key == "urls");
        }
    }
    serde_json::to_value(all).map_err(Error::json(what))
}

fn written(mut document: Map<String, Value>, media_type: &str, words: ManifestType, what: &str) -> Result<Fetched> {
    document.insert("mediaType".to_owned(), media_type.into());
    if words == ManifestType::Docker {
        document
            .retain(|key, _| matches!(key.as_str(), "schemaVersion" | "mediaType" | "config" | "layers" | "manifests"));
    }
    let bytes = serde_json::to_vec(&document).map_err(Error::json(what))?;
    Ok(Fetched { digest: Digest::of(&bytes), bytes, media_type: media_type.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_index_keeps_what_is_not_known_here() {
        let fetched = |document: Value, media_type: &str| {
            let bytes = serde_json::to_vec(&document).expect("bytes");
            Fetched { digest: Digest::of(&bytes), bytes, media_type: media_type.to_owned() }
        };
        let child = fetched(json!({"schemaVersion": 2}), DOCKER_MANIFEST);
        let platform = json!({"os": "windows", "architecture": "amd64", "os.version": "10.0", "os.features": ["x"]});
        let entry = json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(b"old"), "size": 3, "platform": platform,
            "data": "b2xk", "annotations": {"a": "b"}, "further": 1});
        let index = fetched(json!({"schemaVersion": 2, "manifests": [entry], "further": 2}), OCI_INDEX);
        let links = Links::parse(&index.bytes, OCI_INDEX, "index").expect("an index");
        let converted = |words| {
            let conversion = Conversion { manifest_type: Some(words), ..Conversion::default() };
            let index = Converter::new(conversion).index(index.clone(), &links, std::slice::from_ref(&child));
            serde_json::from_slice::<Value>(&index.expect("an index").bytes).expect("JSON")
        };
        let docker = json!({"mediaType": DOCKER_MANIFEST, "digest": child.digest, "size": child.bytes.len(),
            "platform": platform});
        let expected = json!({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": [docker]});
        assert_eq!(converted(ManifestType::Docker), expected);
        let oci = converted(ManifestType::Oci);
        assert_eq!((&oci["manifests"][0]["platform"], &oci["manifests"][0]["further"]), (&platform, &json!(1)));
        assert_eq!((&oci["further"], oci["manifests"][0].get("data")), (&json!(2), None));
    }
}
