use kiln_store::Digest;
use serde_json::json;

use super::*;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn blob(text: &str) -> Descriptor {
    Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", text.as_bytes())
}

fn key(number: u8) -> Key {
    [number; 32]
}

fn value(layer: &str) -> Value {
    Value { layer: digest(layer), made: 1_700_000_000_000_000_000, content_key: None }
}

fn document() -> Document {
    let quick = Value { content_key: Some(hex(&key(1))), ..value("a") };
    Document {
        records: vec![
            Record::step(&key(1), &value("a"), "[1/2] RUN a", true),
            Record::step(&key(2), &quick, "[1/2] RUN a", false),
            Record::image(&key(3), "2026-11-21T00:00:00Z"),
        ],
        layers: vec![Content { diff_id: digest("a"), size: 5 }],
        mounts: vec![Mount { name: hex(&key(4)), layer: digest("a") }],
    }
}

#[test]
fn what_is_written_is_read() {
    let bytes = document().encode().expect("bytes");
    let contents = Document::parse(&bytes).expect("a document").read(&[blob("a")]).expect("contents");
    assert_eq!(contents.records[&key(1)].value(), Some(value("a")));
    assert_eq!(contents.records[&key(2)].content_key, Some(hex(&key(1))));
    assert_eq!(contents.records[&key(3)].created.as_deref(), Some("2026-11-21T00:00:00Z"));
    assert_eq!(contents.pieces[&digest("a")].blob, blob("a"));
    assert_eq!(contents.mounts[&hex(&key(4))], digest("a"));

    let manifest = Manifest::of_entry(&document(), vec![blob("a")]).expect("a manifest").encode().expect("bytes");
    let entry = Manifest::parse(&manifest).expect("a manifest").entry().expect("contents");
    assert_eq!(entry.records.len(), 3);
    assert_eq!(manifest, Manifest::parse(&manifest).expect("a manifest").encode().expect("bytes"));
}

#[test]
fn a_description_is_bounded() {
    let record = Record::step(&key(1), &value("a"), &"é".repeat(10_000), false);
    assert_eq!(record.description.chars().count(), DESCRIPTION);
    assert!(record.check().is_some());
}

/// What a hostile cache may say: none of it is believed, and nothing of it is used.
#[test]
fn what_is_malformed_is_refused() {
    let layer = json!({"diffId": digest("a"), "size": 5});
    let step = |key: &str, made: i64| json!({"key": key, "layer": digest("a"), "made": made});
    let good = "0".repeat(64);
    let records = |records: serde_json::Value| json!({"records": records, "layers": [layer]});
    let cases = [
        json!([]),
        json!({"records": 7}),
        json!({"layers": [{"diffId": "sha256:../../../etc", "size": 1}]}),
        json!({"layers": [{"diffId": digest("a"), "size": -1}]}),
        json!({"layers": []}),
        json!({"layers": [layer, layer]}),
        records(json!([step("", 1)])),
        records(json!([step("../../../../etc/passwd", 1)])),
        records(json!([step(&"Z".repeat(64), 1)])),
        records(json!([step(&"A".repeat(64), 1)])),
        records(json!([step(&good, -1)])),
        records(json!([{"key": good}])),
        records(json!([{"key": good, "layer": digest("a")}])),
        records(json!([{"key": good, "layer": digest("a"), "made": 1, "created": "2026-11-21T00:00:00Z"}])),
        records(json!([{"key": good, "created": "yesterday"}])),
        records(json!([{"key": good, "created": "x".repeat(100_000)}])),
        records(json!([{"key": good, "layer": digest("a"), "made": 1, "contentKey": "no key"}])),
        records(json!([{"key": good, "layer": digest("a"), "made": 1, "description": "x".repeat(100_000)}])),
        json!({"layers": [layer], "mounts": [{"name": "../../..", "layer": digest("a")}]}),
        json!({"layers": [layer], "mounts": [{"name": good, "layer": digest("nowhere")}]}),
        json!({"layers": [layer], "records": vec![step(&good, 1); MOST_RECORDS + 1]}),
        json!({"layers": [layer], "mounts": vec![json!({"name": good, "layer": digest("a")}); MOST_MOUNTS + 1]}),
    ];
    for case in cases {
        let text = case.to_string();
        let read = Document::parse(text.as_bytes()).and_then(|document| document.read(&[blob("a")]));
        let shown: String = text.chars().take(200).collect();
        assert!(matches!(read, Err(Error::CacheDocument(_))), "{shown}");
    }
    // Deep nesting ends in an error, not in a stack overflow.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Document::parse(deep.as_bytes()).is_err() && Manifest::parse(deep.as_bytes()).is_err());
}

/// Keys that lead to each other lead nowhere: a lookup follows none.
#[test]
fn records_that_name_each_other_are_only_records() {
    let circle = |own: u8, other: u8| {
        let value = Value { content_key: Some(hex(&key(other))), ..value("a") };
        Record::step(&key(own), &value, "", false)
    };
    let layers = vec![Content { diff_id: digest("a"), size: 5 }];
    let document = Document { records: vec![circle(1, 2), circle(2, 1), circle(3, 3)], layers, mounts: Vec::new() };
    let contents = document.read(&[blob("a")]).expect("contents");
    assert_eq!(contents.records.len(), 3);
    assert_eq!(contents.records[&key(3)].value().map(|value| value.layer), Some(digest("a")));
}
