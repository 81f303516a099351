//! The content of regular files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::{Place, failed};
use crate::archive::reader::Reader;
use crate::{Error, Result};

/// Bytes copied at a time.
const BUFFER: usize = 128 << 10;
/// Zeros in pieces of this size become holes, so that an archive of nothing but zeros fills no disk.
/// Smaller files have none.
pub(super) const HOLE: usize = 64 << 10;

/// Makes the file, empty and nobody else's.
pub(super) fn make(place: &Place<'_>) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    place.replace("make file", || rustix::fs::openat(place.directory, place.name, flags, Mode::RUSR | Mode::WUSR))
}

/// Makes a large file and fills it.
pub(super) fn write<R: Read>(place: &Place<'_>, reader: &mut Reader<R>, buffer: &mut Vec<u8>) -> Result<()> {
    let mut file = File::from(make(place)?);
    buffer.resize(BUFFER, 0);
    let mut end_is_hole = false;
    let mut left = place.member.size;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
        let chunk = &mut buffer[..want];
        reader.read_exact(chunk).map_err(Error::ArchiveRead)?;
        left -= want as u64;
        for piece in chunk.chunks(HOLE) {
            end_is_hole = piece.len() == HOLE && piece.iter().all(|byte| *byte == 0);
            if end_is_hole {
                file.seek(SeekFrom::Current(HOLE as i64)).map_err(failed(place.member, "write"))?;
            } else {
                file.write_all(piece).map_err(failed(place.member, "write"))?;
            }
        }
    }
    if end_is_hole {
        file.set_len(place.member.size).map_err(failed(place.member, "write"))?;
    }
    place.metadata().set(&OwnedFd::from(file), true)
}
