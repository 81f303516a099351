//! The data of a `distribution` registry is taken over: made by Debian's own, and by hand where it must be damaged.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_registry_server::{Error, ImportReport, import};
use kiln_store::Digest;
use serde_json::json;

use crate::client::{Client, OCI_IMAGE, OCI_INDEX, Registry, config, descriptor, image, noise};

fn run(into: &Path, from: &Path) -> Result<ImportReport, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(import(&config(into), from))
}

/// Debian's docker-registry; killed when it is dropped.
struct Distribution {
    child: Child,
    client: Client,
}

impl Distribution {
    fn start(directory: &Path) -> Self {
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let settings = directory.join("config.yml");
        let data = directory.join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
            data.display()
        );
        fs::write(&settings, text).unwrap();
        let mut serve = Command::new("docker-registry");
        let child = serve.arg("serve").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let client = Client { address };
        while client.attempt("GET", "/v2/", &[], b"").is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, client }
    }

    /// It knows no blob in one request.
    fn push_blob(&self, repository: &str, content: &[u8]) {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.client.request("POST", &target, &[], b"").status(202);
        let (_, location) = begun.must("location").split_once("/v2/").unwrap();
        let target = format!("/v2/{location}&digest={}", Digest::of(content));
        self.client.request("PUT", &target, &[], content).status(201);
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn what_debians_registry_served_is_served_on() {
    let directory = tempfile::tempdir().unwrap();
    let other = Distribution::start(directory.path());
    let (small, large) = (image(b"layer"), noise(41, 2_000_000));
    for repository in ["app", "team/deep/app"] {
        for content in [b"{}".as_slice(), b"layer", &large] {
            other.push_blob(repository, content);
        }
        other.client.put_manifest(repository, "1", &small).status(201);
        other.client.put_manifest(repository, "moves", &small).status(201);
        other.client.put_manifest(repository, "moves", &image(&large)).status(201);
    }
    let listed = descriptor(OCI_IMAGE, small.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]});
    other.client.put_manifest("app", "index", &index).status(201);
    other.push_blob("app", b"of no image");
    drop(other);

    let root = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let report = run(root.path(), &data).unwrap();
    assert_eq!((report.repositories, report.manifests, report.tags, report.blobs), (2, 5, 5, 3));
    assert_eq!((report.bytes, report.skipped), (2_000_000 + 5 + 2, vec![]));
    let again = run(root.path(), &data).unwrap();
    assert_eq!((again.manifests, again.blobs, again.bytes), (5, 0, 0));

    let registry = Registry::serve(root.path());
    let client = registry.client();
    assert!(matches!(run(root.path(), &data), Err(Error::InUse(_))));
    for repository in ["app", "team/deep/app"] {
        let get = |tag: &str| client.get(&format!("/v2/{repository}/manifests/{tag}")).status(200).body;
        assert_eq!(get("1"), small.to_string().as_bytes());
        assert_eq!(get("moves"), image(&large).to_string().as_bytes());
        let target = format!("/v2/{repository}/blobs/{}", Digest::of(&large));
        assert!(client.get(&target).status(200).body == large);
    }
    assert_eq!(client.get("/v2/app/manifests/index").status(200).json(), index);
    assert_eq!(client.get("/v2/app/tags/list").json()["tags"], json!(["1", "index", "moves"]));
    client.head_of(&format!("/v2/app/blobs/{}", Digest::of(b"of no image"))).status(404);
}

#[test]
fn what_is_damaged_is_left_out_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(run(root.path(), directory.path()), Err(Error::NoDistribution(_))));
    let v2 = directory.path().join("docker/registry/v2");
    let write = |path: String, bytes: &[u8]| {
        let path = v2.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let blob = |digest: &Digest, bytes: &[u8]| {
        write(format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()), bytes);
    };
    let mut digests = Vec::new();
    for layer in [b"whole".as_slice(), b"damaged", b"missing"] {
        let bytes = image(layer).to_string().into_bytes();
        let digest = Digest::of(&bytes);
        blob(&digest, &bytes);
        let name = String::from_utf8_lossy(layer).into_owned();
        write(
            format!("repositories/app/_manifests/revisions/sha256/{}/link", digest.hex()),
            digest.to_string().as_bytes(),
        );
        write(format!("repositories/app/_manifests/tags/{name}/current/link"), digest.to_string().as_bytes());
        digests.push(digest);
    }
    write("repositories/app/_manifests/tags/lost/current/link".to_owned(), Digest::of(b"x").to_string().as_bytes());
    write("repositories/app/_manifests/tags/empty/current/link".to_owned(), b"");
    write("repositories/BAD/_manifests/tags/x/current/link".to_owned(), digests[0].to_string().as_bytes());
    blob(&Digest::of(b"{}"), b"{}");
    blob(&Digest::of(b"whole"), b"whole");
    blob(&Digest::of(b"damaged"), b"changed");

    let report = run(root.path(), directory.path()).unwrap();
    assert_eq!((report.repositories, report.manifests, report.tags), (1, 1, 1));
    let mut skipped: Vec<String> = report.skipped.iter().map(|skipped| skipped.name.clone()).collect();
    skipped.sort();
    let mut expected = vec![
        "BAD".to_owned(),
        "app:damaged".to_owned(),
        "app:missing".to_owned(),
        "app:lost".to_owned(),
        format!("app@{}", digests[1]),
        format!("app@{}", digests[2]),
    ];
    expected.sort();
    assert_eq!(skipped, expected);
    let registry = Registry::serve(root.path());
    assert_eq!(registry.client().get("/v2/app/tags/list").json()["tags"], json!(["whole"]));
    registry.client().get(&format!("/v2/app/blobs/{}", Digest::of(b"damaged"))).fails(404, "BLOB_UNKNOWN");
}
