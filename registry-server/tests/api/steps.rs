//! The order of what a push does to the disk, seen by `strace`: it is killed at every step, and no answer comes before
//! the bytes and their names are safe. And a disk that is full.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use kiln_registry_server::collect;
use kiln_store::Digest;

use crate::client::{Client, Registry, config, image, noise};
use crate::durability::spawn_by;

/// Calls that change what survives.
const STEPS: &str = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,ftruncate";

/// A server under `strace`, with these arguments; the process is the server's own.
fn traced(root: &Path, arguments: &[&str]) -> (Child, Option<Client>) {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-D"]).args(arguments).arg(std::env::current_exe().unwrap());
    spawn_by(strace, root)
}

fn end(mut child: Child) {
    drop(child.kill());
    child.wait().unwrap();
}

/// Pushes an image; whether its manifest was acknowledged.
fn push(client: &Client, tag: &str, layer: &[u8]) -> Option<()> {
    for content in [b"{}".as_slice(), layer] {
        let target = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(content));
        (client.attempt("POST", &target, &[], content)?.status == 201).then_some(())?;
    }
    let target = format!("/v2/a/manifests/{tag}");
    let media_type = [("Content-Type", crate::client::OCI_IMAGE)];
    let bytes = image(layer).to_string();
    (client.attempt("PUT", &target, &media_type, bytes.as_bytes())?.status == 201).then_some(())
}

#[test]
fn killed_at_every_step_it_keeps_what_was_acknowledged_and_nothing_half_done() {
    let root = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut survived = 0;
    for step in 1.. {
        let injection = format!("inject={STEPS}:signal=KILL:when={step}");
        let trace = format!("trace={STEPS}");
        let (child, client) = traced(root.path(), &["-o", "/dev/null", "-e", &trace, "-e", &injection]);
        let layer = noise(step, 40_000);
        let tag = format!("t{step}");
        let pushed = client.and_then(|client| {
            push(&client, &tag, &layer)?;
            acknowledged.push((tag, layer));
            // A deletion has steps, too.
            client.attempt("DELETE", &format!("/v2/a/blobs/{}", Digest::of(b"{}")), &[], b"")
        });
        end(child);
        let registry = Registry::serve(root.path());
        let client = registry.client();
        for (tag, layer) in &acknowledged {
            let manifest = client.get(&format!("/v2/a/manifests/{tag}")).status(200).body;
            assert_eq!(manifest, image(layer).to_string().as_bytes(), "killed at step {step}");
            let blob = client.get(&format!("/v2/a/blobs/{}", Digest::of(layer))).status(200).body;
            assert!(blob == *layer, "killed at step {step}");
        }
        drop(registry);
        survived += usize::from(pushed.is_some());
        if survived == 3 {
            assert!(step > 5, "no step was seen");
            break;
        }
        assert!(step < 200, "the steps do not end");
    }
    // Of the pushes that were cut off, nothing stays.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut config = config(root.path());
    config.collection = serde_json::from_str(r#"{"grace": "0s", "uploads": "0s", "interval": "0s"}"#).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    runtime.block_on(collect(&config, false)).unwrap();
    let files = fs::read_dir(root.path().join("blobs/sha256")).unwrap().count();
    assert!((acknowledged.len()..=acknowledged.len() + 1).contains(&files), "{files} of {}", acknowledged.len());
    assert_eq!(fs::read_dir(root.path().join("uploads")).unwrap().count(), 0);
}

/// The calls of a trace, each where it ended.
fn calls(trace: &str) -> Vec<String> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.trim_start().split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix("<unfinished ...>") {
            // An answer counts from when it begins to be sent.
            if first.contains("HTTP/1.1") {
                calls.push(first.to_owned());
            }
            begun.insert(thread, first);
        } else if call.starts_with("<... ") {
            calls.push(begun.remove(thread).unwrap_or_default().to_owned());
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

#[test]
fn bytes_are_on_the_disk_before_their_names_and_both_before_the_answer() {
    let root = tempfile::tempdir().unwrap();
    let trace = root.path().join("trace");
    let data = root.path().join("data");
    let set = "trace=fsync,fdatasync,rename,renameat,renameat2,write,writev,sendto,sendmsg";
    let (child, client) = traced(&data, &["-y", "-s", "16", "-o", trace.to_str().unwrap(), "-e", set]);
    let digest = client.unwrap().push_blob("a", b"traced");
    end(child);
    let read = || fs::read_to_string(&trace).unwrap();
    while !read().contains("killed by SIGKILL") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let calls = calls(&read());
    let after = |start: usize, what: &[&str]| {
        let found = calls[start..].iter().position(|call| what.iter().all(|part| call.contains(part)));
        start + found.unwrap_or_else(|| panic!("no {what:?} after {start} in {calls:#?}"))
    };
    let bytes = after(0, &["sync(", "/uploads/"]);
    let name = after(bytes, &["rename", "/uploads/", &digest.hex()]);
    let directory = after(name, &["fsync(", "/blobs/sha256>"]);
    let row = after(directory, &["sync(", "registry.db-wal>"]);
    let answer = after(0, &["HTTP/1.1 201"]);
    assert!(row < answer, "{calls:#?}");
}

/// A server whose directory is a small disk of its own.
fn on_small_disk(root: &Path) -> (Child, Client) {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=28m tmpfs \"$0\" && exec \"$@\""]).arg(root);
    command.arg(std::env::current_exe().unwrap());
    let (child, client) = spawn_by(command, root);
    (child, client.unwrap())
}

#[test]
fn a_full_disk_is_said_to_be_full_and_harms_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (child, client) = on_small_disk(root.path());
    let layer = noise(1, 1_000_000);
    client.push_image("a", "1", &layer);
    let upload = |content: &[u8]| {
        let target = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(content));
        client.request("POST", &target, &[], content)
    };
    let huge = noise(2, 30_000_000);
    let reply = upload(&huge).fails(507, "UNKNOWN");
    assert!(reply.json()["errors"][0]["message"].as_str().unwrap().contains("disk is full"));
    // An upload keeps what came before, and gives back what found no room.
    let location = client.start_upload("a");
    client.request("PATCH", &location, &[], &huge[..1_000]).status(202);
    client.request("PATCH", &location, &[], &huge[1_000..]).fails(507, "UNKNOWN");
    assert_eq!(client.get(&location).status(204).must("range"), "0-999");
    client
        .request("PUT", &format!("{location}?digest={}", Digest::of(&huge[..3_000])), &[], &huge[1_000..3_000])
        .status(201);

    let mut stored = Vec::new();
    for seed in 10.. {
        let content = noise(seed, 1_000_000);
        match upload(&content).status {
            201 => stored.push(Digest::of(&content)),
            507 => break,
            status => panic!("{status}"),
        }
        assert!(seed < 100, "the disk never fills");
    }
    assert!(!stored.is_empty());
    assert_eq!(client.get("/v2/a/manifests/1").status(200).body, image(&layer).to_string().as_bytes());
    assert!(client.get(&format!("/v2/a/blobs/{}", Digest::of(&layer))).status(200).body == layer);
    // One can delete one's way out of it.
    stored.drain(..3).for_each(|digest| drop(client.delete(&format!("/v2/a/blobs/{digest}")).status(202)));
    upload(&noise(999, 1_000_000)).status(201);
    client.put_manifest("a", "2", &image(&layer)).status(201);
    for digest in stored {
        client.get(&format!("/v2/a/blobs/{digest}")).status(200);
    }
    end(child);
}

/// Writes into the small disk until not another byte fits. The file goes with the disk.
fn fill_up(namespace: &Path, root: &Path) {
    let outside = namespace.join("root").join(root.strip_prefix("/").unwrap());
    let mut filler = fs::File::options().create(true).append(true).open(outside.join("filler")).unwrap();
    for size in [1 << 20, 4096, 1] {
        while std::io::Write::write_all(&mut filler, &vec![1; size]).is_ok() {}
    }
}

#[test]
fn what_others_filled_is_emptied_by_deletions_before_and_after_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let (child, client) = on_small_disk(root.path());
    let process = |child: &Child| Path::new("/proc").join(child.id().to_string());
    // The disk lasts as long as somebody holds its namespace.
    let disk = fs::File::open(process(&child).join("ns/mnt")).unwrap();
    let digests: Vec<Digest> =
        (0..6).map(|seed| client.push_image("a", &format!("t{seed}"), &noise(seed, 500_000))).collect();
    let blob = |client: &Client, seed: u64| {
        client.delete(&format!("/v2/a/blobs/{}", Digest::of(&noise(seed, 500_000)))).status(202);
    };
    let is_full = |client: &Client| {
        client.put_manifest("a", "new", &image(&noise(5, 500_000))).fails(507, "UNKNOWN");
    };
    fill_up(&process(&child), root.path());
    is_full(&client);
    // What makes no room by itself, over and over, and what does.
    client.delete("/v2/a/manifests/t0").status(202);
    client.delete("/v2/a/manifests/t1").status(202);
    client.delete(&format!("/v2/a/manifests/{}", digests[0])).status(202);
    // The database's log may have given a little back.
    fill_up(&process(&child), root.path());
    is_full(&client);
    client.delete(&format!("/v2/a/manifests/{}", digests[1])).status(202);
    blob(&client, 0);
    client.put_manifest("a", "roomy", &image(&noise(5, 500_000))).status(201);
    fill_up(&process(&child), root.path());
    is_full(&client);
    end(child);

    // Nor does a start need room.
    let mut enter = Command::new("nsenter");
    enter.arg(format!("--mount=/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&disk)));
    enter.arg(std::env::current_exe().unwrap());
    let (child, client) = spawn_by(enter, root.path());
    let client = client.expect("it starts on a full disk");
    client.get(&format!("/v2/a/manifests/{}", digests[0])).status(404);
    client.delete("/v2/a/manifests/t2").status(202);
    client.delete(&format!("/v2/a/manifests/{}", digests[2])).status(202);
    blob(&client, 1);
    blob(&client, 2);
    client.put_manifest("a", "after", &image(&noise(5, 500_000))).status(201);
    assert!(
        client.get(&format!("/v2/a/blobs/{}", Digest::of(&noise(4, 500_000)))).status(200).body == noise(4, 500_000)
    );
    end(child);
}
