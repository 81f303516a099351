//! What an image has installed, by the databases of its package managers, as an SPDX 2.3 document.

mod database;
mod language;
mod rpm;

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use kiln_image::Image;
use kiln_image::attestation::Attestation;
use kiln_store::snapshot::Kind;
use kiln_store::{Snapshot, Store};
use serde_json::{Value, json};

use crate::Result;
use crate::tree::Tree;

const PREDICATE: &str = "https://spdx.dev/Document";
/// A database longer than this is none.
const LARGEST: u64 = 256 << 20;
/// A package's own file longer than this is none.
const LARGEST_PACKAGE: u64 = 8 << 20;

/// Something installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    /// `deb`, `apk`, `rpm`, `npm`, `pypi` or `cargo`: the package URL's type.
    kind: &'static str,
    /// Of the package URL: the distribution, or npm's scope.
    namespace: String,
    name: String,
    version: String,
    architecture: String,
    license: String,
}

/// The distribution of an image.
#[derive(Debug, Default)]
struct Distribution {
    id: String,
    version: String,
}

/// Lists what is installed.
///
/// # Errors
/// A layer cannot be read. A database that cannot be understood is passed over.
pub fn sbom(store: &Store, image: &Image, name: &str, made: Timestamp) -> Result<Attestation> {
    let snapshot = Snapshot::open(store, &image.layers)?;
    let distribution = distribution(&snapshot)?;
    let mut packages = BTreeSet::new();
    for node in Tree::walk(&snapshot, Path::new(""))?.iter().filter(|node| node.kind == Kind::File) {
        let Some(path) = node.path.to_str() else { continue };
        let read = |limit| snapshot.read(&node.path, limit);
        let text =
            |limit| Ok::<_, crate::Error>(read(limit)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        match path {
            "var/lib/dpkg/status" => {
                packages.extend(text(LARGEST)?.iter().flat_map(|text| database::dpkg(text, &distribution)));
            }
            _ if path.starts_with("var/lib/dpkg/status.d/") && !path.ends_with(".md5sums") => {
                packages
                    .extend(text(LARGEST_PACKAGE)?.iter().flat_map(|text| database::dpkg_part(text, &distribution)));
            }
            "lib/apk/db/installed" | "usr/lib/apk/db/installed" => {
                packages.extend(text(LARGEST)?.iter().flat_map(|text| database::apk(text, &distribution)));
            }
            "var/lib/rpm/rpmdb.sqlite" | "usr/lib/sysimage/rpm/rpmdb.sqlite" => {
                packages.extend(read(LARGEST)?.iter().flat_map(|bytes| rpm::packages(bytes, &distribution)));
            }
            _ if path.ends_with("/package.json") && language::is_npm_package(path) => {
                packages.extend(read(LARGEST_PACKAGE)?.and_then(|bytes| language::npm(&bytes)));
            }
            _ if path.ends_with(".dist-info/METADATA") || path.ends_with(".egg-info/PKG-INFO") => {
                packages.extend(text(LARGEST_PACKAGE)?.and_then(|text| language::python(&text)));
            }
            _ if path.ends_with("/.crates.toml") => {
                packages.extend(text(LARGEST_PACKAGE)?.iter().flat_map(|text| language::cargo(text)));
            }
            _ => {}
        }
    }
    let packages: Vec<Package> = packages.into_iter().collect();
    let predicate = document(name, image, &packages, &distribution, made);
    Ok(Attestation { predicate_type: PREDICATE.to_owned(), predicate })
}

fn distribution(snapshot: &Snapshot) -> Result<Distribution> {
    let mut distribution = Distribution::default();
    for path in ["etc/os-release", "usr/lib/os-release"] {
        let (real, node) = snapshot.resolve(Path::new(path), true)?;
        if node.is_none_or(|node| node.kind != Kind::File) {
            continue;
        }
        let Some(bytes) = snapshot.read(&real, LARGEST_PACKAGE)? else { continue };
        for line in String::from_utf8_lossy(&bytes).lines() {
            match line.split_once('=') {
                Some(("ID", value)) => value.trim_matches(['"', '\'']).clone_into(&mut distribution.id),
                Some(("VERSION_ID", value)) => value.trim_matches(['"', '\'']).clone_into(&mut distribution.version),
                _ => {}
            }
        }
        break;
    }
    Ok(distribution)
}

fn document(name: &str, image: &Image, packages: &[Package], distribution: &Distribution, made: Timestamp) -> Value {
    let root = "SPDXRef-DocumentRoot-Image";
    let mut listed = vec![json!({
        "name": name,
        "SPDXID": root,
        "versionInfo": image.id.to_string(),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": image.id.hex()}],
    })];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relatedSpdxElement": root,
        "relationshipType": "DESCRIBES",
    })];
    for (number, package) in packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}-{number}", package.kind);
        let mut row = json!({
            "name": package.full_name(),
            "SPDXID": id,
            "versionInfo": package.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.url(distribution),
            }],
        });
        if !package.license.is_empty() {
            row["licenseComments"] = package.license.clone().into();
        }
        listed.push(row);
        relationships.push(json!({
            "spdxElementId": root,
            "relatedSpdxElement": id,
            "relationshipType": "CONTAINS",
        }));
    }
    // seconds: all that SPDX takes
    let created = Timestamp::from_second(made.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:kiln:sbom:{}", image.id),
        "creationInfo": {
            "created": created.to_string(),
            "creators": [format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": listed,
        "relationships": relationships,
    })
}

impl Package {
    /// npm's scope is part of a name.
    fn full_name(&self) -> String {
        match self.kind {
            "npm" if !self.namespace.is_empty() => format!("{}/{}", self.namespace, self.name),
            _ => self.name.clone(),
        }
    }

    /// Its package URL.
    fn url(&self, distribution: &Distribution) -> String {
        let mut url = format!("pkg:{}", self.kind);
        if !self.namespace.is_empty() {
            url.push_str(&format!("/{}", encoded(&self.namespace)));
        }
        url.push_str(&format!("/{}@{}", encoded(&self.name), encoded(&self.version)));
        let mut qualifiers = Vec::new();
        if !self.architecture.is_empty() {
            qualifiers.push(format!("arch={}", encoded(&self.architecture)));
        }
        if matches!(self.kind, "deb" | "apk" | "rpm") && !distribution.version.is_empty() {
            qualifiers.push(format!("distro={}-{}", encoded(&distribution.id), encoded(&distribution.version)));
        }
        if !qualifiers.is_empty() {
            url.push_str(&format!("?{}", qualifiers.join("&")));
        }
        url
    }
}

/// Percent-encoding as package URLs want it.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:+".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
