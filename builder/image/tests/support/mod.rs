//! What several integration tests need: stores, an image, and servers on loopback.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses its part")]

pub mod broken_registry;
pub mod debian_registry;

use std::collections::HashMap;
use std::sync::Mutex;

use kiln_image::registry::TransferProgress;
use kiln_image::{Image, ImageConfig, Reference};
use kiln_store::store::Privilege;
use kiln_store::{Digest, Store};
use tempfile::TempDir;

/// A store of its own, removed when it is dropped.
pub struct TestStore {
    pub store: Store,
    pub directory: TempDir,
}

pub fn store() -> TestStore {
    let directory = tempfile::tempdir().expect("directory");
    let privilege = if rustix::process::geteuid().is_root() { Privilege::Root } else { Privilege::Single };
    TestStore { store: Store::open(directory.path(), privilege).expect("store"), directory }
}

pub fn reference(text: &str) -> Reference {
    Reference::parse(text).expect(text)
}

/// An image with two layers, the second a few MiB that do not compress.
pub fn image(store: &Store, name: &str) -> Image {
    let mut seed = 1_u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(3 << 20).collect();
    let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    for (path, content) in [("etc/motd", b"hello".as_slice()), ("noise", &noise)] {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).expect("entry");
        let tar = tar.into_inner().expect("tar");
        config.rootfs.diff_ids.push(store.import_tar(&mut tar.as_slice()).expect("layer").diff_id);
    }
    Image::commit(store, &config, &[reference(name)]).expect("image")
}

/// Remembers what was told.
#[derive(Default)]
pub struct Told {
    pub there: Mutex<Vec<Digest>>,
    pub moved: Mutex<HashMap<Digest, u64>>,
    pub finished: Mutex<Vec<Digest>>,
}

impl TransferProgress for Told {
    fn begin(&self, blob: &Digest, _: u64, already_there: bool) {
        if already_there {
            self.there.lock().expect("lock").push(*blob);
        }
    }
    fn advance(&self, blob: &Digest, bytes: u64) {
        *self.moved.lock().expect("lock").entry(*blob).or_default() += bytes;
    }
    fn finish(&self, blob: &Digest) {
        self.finished.lock().expect("lock").push(*blob);
    }
}

impl Told {
    pub fn bytes(&self) -> u64 {
        self.moved.lock().expect("lock").values().sum()
    }
}

/// An error with its causes, as users see it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
