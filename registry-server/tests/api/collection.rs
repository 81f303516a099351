//! The collector, while the server serves: what goes, what stays, and what a push under way may count on.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_registry_server::{CollectionReport, RemovedKind, collect};
use kiln_store::Digest;
use serde_json::{Value, json};

use crate::client::{Client, OCI_IMAGE, OCI_INDEX, Registry, config, descriptor, image};

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// Asks the running server, by its socket.
fn run(registry: &Registry, dry_run: bool) -> CollectionReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(collect(&config(registry.root()), dry_run)).unwrap()
}

fn names(report: &CollectionReport, kind: RemovedKind) -> Vec<String> {
    let mut names: Vec<String> =
        report.removed.iter().filter(|removed| removed.kind == kind).map(|removed| removed.name.clone()).collect();
    names.sort();
    names
}

/// Makes everything look older by so many seconds.
fn age(registry: &Registry, seconds: i64) {
    let database = rusqlite::Connection::open(registry.root().join("registry.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    for (table, column) in [
        ("blob_links", "needed_at"),
        ("manifest_links", "pushed_at"),
        ("manifest_links", "released_at"),
        ("manifest_links", "pulled_at"),
        ("tags", "pushed_at"),
        ("tags", "orphaned_at"),
    ] {
        database.execute(&format!("UPDATE {table} SET {column} = {column} - {seconds}"), []).unwrap();
    }
}

/// A server whose collector only runs when it is asked to.
fn start(rules: Value) -> Registry {
    Registry::configured(|config| {
        config.collection = serde_json::from_value(rules).unwrap();
        config.collection.interval = "0s".parse().unwrap();
    })
}

fn has(client: &Client, target: &str) -> bool {
    client.request("GET", target, &[], b"").status == 200
}

fn file(registry: &Registry, digest: &Digest) -> bool {
    registry.root().join("blobs/sha256").join(digest.hex()).exists()
}

/// Proves: registry-online-gc
#[test]
fn a_blob_without_a_manifest_goes_after_the_grace_period_and_a_dry_run_only_says_so() {
    let registry = start(json!({}));
    let client = registry.client();
    client.push_image("a", "1", b"layer");
    let lost = client.push_blob("a", b"lost");
    let shared = client.push_blob("b", b"layer");
    assert_eq!(run(&registry, false).removed, []);
    age(&registry, 2 * HOUR);
    let planned = run(&registry, true);
    let mut expected = [lost.to_string(), shared.to_string()];
    expected.sort();
    assert_eq!(names(&planned, RemovedKind::Blob), expected);
    assert_eq!((planned.dry_run, planned.blobs, planned.bytes), (true, 2, 4));
    assert!(file(&registry, &lost) && has(&client, &format!("/v2/b/blobs/{shared}")));
    let done = run(&registry, false);
    assert_eq!((done.removed, done.dry_run), (planned.removed, false));
    assert!(!file(&registry, &lost) && file(&registry, &shared));
    assert!(!has(&client, &format!("/v2/a/blobs/{lost}")) && !has(&client, &format!("/v2/b/blobs/{shared}")));
    assert!(has(&client, &format!("/v2/a/blobs/{shared}")) && has(&client, "/v2/a/manifests/1"));
    client.get("/v2/b/tags/list").fails(404, "NAME_UNKNOWN");
    assert_eq!(run(&registry, false).removed, []);
}

#[test]
fn what_was_only_there_for_a_deleted_tag_goes_and_an_overwritten_one_stays() {
    let registry = start(json!({}));
    let client = registry.client();
    let deleted = client.push_image("a", "gone", b"first");
    let overwritten = client.push_image("a", "moves", b"second");
    client.push_image("a", "moves", b"third");
    client.delete("/v2/a/manifests/gone").status(202);
    age(&registry, HOUR / 2);
    assert_eq!(run(&registry, false).removed, []);
    age(&registry, HOUR);
    assert_eq!(names(&run(&registry, false), RemovedKind::Manifest), [deleted.to_string()]);
    // Its layer has a grace period of its own: a push may have been told that it is here.
    assert!(file(&registry, &Digest::of(b"first")));
    age(&registry, 2 * HOUR);
    assert_eq!(names(&run(&registry, false), RemovedKind::Blob), [Digest::of(b"first").to_string()]);
    assert!(!file(&registry, &Digest::of(b"first")));
    assert!(has(&client, &format!("/v2/a/manifests/{overwritten}")));
    age(&registry, 100 * DAY);
    assert_eq!(run(&registry, false).removed, []);

    let registry = registry.restart_configured(|config| {
        config.collection = serde_json::from_value(json!({"untagged": "30d", "interval": "0s"})).unwrap();
    });
    let client = registry.client();
    // Asking for it is a use.
    client.head_of(&format!("/v2/a/manifests/{overwritten}")).status(200);
    assert_eq!(run(&registry, false).removed, []);
    age(&registry, 31 * DAY);
    assert_eq!(names(&run(&registry, false), RemovedKind::Manifest), [overwritten.to_string()]);
    assert!(has(&client, "/v2/a/manifests/moves"));
}

/// Proves: registry-referrers-api
#[test]
fn an_index_keeps_its_images_and_they_their_referrers() {
    let registry = start(json!({}));
    let client = registry.client();
    let child = image(b"layer");
    client.push_image("a", "child", b"layer");
    client.delete("/v2/a/manifests/child").status(202);
    let digest = Digest::of(child.to_string().as_bytes());
    let listed = descriptor(OCI_IMAGE, child.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]});
    client.put_manifest("a", "index", &index).status(201);
    let mut referrer = image(b"layer");
    referrer["subject"] = listed;
    let referrer_digest = Digest::of(referrer.to_string().as_bytes());
    client.put_manifest("a", &referrer_digest.to_string(), &referrer).status(201);
    age(&registry, 10 * DAY);
    assert_eq!(run(&registry, false).removed, []);

    let index_digest = Digest::of(index.to_string().as_bytes());
    client.delete(&format!("/v2/a/manifests/{index_digest}")).status(202);
    assert_eq!(run(&registry, false).removed, []);
    for expected in [digest, referrer_digest] {
        age(&registry, 2 * HOUR);
        assert_eq!(names(&run(&registry, false), RemovedKind::Manifest), [expected.to_string()]);
    }
    age(&registry, 2 * HOUR);
    assert_eq!(run(&registry, false).blobs, 2);
    assert_eq!(fs::read_dir(registry.root().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_blob_that_a_push_was_told_of_stays_until_its_manifest_comes() {
    let registry = start(json!({}));
    let client = registry.client();
    client.push_blob("a", b"{}");
    let layer = client.push_blob("a", b"layer");
    let mounted = client.push_blob("elsewhere", b"mounted");
    age(&registry, 2 * HOUR);
    client.head_of(&format!("/v2/a/blobs/{layer}")).status(200);
    client.head_of(&format!("/v2/a/blobs/{}", Digest::of(b"{}"))).status(200);
    let target = format!("/v2/a/blobs/uploads/?mount={mounted}&from=elsewhere");
    client.request("POST", &target, &[], b"").status(201);
    run(&registry, false);
    assert!(!has(&client, &format!("/v2/elsewhere/blobs/{mounted}")));
    client.put_manifest("a", "1", &image(b"layer")).status(201);
    client.put_manifest("a", "2", &image(b"mounted")).status(201);
    age(&registry, 2 * HOUR);
    assert_eq!(run(&registry, false).removed, []);
}

#[test]
fn an_upload_under_way_keeps_what_was_pushed_before_it() {
    let registry = start(json!({}));
    let client = registry.client();
    client.push_blob("a", b"{}");
    client.push_blob("a", b"first");
    age(&registry, 2 * HOUR);
    // An upload that began three hours ago, and whose bytes still come.
    let begun = client.start_upload("a");
    let id = begun.rsplit('/').next().unwrap();
    let now = u128::from_str_radix(id, 16).unwrap();
    let earlier = format!("{:032x}", now - ((3 * 3_600_000) << 80));
    let uploads = registry.root().join("uploads");
    let name = fs::read_dir(&uploads).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    fs::rename(uploads.join(&name), uploads.join(name.replace(id, &earlier))).unwrap();
    let location = begun.replace(id, &earlier);
    client.request("PATCH", &location, &[], b"sec").status(202);
    assert_eq!(run(&registry, false).removed, []);
    let second = Digest::of(b"second");
    client.request("PUT", &format!("{location}?digest={second}"), &[], b"ond").status(201);
    assert_eq!(run(&registry, false).removed, []);
    client.put_manifest("a", "1", &image(b"first")).status(201);
    client.put_manifest("a", "2", &image(b"second")).status(201);
}

/// Proves: registry-retention-policies
#[test]
fn retention_rules_remove_tags_but_never_protected_ones() {
    let rules = json!({
        "retention": [{"repositories": "ci/**", "keep_last": 2}, {"tags": "pr-*", "keep_for": "7d"}],
        "protected": [{"tags": "latest"}],
        "immutable": [{"repositories": "ci/*", "tags": "v*"}],
    });
    let registry = start(rules);
    let client = registry.client();
    for tag in ["latest", "v1", "one", "two", "three", "four"] {
        client.push_image("ci/app", tag, tag.as_bytes());
        age(&registry, DAY);
    }
    client.push_image("app", "pr-1", b"old");
    client.push_image("app", "1.0", b"release");
    age(&registry, 10 * DAY);
    client.push_image("app", "pr-2", b"new");
    let planned = run(&registry, true);
    assert_eq!(names(&planned, RemovedKind::Tag), ["one", "pr-1", "two"]);
    assert_eq!(run(&registry, false).removed, planned.removed);
    let tags = |repository: &str| client.get(&format!("/v2/{repository}/tags/list")).json()["tags"].clone();
    assert_eq!(tags("ci/app"), json!(["four", "latest", "three", "v1"]));
    assert_eq!(tags("app"), json!(["1.0", "pr-2"]));
    client.delete("/v2/ci/app/manifests/latest").fails(403, "DENIED");
    client.push_image("ci/app", "latest", b"it may move");
    // What the rules let go makes room like anything that was deleted.
    age(&registry, 2 * HOUR);
    assert_eq!(run(&registry, false).manifests, 3);
    age(&registry, 2 * HOUR);
    assert_eq!(run(&registry, false).blobs, 3);
}

/// Proves: registry-retention-policies
#[test]
fn what_is_pulled_is_kept_by_rules_that_say_so_also_after_a_restart() {
    let rules = json!({"retention": [{"keep_pulled_for": "30d", "keep_for": "5d"}], "interval": "0s"});
    let registry = start(rules.clone());
    let client = registry.client();
    for tag in ["by-tag", "by-digest", "asked-for", "never", "long-ago"] {
        client.push_image("a", tag, tag.as_bytes());
    }
    let digest = client.head_of("/v2/a/manifests/by-digest").must("docker-content-digest").to_owned();
    client.get("/v2/a/manifests/long-ago").status(200);
    assert_eq!(run(&registry, false).removed, []);
    age(&registry, 31 * DAY);
    client.get("/v2/a/manifests/by-tag").status(200);
    client.get(&format!("/v2/a/manifests/{digest}")).status(200);
    client.head_of("/v2/a/manifests/asked-for").status(200);
    let registry = registry.restart_configured(|config| config.collection = serde_json::from_value(rules).unwrap());
    age(&registry, 29 * DAY);
    let planned = run(&registry, true);
    assert_eq!(names(&planned, RemovedKind::Tag), ["long-ago", "never"]);
    assert_eq!(run(&registry, false).removed, planned.removed);
    age(&registry, 2 * DAY);
    // One more pull, and it stays; the others had theirs too long ago.
    registry.client().get("/v2/a/manifests/by-tag").status(200);
    assert_eq!(names(&run(&registry, false), RemovedKind::Tag), ["asked-for", "by-digest"]);
}

#[test]
fn signatures_that_are_tags_go_with_what_they_sign() {
    let registry = start(json!({}));
    let client = registry.client();
    let digest = client.push_image("a", "1", b"layer");
    let tag = format!("{}.sig", digest.to_string().replace(':', "-"));
    client.push_image("a", &tag, b"signature");
    client.push_image("signatures", &tag, b"signature");
    age(&registry, 10 * DAY);
    assert_eq!(run(&registry, false).removed, []);
    client.delete(&format!("/v2/a/manifests/{digest}")).status(202);
    age(&registry, 2 * HOUR);
    let done = run(&registry, false);
    assert_eq!(names(&done, RemovedKind::Tag), std::slice::from_ref(&tag));
    assert!(has(&client, &format!("/v2/signatures/manifests/{tag}")));
}

/// Proves: registry-upload-purging
#[test]
fn abandoned_uploads_and_lost_files_go() {
    let registry = start(json!({"uploads": "1d", "grace": "1s"}));
    let client = registry.client();
    let (old, new) = (client.start_upload("a"), client.start_upload("a"));
    client.request("PATCH", &old, &[], b"some").status(202);
    let uploads = registry.root().join("uploads");
    let prefix = old.rsplit('/').next().unwrap().to_owned();
    let abandoned = fs::read_dir(&uploads)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix))
        .unwrap();
    let two_days_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    File::options().write(true).open(&abandoned).unwrap().set_modified(two_days_ago).unwrap();
    let lost = Digest::of(b"of a crash");
    fs::write(registry.root().join("blobs/sha256").join(lost.hex()), b"of a crash").unwrap();
    fs::write(registry.root().join("blobs/sha256/README"), b"not ours").unwrap();
    let kept = client.push_image("a", "1", b"layer");
    std::thread::sleep(Duration::from_millis(2_500));
    let done = run(&registry, false);
    assert_eq!((done.uploads, names(&done, RemovedKind::File)), (1, vec![lost.to_string()]));
    assert_eq!(done.bytes, 4 + 10);
    client.get(&old).fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.get(&new).status(204);
    assert!(!file(&registry, &lost) && Path::new(&registry.root().join("blobs/sha256/README")).exists());
    assert!(has(&client, &format!("/v2/a/manifests/{kept}")) && file(&registry, &Digest::of(b"layer")));
}

/// Proves: registry-offline-gc
#[test]
fn without_a_server_the_collector_runs_by_itself() {
    let registry = start(json!({}));
    registry.client().push_blob("a", b"lost");
    age(&registry, 2 * HOUR);
    let directory = registry.stop();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(collect(&config(directory.path()), false)).unwrap();
    assert_eq!(report.blobs, 1);
}

/// Proves: registry-read-only-mode
#[test]
fn a_read_only_registry_changes_nothing() {
    let registry = start(json!({}));
    let digest = registry.client().push_image("a", "1", b"layer");
    let registry = registry.restart_configured(|config| config.read_only = true);
    let client = registry.client();
    client.get("/v2/a/manifests/1").status(200);
    for (method, target) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PUT", "/v2/a/manifests/2".to_owned()),
        ("DELETE", format!("/v2/a/manifests/{digest}")),
    ] {
        let reply = client.request(method, &target, &[], b"").fails(405, "UNSUPPORTED");
        assert!(reply.json()["errors"][0]["detail"].as_str().unwrap().contains("read-only"));
    }
    assert!(!run(&registry, true).dry_run || has(&client, "/v2/a/manifests/1"));
}
