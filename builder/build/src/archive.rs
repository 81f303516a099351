//! ADD of local archives: recognised by content, unpacked through the layer writer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use kiln_store::snapshot::Kind;
use tar::EntryType;

use crate::{Error, Result};
use kiln_store::changeset::{Bytes, Changeset};
use kiln_store::layer_writer::{Attributes, Content, LayerWriter};

const BLOCK: usize = 512;
/// A PAX record longer than this belongs to no honest archive.
const LONGEST_ATTRIBUTE: usize = 1 << 20;

/// Whether the file is a tar, compressed or not.
pub(crate) fn is_archive(file: &mut File) -> std::io::Result<bool> {
    let mut block = [0; BLOCK];
    let read = match decoder(file) {
        Ok(mut reader) => read_full(&mut *reader, &mut block),
        Err(_) => Ok(0),
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(read.is_ok_and(|read| read == BLOCK && is_tar_header(&block)))
}

/// The uncompressed bytes of a file, by its first bytes.
fn decoder(file: &mut File) -> std::io::Result<Box<dyn Read>> {
    let mut magic = [0; 6];
    let length = read_full(file, &mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let bytes = BufReader::with_capacity(256 * 1024, file.try_clone()?);
    Ok(match &magic[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(bytes)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(xz2::bufread::XzDecoder::new_multi_decoder(bytes)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(bytes)?),
        _ => Box::new(bytes),
    })
}

fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// POSIX: the checksum counts its own field as spaces.
fn is_tar_header(block: &[u8; BLOCK]) -> bool {
    let field = String::from_utf8_lossy(&block[148..156]);
    let Ok(written) = u32::from_str_radix(field.trim_matches(['\0', ' ']), 8) else { return false };
    let sum: u32 =
        block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) }).sum();
    sum == written
}

/// How entries are changed on the way.
pub(crate) struct Changes<'a> {
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) chmod: Option<&'a crate::chmod::Chmod>,
}

/// Unpacks into a real directory of the writer; every name stays inside the layer's root.
pub(crate) fn unpack(
    file: &mut File,
    name: &str,
    writer: &mut LayerWriter<'_, Changeset>,
    directory: &Path,
    changes: &Changes<'_>,
) -> Result<()> {
    let damaged = |source| Error::Archive { archive: name.to_owned(), source };
    let mut archive = tar::Archive::new(decoder(file).map_err(damaged)?);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        put_entry(&mut entry, writer, directory, changes).map_err(|error| match error {
            Error::Io { action, path, source } => Error::Archive {
                archive: name.to_owned(),
                source: std::io::Error::other(format!("{action} {}: {source}", path.display())),
            },
            Error::Store(cause) => Error::Archive { archive: name.to_owned(), source: std::io::Error::other(cause) },
            other => other,
        })?;
    }
    Ok(())
}

fn put_entry(
    entry: &mut tar::Entry<'_, Box<dyn Read>>,
    writer: &mut LayerWriter<'_, Changeset>,
    directory: &Path,
    changes: &Changes<'_>,
) -> Result<()> {
    let written = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
    let io = |error| Error::io("read entry", &written, error);
    let kind = entry.header().entry_type();
    let (mtime, xattrs) = extensions(entry).map_err(io)?;
    let header = entry.header();
    let id = |id: std::io::Result<u64>| id.map(|id| u32::try_from(id).unwrap_or(u32::MAX));
    let mode = header.mode().map_err(io)? & 0o7777;
    let (uid, gid) = match changes.owner {
        Some(owner) => owner,
        None => (id(header.uid()).map_err(io)?, id(header.gid()).map_err(io)?),
    };
    let mtime = match mtime {
        Some(mtime) => mtime,
        None => (i64::try_from(header.mtime().map_err(io)?).unwrap_or(i64::MAX), 0),
    };
    let mode = changes.chmod.map_or(mode, |chmod| chmod.apply(mode, kind == EntryType::Directory));
    let attributes = Attributes { uid, gid, mode, mtime };
    let parent = writer.real_path(&directory.join(relative(&written).parent().unwrap_or(Path::new(""))), true)?;
    let clean = relative(&written);
    let Some(last) = clean.file_name() else { return Ok(()) }; // `./` is the destination itself
    let path = parent.join(last);
    match kind {
        EntryType::Directory => {
            // A symlink to a directory stays what it is, as tar does with --keep-directory-symlink.
            let real = writer.real_path(&path, true)?;
            let path = if writer.kind(&real)? == Some(Kind::Directory) { real } else { path };
            Ok(writer.put_directory(&path, attributes, &xattrs)?)
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            Ok(writer.put_file(&path, Content::File(Bytes::Stream(entry)), attributes, &xattrs)?)
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
            let target = PathBuf::from(OsString::from_vec(target));
            Ok(writer.put_file(&path, Content::Symlink(&target), attributes, &[])?)
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
            let target = relative(Path::new(OsStr::from_bytes(&target)));
            let existing = writer.real_path(&directory.join(target), false)?;
            if writer.put_link(&path, &existing)? {
                return Ok(());
            }
            Err(Error::io(
                "link to a file that the archive does not have",
                existing,
                std::io::Error::from(std::io::ErrorKind::NotFound),
            ))
        }
        EntryType::Char | EntryType::Block => {
            let (major, minor) = (
                header_device(entry.header().device_major()).map_err(io)?,
                header_device(entry.header().device_minor()).map_err(io)?,
            );
            let kind = if kind == EntryType::Block { Kind::BlockDevice } else { Kind::CharDevice };
            Ok(writer.put_file(&path, Content::Device(kind, rustix::fs::makedev(major, minor)), attributes, &xattrs)?)
        }
        EntryType::Fifo => Ok(writer.put_file(&path, Content::Fifo, attributes, &xattrs)?),
        _ => Ok(()),
    }
}

fn header_device(number: std::io::Result<Option<u32>>) -> std::io::Result<u32> {
    number.map(Option::unwrap_or_default)
}

/// Names only: no root, no `.`, and `..` stops at the top.
fn relative(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

type Extensions = (Option<(i64, u32)>, Vec<(OsString, Vec<u8>)>);

/// PAX: sub-second times and extended attributes.
fn extensions(entry: &mut tar::Entry<'_, Box<dyn Read>>) -> std::io::Result<Extensions> {
    let mut mtime = None;
    let mut xattrs = Vec::new();
    let Some(records) = entry.pax_extensions()? else { return Ok((None, xattrs)) };
    for record in records {
        let record = record?;
        let (key, value) = (record.key_bytes(), record.value_bytes());
        if key == b"mtime" {
            mtime = std::str::from_utf8(value).ok().and_then(parse_time);
        } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.".as_slice()) {
            let kept =
                name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") || name == b"security.capability";
            if kept && value.len() <= LONGEST_ATTRIBUTE {
                xattrs.push((OsStr::from_bytes(name).to_owned(), value.to_vec()));
            }
        }
    }
    Ok((mtime, xattrs))
}

fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}
