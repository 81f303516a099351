//! Encoding of tar headers: ustar where it suffices, PAX records where not.

use std::io::Write;

use super::{BLOCK, padding};
use crate::attributes::Attributes;

/// The type flags that layers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    File = b'0',
    HardLink = b'1',
    Symlink = b'2',
    CharDevice = b'3',
    BlockDevice = b'4',
    Directory = b'5',
    Fifo = b'6',
}

/// One member of an archive.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    /// Relative, a directory's with its trailing slash.
    pub(crate) path: &'a [u8],
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Target of a link, else empty.
    pub(crate) link: &'a [u8],
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) attributes: Attributes,
}

impl<'a> Header<'a> {
    /// A header with nothing but its name: what whiteouts are.
    pub(crate) fn bare(path: &'a [u8], kind: Kind) -> Self {
        Self {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            link: b"",
            device: (0, 0),
            attributes: Attributes::new(),
        }
    }

    /// Appends the header, preceded by its PAX records when it has any.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (prefix, name) = split_path(self.path).unwrap_or((b"", b""));
        let records = self.records(name.is_empty());
        if !records.is_empty() {
            let fields = Fields { name: &pax_name(self.path), kind: b'x', mode: 0o644, ..Fields::default() };
            Fields { size: records.len() as u64, ..fields }.encode(out);
            out.extend_from_slice(&records);
            out.resize(out.len() + padding(records.len() as u64) as usize, 0);
        }
        let stand_in;
        let name = if name.is_empty() {
            stand_in = ascii_prefix(self.path, 100);
            &stand_in
        } else {
            name
        };
        Fields {
            name,
            prefix,
            kind: self.kind as u8,
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
            size: if fits_octal(self.size, 11) { self.size } else { 0 },
            mtime: u64::try_from(self.mtime.0).ok().filter(|seconds| fits_octal(*seconds, 11)).unwrap_or(0),
            link: &ascii_prefix(self.link, 100),
            device: self.device,
        }
        .encode(out);
    }

    /// What ustar cannot say, sorted by key.
    fn records(&self, path: bool) -> Vec<u8> {
        let mut records = Vec::new();
        for (name, value) in &self.attributes {
            add_record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !fits_octal(u64::from(self.gid), 7) {
            add_record(&mut records, b"gid", self.gid.to_string().as_bytes());
        }
        if self.link.len() > 100 || !self.link.is_ascii() {
            add_record(&mut records, b"linkpath", self.link);
        }
        let (seconds, nanoseconds) = self.mtime;
        if nanoseconds != 0 || !u64::try_from(seconds).is_ok_and(|seconds| fits_octal(seconds, 11)) {
            add_record(&mut records, b"mtime", decimal_time(seconds, nanoseconds).as_bytes());
        }
        if path {
            add_record(&mut records, b"path", self.path);
        }
        if !fits_octal(self.size, 11) {
            add_record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        if !fits_octal(u64::from(self.uid), 7) {
            add_record(&mut records, b"uid", self.uid.to_string().as_bytes());
        }
        records
    }
}

/// The fields of one ustar block.
#[derive(Default)]
struct Fields<'a> {
    name: &'a [u8],
    prefix: &'a [u8],
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: u64,
    link: &'a [u8],
    device: (u32, u32),
}

impl Fields<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut block = [0; BLOCK];
        put(&mut block[0..100], self.name);
        put_octal(&mut block[100..107], u64::from(self.mode));
        put_octal(&mut block[108..115], u64::from(self.uid));
        put_octal(&mut block[116..123], u64::from(self.gid));
        put_octal(&mut block[124..135], self.size);
        put_octal(&mut block[136..147], self.mtime);
        block[148..156].fill(b' ');
        block[156] = self.kind;
        put(&mut block[157..257], self.link);
        put(&mut block[257..265], b"ustar\x0000");
        put_octal(&mut block[329..336], u64::from(self.device.0));
        put_octal(&mut block[337..344], u64::from(self.device.1));
        put(&mut block[345..500], self.prefix);
        let sum = block.iter().map(|byte| u64::from(*byte)).sum();
        put_octal(&mut block[148..154], sum);
        block[154] = 0;
        out.extend_from_slice(&block);
    }
}

fn put(field: &mut [u8], value: &[u8]) {
    for (to, from) in field.iter_mut().zip(value) {
        *to = *from;
    }
}

/// Zero-filled digits; a value that does not fit stands in the PAX records and is zero here.
fn put_octal(field: &mut [u8], value: u64) {
    let mut rest = if fits_octal(value, field.len()) { value } else { 0 };
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

fn fits_octal(value: u64, digits: usize) -> bool {
    value >> (3 * digits) == 0
}

/// ustar's prefix and name, when the path fits.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let earliest = path.len() - 101;
    let slash = earliest + path.get(earliest..path.len() - 1)?.iter().position(|byte| *byte == b'/')?;
    (slash != 0 && slash <= 155).then(|| (&path[..slash], &path[slash + 1..]))
}

/// The name of a PAX header block, which readers that know PAX never show.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    [b"PaxHeaders.0/", ascii_prefix(base, 80).as_slice()].concat()
}

fn ascii_prefix(text: &[u8], length: usize) -> Vec<u8> {
    text.iter().map(|byte| if byte.is_ascii() { *byte } else { b'_' }).take(length).collect()
}

/// `length key=value\n`, the length counting its own digits.
fn add_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if digits(length) != digits(rest) {
        length += 1;
    }
    // Writing to a vector does not fail.
    let _ = write!(out, "{length} ");
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(value: usize) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Seconds with as many decimals as are needed; before 1970 both parts count backwards.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let decimals = format!("{fraction:09}");
    format!("{sign}{whole}.{}", decimals.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_lengths_count_themselves() {
        for length in 0..1200 {
            let mut out = Vec::new();
            add_record(&mut out, b"path", &vec![b'x'; length]);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), text.len());
        }
    }

    #[test]
    fn times_before_and_after_1970() {
        assert_eq!(decimal_time(1, 500_000_000), "1.5");
        assert_eq!(decimal_time(-2, 500_000_000), "-1.5");
        assert_eq!(decimal_time(-3, 0), "-3");
        assert_eq!(decimal_time(7, 1), "7.000000001");
    }

    #[test]
    fn paths_are_split_where_ustar_can() {
        let long = [vec![b'a'; 90], b"/".to_vec(), vec![b'b'; 90]].concat();
        assert_eq!(split_path(&long), Some((&long[..90], &long[91..])));
        assert_eq!(split_path(&[b'a'; 101]), None);
        assert_eq!(split_path(&[vec![b'a'; 100], b"/".to_vec()].concat()), None);
        assert_eq!(split_path("é".as_bytes()), None);
        assert_eq!(split_path(&[vec![b'/'], vec![b'a'; 100]].concat()), None);
    }
}
