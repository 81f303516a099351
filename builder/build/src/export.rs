//! `--output type=local|tar`: the target's files without an image around them.

use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_image::Image;
use kiln_store::snapshot::{Kind, Node};
use kiln_store::{Snapshot, Store};

use crate::tree::Tree;
use crate::{Error, Result};

/// Writes the image's files into a directory, which is made when it is not there. Owners are kept only as root.
///
/// # Errors
/// The directory cannot be written.
pub fn to_directory(store: &Store, image: &Image, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| Error::io("make", directory, error))?;
    Ok(Snapshot::open(store, &image.layers)?.copy_directory(store, Path::new(""), directory)?)
}

/// Writes the files of images as one tar, each below its directory (empty for none).
///
/// # Errors
/// The output cannot be written.
pub fn to_tar(store: &Store, images: &[(String, &Image)], out: &mut dyn Write) -> Result<()> {
    let io = |error| Error::io("write", "the tar", error);
    let mut builder = tar::Builder::new(out);
    builder.follow_symlinks(false);
    for (directory, image) in images {
        let snapshot = Snapshot::open(store, &image.layers)?;
        if !directory.is_empty() {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            builder.append_data(&mut header, format!("{directory}/"), std::io::empty()).map_err(io)?;
        }
        for node in Tree::walk(&snapshot, Path::new(""))? {
            append(&snapshot, &mut builder, Path::new(directory), &node).map_err(|error| match error {
                AppendError::Tar(error) => io(error),
                AppendError::Build(error) => error,
            })?;
        }
    }
    builder.finish().map_err(io)
}

enum AppendError {
    Tar(std::io::Error),
    Build(Error),
}

impl From<std::io::Error> for AppendError {
    fn from(error: std::io::Error) -> Self {
        Self::Tar(error)
    }
}

fn append(
    snapshot: &Snapshot,
    builder: &mut tar::Builder<&mut dyn Write>,
    directory: &Path,
    node: &Node,
) -> Result<(), AppendError> {
    let path = directory.join(&node.path);
    let mut header = tar::Header::new_gnu();
    header.set_mode(node.mode);
    header.set_uid(u64::from(node.uid));
    header.set_gid(u64::from(node.gid));
    header.set_mtime(u64::try_from(node.mtime.0).unwrap_or(0));
    header.set_size(0);
    let kind = match node.kind {
        Kind::File => tar::EntryType::Regular,
        Kind::Directory => tar::EntryType::Directory,
        Kind::Symlink => tar::EntryType::Symlink,
        Kind::CharDevice => tar::EntryType::Char,
        Kind::BlockDevice => tar::EntryType::Block,
        Kind::Fifo => tar::EntryType::Fifo,
        Kind::Socket => return Ok(()),
    };
    header.set_entry_type(kind);
    if matches!(node.kind, Kind::CharDevice | Kind::BlockDevice) {
        header.set_device_major(rustix::fs::major(node.rdev))?;
        header.set_device_minor(rustix::fs::minor(node.rdev))?;
    }
    match node.kind {
        Kind::Symlink => {
            let target = snapshot.read_link(node).map_err(|error| AppendError::Build(error.into()))?;
            builder.append_link(&mut header, &path, target)?;
        }
        Kind::File => {
            header.set_size(node.size);
            let file: File = snapshot.open_file(node).map_err(|error| AppendError::Build(error.into()))?;
            builder.append_data(&mut header, &path, file)?;
        }
        Kind::Directory => {
            let mut name = path.as_os_str().as_bytes().to_vec();
            name.push(b'/');
            builder.append_data(&mut header, std::ffi::OsStr::from_bytes(&name), std::io::empty())?;
        }
        _ => builder.append_data(&mut header, &path, std::io::empty())?,
    }
    Ok(())
}
