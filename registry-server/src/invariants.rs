//! What holds for any bytes that a client sends. Fuzzing (`tests/fuzz/run.sh`) looks for those for which it does not.

use crate::access;
use crate::manifest::{self, Manifest};
use crate::name::{Reference, RepositoryName, parse_digest};
use crate::range::{ByteRange, Requested};

/// A range is a part of what there is; a chunk is no longer than it says.
pub fn check_range(header: &str, size: u64) {
    if let Requested::Part(part) = Requested::parse(header, size) {
        assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
    }
    if let Some(chunk) = ByteRange::parse_content_range(header) {
        assert!(chunk.length() > 0, "{chunk:?}");
    }
}

/// A name that is taken leads nowhere else as a path, and is shown as it was given.
pub fn check_name(text: &str) {
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        let harmless = |part: &str| !part.is_empty() && part != "." && part != "..";
        assert!(text.split('/').all(harmless), "{text:?}");
    }
    if let Ok(Some(reference)) = Reference::parse(text) {
        assert_eq!(reference.to_string(), text);
        assert!(!text.contains('/'), "{text:?}");
    }
    if let Ok(digest) = parse_digest(text) {
        assert_eq!(digest.to_string(), text);
    }
    let _ = text.parse::<crate::upload::UploadId>();
}

/// Who a client says that it is, and what it wants.
pub fn check_credentials(bytes: &[u8]) {
    access::check_credentials(bytes);
}

/// A manifest is read, or refused.
pub fn check_manifest(bytes: &[u8], media_type: &str) {
    let parsed = Manifest::parse(bytes, (!media_type.is_empty()).then_some(media_type));
    if parsed.is_ok() {
        let _ = manifest::references(bytes);
        let _ = manifest::annotations(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_kept() {
        for header in ["bytes=0-", "bytes=-5", "bytes=4-3", "bytes=0-18446744073709551615", "0-18446744073709551615"] {
            for size in [0, 1, 5, u64::MAX] {
                check_range(header, size);
            }
        }
        for name in ["a/b", "a/../b", "a//b", "1.0", "sha256:", "..", "_"] {
            check_name(name);
        }
        for header in [&b"Basic YTpi"[..], b"Basic !", b"Bearer a.b.c", b"scope=repository%3Aa%3Apull&x", b"\xff"] {
            check_credentials(header);
        }
        check_manifest(b"{\"schemaVersion\":2}", "");
    }
}
