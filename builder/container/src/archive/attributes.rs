//! Extended attributes in an archive, as GNU tar and docker write them: `SCHILY.xattr.<name>` before the entry.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::XattrFlags;

const KEY: &str = "SCHILY.xattr.";
/// Bytes of a value, at most: the kernel's own limit.
const LIMIT: usize = 64 * 1024;

/// Whether an attribute is a file's own, and not the file system's or a security module's.
fn is_carried(name: &str) -> bool {
    name.starts_with("user.") && !name.starts_with("user.overlay.")
}

/// Writes those of a file before its entry, when it has any.
pub(super) fn write(archive: &mut tar::Builder<&mut dyn io::Write>, path: &Path) -> io::Result<()> {
    let mut names = vec![0; LIMIT];
    // A file system without them has none.
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return Ok(()) };
    let mut records = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_carried(name)) else { continue };
        let mut value = vec![0; LIMIT];
        let Ok(length) = rustix::fs::lgetxattr(path, name, &mut value[..]) else { continue };
        push(&mut records, &format!("{KEY}{name}"), &value[..length]);
    }
    if records.is_empty() {
        return Ok(());
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(u64::try_from(records.len()).unwrap_or(u64::MAX));
    header.set_mode(0o644);
    archive.append_data(&mut header, "attributes", records.as_slice())
}

/// One record: its own length in decimal, a space, key, `=`, value, newline.
fn push(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Those that an entry brings.
pub(super) fn read(entry: &mut tar::Entry<'_, impl io::Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else { return Ok(found) };
    for extension in extensions {
        let extension = extension?;
        let name = extension.key().ok().and_then(|key| key.strip_prefix(KEY)).filter(|name| is_carried(name));
        found.extend(name.map(|name| (name.to_owned(), extension.value_bytes().to_vec())));
    }
    Ok(found)
}

/// Gives them to a file; one that the file system does not take is left out.
pub(super) fn set(file: impl AsFd, attributes: &[(String, Vec<u8>)]) {
    for (name, value) in attributes {
        let _ = rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_record_counts_itself() {
        for (value, expected) in
            [(1, "22 SCHILY.xattr.u.a=v"), (78, "99 SCHILY"), (79, "101 SCHILY"), (80, "102 SCHILY")]
        {
            let mut record = Vec::new();
            super::push(&mut record, "SCHILY.xattr.u.a", &vec![b'v'; value]);
            let text = String::from_utf8(record).unwrap();
            assert!(text.starts_with(expected), "{text}");
            assert_eq!(text.split_once(' ').unwrap().0.parse::<usize>().unwrap(), text.len());
        }
    }
}
