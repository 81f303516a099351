//! The content of regular files.

use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::{Place, failed};
use crate::{Error, Result};

/// Zeros in pieces of this size, or of what came at once, become holes, so that an archive of nothing but zeros fills
/// no disk. Smaller files have none.
pub(super) const HOLE: usize = 64 << 10;

/// Makes the file, empty and nobody else's.
pub(super) fn make(place: &Place<'_>) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    place.replace("make file", || rustix::fs::openat(place.directory, place.name, flags, Mode::RUSR | Mode::WUSR))
}

/// Makes a large file and fills it, from where the content lies.
pub(super) fn write(place: &Place<'_>, reader: &mut impl BufRead) -> Result<()> {
    let mut file = File::from(make(place)?);
    let (mut end, mut end_is_hole) = (0, false);
    loop {
        let content = reader.fill_buf().map_err(Error::ArchiveRead)?;
        if content.is_empty() {
            break;
        }
        let zeros = is_zeros(&content[..content.len().min(HOLE)]);
        let run = content.chunks(HOLE).take_while(|piece| is_zeros(piece) == zeros);
        let length = run.map(<[u8]>::len).sum();
        end += length as u64;
        if zeros {
            file.seek(SeekFrom::Start(end)).map_err(failed(place.member, "write"))?;
        } else {
            file.write_all(&content[..length]).map_err(failed(place.member, "write"))?;
        }
        end_is_hole = zeros;
        reader.consume(length);
    }
    if end_is_hole {
        file.set_len(end).map_err(failed(place.member, "write"))?;
    }
    place.metadata().set(&OwnedFd::from(file), true)
}

fn is_zeros(piece: &[u8]) -> bool {
    piece.iter().all(|byte| *byte == 0)
}
