//! Lists: tags, the catalog, referrers.

use serde_json::{Value, json};

use crate::client::{Client, OCI_IMAGE, OCI_INDEX, Registry, image};

fn names(reply: &crate::client::Reply, field: &str) -> Vec<String> {
    serde_json::from_value(reply.json()[field].clone()).unwrap()
}

/// Follows `Link` headers.
fn pages(client: &Client, first: &str, field: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(target) = next {
        let reply = client.get(&target).status(200);
        pages.push(names(&reply, field));
        next = reply.header("link").map(|link| {
            let link = link.strip_suffix(">; rel=\"next\"").unwrap();
            link.strip_prefix('<').unwrap().to_owned()
        });
    }
    pages
}

/// Proves: end-8a, end-8b, registry-tag-list-pagination-catalog
#[test]
fn tags_are_listed_in_order_and_in_pages() {
    let registry = Registry::start();
    let client = registry.client();
    client.get("/v2/a/tags/list").fails(404, "NAME_UNKNOWN");
    client.push_blob("a", b"{}");
    assert_eq!(client.get("/v2/a/tags/list").status(200).json(), json!({"name": "a", "tags": []}));
    for tag in ["v2", "v10", "V1", "latest", "_x"] {
        client.push_image("a", tag, b"layer");
    }
    let all = ["V1", "_x", "latest", "v10", "v2"];
    assert_eq!(names(&client.get("/v2/a/tags/list"), "tags"), all);
    assert_eq!(pages(&client, "/v2/a/tags/list?n=2", "tags").concat(), all);
    assert_eq!(pages(&client, "/v2/a/tags/list?n=2", "tags").len(), 3);
    assert_eq!(pages(&client, "/v2/a/tags/list?n=5", "tags").len(), 1);
    assert_eq!(names(&client.get("/v2/a/tags/list?last=latest"), "tags"), ["v10", "v2"]);
    assert_eq!(names(&client.get("/v2/a/tags/list?last=m&n=1"), "tags"), ["v10"]);
    let none = client.get("/v2/a/tags/list?n=0").status(200);
    assert!(names(&none, "tags").is_empty() && none.header("link").is_none());
    assert_eq!(names(&client.get("/v2/a/tags/list?n=18446744073709551615"), "tags"), all);
    client.get("/v2/a/tags/list?n=many").status(400);
    client.get("/v2/a/tags/list?n=-1").status(400);
}

/// Proves: registry-tag-list-pagination-catalog
#[test]
fn the_catalog_has_repositories_with_manifests() {
    let registry = Registry::start();
    let client = registry.client();
    assert_eq!(client.get("/v2/_catalog").status(200).json(), json!({"repositories": []}));
    client.push_blob("blobs/only", b"x");
    let mut last = None;
    for name in ["b", "a/x", "c"] {
        last = Some(client.push_image(name, "latest", b"layer"));
    }
    assert_eq!(pages(&client, "/v2/_catalog?n=2", "repositories").concat(), ["a/x", "b", "c"]);
    client.delete(&format!("/v2/b/manifests/{}", last.unwrap())).status(202);
    assert_eq!(names(&client.get("/v2/_catalog"), "repositories"), ["a/x", "c"]);
}

/// Proves: end-12a, end-12b, registry-referrers-api
#[test]
fn referrers_are_found_by_their_subject_and_filtered() {
    let registry = Registry::start();
    let client = registry.client();
    let subject = client.push_image("a", "subject", b"layer");
    let target = format!("/v2/a/referrers/{subject}");
    let reply = client.get(&target).status(200);
    assert_eq!(reply.must("content-type"), OCI_INDEX);
    assert_eq!(reply.json(), json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}));
    assert_eq!(client.get(&format!("/v2/unheard/referrers/{subject}")).status(200).json()["manifests"], json!([]));
    client.get("/v2/a/referrers/sha256:bad").fails(400, "DIGEST_INVALID");

    let descriptor = json!({"mediaType": OCI_IMAGE, "digest": subject.to_string(), "size": 1});
    let mut signature = image(b"layer");
    signature["subject"] = descriptor.clone();
    signature["artifactType"] = "application/vnd.example+signature".into();
    signature["annotations"] = json!({"by": "somebody"});
    let reply = client.put_manifest("a", "signature", &signature).status(201);
    assert_eq!(reply.must("oci-subject"), subject.to_string());
    let signature_digest = reply.must("docker-content-digest").to_owned();
    let mut plain = image(b"layer");
    plain["subject"] = descriptor.clone();
    client.put_manifest("a", "plain", &plain).status(201);
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": descriptor});
    client.put_manifest("a", "index", &index).status(201);

    let found = client.get(&target).status(200);
    assert!(found.header("oci-filters-applied").is_none());
    let found = found.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(found.len(), 3);
    let by_type = |artifact_type: &Value| found.iter().find(|found| found["artifactType"] == *artifact_type).unwrap();
    let expected = json!({
        "mediaType": OCI_IMAGE, "digest": signature_digest, "size": signature.to_string().len(),
        "artifactType": "application/vnd.example+signature", "annotations": {"by": "somebody"},
    });
    assert_eq!(*by_type(&signature["artifactType"]), expected);
    by_type(&json!("application/vnd.oci.image.config.v1+json"));
    assert_eq!(by_type(&Value::Null)["mediaType"], OCI_INDEX);

    let filtered = client.get(&format!("{target}?artifactType=application%2Fvnd.example%2Bsignature")).status(200);
    assert_eq!(filtered.must("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"], json!([expected]));

    client.delete(&format!("/v2/a/manifests/{signature_digest}")).status(202);
    assert_eq!(client.get(&target).json()["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn many_referrers_come_in_pages() {
    let registry = Registry::start();
    let client = registry.client();
    let subject = client.push_image("a", "subject", b"layer");
    for number in 0..12 {
        let mut referrer = image(b"layer");
        referrer["subject"] = json!({"mediaType": OCI_IMAGE, "digest": subject.to_string(), "size": 1});
        referrer["artifactType"] = "a/b+c".into();
        referrer["annotations"] = json!({"number": number.to_string(), "large": "x".repeat(1 << 20)});
        client.put_manifest("a", &format!("t{number}"), &referrer).status(201);
    }
    let mut found = Vec::new();
    let mut next = Some(format!("/v2/a/referrers/{subject}?artifactType=a%2Fb%2Bc"));
    let mut requests = 0;
    while let Some(target) = next {
        let reply = client.get(&target).status(200);
        assert_eq!(reply.must("oci-filters-applied"), "artifactType");
        found.extend(reply.json()["manifests"].as_array().unwrap().clone());
        next = reply.header("link").map(|link| link[1..].split('>').next().unwrap().to_owned());
        requests += 1;
    }
    assert_eq!((found.len(), requests), (12, 4));
    found.dedup();
    assert_eq!(found.len(), 12);
}
