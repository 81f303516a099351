//! What a build says of its image besides: where it comes from, and what it has installed.

use kiln_tests::{Kiln, Registry, command, run};
use serde_json::Value;

const STATUS: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n";
const APK: &str = "P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n";
const NPM: &str = r#"{"name":"@scope/thing","version":"1.2.3","license":"ISC"}"#;
const PYTHON: &str = "Metadata-Version: 2.1\nName: Requests\nVersion: 2.31.0\n";
const CARGO: &str = "[v1]\n\"ripgrep 14.1.0 (registry+https://x)\" = [\"rg\"]\n";

fn context(kiln: &Kiln) -> kiln_tests::Context {
    kiln.context(&[
        ("Dockerfile", "FROM busybox\nARG SECRETLY=default\nCOPY root /\nRUN echo made > /made\n"),
        ("root/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
        ("root/var/lib/dpkg/status", STATUS),
        ("root/lib/apk/db/installed", APK),
        ("root/srv/node_modules/@scope/thing/package.json", NPM),
        ("root/usr/lib/python3/requests-2.31.0.dist-info/METADATA", PYTHON),
        ("root/root/.cargo/.crates.toml", CARGO),
    ])
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// Proves: D1.13-10, --provenance, --sbom, --attest
#[test]
fn attestations_lie_beside_the_files() {
    let kiln = Kiln::with_busybox();
    let context = context(&kiln);
    let out = kiln.directory();
    let place = |name: &str| out.path().join(name);
    let output = format!("--output=type=local,dest={}", out.path().display());
    kiln.build(&context, "t", &["--provenance", "--sbom", "--build-arg=SECRETLY=given", &output]);
    let read = |name: &str| json(&std::fs::read_to_string(place(name)).expect(name));
    let sbom = read("sbom.spdx.json");
    assert_eq!(sbom["predicateType"], "https://spdx.dev/Document");
    assert_eq!(sbom["predicate"]["spdxVersion"], "SPDX-2.3");
    let packages = sbom["predicate"]["packages"].as_array().expect("packages");
    let urls: Vec<&str> =
        packages.iter().filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str()).collect();
    for url in [
        "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12",
        "pkg:apk/debian/musl@1.2.4-r2?arch=x86_64&distro=debian-12",
        "pkg:npm/%40scope/thing@1.2.3",
        "pkg:pypi/requests@2.31.0",
        "pkg:cargo/ripgrep@14.1.0",
    ] {
        assert!(urls.contains(&url), "{url} of {urls:?}");
    }
    let least = read("provenance.json");
    assert_eq!(least["predicateType"], "https://slsa.dev/provenance/v1");
    let definition = &least["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["configSource"]["path"], "Dockerfile");
    let dependency = definition["resolvedDependencies"][0]["uri"].as_str().expect("a dependency");
    assert!(dependency.starts_with("pkg:docker/busybox@latest?platform=linux%2F"), "{dependency}");
    assert!(!least.to_string().contains("given"), "build arguments may be secret:\n{least}");
    kiln.build(&context, "t", &["--attest=type=provenance,mode=max", "--build-arg=SECRETLY=given", &output]);
    let most = read("provenance.json");
    let definition = &most["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["request"]["args"]["build-arg:SECRETLY"], "given");
    let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["name"].as_str().is_some_and(|name| name.contains("echo made"))), "{most}");
}

/// Proves: D1.13-10, --provenance, --sbom
#[test]
fn attestations_are_pushed_as_a_manifest_of_their_own() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::distribution();
    let name = registry.name("team/app:1");
    let get = |path: &str| {
        let url = format!("http://{}", registry.name(&format!("v2/team/app/{path}")));
        let accept = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
        json(&run(command("curl", ["-sSf", "-H", accept, &url])).success().stdout)
    };
    kiln.build(&context(&kiln), &name, &["--provenance=mode=max", "--sbom=true", "--push"]);
    let index = get("manifests/1");
    let entries = index["manifests"].as_array().expect("an index");
    assert_eq!(entries.len(), 2, "{index}");
    assert_eq!(entries[1]["platform"]["os"], "unknown");
    assert_eq!(entries[1]["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(entries[1]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
    let digest = entries[1]["digest"].as_str().expect("a digest");
    let manifest = get(&format!("manifests/{digest}"));
    let layers = manifest["layers"].as_array().expect("layers");
    let types: Vec<&str> =
        layers.iter().filter_map(|layer| layer["annotations"]["in-toto.io/predicate-type"].as_str()).collect();
    assert_eq!(types, ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"]);
    let blob = layers[0]["digest"].as_str().expect("a digest");
    let statement = get(&format!("blobs/{blob}"));
    let image = entries[0]["digest"].as_str().expect("a digest");
    assert_eq!(format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().expect("a digest")), image);
    // the name still leads to the image, here and elsewhere
    assert_eq!(kiln.output(&name, &["cat", "/made"]), "made\n");
    let other = Kiln::new();
    other.run(["pull", &name]);
    assert_eq!(other.output(&name, &["cat", "/made"]), "made\n");
}
