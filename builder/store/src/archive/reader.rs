//! Reading tar members one after the other: v7, ustar, GNU and PAX. Only the member at hand is in memory, and its
//! extended headers are bounded.

use std::io::{self, BufRead, Read};

use super::header::Kind;
use super::{BLOCK, padding};
use crate::attributes::Attributes;
use crate::{Error, Result};

/// The most that the extended headers of one member may take, each.
const MAX_EXTENSION: u64 = 1 << 20;

/// The last id: the one after it means "no id" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    /// As written: absolute, with `..` or anything else.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) attributes: Attributes,
}

/// The members of a tar stream.
pub(crate) struct Reader<R> {
    input: R,
    /// Content of the current member that was not read.
    content: u64,
    /// Padding after it.
    padding: u64,
}

/// What extended headers say about the next member.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    attributes: Attributes,
    sparse: bool,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, content: 0, padding: 0 }
    }

    /// The next member; what is left of the last one's content is skipped.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let raw = Raw(&block);
            let size = raw.number(124..136);
            let invalid = |reason: &str| raw.error(reason);
            if !raw.checksum_matches() {
                return Err(invalid("the header's checksum is wrong"));
            }
            match raw.flag() {
                b'x' | b'X' => {
                    let records = self.extension(size.ok_or_else(|| invalid("its size is not a number"))?, &raw)?;
                    extensions.add_records(&records).map_err(invalid)?;
                }
                b'L' => extensions.path = Some(self.long_name(size, &raw)?),
                b'K' => extensions.link = Some(self.long_name(size, &raw)?),
                // Global records and volume labels say nothing about files.
                b'g' | b'V' => self.expect_content(size.ok_or_else(|| invalid("its size is not a number"))?),
                _ => return self.member(&raw, size, extensions).map(Some),
            }
        }
    }

    fn member(&mut self, raw: &Raw<'_>, size: Option<u64>, extensions: Extensions) -> Result<Member> {
        let path = extensions.path.unwrap_or_else(|| raw.path());
        let invalid = |reason: &str| Error::Archive {
            entry: String::from_utf8_lossy(&path).into_owned(),
            reason: reason.to_owned(),
        };
        let kind = match raw.flag() {
            // Before ustar a directory was told by its slash alone.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(invalid("sparse members are not supported; write the archive without --sparse")),
            flag => return Err(invalid(&format!("its type `{}` is unknown", flag.escape_ascii()))),
        };
        if extensions.sparse {
            return Err(invalid("sparse members are not supported; write the archive without --sparse"));
        }
        let size = if kind == Kind::File {
            extensions.size.or(size).ok_or_else(|| invalid("its size is not a number"))?
        } else {
            0
        };
        let id = |range, name| {
            let id = raw.number(range).and_then(to_id);
            id.ok_or_else(|| invalid(&format!("its {name} id is not a number")))
        };
        let device = |range| raw.number(range).and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        let member = Member {
            kind,
            mode: (raw.number(100..108).unwrap_or(0) & 0o7777) as u32,
            uid: extensions.uid.map_or_else(|| id(108..116, "user"), Ok)?,
            gid: extensions.gid.map_or_else(|| id(116..124, "group"), Ok)?,
            size,
            mtime: extensions.mtime.unwrap_or_else(|| (raw.signed_number(136..148).unwrap_or(0), 0)),
            link: extensions.link.unwrap_or_else(|| raw.text(157..257).to_vec()),
            device: (device(329..337), device(337..345)),
            attributes: extensions.attributes,
            path,
        };
        self.expect_content(size);
        Ok(member)
    }

    fn expect_content(&mut self, size: u64) {
        self.content = size;
        self.padding = padding(size);
    }

    /// The next header block; `None` at the end of the archive, marked or not.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::ArchiveRead(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::ArchiveRead(error)),
            }
        }
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    /// The content of an extended header.
    fn extension(&mut self, size: u64, raw: &Raw<'_>) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(raw.error(&format!(
                "an extended header of {size} bytes is more than the {MAX_EXTENSION} that are accepted"
            )));
        }
        self.expect_content(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(Error::ArchiveRead)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: Option<u64>, raw: &Raw<'_>) -> Result<Vec<u8>> {
        let mut name = self.extension(size.ok_or_else(|| raw.error("its size is not a number"))?, raw)?;
        name.truncate(until_nul(&name).len());
        Ok(name)
    }

    /// Skips content and padding that nobody read.
    fn skip(&mut self) -> Result<()> {
        let left = self.content.checked_add(self.padding);
        let left = left.ok_or_else(|| Error::ArchiveRead(io::ErrorKind::InvalidData.into()))?;
        let skipped = io::copy(&mut self.input.by_ref().take(left), &mut io::sink()).map_err(Error::ArchiveRead)?;
        // Some writers leave out the last padding.
        if skipped < self.content {
            return Err(Error::ArchiveRead(io::ErrorKind::UnexpectedEof.into()));
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads what follows the archive, to the end of the input.
    pub(crate) fn drain(mut self) -> Result<()> {
        io::copy(&mut self.input, &mut io::sink()).map(drop).map_err(Error::ArchiveRead)
    }
}

/// The content of the current member. An input that ends early is an error.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= count as u64;
        Ok(count)
    }
}

/// The same content where it lies. An input that ends early is an error here, too.
impl<R: BufRead> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&buffer[..buffer.len().min(usize::try_from(self.content).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.content -= count as u64;
    }
}

impl Extensions {
    /// Reads `length key=value\n` records (POSIX.1-2001, pax Extended Header).
    fn add_records(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let broken = "its extended header is damaged";
            let space = records.iter().take(21).position(|byte| *byte == b' ').ok_or(broken)?;
            let length = decimal(&records[..space]).and_then(|length| usize::try_from(length).ok()).ok_or(broken)?;
            let record = records.get(space + 1..length).ok_or(broken)?.strip_suffix(b"\n").ok_or(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(broken)?;
            self.add(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let id = || decimal(value).and_then(to_id).ok_or("an id in its extended header is not one");
        match key {
            b"path" if value.contains(&0) => return Err("its path contains a zero byte"),
            b"linkpath" if value.contains(&0) => return Err("its link target contains a zero byte"),
            // An empty value takes an earlier record back.
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or("the size in its extended header is not a number")?),
            b"uid" => self.uid = Some(id()?),
            b"gid" => self.gid = Some(id()?),
            b"mtime" => self.mtime = Some(time(value).ok_or("the time in its extended header is not a number")?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// The fields of a header block.
struct Raw<'a>(&'a [u8; BLOCK]);

impl Raw<'_> {
    fn flag(&self) -> u8 {
        self.0[156]
    }

    fn text(&self, range: std::ops::Range<usize>) -> &[u8] {
        until_nul(&self.0[range])
    }

    fn path(&self) -> Vec<u8> {
        let name = self.text(0..100);
        let prefix = self.text(345..500);
        // GNU's own format has other things where ustar has the prefix.
        if self.0[257..263] != *b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn number(&self, range: std::ops::Range<usize>) -> Option<u64> {
        self.signed_number(range).and_then(|number| u64::try_from(number).ok())
    }

    /// Octal digits, or GNU's big-endian two's complement with the top bit set. An empty field is zero.
    fn signed_number(&self, range: std::ops::Range<usize>) -> Option<i64> {
        let field = &self.0[range];
        if field[0] & 0x80 != 0 {
            let negative = field[0] & 0x40 != 0;
            let first = if negative { field[0] | 0x80 } else { field[0] & 0x7f };
            let mut value = if negative { -1_i128 } else { 0 };
            for byte in std::iter::once(&first).chain(&field[1..]) {
                value = (value << 8) | i128::from(*byte);
            }
            return i64::try_from(value).ok();
        }
        let digits = until_nul(field).trim_ascii();
        digits.iter().try_fold(0_i64, |value, digit| match digit {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
            _ => None,
        })
    }

    /// The sum of all bytes with the checksum's own as blanks; of signed ones in archives of some old writers.
    fn checksum_matches(&self) -> bool {
        let sum = |value: fn(u8) -> i64| {
            let (before, after) = (&self.0[..148], &self.0[156..]);
            let sum: i64 = before.iter().chain(after).map(|byte| value(*byte)).sum();
            sum + 8 * i64::from(b' ')
        };
        let stored = self.signed_number(148..156);
        stored == Some(sum(i64::from)) || stored == Some(sum(|byte| i64::from(byte as i8)))
    }

    fn error(&self, reason: &str) -> Error {
        Error::Archive { entry: String::from_utf8_lossy(&self.path()).into_owned(), reason: reason.to_owned() }
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

fn to_id(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|id| *id <= MAX_ID)
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// `-1.5` is half a second before one second before 1970; more than nine decimals are cut off.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = i64::try_from(decimal(whole.as_bytes())?).ok()?;
    let nanoseconds = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nanoseconds.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => (whole, nanoseconds),
        (true, 0) => (-whole, 0),
        (true, _) => (-whole - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::header::Header;

    #[test]
    fn what_is_written_is_read() {
        let long = [b"long/".repeat(80), "ü\n".as_bytes().to_vec()].concat();
        let mut tar = Vec::new();
        let header = Header {
            path: &long,
            kind: Kind::File,
            mode: 0o4755,
            uid: 3_000_000,
            gid: MAX_ID,
            size: 10 << 30,
            mtime: (-2, 500_000_000),
            link: b"",
            device: (0, 0),
            attributes: vec![(b"user.a".to_vec(), vec![0, 10, 255])],
        };
        header.encode(&mut tar);
        let member = Reader::new(tar.as_slice()).next_member().unwrap().unwrap();
        assert_eq!((&member.path, member.mode, member.uid, member.gid), (&long, 0o4755, 3_000_000, MAX_ID));
        assert_eq!((member.size, member.mtime), (10 << 30, (-2, 500_000_000)));
        assert_eq!(member.attributes, header.attributes);
    }

    #[test]
    fn times() {
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"7.0000000019"), Some((7, 1)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"-0"), Some((0, 0)));
        for bad in [b"".as_slice(), b"x", b"1.x", b"--1", b"99999999999999999999", b"+1"] {
            assert_eq!(time(bad), None);
        }
    }
}
