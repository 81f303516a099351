//! The entries of a tar stream, read strictly forward, with bounds on everything an entry says of itself.
//! Long names and sizes of both kinds (PAX records, GNU's `L` and `K`) are understood.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::{Error, Result};

const BLOCK: usize = 512;
/// Bytes of a long name or of an entry's PAX records, at most.
const EXTENSION_LIMIT: u64 = 1 << 20;
/// Consecutive extension headers before one entry, at most.
const EXTENSION_COUNT: usize = 16;

/// What an entry is, as far as image archives go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// To a path relative to the entry's directory.
    Symlink(String),
    /// To a path from the archive's root.
    HardLink(String),
    Other,
}

/// One entry; its content follows in the stream.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
}

/// A tar stream.
pub(crate) struct Entries<'a> {
    input: &'a mut dyn Read,
    /// Bytes of the current entry's content and padding that were not read yet.
    content: u64,
    padding: u64,
}

#[derive(Default)]
struct Extensions {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(input: &'a mut dyn Read) -> Self {
        Self { input, content: 0, padding: 0 }
    }

    /// The next entry; what was left of the one before is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        for _ in 0..EXTENSION_COUNT {
            let Some(header) = self.next_header()? else { return Ok(None) };
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(self.long_text()?),
                EntryType::GNULongLink => extensions.link = Some(self.long_text()?),
                EntryType::XHeader => self.pax(&mut extensions)?,
                EntryType::XGlobalHeader => {}
                kind => return self.entry(&header, kind, extensions).map(Some),
            }
        }
        Err(damaged("too many extension headers before one entry"))
    }

    fn entry(&mut self, header: &Header, kind: EntryType, extensions: Extensions) -> Result<Entry> {
        if let Some(size) = extensions.size {
            self.begin_content(size)?;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = extensions.name.unwrap_or_else(|| text(&header.path_bytes()));
        let link =
            || extensions.link.or_else(|| header.link_name_bytes().map(|bytes| text(&bytes))).unwrap_or_default();
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if name.ends_with('/') => Kind::Other,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::GNUSparse => return Err(damaged("a sparse file, which no image archive has")),
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::HardLink(link()),
            _ => Kind::Other,
        };
        if kind != Kind::File && kind != Kind::Other {
            self.begin_content(0)?;
        }
        Ok(Entry { name, kind, size: self.content })
    }

    fn next_header(&mut self) -> Result<Option<Header>> {
        self.skip()?;
        let mut block = [0_u8; BLOCK];
        if !self.fill(&mut block)? || block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum =
            block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) });
        if header.cksum().ok() != Some(sum.sum()) {
            return Err(damaged("not a tar archive, or damaged: an entry's checksum is wrong"));
        }
        let size = header.entry_size().map_err(|_| damaged("an entry's size is no number"))?;
        self.begin_content(size)?;
        Ok(Some(header))
    }

    fn begin_content(&mut self, size: u64) -> Result<()> {
        let whole = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| damaged("an entry's size is absurd"))?;
        (self.content, self.padding) = (size, whole - size);
        Ok(())
    }

    /// Fills the block; `false` at the end of the stream.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(damaged("it ends in the middle of an entry's header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::stream("read the archive")(error)),
            }
        }
        Ok(true)
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.content.saturating_add(self.padding);
        let skipped =
            io::copy(&mut self.input.take(rest), &mut io::sink()).map_err(Error::stream("read the archive"))?;
        if skipped < rest {
            return Err(damaged("it ends in the middle of an entry"));
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.content > EXTENSION_LIMIT {
            return Err(damaged("an entry's name or attributes are longer than 1 MiB"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(Error::stream("read the archive"))?;
        Ok(bytes)
    }

    fn long_text(&mut self) -> Result<String> {
        let bytes = self.extension()?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// PAX records: `length key=value\n`.
    fn pax(&mut self, extensions: &mut Extensions) -> Result<()> {
        let bytes = self.extension()?;
        for record in tar::PaxExtensions::new(&bytes) {
            let record = record.map_err(Error::stream("read the archive's PAX records"))?;
            let value = String::from_utf8_lossy(record.value_bytes());
            match record.key_bytes() {
                b"path" => extensions.name = Some(value.into_owned()),
                b"linkpath" => extensions.link = Some(value.into_owned()),
                b"size" => extensions.size = Some(value.parse().map_err(|_| damaged("an entry's size is no number"))?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The content of the current entry.
impl Read for Entries<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content == 0 {
            return Ok(0);
        }
        let most = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of an entry"));
        }
        self.content -= count as u64;
        Ok(count)
    }
}

fn damaged(reason: &str) -> Error {
    Error::invalid("image archive", reason)
}
