//! What holds for any bytes that claim to be a layer. Fuzzing (`tests/fuzz/run.sh`) looks for those for which it does not.

use std::fs;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};

use crate::archive::decompress::decompress;
use crate::archive::extract::extract;
use crate::archive::reader::Reader;
use crate::layer;
use crate::store::Privilege;

/// Bytes that a few compressed ones may become here.
const MOST: u64 = 1 << 20;

/// An archive is read to its end, or refused.
pub fn check_archive(bytes: &[u8]) {
    let Ok((_, tar)) = decompress(bytes) else { return };
    let mut reader = Reader::new(BufReader::new(tar.take(MOST)));
    while let Ok(Some(_)) = reader.next_member() {
        if io::copy(&mut reader, &mut io::sink()).is_err() {
            return;
        }
    }
}

/// Nothing that is unpacked leaves the directory that it is unpacked into.
pub fn check_unpacking(bytes: &[u8]) {
    let directory = tempfile::tempdir().and_then(|directory| {
        fs::create_dir(directory.path().join("root"))?;
        fs::write(directory.path().join("beside"), "untouched")?;
        Ok(directory)
    });
    let Ok(directory) = directory else { return };
    let root = directory.path().join("root");
    let opened: Result<OwnedFd, _> = rustix::fs::openat(CWD, &root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let Ok(opened) = opened else { return };
    let _ = extract(bytes.take(MOST), opened, Privilege::Single);
    let beside = fs::read_to_string(directory.path().join("beside")).unwrap_or_default();
    let names = fs::read_dir(directory.path()).map_or(0, Iterator::count);
    assert!(beside == "untouched" && names == 2, "something was written outside");
    // What it may have made unreadable is to go, too.
    if let Ok(parent) = rustix::fs::openat(CWD, directory.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = crate::directory::remove_tree(std::os::fd::AsFd::as_fd(&parent), b"root");
    }
}

/// A list of parts that can be read is written again as it was.
pub fn check_parts(bytes: &[u8]) {
    layer::check_parts(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::header::{Header, Kind};

    #[test]
    fn damaged_archives_are_refused() {
        let mut whole = Vec::new();
        for (path, kind) in [(&b"a/"[..], Kind::Directory), (b"a/b", Kind::Symlink), (b"a/c", Kind::File)] {
            let link: &[u8] = if kind == Kind::Symlink { b"../../beside" } else { b"" };
            let size = if kind == Kind::File { 3 } else { 0 };
            Header { mode: 0o644, link, size, ..Header::bare(path, kind) }.encode(&mut whole);
        }
        whole.extend(b"abc");
        whole.resize(whole.len().next_multiple_of(512) + 1024, 0);
        for place in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[place] ^= 0xff;
            check_archive(&damaged);
            check_archive(&damaged[..place]);
            check_unpacking(&damaged);
            check_parts(&damaged);
        }
    }
}
