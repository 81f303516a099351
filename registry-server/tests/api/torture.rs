//! Pushers, pullers, a deleter and the collector at once, over a server that is killed again and again. Afterwards
//! whatever was acknowledged and not deleted is there, and nothing else is.
//!
//! `KILN_TORTURE_SECONDS` says for how long; the default is short enough for everyday.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use kiln_registry_server::{collect, scrub};
use kiln_store::Digest;
use serde_json::{Value, json};

use crate::client::{Client, OCI_IMAGE, OCI_INDEX, Registry, Reply, config, descriptor, noise};
use crate::durability::{RULES, spawn_by};

const GRACE: Duration = Duration::from_secs(3);
/// Different layers that the pushers choose from, so that they meet each other's.
const LAYERS: u64 = 30;
const REPOSITORIES: u64 = 4;
/// Threads that read all images at the end.
const CHECKERS: usize = 4;

/// What a tag of a repository should mean.
#[derive(Clone)]
struct Image {
    repository: String,
    tag: String,
    manifest: Vec<u8>,
    digest: Digest,
    layers: Vec<u64>,
}

#[derive(Default)]
struct World {
    client: RwLock<Option<Client>>,
    acknowledged: Mutex<BTreeMap<(String, String), Image>>,
    /// Pushes and deletions whose answer never came: whole or absent.
    uncertain: Mutex<Vec<Image>>,
    pushed: AtomicU64,
    pulled: AtomicU64,
    deleted: AtomicU64,
    kills: AtomicU64,
    /// Pushes that were slower than the grace period, and had to begin again.
    late: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// Numbers without a pattern.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A layer's bytes and digest, made once: thousands of images have it.
fn layer(seed: u64) -> &'static (Vec<u8>, Digest) {
    static ALL: LazyLock<Vec<(Vec<u8>, Digest)>> = LazyLock::new(|| {
        let make = |seed: u64| noise(seed + 1_000, 500 + usize::try_from(seed).unwrap() * 7_000);
        (0..LAYERS).map(make).map(|bytes| (bytes.clone(), Digest::of(&bytes))).collect()
    });
    &ALL[usize::try_from(seed).unwrap()]
}

impl World {
    fn client(&self) -> Option<Client> {
        *self.client.read().unwrap()
    }

    fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
        self.client()?.attempt(method, target, headers, body)
    }

    fn complain(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// Sends a blob in one of the ways there are, unless it is there. `None` when the server went away.
    fn push_blob(&self, random: &mut Random, repository: &str, content: &[u8]) -> Option<()> {
        let digest = Digest::of(content);
        let target = format!("/v2/{repository}/blobs/{digest}");
        if self.request("HEAD", &target, &[], b"")?.status == 200 {
            return Some(());
        }
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let from = format!("r{}", random.below(REPOSITORIES));
        let begun = match random.below(3) {
            0 => self.request("POST", &format!("{uploads}?digest={digest}"), &[], content)?,
            1 => self.request("POST", &format!("{uploads}?mount={digest}&from={from}"), &[], b"")?,
            _ => self.request("POST", &uploads, &[], b"")?,
        };
        match begun.status {
            201 => return Some(()),
            202 => {}
            status => self.complain(format!("POST of a blob: {status}")),
        }
        let location = begun.must("location");
        let (first, last) = content.split_at(content.len() / 2);
        if random.below(20) == 0 {
            return None; // abandoned
        }
        let reply = self.request("PATCH", location, &[], first)?;
        if reply.status != 202 {
            self.complain(format!("PATCH: {} {}", reply.status, String::from_utf8_lossy(&reply.body)));
        }
        let reply = self.request("PUT", &format!("{location}?digest={digest}"), &[], last)?;
        if reply.status != 201 {
            self.complain(format!("PUT of a blob: {} {}", reply.status, String::from_utf8_lossy(&reply.body)));
        }
        Some(())
    }

    fn push(&self, random: &mut Random, repository: &str, tag: &str) {
        let layers: Vec<u64> = (0..=random.below(3)).map(|_| random.below(LAYERS)).collect();
        let begun = Instant::now();
        for seed in &layers {
            if self.push_blob(random, repository, &layer(*seed).0).is_none() {
                return;
            }
        }
        if self.push_blob(random, repository, b"{}").is_none() {
            return;
        }
        let descriptors: Vec<Value> = layers.iter().map(|seed| descriptor("a/layer", &layer(*seed).0)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_IMAGE, "config": descriptor("a/config", b"{}"),
            "layers": descriptors, "annotations": {"unique": tag},
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        let (bytes, media_type, reference) = if random.below(4) == 0 {
            // The image by its digest, and an index with the tag.
            let target = format!("/v2/{repository}/manifests/{digest}");
            let Some(reply) = self.request("PUT", &target, &[("Content-Type", OCI_IMAGE)], &manifest) else { return };
            if !self.is_taken(&reply, begun) {
                return;
            }
            let listed = descriptor(OCI_IMAGE, &manifest);
            let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]});
            (index.to_string().into_bytes(), OCI_INDEX, tag)
        } else {
            (manifest, OCI_IMAGE, tag)
        };
        let digest = Digest::of(&bytes);
        let (repository, tag) = (repository.to_owned(), tag.to_owned());
        let target = format!("/v2/{repository}/manifests/{reference}");
        let image = Image { repository, tag, manifest: bytes, digest, layers };
        match self.request("PUT", &target, &[("Content-Type", media_type)], &image.manifest) {
            None => self.uncertain.lock().unwrap().push(image),
            Some(reply) => {
                if self.is_taken(&reply, begun) {
                    self.pushed.fetch_add(1, Ordering::Relaxed);
                    let key = (image.repository.clone(), image.tag.clone());
                    self.acknowledged.lock().unwrap().insert(key, image);
                }
            }
        }
    }

    fn is_taken(&self, reply: &Reply, begun: Instant) -> bool {
        if reply.status == 201 {
            return true;
        }
        if reply.status == 404 && begun.elapsed() > GRACE {
            self.late.fetch_add(1, Ordering::Relaxed);
        } else {
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            self.complain(format!("a push lost something after {:?}: {} {text}", begun.elapsed(), reply.status));
        }
        false
    }

    fn any(&self, random: &mut Random) -> Option<Image> {
        let acknowledged = self.acknowledged.lock().unwrap();
        let count = u64::try_from(acknowledged.len()).unwrap();
        let number = usize::try_from(random.below(count.max(1))).unwrap();
        acknowledged.values().nth(number).cloned()
    }

    /// Reads an image whole. `None` when the server went away, else what is wrong with it.
    fn check(&self, image: &Image) -> Option<Result<(), String>> {
        let Image { repository, tag, digest, .. } = image;
        let reply = self.request("GET", &format!("/v2/{repository}/manifests/{tag}"), &[], b"")?;
        if reply.status != 200 || Digest::of(&reply.body) != *digest || reply.body != image.manifest {
            return Some(Err(format!("{repository}:{tag}: {}", reply.status)));
        }
        for seed in &image.layers {
            let (bytes, wanted) = layer(*seed);
            let reply = self.request("GET", &format!("/v2/{repository}/blobs/{wanted}"), &[], b"")?;
            if reply.status != 200 || reply.body != *bytes {
                return Some(Err(format!("{repository}:{tag}: layer {wanted}: {}", reply.status)));
            }
        }
        let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        if let Some(child) = manifest["manifests"][0]["digest"].as_str() {
            let reply = self.request("GET", &format!("/v2/{repository}/manifests/{child}"), &[], b"")?;
            if reply.status != 200 || Digest::of(&reply.body).to_string() != child {
                return Some(Err(format!("{repository}:{tag}: image {child}: {}", reply.status)));
            }
        }
        Some(Ok(()))
    }

    fn pull(&self, random: &mut Random) {
        let Some(image) = self.any(random) else { return };
        match self.check(&image) {
            Some(Ok(())) => drop(self.pulled.fetch_add(1, Ordering::Relaxed)),
            Some(Err(reason)) => {
                let key = (image.repository, image.tag);
                // Unless it was just deleted.
                if self.acknowledged.lock().unwrap().contains_key(&key) {
                    self.complain(reason);
                }
            }
            None => {}
        }
    }

    fn delete(&self, random: &mut Random) {
        let Some(image) = self.any(random) else { return };
        let key = (image.repository.clone(), image.tag.clone());
        self.acknowledged.lock().unwrap().remove(&key);
        let reference = if random.below(2) == 0 { image.tag.clone() } else { image.digest.to_string() };
        match self.request("DELETE", &format!("/v2/{}/manifests/{reference}", image.repository), &[], b"") {
            None => self.uncertain.lock().unwrap().push(image),
            Some(reply) if reply.status == 202 => drop(self.deleted.fetch_add(1, Ordering::Relaxed)),
            Some(reply) => self.complain(format!("DELETE of {reference}: {}", reply.status)),
        }
    }
}

fn start(root: &Path) -> (Child, Client) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(RULES, r#"{"interval": "1s", "grace": "3s", "uploads": "5s"}"#);
    let (child, client) = spawn_by(command, root);
    (child, client.unwrap())
}

/// Every blob that a tag leads to.
fn reachable(client: &Client) -> BTreeSet<String> {
    let mut blobs = BTreeSet::new();
    let repositories = client.get("/v2/_catalog").status(200).json();
    for repository in repositories["repositories"].as_array().unwrap() {
        let repository = repository.as_str().unwrap();
        let tags = client.get(&format!("/v2/{repository}/tags/list")).status(200).json();
        let mut waiting: Vec<String> =
            tags["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
        while let Some(reference) = waiting.pop() {
            let manifest = client.get(&format!("/v2/{repository}/manifests/{reference}")).status(200).json();
            let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
            waiting.extend(manifest["manifests"].as_array().into_iter().flatten().map(digest));
            blobs.extend(manifest["layers"].as_array().into_iter().flatten().map(digest));
            blobs.extend(manifest["config"].is_object().then(|| digest(&manifest["config"])));
        }
    }
    blobs
}

/// Proves: registry-online-gc
#[test]
fn everything_at_once_while_the_server_is_killed() {
    let seconds = std::env::var("KILN_TORTURE_SECONDS").ok().map_or(15, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let root = tempfile::tempdir().unwrap();
    let world = World::default();
    thread::scope(|scope| {
        for worker in 0..6_u64 {
            let world = &world;
            scope.spawn(move || {
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (worker + 1) << 32);
                for number in 0_u64.. {
                    if Instant::now() > end {
                        return;
                    }
                    match worker {
                        _ if world.client().is_none() => thread::sleep(Duration::from_millis(10)),
                        0..3 => {
                            let repository = format!("r{}", random.below(REPOSITORIES));
                            world.push(&mut random, &repository, &format!("w{worker}-{number}"));
                        }
                        3 | 4 => world.pull(&mut random),
                        _ => {
                            world.delete(&mut random);
                            // Some are to stay.
                            thread::sleep(Duration::from_millis(random.below(60)));
                        }
                    }
                }
            });
        }
        let mut random = Random(0x1234_5678_9abc_def1);
        while Instant::now() < end {
            let (mut child, client) = start(root.path());
            *world.client.write().unwrap() = Some(client);
            let life = Duration::from_millis(500 + random.below(8_000));
            thread::sleep(life.min(end.saturating_duration_since(Instant::now())));
            child.kill().unwrap();
            child.wait().unwrap();
            *world.client.write().unwrap() = None;
            world.kills.fetch_add(1, Ordering::Relaxed);
        }
    });
    let wrong = world.wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{wrong:#?}");
    verify(&world, root.path(), seconds);
}

fn verify(world: &World, root: &Path, seconds: u64) {
    let mut config = config(root);
    config.collection = serde_json::from_str(r#"{"interval": "0s", "grace": "3s", "uploads": "5s"}"#).unwrap();
    let registry = Registry::serve_config(&config);
    *world.client.write().unwrap() = Some(registry.client());
    let acknowledged: Vec<Image> = world.acknowledged.lock().unwrap().values().cloned().collect();
    let check_all = |when: &str| {
        thread::scope(|scope| {
            for part in acknowledged.chunks(acknowledged.len().div_ceil(CHECKERS).max(1)) {
                scope.spawn(move || {
                    for image in part {
                        assert_eq!(world.check(image), Some(Ok(())), "{when}");
                    }
                });
            }
        });
    };
    check_all("after the last kill");
    let (mut whole, mut absent) = (0, 0);
    for image in world.uncertain.lock().unwrap().iter() {
        let target = format!("/v2/{}/manifests/{}", image.repository, image.tag);
        match world.request("GET", &target, &[], b"").unwrap().status {
            404 => absent += 1,
            _ => {
                assert_eq!(world.check(image), Some(Ok(())), "acknowledged to nobody");
                whole += 1;
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut freed = 0;
    // What a deleted tag leads to goes step by step, each after a grace period: index, image, blobs.
    for _ in 0..4 {
        thread::sleep(GRACE + Duration::from_millis(2_500));
        freed += runtime.block_on(collect(&config, false)).unwrap().bytes;
    }
    check_all("after the collector");
    let report = runtime.block_on(scrub(&config)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let files: BTreeSet<String> = fs::read_dir(root.join("blobs/sha256"))
        .unwrap()
        .map(|entry| format!("sha256:{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    assert_eq!(files, reachable(&registry.client()), "files, and what tags lead to");
    assert_eq!(fs::read_dir(root.join("uploads")).unwrap().count(), 0);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{seconds} s: {} kills, {} images pushed, {} pulled, {} deleted; {} acknowledged ones left, all whole; \
         {whole} of unknown fate whole, {absent} absent; {} pushes outlived the grace period; {} blobs and {} manifests \
         verified, {freed} bytes freed at the end, none unreferenced",
        count(&world.kills),
        count(&world.pushed),
        count(&world.pulled),
        count(&world.deleted),
        acknowledged.len(),
        count(&world.late),
        report.blobs,
        report.manifests,
    );
}
