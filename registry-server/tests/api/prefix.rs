//! A registry that has only a part of a host: everything is below a path, and every link and header leads there.

use std::collections::BTreeSet;
use std::fs;

use kiln_store::Digest;

use crate::client::{Client, OCI_IMAGE, Registry, image, noise};

const BELOW: &str = "/team/registry";

/// Pushes a blob by an upload, along the addresses that the server gives.
fn push_blob(client: Client, content: &[u8]) {
    let begun = client.request("POST", &format!("{BELOW}/v2/a/blobs/uploads/"), &[], b"").status(202);
    let location = begun.must("location").to_owned();
    assert!(location.starts_with(&format!("{BELOW}/v2/a/blobs/uploads/")), "{location}");
    let sent = client.request("PATCH", &location, &[], content).status(202);
    assert_eq!(sent.must("location"), location);
    let target = format!("{location}?digest={}", Digest::of(content));
    let stored = client.request("PUT", &target, &[], b"").status(201).must("location").to_owned();
    assert!(client.get(&stored).status(200).body == content);
}

/// Every address that a page leads to.
fn links(page: &str) -> BTreeSet<String> {
    let begun = ["href=\"", "src=\"", "action=\""].into_iter().flat_map(|name| page.split(name).skip(1));
    begun.filter_map(|rest| rest.split('"').next()).map(|text| text.replace("&amp;", "&")).collect()
}

/// Proves: registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn everything_is_below_the_prefix_and_every_address_leads_there() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let registry = Registry::configured(|config| {
        config.http.prefix = format!("{BELOW}/").parse().unwrap();
        config.log.access = Some(log.clone());
    });
    let client = registry.client();
    let layer = noise(1, 5_000);
    push_blob(client, b"{}");
    push_blob(client, &layer);
    let manifest = image(&layer).to_string();
    for tag in ["1", "2"] {
        let target = format!("{BELOW}/v2/a/manifests/{tag}");
        let reply = client.request("PUT", &target, &[("Content-Type", OCI_IMAGE)], manifest.as_bytes()).status(201);
        assert_eq!(client.get(reply.must("location")).status(200).body, manifest.as_bytes());
    }
    let first = client.get(&format!("{BELOW}/v2/a/tags/list?n=1")).status(200);
    let next = first.must("link").strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    assert!(next.starts_with(BELOW), "{next}");
    assert_eq!(client.get(&next).status(200).json()["tags"], serde_json::json!(["2"]));

    let mut seen = BTreeSet::new();
    let mut waiting = vec![BELOW.to_owned(), format!("{BELOW}/r/missing")];
    while let Some(target) = waiting.pop() {
        let page = client.get(&target);
        assert_eq!(page.status, if target.ends_with("/r/missing") { 404 } else { 200 }, "{target}");
        if page.must("content-type").starts_with("text/html") {
            waiting.extend(
                links(&String::from_utf8(page.body).unwrap()).into_iter().filter(|link| seen.insert(link.clone())),
            );
        }
    }
    for path in ["", "/", "/page.css", "/copy.js", "/icon.svg", "/r/a", "/r/a:1"] {
        assert!(path.is_empty() || seen.contains(&format!("{BELOW}{path}")), "{path} is not among {seen:?}");
    }
    for path in ["/healthz", "/metrics", "/v2", "/v2/_catalog", "/?q=a"] {
        client.get(&format!("{BELOW}{path}")).status(200);
    }
    for path in ["/", "/v2/", "/healthz", "/team", "/team/registryv2/", "/team/registry2/v2/", "/r/a"] {
        client.get(path).status(404);
    }
    drop(registry);
    assert!(fs::read_to_string(log).unwrap().contains(&format!("\"{BELOW}/v2/a/manifests/1\"")));
}
