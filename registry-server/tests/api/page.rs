//! The web page's HTML: what it shows to whom, and that what was pushed cannot become part of it.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_registry_server::Config;
use kiln_store::Digest;
use serde_json::json;

use crate::client::{Client, OCI_IMAGE, OCI_INDEX, Registry, Reply, descriptor};

/// Pushes an image whose every text is hostile; its digest.
fn push_hostile(client: Client, repository: &str, tag: &str) -> Digest {
    let text = "<script>alert('x')</script>\"'><img src=x>";
    let config = json!({
        "os": "linux", "architecture": text, "created": text, "author": text,
        "config": {"Cmd": [text], "Env": [text], "Labels": {text: text}, "User": text},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [
            {"created_by": format!("RUN /bin/sh -c echo {text} # buildkit")},
            {"created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true},
        ],
    });
    let config = config.to_string().into_bytes();
    client.push_blob(repository, &config);
    client.push_blob(repository, b"layer");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", b"layer")],
        "annotations": {text: text},
    });
    let reply = client.put_manifest(repository, tag, &manifest).status(201);
    reply.must("docker-content-digest").parse().unwrap()
}

#[track_caller]
fn html(reply: Reply) -> String {
    assert!(reply.must("content-type").starts_with("text/html"));
    let policy = reply.must("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = String::from_utf8(reply.body).unwrap();
    assert!(!text.contains("<script>") && !text.contains("<img src=x") && !text.contains(" style="), "{text}");
    text
}

#[test]
fn everything_pushed_is_shown_as_text() {
    let registry = Registry::start();
    let client = registry.client();
    let digest = push_hostile(client, "team/app", "1.0");
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [
            {"mediaType": OCI_IMAGE, "digest": digest.to_string(), "size": 1,
             "platform": {"os": "linux", "architecture": "<b>arm64</b>"}},
            {"mediaType": OCI_IMAGE, "digest": digest.to_string(), "size": 1,
             "platform": {"os": "unknown", "architecture": "unknown"},
             "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        ],
    });
    client.put_manifest("team/app", "multi", &index).status(201);
    let mut signature = crate::client::image(b"layer");
    client.push_blob("team/app", b"{}");
    signature["subject"] = json!({"mediaType": OCI_IMAGE, "digest": digest.to_string(), "size": 1});
    signature["artifactType"] = "application/vnd.example.signature".into();
    client.put_manifest("team/app", "signature", &signature).status(201);

    let list = html(client.get("/").status(200));
    assert!(list.contains("href=\"/r/team/app\"") && list.contains("<td class=\"number\">3</td>"), "{list}");
    let tags = html(client.get("/r/team/app").status(200));
    assert!(tags.contains("href=\"/r/team/app:1.0\"") && tags.contains("kiln pull registry/team/app:1.0"), "{tags}");
    assert!(tags.contains("linux/&lt;b&gt;arm64&lt;/b&gt;"), "{tags}");
    let image = html(client.get("/r/team/app:1.0").status(200));
    for shown in [
        "docker pull registry/team/app:1.0",
        "RUN echo &lt;script&gt;",
        "CMD [&quot;sh&quot;]",
        "application/vnd.example.signature",
        &digest.to_string(),
        "1 layer",
        "1 referrer",
    ] {
        assert!(image.contains(shown), "{shown} is not in\n{image}");
    }
    html(client.get(&format!("/r/team/app@{digest}")).status(200));
    let index = html(client.get("/r/team/app:multi").status(200));
    assert!(index.contains("1 platform<") && index.contains("attestation"), "{index}");

    assert!(html(client.get("/?q=team").status(200)).contains("team/app"));
    assert!(html(client.get("/?q=sign").status(200)).contains("team/app"), "a tag has it");
    let none = html(client.get("/?q=%3Cscript%3Ealert(1)%3C/script%3E").status(200));
    assert!(none.contains("Nothing you can see"), "{none}");
    for path in ["/r/none", "/r/team/app:none", "/r/UPPER", "/r/team/app@sha256:x", "/else", "/r/", "/r/%ff"] {
        html(client.get(path).status(404));
    }
    client.request("POST", "/", &[], b"").status(405);
    for (path, kind) in [("/page.css", "text/css"), ("/copy.js", "text/javascript"), ("/icon.svg", "image/svg+xml")] {
        assert!(client.get(path).status(200).must("content-type").starts_with(kind));
    }
}

#[test]
fn long_lists_come_in_pages() {
    let registry = Registry::start();
    let client = registry.client();
    client.push_image("many/tags", "first", b"layer");
    let manifest = crate::client::image(b"layer");
    for number in 0..105 {
        client.put_manifest("many/tags", &format!("t{number:03}"), &manifest).status(201);
    }
    let page = html(client.get("/r/many/tags").status(200));
    assert!(page.contains("t098") && !page.contains("t099<") && page.contains("?last=t098"), "{page}");
    let rest = html(client.get("/r/many/tags?last=t098").status(200));
    assert!(rest.contains(">t104<") && !rest.contains("More tags"), "{rest}");
}

#[test]
fn readers_see_what_they_may_pull() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let open = Registry::serve(&data);
    for repository in ["public/app", "secret/app"] {
        open.client().push_image(repository, "1", b"layer");
    }
    drop(open);
    let hash = bcrypt::hash("alice's", 4).unwrap();
    let text = format!(
        "[user.alice]\npassword = \"{hash}\"\nallow = {{ \"**\" = [\"pull\"] }}\n[anonymous]\nallow = {{ \"public/*\" = [\"pull\"] }}\n"
    );
    fs::write(directory.path().join("users.toml"), text).unwrap();
    let mut config = Config::new(data);
    config.access.users = Some(directory.path().join("users.toml"));
    let registry = Registry::serve_config(&config);
    let client = registry.client();
    let list = html(client.get("/").status(200));
    assert!(list.contains("public/app") && !list.contains("secret") && list.contains("href=\"/sign-in\""), "{list}");
    assert!(!html(client.get("/?q=secret").status(200)).contains("secret/app"));
    client.get("/r/public/app:1").status(200);
    let (there, not) = (client.get("/r/secret/app").status(401), client.get("/r/secret/no").status(401));
    assert_eq!((there.must("www-authenticate"), &there.body), (not.must("www-authenticate"), &not.body));
    assert!(client.get("/sign-in").status(401).must("www-authenticate").starts_with("Basic"));
    let alice = format!("Basic {}", STANDARD.encode("alice:alice's"));
    let list = html(client.request("GET", "/", &[("Authorization", &alice)], b"").status(200));
    assert!(list.contains("secret/app") && list.contains("alice") && !list.contains("/sign-in"), "{list}");
    client.get("/metrics").status(401);
    client.request("GET", "/metrics", &[("Authorization", &alice)], b"").status(200);
}
