use super::*;
use crate::Store;
use crate::store::Privilege;

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), Privilege::Single).unwrap();
    (root, store)
}

fn image(seed: &str, added: i64) -> ImageRecord {
    ImageRecord {
        id: Digest::of(seed.as_bytes()),
        manifest: Some(Digest::of(format!("manifest {seed}").as_bytes())),
        layers: vec![Digest::of(b"1"), Digest::of(b"2")],
        added,
    }
}

#[test]
fn images_are_found_by_every_name() {
    let (_root, store) = store();
    let (old, new) = (image("old", 1), ImageRecord { manifest: None, layers: Vec::new(), ..image("new", 2) });
    store.put_image(&old).unwrap();
    store.put_image(&new).unwrap();
    store.put_image(&new).unwrap();
    assert_eq!(store.images().unwrap(), [new, old.clone()]);
    assert_eq!(store.image(&old.id).unwrap().as_ref(), Some(&old));
    assert_eq!(store.image_by_manifest(&old.manifest.unwrap()).unwrap().as_ref(), Some(&old));
    assert_eq!(store.images_by_prefix(&old.id.hex()[..8]).unwrap(), std::slice::from_ref(&old));
    assert_eq!(store.images_by_prefix("").unwrap().len(), 2);
    for nonsense in ["%", "_", "zz", "'"] {
        assert!(store.images_by_prefix(nonsense).unwrap().is_empty());
    }
    assert!(store.remove_image(&old.id).unwrap() && !store.remove_image(&old.id).unwrap());
    assert_eq!(store.image(&old.id).unwrap(), None);
}

#[test]
fn references_move_and_tell_where_they_were() {
    let (root, store) = store();
    let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
    assert_eq!(store.set_reference("b:1", &first).unwrap(), None);
    assert_eq!(store.set_reference("b:1", &second).unwrap(), Some(first));
    store.set_reference("a:1", &first).unwrap();
    // Another process sees it.
    let other = Store::open(root.path(), Privilege::Single).unwrap();
    assert_eq!(other.references().unwrap(), [("a:1".to_owned(), first), ("b:1".to_owned(), second)]);
    assert_eq!(other.remove_reference("b:1").unwrap(), Some(second));
    assert_eq!((store.reference("b:1").unwrap(), store.remove_reference("b:1").unwrap()), (None, None));
}

#[test]
fn cache_records_by_key_and_by_step() {
    let (_root, store) = store();
    let record = |key: u8, value: &str| CacheRecord {
        key: [key; 32],
        step: "RUN make".to_owned(),
        parts: vec![1, 2],
        value: value.into(),
        layer: Some(Digest::of(b"layer")),
        description: "make".to_owned(),
        created: 5,
    };
    store.put_cache_record(&record(1, "first")).unwrap();
    store.put_cache_record(&record(2, "second")).unwrap();
    assert_eq!(store.cache_record(&[1; 32]).unwrap(), Some(record(1, "first")));
    store.put_cache_record(&record(1, "third")).unwrap();
    let other = CacheRecord { key: [3; 32], step: "RUN other".to_owned(), ..record(3, "other") };
    store.put_cache_record(&other).unwrap();
    assert_eq!(store.cache_record(&[1; 32]).unwrap(), Some(record(1, "third")));
    assert_eq!(store.step_records("RUN make", 9).unwrap().len(), 2);
    let steps: Vec<String> = store.step_records("RUN", 2).unwrap().into_iter().map(|record| record.step).collect();
    assert_eq!(steps, ["RUN other", "RUN make"]);
    assert_eq!(store.cache_record(&[9; 32]).unwrap(), None);
    assert_eq!(store.cached_layers().unwrap(), [Digest::of(b"layer")]);
}

#[test]
fn a_hit_is_written_down_at_most_once_a_minute() {
    let (_root, store) = store();
    let key = [3; 32];
    let record = CacheRecord {
        key,
        step: String::new(),
        parts: vec![],
        value: vec![],
        layer: None,
        description: String::new(),
        created: 0,
    };
    store.put_cache_record(&record).unwrap();
    let last_used = || -> i64 {
        store.database.lock().query_row("SELECT last_used FROM cache_records", [], |row| row.get(0)).unwrap()
    };
    for (age, written) in [(10, false), (100, true)] {
        let before = now() - age;
        store.database.lock().execute("UPDATE cache_records SET last_used = ?1", [before]).unwrap();
        store.cache_record(&key).unwrap();
        assert_eq!(last_used() != before, written);
    }
}

#[test]
fn fingerprints_are_kept_as_they_are() {
    let (_root, store) = store();
    assert_eq!(store.fingerprints("/tree").unwrap(), None);
    store.put_fingerprints("/tree", b"1").unwrap();
    store.put_fingerprints("/tree", &[0, 255]).unwrap();
    assert_eq!(store.fingerprints("/tree").unwrap(), Some(vec![0, 255]));
}

#[test]
fn a_newer_schema_is_left_alone() {
    let (root, store) = store();
    store.database.lock().pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let again = Store::open(root.path(), Privilege::Single);
    assert!(matches!(again.err(), Some(Error::NewerSchema { found: 99, .. })));
}

/// Marks alone make nobody wait for the disk, are not lost, and do not make the log grow.
#[test]
fn marks_stay_in_the_log_until_something_else_is_written() {
    let (root, store) = store();
    let log = || std::fs::metadata(root.path().join("metadata.db-wal")).map_or(0, |log| log.len());
    let reopen = |store: Store| {
        drop(store);
        Store::open(root.path(), Privilege::Single).unwrap()
    };
    let record = |key: u8| CacheRecord {
        key: [key; 32],
        step: String::new(),
        parts: Vec::new(),
        value: vec![key; 10_000],
        layer: None,
        description: String::new(),
        created: 1,
    };
    let keys = 0..4;
    keys.clone().for_each(|key| store.put_cache_record(&record(key)).unwrap());
    drop(store);
    assert_eq!(log(), 0);
    let mut store = Store::open(root.path(), Privilege::Single).unwrap();
    let mut longest = 0;
    for round in 1..40_i64 {
        // As if the last use were long ago; that is no mark.
        store.database.lock().execute("UPDATE cache_records SET last_used = 1", []).unwrap();
        store.database.marked(keys.len());
        keys.clone().for_each(|key| drop(store.cache_record(&[key; 32]).unwrap().unwrap()));
        store = reopen(store);
        longest = longest.max(log());
        let select = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let sql = "SELECT min(uses), min(last_used) FROM cache_records";
        let (uses, used) = store.database.lock().query_row(sql, [], select).unwrap();
        assert!(uses == 1 + round && used > 1, "{uses} {used}");
    }
    assert!(longest > 100_000 && longest <= LONGEST_LOG, "{longest}");
    store.put_cache_record(&record(1)).unwrap();
    drop(store);
    assert_eq!(log(), 0);
}
