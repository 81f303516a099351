//! Reading a log, from anywhere in it, to its end or for as long as the container runs.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::log;
use crate::record::Container;
use crate::{Error, Result};

/// How long to wait before looking for more.
const PAUSE: Duration = Duration::from_millis(40);
const BLOCK: u64 = 64 * 1024;

/// Which lines of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on while the container runs.
    pub follow: bool,
    /// So many lines from the end.
    pub tail: Option<u64>,
    /// From here on.
    pub since: Option<jiff::Timestamp>,
    /// Up to here.
    pub until: Option<jiff::Timestamp>,
    /// Every line begins with its time.
    pub timestamps: bool,
}

/// Gets the bytes of standard output (`false`) and error (`true`); says whether it wants more.
pub(crate) type Writer<'a> = &'a mut dyn FnMut(bool, &[u8]) -> bool;

/// Reads the log of a container. `write` gets the bytes of standard output (`false`) and error (`true`), and says
/// whether it wants more.
///
/// # Errors
/// It cannot be read.
pub fn follow(container: &Container, options: &LogOptions, write: &mut dyn FnMut(bool, &[u8]) -> bool) -> Result<()> {
    let path = log::file(&container.path, 0);
    let io = |error| Error::io("read", &path, error);
    if options.follow && container.record.settings.log_driver.as_deref() != Some("none") {
        File::options().create(true).append(true).open(&path).map_err(io)?;
    }
    let files = last_files(container, options.tail).map_err(io)?;
    let mut container = container.clone();
    // Of standard output and error.
    let mut fresh = [true; 2];
    let Some((current, older)) = files.split_last() else { return Ok(()) };
    for file in older {
        let mut reader = BufReader::new(file.try_clone().map_err(io)?);
        if let Shown::Enough = show_lines(&mut reader, &mut Vec::new(), options, &mut fresh, write).map_err(io)? {
            return Ok(());
        }
    }
    let mut reader = BufReader::new(current.try_clone().map_err(io)?);
    let mut line = Vec::new();
    loop {
        let ended = !container.state.is_alive();
        let next = next_file(reader.get_ref(), &path);
        if let Shown::Enough = show_lines(&mut reader, &mut line, options, &mut fresh, write).map_err(io)? {
            return Ok(());
        }
        if let Some(next) = next {
            // All of the one before has been read by now.
            reader = BufReader::new(next);
            line.clear();
            continue;
        }
        // What was written before its end has been read by now.
        if !options.follow || ended {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        container.refresh();
    }
}

/// The file that is written to meanwhile, when it is another one.
fn next_file(current: &File, path: &Path) -> Option<File> {
    use std::os::unix::fs::MetadataExt;
    let next = File::open(path).ok()?;
    let inode = |file: &File| file.metadata().ok().map(|metadata| metadata.ino());
    (inode(&next)? != inode(current)?).then_some(next)
}

/// The files with the last so many lines, or with all, the oldest first; each at the place where they begin.
fn last_files(container: &Container, tail: Option<u64>) -> std::io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut wanted = tail;
    for number in 0.. {
        let mut file = match File::open(log::file(&container.path, number)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        if let Some(lines) = wanted {
            let (start, found) = start_of_last(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
            wanted = Some(lines.saturating_sub(found));
        }
        files.push(file);
        if wanted == Some(0) {
            break;
        }
    }
    files.reverse();
    Ok(files)
}

/// Shows the whole lines that are there; the beginning of one stays in `line`.
fn show_lines(
    reader: &mut BufReader<File>,
    line: &mut Vec<u8>,
    options: &LogOptions,
    fresh: &mut [bool; 2],
    write: Writer<'_>,
) -> std::io::Result<Shown> {
    while reader.read_until(b'\n', line)? > 0 && line.ends_with(b"\n") {
        if let Shown::Enough = show(line, options, fresh, write) {
            return Ok(Shown::Enough);
        }
        line.clear();
    }
    Ok(Shown::More)
}

enum Shown {
    More,
    Enough,
}

/// One line of the file; `fresh` says of each stream that it is not the rest of one.
fn show(line: &[u8], options: &LogOptions, fresh: &mut [bool; 2], write: Writer<'_>) -> Shown {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (Some(time), Some(stream), Some(tag), Some(text)) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Shown::More;
    };
    let moment = || std::str::from_utf8(time).ok()?.parse::<jiff::Timestamp>().ok();
    if options.since.is_some() || options.until.is_some() {
        let Some(moment) = moment() else { return Shown::More };
        if options.until.is_some_and(|until| moment > until) {
            return Shown::Enough;
        }
        if options.since.is_some_and(|since| moment < since) {
            return Shown::More;
        }
    }
    let whole = tag == b"F";
    let text = if whole { text } else { text.strip_suffix(b"\n").unwrap_or(text) };
    let is_error = stream == b"stderr";
    let fresh = &mut fresh[usize::from(is_error)];
    let stamped = options.timestamps && *fresh;
    let wanted = if stamped { write(is_error, &[time, b" ", text].concat()) } else { write(is_error, text) };
    *fresh = whole;
    if wanted { Shown::More } else { Shown::Enough }
}

/// Where the last so many lines begin, and how many there are.
fn start_of_last(file: &mut File, lines: u64) -> std::io::Result<(u64, u64)> {
    let mut end = file.seek(SeekFrom::End(0))?;
    // Whole lines, seen from the end: the one that counts is the end of the one before.
    let mut seen = 0;
    let mut after = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&after);
        let mut stop = block.len();
        // A line is looked at when the newline before it is there.
        while let Some(newline) =
            block.get(..stop.saturating_sub(1)).and_then(|part| part.iter().rposition(|byte| *byte == b'\n'))
        {
            let line = block.get(newline + 1..stop).unwrap_or_default();
            seen += u64::from(is_whole(line));
            if seen > lines {
                return Ok((start + u64::try_from(stop).unwrap_or(0), lines));
            }
            stop = newline + 1;
        }
        after = block.get(..stop).unwrap_or_default().to_vec();
        end = start;
    }
    let all = seen + u64::from(is_whole(&after));
    Ok(if all > lines { (u64::try_from(after.len()).unwrap_or(0), lines) } else { (0, all) })
}

fn is_whole(line: &[u8]) -> bool {
    line.splitn(4, |byte| *byte == b' ').nth(2) == Some(b"F")
}
