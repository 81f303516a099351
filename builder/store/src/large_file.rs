//! Writing a large file past the page cache: what nobody will read soon would only push out what somebody does, and
//! finding memory for it takes longer than writing it.

use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::sync::LazyLock;

use rustix::io::{Errno, ReadWriteFlags, pwrite, pwritev, pwritev2};

/// `RWF_DONTCACHE`: pages are written back at once, and given back then.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// The flag is of Linux 6.14; what is so new in the way of every blob is not relied on before it has settled.
const TRUSTED_SINCE: (u32, u32) = (6, 16);
static IS_TRUSTED: LazyLock<bool> = LazyLock::new(|| {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    version(&release).is_some_and(|version| version >= TRUSTED_SINCE)
});
/// Bytes that are written together at least. Every such write starts the disk.
const GATHERED: usize = 256 << 10;
/// What is written past the cache ends on a multiple of this, so that no page is needed again after it was given back.
const PAGE: u64 = 4 << 10;

/// A file that is written from its beginning to its end. Its first bytes stay in the page cache, as all of them do where
/// the kernel or the file system knows no other way.
pub(crate) struct LargeFile<F> {
    file: F,
    /// Where the next byte goes that is neither written nor gathered.
    position: u64,
    /// The bytes before it that are not written yet.
    gathered: Vec<u8>,
    /// From where on the cache is passed by.
    kept: u64,
}

impl<F: AsFd> LargeFile<F> {
    /// A new file, whose first `kept` bytes stay in the cache.
    pub(crate) fn new(file: F, kept: u64) -> Self {
        Self { file, position: 0, gathered: Vec::new(), kept }
    }

    /// The file with everything in it.
    pub(crate) fn finish(mut self) -> io::Result<F> {
        self.write_gathered()?;
        Ok(self.file)
    }

    /// Leaves a hole of so many bytes.
    pub(crate) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.write_gathered()?;
        self.position += bytes;
        Ok(())
    }

    fn write_gathered(&mut self) -> io::Result<()> {
        let start = self.position - self.gathered.len() as u64;
        write_all_at(&self.file, &self.gathered, start)?;
        self.gathered.clear();
        Ok(())
    }

    /// Writes what was gathered and these bytes, but for what is beyond the last whole page.
    fn write_pages(&mut self, bytes: &[u8]) -> io::Result<()> {
        let start = self.position - self.gathered.len() as u64;
        let end = self.position + bytes.len() as u64;
        let beyond = usize::try_from(end % PAGE).unwrap_or(0);
        let (now, later) = bytes.split_at(bytes.len().saturating_sub(beyond));
        let slices = [IoSlice::new(&self.gathered), IoSlice::new(now)];
        let written = write_past_cache(&self.file, &slices, start)?;
        let (from_gathered, from_now) = (self.gathered.len().min(written), written.saturating_sub(self.gathered.len()));
        write_all_at(&self.file, &self.gathered[from_gathered..], start + from_gathered as u64)?;
        write_all_at(&self.file, &now[from_now..], self.position + from_now as u64)?;
        self.gathered.clear();
        self.gathered.extend_from_slice(later);
        self.position = end;
        Ok(())
    }
}

impl<F: AsFd> Write for LargeFile<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.position < self.kept {
            self.write_gathered()?;
            write_all_at(&self.file, bytes, self.position)?;
            self.position += bytes.len() as u64;
        } else if self.gathered.len() + bytes.len() < GATHERED {
            self.gathered.extend_from_slice(bytes);
            self.position += bytes.len() as u64;
        } else {
            self.write_pages(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes at `offset`, past the page cache where the kernel and the file system can; elsewhere as always. Returns how
/// many bytes it wrote. Neither end should be within a page that is written to again.
///
/// # Errors
/// The bytes cannot be written.
pub fn write_past_cache(file: impl AsFd, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let flags = if *IS_TRUSTED { DONTCACHE } else { ReadWriteFlags::empty() };
    loop {
        let written = match pwritev2(&file, slices, offset, flags) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => pwritev(&file, slices, offset),
            written => written,
        };
        match written {
            Err(Errno::INTR) => {}
            written => return Ok(written?),
        }
    }
}

/// The first two numbers of a kernel's version.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn write_all_at(file: &impl AsFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_pieces_the_file_is_the_same() {
        let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        for kept in [0, 5000, 1 << 20, u64::MAX] {
            for piece in [1000, 4096, 16_384, 262_144, 262_145, 5_000_000, bytes.len()] {
                let mut file = LargeFile::new(tempfile::NamedTempFile::new().unwrap(), kept);
                for piece in bytes.chunks(piece) {
                    file.write_all(piece).unwrap();
                }
                let file = file.finish().unwrap();
                assert!(std::fs::read(file.path()).unwrap() == bytes, "{kept} {piece}");
            }
        }
    }

    #[test]
    fn versions_of_kernels() {
        for (release, expected) in [
            ("6.16.0-rc1", Some((6, 16))),
            ("6.14.0-37-generic", Some((6, 14))),
            ("7.0", Some((7, 0))),
            ("6", None),
            ("", None),
        ] {
            assert_eq!(version(release), expected);
        }
    }

    #[test]
    fn holes_are_where_they_should_be() {
        let mut file = LargeFile::new(tempfile::NamedTempFile::new().unwrap(), 0);
        let (mut expected, mut byte) = (Vec::new(), 0);
        for (length, hole) in [(10, 65_536), (300_000, 70_000), (1, 1), (262_144, 4096), (600_001, 0)] {
            byte += 1;
            file.write_all(&vec![byte; length]).unwrap();
            file.skip(hole).unwrap();
            expected.resize(expected.len() + length, byte);
            expected.resize(expected.len() + usize::try_from(hole).unwrap(), 0);
        }
        let file = file.finish().unwrap();
        assert!(std::fs::read(file.path()).unwrap() == expected);
    }
}
