//! Every category of the distribution specification's conformance: one row each, with the check that proves it. The
//! ids are those of the list of features.

mod api;
mod blob;
mod data;
mod errors;
mod flow;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::client::{Client, Registry};

/// Checks one category against a registry that others use at the same time; it has the repositories to itself whose
/// names begin with its id.
type Check = fn(&Client, &str);

/// Id, what the category is called, check.
type Row = (&'static str, &'static str, Check);

/// How many rows each part of the list has.
const PARTS: &[(&str, usize)] = &[("R2", 28), ("R3", 21), ("R4", 21), ("R5", 14), ("R6", 7)];

fn rows() -> impl Iterator<Item = &'static Row> {
    [api::ROWS, data::ROWS, blob::ROWS, errors::ROWS, flow::ROWS].into_iter().flatten()
}

#[test]
fn no_category_is_missing() {
    let expected: Vec<String> =
        PARTS.iter().flat_map(|(part, count)| (1..=*count).map(move |number| format!("{part}-{number}"))).collect();
    let present: Vec<&str> = rows().map(|(id, ..)| *id).collect();
    assert_eq!(present, expected);
}

/// Proves: R2-1..28, R3-1..21, R4-1..21, R5-1..14, R6-1..7, end-4b, end-11, registry-cross-repo-blob-mount
#[test]
fn every_category_holds() {
    let registry = Registry::configured(|config| config.collection = errors::rules());
    let client = registry.client();
    let mut failed = Vec::new();
    for (id, name, check) in rows() {
        let repository = id.to_lowercase();
        let passed = catch_unwind(AssertUnwindSafe(|| check(&client, &repository))).is_ok();
        println!("{} {id} {name}", if passed { "pass" } else { "FAIL" });
        failed.extend((!passed).then_some(*id));
    }
    assert!(failed.is_empty(), "{failed:?}");
}
