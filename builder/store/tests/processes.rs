//! Several processes in one store, and processes that are killed. The test binary starts itself again as the other
//! process: [`committer`] is a test of its own and, with `KILN_STORE_COMMITTER` set, the process to kill.
#![allow(clippy::unwrap_used, reason = "this is a test, its functions that are none too")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_store::layer::{Compression, Layer};
use kiln_store::metadata::ImageRecord;
use kiln_store::store::Privilege;
use kiln_store::{Digest, Error, Store};

const ROOT: &str = "KILN_STORE_COMMITTER";
const ROUNDS: &str = "KILN_STORE_ROUNDS";

fn open(root: &Path) -> Store {
    let all_ids = fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295");
    let is_root = rustix::process::geteuid().is_root() && all_ids;
    let privilege = if is_root { Privilege::Root } else { Privilege::Single };
    Store::open(root, privilege).unwrap()
}

/// A layer whose content depends on `seed` alone.
fn commit(store: &Store, seed: u64) -> Layer {
    let staging = store.stage().unwrap();
    for file in 0..20 {
        let directory = staging.upper().join(format!("d{}", file % 3));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(file.to_string()), format!("{seed} {file} ").repeat(500)).unwrap();
    }
    store.commit(staging, Some(0)).unwrap()
}

/// All that a build does to a store, over and over.
fn work(store: &Store, rounds: u64) {
    for round in 0..rounds {
        let layer = commit(store, round % 7);
        let blob = store.compress(&layer.diff_id, Compression::Gzip).unwrap();
        assert_eq!(store.unpack_blob(&blob, Some(&layer.diff_id)).unwrap(), layer);
        let id = store.blobs().put(format!("config {round}").as_bytes()).unwrap();
        store.put_image(&ImageRecord { id, manifest: None, layers: vec![layer.diff_id], added: 0 }).unwrap();
        store.set_reference("name:latest", &id).unwrap();
        // A layer that only its blob can give back.
        let mut tar = Vec::new();
        store.write_tar(&layer.diff_id, &mut tar).unwrap();
        tar.extend([0; 512]);
        let foreign = store.unpack(&mut tar.as_slice(), None).unwrap();
        assert_ne!(foreign.diff_id, layer.diff_id);
        if round % 5 == 4 {
            // Another process may be at work; then there is nothing to do.
            store.collect_garbage(&[]).unwrap();
        }
    }
}

#[test]
fn committer() {
    match std::env::var_os(ROOT) {
        Some(root) => {
            let rounds = std::env::var(ROUNDS).unwrap().parse().unwrap();
            work(&open(Path::new(&root)), rounds);
        }
        None => {
            let root = tempfile::tempdir().unwrap();
            work(&open(root.path()), 6);
            verify(&open(root.path()));
        }
    }
}

fn spawn(root: &Path, rounds: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "committer"])
        .env(ROOT, root)
        .env(ROUNDS, rounds.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Everything that the store says it has, it has, and it is right.
fn verify(store: &Store) {
    for entry in fs::read_dir(store.root().join("layers")).unwrap() {
        let hex = entry.unwrap().file_name().into_string().unwrap();
        let diff_id: Digest = format!("sha256:{hex}").parse().unwrap();
        // A foreign layer may have lost its record and is dropped; what is here must be whole.
        if store.layer(&diff_id).unwrap().is_some() {
            assert_intact(store, &diff_id);
        }
    }
    for digest in store.blobs().list().unwrap() {
        assert!(store.blobs().verify(&digest).unwrap());
    }
    for (_, id) in store.references().unwrap() {
        let image = store.image(&id).unwrap().unwrap();
        store.blobs().read(&image.id, 1000).unwrap();
        for diff_id in &image.layers {
            assert!(store.layer(diff_id).unwrap().is_some());
            assert_intact(store, diff_id);
        }
    }
}

fn assert_intact(store: &Store, diff_id: &Digest) {
    let mut tar = Vec::new();
    store.write_tar(diff_id, &mut tar).unwrap();
    assert_eq!(Digest::of(&tar), *diff_id);
}

#[test]
fn killed_at_any_moment() {
    let root = tempfile::tempdir().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..30 {
        let mut child = spawn(root.path(), u64::MAX);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::thread::sleep(Duration::from_millis(20 + state % 120));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(root.path());
        verify(&store);
        // Only this process's own directory, and the lock beside it.
        assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 2);
        work(&store, 1);
    }
}

#[test]
fn many_processes_at_once() {
    let root = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..4).map(|_| spawn(root.path(), 15)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    verify(&open(root.path()));
}

#[test]
fn many_threads_at_once() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layers: Vec<Layer> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..5).map(|seed| commit(&store, seed)).collect())).collect();
        threads.into_iter().flat_map(|thread| -> Vec<Layer> { thread.join().unwrap() }).collect()
    });
    for layer in &layers {
        assert_eq!(layers.iter().filter(|other| *other == layer).count(), 4);
    }
    assert_eq!(fs::read_dir(root.path().join("layers")).unwrap().count(), 5);
    verify(&store);
}

#[test]
fn garbage_waits_for_nobody_and_nobody_starts_under_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let layer = commit(&store, 1);
    assert!(matches!(store.compress(&Digest::of(b"nothing"), Compression::Gzip), Err(Error::LayerMissing(_))));
    let mut child = spawn(root.path(), 3);
    while child.try_wait().unwrap().is_none() {
        if store.collect_garbage(&[layer.diff_id]).unwrap().is_some() {
            // The child was not there yet, or is gone: what it needs it makes again.
            std::thread::yield_now();
        }
    }
    assert!(child.wait().unwrap().success());
    assert!(store.layer(&layer.diff_id).unwrap().is_some());
    verify(&store);
}
