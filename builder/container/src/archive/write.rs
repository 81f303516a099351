//! A file or directory as a tar archive.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Writes it under `name`; a symlink as what it is, unless `follow`.
pub(super) fn write(path: &Path, name: &Path, follow: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    let within = None;
    let metadata = if follow { path.metadata()? } else { path.symlink_metadata()? };
    // The path that is named may be a symlink; what lies below it is not followed.
    let real = if follow { path.canonicalize()? } else { path.to_owned() };
    let mut links = std::collections::HashMap::new();
    entry(&mut archive, &real, name, (&metadata, within), &mut links)?;
    archive.finish()
}

/// Writes what is in a root directory, but not what is mounted in it: its directories are empty, and so are its files.
pub(super) fn write_root(path: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    let within = Some(mount_of(path)?);
    directory(&mut archive, path, Path::new(""), within, &mut std::collections::HashMap::new())?;
    archive.finish()
}

/// The number of the mount that a file lies in.
fn mount_of(path: &Path) -> io::Result<u64> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let found = rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}

/// What a directory holds, by name.
fn directory(
    archive: &mut tar::Builder<&mut dyn Write>,
    path: &Path,
    name: &Path,
    within: Option<u64>,
    links: &mut Links,
) -> io::Result<()> {
    let mut names: Vec<_> = std::fs::read_dir(path)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for below in names {
        let path = path.join(&below);
        // It may have gone a moment ago.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        entry(archive, &path, &name.join(&below), (&metadata, within), links)?;
    }
    Ok(())
}

type Links = std::collections::HashMap<(u64, u64), std::path::PathBuf>;

fn entry(
    archive: &mut tar::Builder<&mut dyn Write>,
    path: &Path,
    name: &Path,
    (metadata, within): (&Metadata, Option<u64>),
    links: &mut Links,
) -> io::Result<()> {
    let kind = metadata.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    let is_mounted = match within {
        Some(within) => mount_of(path)? != within,
        None => false,
    };
    if is_mounted {
        if kind.is_dir() || kind.is_file() {
            header.set_size(0);
            archive.append_data(&mut header, name, io::empty())?;
        }
    } else if kind.is_dir() {
        super::attributes::write(archive, path)?;
        archive.append_data(&mut header, name, io::empty())?;
        directory(archive, path, name, within, links)?;
    } else if kind.is_symlink() {
        header.set_size(0);
        archive.append_link(&mut header, name, std::fs::read_link(path)?)?;
    } else if kind.is_file() {
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = links.get(&inode) {
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                return archive.append_link(&mut header, name, first);
            }
            links.insert(inode, name.to_owned());
        }
        super::attributes::write(archive, path)?;
        let file = open(path)?;
        let size = file.metadata()?.len();
        header.set_size(size);
        // As long as was said, should it shrink or grow meanwhile.
        archive.append_data(&mut header, name, io::Read::take(io::Read::chain(file, io::repeat(0)), size))?;
    } else if !kind.is_socket() {
        header.set_size(0);
        archive.append_data(&mut header, name, io::empty())?;
    }
    Ok(())
}

/// What was a file a moment ago may be a pipe by now, whose other end nobody waits for here.
fn open(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it changed while it was read")) }
}
