//! Following symlinks inside a snapshot.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Kind, Node, Snapshot};
use crate::{Error, Result};

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

pub(super) fn resolve(snapshot: &Snapshot, path: &Path, follow_last: bool) -> Result<(PathBuf, Option<Node>)> {
    let mut pending = components(path.as_os_str().as_bytes());
    let mut real: Vec<u8> = Vec::new();
    let mut node = snapshot.find(b"")?;
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == b".." {
            real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            node = snapshot.find(&real)?;
            continue;
        }
        if node.as_ref().is_some_and(|node| node.kind != Kind::Directory) {
            return Err(Error::NotADirectory(PathBuf::from(OsStr::from_bytes(&real))));
        }
        let above = real.len();
        if !real.is_empty() {
            real.push(b'/');
        }
        real.extend_from_slice(&name);
        // Below what does not exist nothing does.
        node = if node.is_some() { snapshot.find(&real)? } else { None };
        let Some(link) = node.as_ref().filter(|node| node.kind == Kind::Symlink) else { continue };
        if pending.is_empty() && !follow_last {
            break;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::SymlinkLoop(path.to_path_buf()));
        }
        let target = snapshot.read_link(link)?;
        let absolute = target.is_absolute();
        real.truncate(if absolute { 0 } else { above });
        node = snapshot.find(&real)?;
        pending.extend(components(target.as_os_str().as_bytes()));
    }
    Ok((PathBuf::from(OsStr::from_bytes(&real)), node))
}

/// The components in reverse, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let components = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let mut components: Vec<Vec<u8>> = components.map(<[u8]>::to_vec).collect();
    components.reverse();
    components
}
