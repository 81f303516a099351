//! Finding the context, the Dockerfile and the ignore file of a build.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kiln_store::{Snapshot, Store};

use crate::remote::{self, Fetch, Form, Location, Remote};
use crate::request::{ContextDirectory, ContextSource};
use crate::{Error, Result, archive};

/// Names that are tried in the context, in order.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];
/// What an archive's path begins with, as kaniko has it.
const ARCHIVE: &str = "tar://";
/// A Dockerfile or ignore file longer than this is a mistake.
const LARGEST: u64 = 256 << 20;

/// Where a build's files are said to be.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// A directory, `-`, a URL, a repository, or `tar://` and an archive's path.
    pub context: &'a str,
    /// `--file`: a path, `-` or a URL; within the context when that is no directory.
    pub file: Option<&'a str>,
    /// `--ignorefile`.
    pub ignore_file: Option<&'a Path>,
    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
    pub keep_git_dir: bool,
    /// SOURCE_DATE_EPOCH.
    pub epoch: Option<i64>,
    /// `--no-cache`.
    pub no_cache: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Located {
    /// The files.
    pub context: ContextSource,
    /// The Dockerfile's name, as messages show it.
    pub dockerfile_name: String,
    /// Its bytes.
    pub dockerfile: Vec<u8>,
}

/// Finds the context and the Dockerfile; what is not on this host is fetched.
///
/// # Errors
/// One of them is not there, or cannot be read.
pub fn open(store: &Store, places: &Places<'_>) -> Result<Located> {
    let wrong = |reason| Error::Remote { address: places.context.to_owned(), reason };
    let stdin_twice = places.context == "-" && places.file == Some("-");
    if stdin_twice {
        return Err(wrong("standard input cannot be both the context and the Dockerfile".to_owned()));
    }
    if let Some(archive) = places.context.strip_prefix(ARCHIVE) {
        return in_archive(store, places, Path::new(archive));
    }
    match Location::parse(places.context).map_err(wrong)? {
        Location::Path(path) => in_directory(store, places, &path),
        Location::Stdin => on_stdin(store, places),
        Location::Http(url) => fetched(store, places, Remote::Http(url)),
        Location::Git(mut git) => {
            git.keep_git_dir = git.keep_git_dir.or(places.keep_git_dir.then_some(true));
            fetched(store, places, Remote::Git(git))
        }
    }
}

fn in_directory(store: &Store, places: &Places<'_>, path: &Path) -> Result<Located> {
    if !path.is_dir() {
        let kind = if path.exists() { std::io::ErrorKind::NotADirectory } else { std::io::ErrorKind::NotFound };
        return Err(Error::io("open the build context", path, std::io::Error::from(kind)));
    }
    let remote = match places.file {
        Some(file) if file != "-" => match Location::parse_remote(file) {
            Ok(Some(Location::Http(url))) => Some(url),
            _ => None,
        },
        _ => None,
    };
    if let Some(url) = remote {
        let fetch = Fetch { source: Remote::Http(url.clone()), checksum: None, form: Form::File };
        let fetched = remote::fetch(store, &fetch, places.epoch, places.no_cache)?;
        let dockerfile = read_in(store, &[fetched.layer], Path::new(&fetched.name.unwrap_or_default()))?;
        let ignore = ignore_file(places.ignore_file, None, path)?;
        let context = ContextSource::Directory(ContextDirectory { path: path.to_path_buf(), ignore });
        return Ok(Located { context, dockerfile_name: url, dockerfile: dockerfile.unwrap_or_default() });
    }
    let (found, dockerfile_name, dockerfile) = dockerfile(places.file.map(Path::new), path)?;
    let ignore = ignore_file(places.ignore_file, found.as_deref(), path)?;
    let context = ContextSource::Directory(ContextDirectory { path: path.to_path_buf(), ignore });
    Ok(Located { context, dockerfile_name, dockerfile })
}

/// An archive of the context on this host.
fn in_archive(store: &Store, places: &Places<'_>, path: &Path) -> Result<Located> {
    let mut file = File::open(path).map_err(|error| Error::io("open the build context", path, error))?;
    let layers = vec![remote::unpack(store, &mut file, &path.display().to_string(), places.epoch)?];
    within(store, places, places.context, layers)
}

/// Standard input is an archive of the context, or the Dockerfile of a build without one.
fn on_stdin(store: &Store, places: &Places<'_>) -> Result<Located> {
    let staging = store.stage()?;
    let path = staging.scratch("stdin")?.join("context");
    let io = |error| Error::io("read standard input into", &path, error);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file).map_err(io)?;
    file.flush().and_then(|()| file.seek(SeekFrom::Start(0))).map_err(io)?;
    if archive::is_archive(&mut file).map_err(io)? {
        let layers = vec![remote::unpack(store, &mut file, "the context on standard input", places.epoch)?];
        return within(store, places, "-", layers);
    }
    if places.file.is_some() {
        let reason = "--file names a file in it, and standard input is no archive".to_owned();
        return Err(Error::Remote { address: "the context on standard input".to_owned(), reason });
    }
    let dockerfile = read_bounded(&mut file, Path::new("standard input"))?;
    Ok(Located { context: ContextSource::Empty, dockerfile_name: "Dockerfile".to_owned(), dockerfile })
}

/// A URL is that of an archive, or of the Dockerfile of a build without a context.
fn fetched(store: &Store, places: &Places<'_>, source: Remote) -> Result<Located> {
    let fetch = Fetch { source, checksum: None, form: Form::Unpacked };
    let fetched = remote::fetch(store, &fetch, places.epoch, places.no_cache)?;
    let layers = vec![fetched.layer];
    let Some(name) = fetched.name else { return within(store, places, places.context, layers) };
    let dockerfile = read_in(store, &layers, Path::new(&name))?.unwrap_or_default();
    Ok(Located { context: ContextSource::Empty, dockerfile_name: name, dockerfile })
}

/// The Dockerfile in a context that is a layer.
fn within(store: &Store, places: &Places<'_>, name: &str, layers: Vec<kiln_store::DiffId>) -> Result<Located> {
    let shown = name.split(['?', '#']).next().unwrap_or_default().to_owned();
    let names: Vec<&str> = match places.file {
        Some("-") => {
            let dockerfile = read_bounded(&mut std::io::stdin(), Path::new("standard input"))?;
            let context = ContextSource::Layers { name: shown, layers };
            return Ok(Located { context, dockerfile_name: "Dockerfile".to_owned(), dockerfile });
        }
        Some(file) => vec![file],
        None => NAMES.to_vec(),
    };
    for file in &names {
        if let Some(dockerfile) = read_in(store, &layers, Path::new(file))? {
            let context = ContextSource::Layers { name: shown, layers };
            return Ok(Located { context, dockerfile_name: (*file).to_owned(), dockerfile });
        }
    }
    let reason = format!("it has no {}", names.first().copied().unwrap_or_default());
    Err(Error::Remote { address: shown, reason })
}

fn read_in(store: &Store, layers: &[kiln_store::DiffId], path: &Path) -> Result<Option<Vec<u8>>> {
    Ok(Snapshot::open(store, layers)?.read(path, LARGEST)?)
}

/// The Dockerfile: what `-f` names (`-` is standard input), or the first of the usual names in the context.
/// Returns its path, name and bytes.
fn dockerfile(file: Option<&Path>, context: &Path) -> Result<(Option<PathBuf>, String, Vec<u8>)> {
    if file == Some(Path::new("-")) {
        let bytes = read_bounded(&mut std::io::stdin(), Path::new("standard input"))?;
        return Ok((None, "Dockerfile".to_owned(), bytes));
    }
    let path = file.map_or_else(
        || {
            let found = NAMES.iter().map(|name| context.join(name)).find(|path| path.is_file());
            found.unwrap_or_else(|| context.join(NAMES[0]))
        },
        // As kaniko and podman find it: from here, or else from the context on.
        |file| {
            Some(context.join(file)).filter(|inside| !file.exists() && inside.is_file()).unwrap_or(file.to_path_buf())
        },
    );
    let mut opened = File::open(&path).map_err(|error| Error::io("read the Dockerfile", &path, error))?;
    let bytes = read_bounded(&mut opened, &path)?;
    let name = path.strip_prefix("./").unwrap_or(&path).display().to_string();
    Ok((Some(path), name, bytes))
}

/// The ignore file that applies: the one that was named, the Dockerfile's own, or the context's. Returns its name and
/// text.
///
/// # Errors
/// It is there and cannot be read, or was named and is not there.
pub fn ignore_file(
    named: Option<&Path>,
    dockerfile: Option<&Path>,
    context: &Path,
) -> Result<Option<(String, String)>> {
    if let Some(path) = named {
        let read = File::open(path).map_err(|error| Error::io("read the ignore file", path, error));
        return read.and_then(|mut file| ignore_text(&mut file, path)).map(Some);
    }
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let candidates = own.into_iter().chain([context.join(".containerignore"), context.join(".dockerignore")]);
    for path in candidates {
        match File::open(&path) {
            Ok(mut file) => return ignore_text(&mut file, &path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read the ignore file", path, error)),
        }
    }
    Ok(None)
}

fn ignore_text(file: &mut File, path: &Path) -> Result<(String, String)> {
    let bytes = read_bounded(file, path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, String::from_utf8_lossy(&bytes).into_owned()))
}

fn read_bounded(from: &mut dyn Read, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::io("read", path, std::io::Error::other("the file is larger than 256 MiB")));
    }
    Ok(bytes)
}
