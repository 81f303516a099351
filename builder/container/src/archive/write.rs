//! A file or directory as a tar archive.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Writes it under `name`; a symlink as what it is, unless `follow`.
pub(super) fn write(path: &Path, name: &Path, follow: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    let metadata = if follow { path.metadata()? } else { path.symlink_metadata()? };
    // The path that is named may be a symlink; what lies below it is not followed.
    let real = if follow { path.canonicalize()? } else { path.to_owned() };
    let mut links = std::collections::HashMap::new();
    entry(&mut archive, &real, name, &metadata, &mut links)?;
    archive.finish()
}

type Links = std::collections::HashMap<(u64, u64), std::path::PathBuf>;

fn entry(
    archive: &mut tar::Builder<&mut dyn Write>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
    links: &mut Links,
) -> io::Result<()> {
    let kind = metadata.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    if kind.is_dir() {
        super::attributes::write(archive, path)?;
        archive.append_data(&mut header, name, io::empty())?;
        let mut names: Vec<_> = std::fs::read_dir(path)?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for below in names {
            let path = path.join(&below);
            // It may have gone a moment ago.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            entry(archive, &path, &name.join(&below), &metadata, links)?;
        }
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
