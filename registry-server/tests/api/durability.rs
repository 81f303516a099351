//! Many clients at once, and servers that die.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kiln_registry_server::Server;
use kiln_store::{Blobs, Digest};

use crate::client::{Client, Registry, config, image, noise};

const ROOT: &str = "KILN_TEST_REGISTRY_ROOT";
/// The collector's rules, as JSON.
pub(crate) const RULES: &str = "KILN_TEST_REGISTRY_RULES";

/// Proves: registry-dedupe
#[test]
fn eight_clients_push_the_same_blob() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(7, 900_000);
    for round in 0..3 {
        thread::scope(|scope| {
            for number in 0..8 {
                let content = &content;
                scope.spawn(move || client.push_blob(&format!("r{}", number % 4), content));
            }
        });
        let digest = Digest::of(&content);
        for number in 0..4 {
            assert!(client.get(&format!("/v2/r{number}/blobs/{digest}")).status(200).body == content, "round {round}");
        }
        thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || client.delete(&format!("/v2/r{number}/blobs/{digest}")).status(202));
            }
        });
        assert_eq!(std::fs::read_dir(registry.root().join("blobs/sha256")).unwrap().count(), 0);
    }
}

/// Pushing and deleting the same blob at the same time must never leave a repository that promises a missing file.
#[test]
fn pushes_race_with_deletions() {
    let registry = Registry::start();
    let client = registry.client();
    let content = b"contended".as_slice();
    let digest = Digest::of(content);
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                let target = format!("/v2/r{number}/blobs/{digest}");
                for _ in 0..30 {
                    client.push_blob(&format!("r{number}"), content);
                    assert_eq!(client.get(&target).status(200).body, content);
                    client.delete(&target).status(202);
                }
            });
        }
    });
    assert!(!registry.root().join("blobs/sha256").join(digest.hex()).exists());
}

#[test]
fn requests_to_one_upload_take_turns() {
    let registry = Registry::start();
    let client = registry.client();
    let location = client.start_upload("a");
    let piece = noise(8, 600_000);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.request("PATCH", &location, &[], &piece).status(202));
        }
    });
    let content = piece.repeat(4);
    let finish = format!("{location}?digest={}", Digest::of(&content));
    client.request("PUT", &finish, &[], b"").status(201);
}

/// Proves: registry-filesystem-storage
#[test]
fn a_directory_has_one_server_and_keeps_everything_over_a_restart() {
    let registry = Registry::start();
    let digest = registry.client().push_image("a/b", "v1", b"layer");
    assert!(Server::bind(&config(registry.root())).unwrap_err().to_string().contains("another registry server"));
    let registry = registry.restart();
    let reply = registry.client().get("/v2/a/b/manifests/v1").status(200);
    assert_eq!(reply.must("docker-content-digest"), digest.to_string());
}

/// No test by itself: the process that [`everything_acknowledged_survives_a_kill`] starts and kills.
#[test]
fn serve_until_killed() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let mut config = config(Path::new(&root));
    if let Ok(rules) = std::env::var(RULES) {
        config.collection = serde_json::from_str(&rules).unwrap();
    }
    let registry = Registry::serve_config(&config);
    println!("\nlistening {}", registry.address.port());
    loop {
        thread::park();
    }
}

fn spawn_server(root: &Path) -> (Child, Client) {
    let (child, client) = spawn_by(Command::new(std::env::current_exe().unwrap()), root);
    (child, client.unwrap())
}

/// A server as a process of its own, started by a command that wants a program and its arguments or is that program.
/// No client when it ended before it listened.
pub(crate) fn spawn_by(mut command: Command, root: &Path) -> (Child, Option<Client>) {
    let mut child = command
        .args(["--exact", "durability::serve_until_killed", "--nocapture"])
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ")?.parse::<u16>().ok());
    (child, port.map(|port| Client { address: ([127, 0, 0, 1], port).into() }))
}

#[test]
fn everything_acknowledged_survives_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let acknowledged = Mutex::new(Vec::new());
    for round in 0..4_u64 {
        let (mut child, client) = spawn_server(root.path());
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            for worker in 0..4_u64 {
                let (killed, acknowledged) = (&killed, &acknowledged);
                scope.spawn(move || {
                    let name = format!("w{worker}");
                    for number in 0.. {
                        let layer = noise(round << 40 | worker << 32 | number, 20_000);
                        let tag = format!("t{round}-{number}");
                        let push = || client.push_image(&name, &tag, &layer);
                        // A broken connection is expected once the server was killed, and only then.
                        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(push)) {
                            Ok(_) => acknowledged.lock().unwrap().push((name.clone(), tag, layer)),
                            Err(_) if killed.load(Ordering::SeqCst) => return,
                            Err(panic) => std::panic::resume_unwind(panic),
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(150 + 70 * round));
            killed.store(true, Ordering::SeqCst);
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }
    let registry = Registry::serve(root.path());
    let client = registry.client();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(!acknowledged.is_empty());
    for (name, tag, layer) in &acknowledged {
        let manifest = client.get(&format!("/v2/{name}/manifests/{tag}")).status(200).body;
        assert_eq!(manifest, image(layer).to_string().as_bytes());
        assert!(client.get(&format!("/v2/{name}/blobs/{}", Digest::of(layer))).status(200).body == *layer);
    }
    let blobs = Blobs::open(&root.path().join("blobs"), &root.path().join("uploads")).unwrap();
    for digest in blobs.list().unwrap() {
        assert!(blobs.verify(&digest).unwrap(), "{digest}");
    }
}
