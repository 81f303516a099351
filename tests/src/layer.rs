//! A root file system as plain data: layers applied in memory, with whiteouts, as the OCI image specification says.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Component, Path},
    rc::Rc,
};

use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// The SHA-256 of its content, hexadecimal.
        sha256: String,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: String,
    },
    /// A character device.
    CharacterDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since the epoch.
    pub mtime: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Paths, without a leading slash, and what they are. Hard links share their node.
#[derive(Debug, Clone, Default)]
pub struct Filesystem {
    nodes: BTreeMap<String, Rc<Node>>,
}

impl Filesystem {
    /// The node at a path; a leading slash is ignored.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path.trim_start_matches('/')).map(Rc::as_ref)
    }

    /// Every path.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The other paths of the same file.
    pub fn hard_links(&self, path: &str) -> Vec<&str> {
        let Some(node) = self.nodes.get(path) else { return Vec::new() };
        if Rc::strong_count(node) == 1 {
            return Vec::new();
        }
        let others = self.nodes.iter().filter(|(other, candidate)| *other != path && Rc::ptr_eq(candidate, node));
        others.map(|(other, _)| other.as_str()).collect()
    }

    /// Applies one layer: a tar, plain or compressed with gzip or zstd.
    pub fn apply(&mut self, layer: &[u8]) -> io::Result<()> {
        let mut archive = Archive::new(decompress(layer)?);
        // Whiteouts hide what lower layers have, never what this layer brings, whatever the order of its entries.
        let lower: Vec<String> = self.nodes.keys().cloned().collect();
        let mut brought = BTreeMap::new();
        let mut hidden = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = normal(&entry.path()?);
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                hidden.push((parent.to_owned(), true));
            } else if let Some(name) = name.strip_prefix(".wh.") {
                hidden.push((join(parent, name), false));
            } else if !path.is_empty() {
                let node = self.node(&mut entry, &brought)?;
                brought.insert(path, node);
            }
        }
        for (path, opaque) in hidden {
            self.hide(&lower, &path, opaque);
        }
        for (path, node) in brought {
            if node.kind != Kind::Directory {
                // A file over a directory hides all of it.
                self.hide(&lower, &path, false);
            }
            self.nodes.insert(path, node);
        }
        Ok(())
    }

    fn hide(&mut self, lower: &[String], path: &str, only_inside: bool) {
        let inside = if path.is_empty() { String::new() } else { format!("{path}/") };
        for name in lower {
            if name.starts_with(&inside) || (!only_inside && name == path) {
                self.nodes.remove(name);
            }
        }
    }

    fn node<R: Read>(&self, entry: &mut Entry<'_, R>, brought: &BTreeMap<String, Rc<Node>>) -> io::Result<Rc<Node>> {
        let header = entry.header();
        let link = entry.link_name()?.map(|target| target.to_string_lossy().into_owned());
        let kind = match header.entry_type() {
            EntryType::Link => {
                let target = normal(Path::new(&link.unwrap_or_default()));
                let node = brought.get(&target).or_else(|| self.nodes.get(&target));
                return node.cloned().ok_or_else(|| io::Error::other(format!("hard link to {target}, which is not")));
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink { target: link.unwrap_or_default() },
            EntryType::Char => Kind::CharacterDevice {
                major: header.device_major()?.unwrap_or(0),
                minor: header.device_minor()?.unwrap_or(0),
            },
            EntryType::Block => Kind::BlockDevice {
                major: header.device_major()?.unwrap_or(0),
                minor: header.device_minor()?.unwrap_or(0),
            },
            EntryType::Fifo => Kind::Fifo,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => hash(entry)?,
            other => return Err(io::Error::other(format!("an entry of type {other:?}"))),
        };
        let header = entry.header();
        let (mode, uid, gid, mtime) = (header.mode()? & 0o7777, header.uid()?, header.gid()?, header.mtime()?);
        let (uid, gid, xattrs) = extensions(entry, uid, gid)?;
        Ok(Rc::new(Node { kind, mode, uid, gid, mtime, xattrs }))
    }
}

/// Owner ids too large for the header, and extended attributes, from the PAX records.
fn extensions<R: Read>(
    entry: &mut Entry<'_, R>,
    mut uid: u64,
    mut gid: u64,
) -> io::Result<(u64, u64, BTreeMap<String, Vec<u8>>)> {
    let mut xattrs = BTreeMap::new();
    if let Some(records) = entry.pax_extensions()? {
        for record in records {
            let record = record?;
            let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
            let number = || String::from_utf8_lossy(record.value_bytes()).parse().map_err(io::Error::other);
            match key.as_str() {
                "uid" => uid = number()?,
                "gid" => gid = number()?,
                other => {
                    if let Some(name) = other.strip_prefix("SCHILY.xattr.") {
                        xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                    }
                }
            }
        }
    }
    Ok((uid, gid, xattrs))
}

fn hash(content: &mut impl Read) -> io::Result<Kind> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    Ok(Kind::File { size, sha256: hex(&hasher.finalize()) })
}

/// The SHA-256 of some bytes, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn decompress(bytes: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    Ok(match bytes {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(bytes)?),
        _ => Box::new(bytes),
    })
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// `./a//b/` and `/a/b` are `a/b`.
fn normal(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            if matches!(kind, EntryType::Link | EntryType::Symlink) {
                header.set_size(0);
                builder.append_link(&mut header, path, text).unwrap();
            } else {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn whiteouts_hide_lower_layers_only() {
        let mut root = Filesystem::default();
        root.apply(&layer(&[
            ("d", EntryType::Directory, ""),
            ("d/old", EntryType::Regular, "1"),
            ("gone", EntryType::Regular, "2"),
            ("tree", EntryType::Directory, ""),
            ("tree/x", EntryType::Regular, "3"),
        ]))
        .unwrap();
        root.apply(&layer(&[
            ("d/new", EntryType::Regular, "4"),
            ("d/.wh..wh..opq", EntryType::Regular, ""),
            (".wh.gone", EntryType::Regular, ""),
            ("tree", EntryType::Regular, "a file now"),
        ]))
        .unwrap();
        assert_eq!(root.paths().collect::<Vec<_>>(), ["d", "d/new", "tree"]);
    }

    #[test]
    fn hard_links_share_a_node() {
        let mut root = Filesystem::default();
        root.apply(&layer(&[
            ("a", EntryType::Regular, "1"),
            ("b", EntryType::Link, "a"),
            ("c", EntryType::Regular, "1"),
        ]))
        .unwrap();
        assert_eq!(root.hard_links("a"), ["b"]);
        assert!(root.hard_links("c").is_empty());
    }
}
