//! The content of regular files.

use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::{Place, failed};
use crate::large_file::LargeFile;
use crate::{Error, Result};

/// Zeros in pieces of this size, or of what came at once, become holes, so that an archive of nothing but zeros fills
/// no disk. Smaller files have none.
pub(super) const HOLE: usize = 64 << 10;

/// Bytes of a file that stay in memory: programs and libraries, which will be used soon, are shorter.
const KEPT: u64 = 32 << 20;

/// Makes the file, empty and nobody else's.
pub(super) fn make(place: &Place<'_>) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    place.replace("make file", || rustix::fs::openat(place.directory, place.name, flags, Mode::RUSR | Mode::WUSR))
}

/// Makes a large file and fills it, from where the content lies.
pub(super) fn write(place: &Place<'_>, reader: &mut impl BufRead) -> Result<()> {
    let mut file = LargeFile::new(make(place)?, KEPT);
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
            file.skip(length as u64).map_err(failed(place.member, "write"))?;
        } else {
            file.write_all(&content[..length]).map_err(failed(place.member, "write"))?;
        }
        end_is_hole = zeros;
        reader.consume(length);
    }
    let file = file.finish().map_err(failed(place.member, "write"))?;
    if end_is_hole {
        rustix::fs::ftruncate(&file, end).map_err(failed(place.member, "write"))?;
    }
    place.metadata().set(&file, true)
}

fn is_zeros(piece: &[u8]) -> bool {
    piece.iter().all(|byte| *byte == 0)
}
