//! What holds for any bytes that a registry, an archive or a person sends. Fuzzing (`tests/fuzz/run.sh`) looks for
//! those for which it does not.

use std::io::{self, Read};

use kiln_store::Digest;

use crate::archive::entries::Entries;
use crate::manifest::Document;
use crate::manifest::links::Links;
use crate::{ImageConfig, Platform, Reference, registry};

/// Bytes of an archive that are looked at.
const MOST: u64 = 1 << 20;

/// A manifest or config is read, or refused; what is taken for an image or an index is one by both readings.
pub fn check_document(bytes: &[u8]) {
    let links = Links::parse(bytes, "", "m");
    match Document::parse(bytes, "m") {
        Ok(Document::Manifest(manifest)) => {
            let again = serde_json::to_vec(&manifest).ok().and_then(|bytes| Document::parse(&bytes, "m").ok());
            assert!(matches!(again, Some(Document::Manifest(same)) if same == manifest), "another manifest");
        }
        Ok(Document::Index(index)) => {
            let named = links.map(|links| links.manifests.len());
            assert!(named.is_ok_and(|named| named == index.manifests.len()), "its entries are not what it names");
            let _ = index.candidates(&Platform::host());
        }
        Err(_) => {}
    }
    let _ = ImageConfig::from_bytes(bytes, &Digest::of(bytes));
}

/// A name that is taken is taken again as it is shown, for the same.
pub fn check_reference(text: &str) {
    if let Ok(reference) = Reference::parse(text) {
        for shown in [reference.to_string(), reference.familiar()] {
            assert!(Reference::parse(&shown).is_ok_and(|again| again == reference), "{text:?} is shown as {shown:?}");
        }
    }
    if let Ok(platform) = Platform::parse(text) {
        let shown = platform.to_string();
        assert!(Platform::parse(&shown).is_ok_and(|again| again == platform), "{text:?} is shown as {shown:?}");
    }
}

/// What a registry says of who may, of where things are and of what went wrong.
pub fn check_answer(bytes: &[u8]) {
    registry::check_answer(bytes);
}

/// The entries of an image archive are read to their end, or refused.
pub fn check_archive(bytes: &[u8]) {
    let mut input = bytes.take(MOST);
    let mut entries = Entries::new(&mut input);
    while let Ok(Some(_)) = entries.next() {
        if io::copy(&mut entries, &mut io::sink()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_answers_are_read() {
        check_answer(b"Bearer realm=\"https://a.example/t\", service=\"\\\"\", Basic, =,\"");
        check_answer(b"<//b.example/v2/>; rel=\"next\"");
        check_answer(b"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"a\\u001b[2Jb\"}]}");
        check_document(b"{\"schemaVersion\":2,\"manifests\":[]}");
        check_document(b"{\"schemaVersion\":2,\"config\":{},\"layers\":[]}");
        for name in ["a", "a/b:c", "localhost:5000/a@sha256:", "linux/arm64/v8", "docker.io/library/x"] {
            check_reference(name);
        }
        check_archive(&[0; 1024]);
    }
}
