//! The programs that run in the container.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use kiln_sandbox::program::Program;

use super::destination::{self, Source};
use super::extract::{Treatment, extract};
use super::write::{write, write_root};

/// Known to the sandbox.
pub(crate) const PROGRAMS: &[Program] = &[("send", send), ("receive", receive), ("export", export)];

fn report(done: io::Result<()>) -> u8 {
    match done {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            1
        }
    }
}

/// `send PATH follow|keep`: an archive of it goes to standard output.
fn send(arguments: &[String]) -> u8 {
    let [path, follow] = arguments else { return 2 };
    let name = name_of(path);
    let describe = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!("could not find the file {path} in the container")),
        _ => io::Error::new(error.kind(), format!("{path}: {error}")),
    };
    let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    // `dir/.` and `dir/` mean the directory, whatever leads there.
    let follow = follow == "follow" || path.ends_with("/.") || path.ends_with('/');
    report(write(Path::new(path), Path::new(&name), follow, &mut out).map_err(describe).and_then(|()| out.flush()))
}

/// `export`: an archive of everything but what is mounted goes to standard output.
fn export(_: &[String]) -> u8 {
    let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    report(write_root(Path::new("/"), &mut out).and_then(|()| out.flush()))
}

/// The name that a path's own entry gets in an archive.
pub(super) fn name_of(path: &str) -> OsString {
    Path::new(path).components().next_back().map_or_else(
        || OsString::from("root"),
        |component| match component {
            std::path::Component::Normal(name) => name.to_owned(),
            _ => OsString::from("root"),
        },
    )
}

/// `receive PATH NAME file|directory|contents|archive owners|own`: unpacks standard input there.
fn receive(arguments: &[String]) -> u8 {
    let [path, name, kind, owners] = arguments else { return 2 };
    report(unpack(path, name, kind, owners == "owners", &mut io::stdin().lock()).map(drop))
}

/// By docker's rules, wherever this is.
pub(super) fn unpack(path: &str, name: &str, kind: &str, owners: bool, input: &mut dyn io::Read) -> io::Result<u64> {
    let is_directory = Path::new(path).metadata().ok().map(|metadata| metadata.is_dir());
    if kind == "archive" {
        if is_directory != Some(true) {
            return Err(io::Error::other(format!("{path} is not a directory")));
        }
        return extract(input, Path::new(path), &Treatment { rename: None, owners });
    }
    let source = Source { name: name.into(), is_directory: kind != "file", contents: kind == "contents" };
    let place = destination::find(path, is_directory, &source).map_err(io::Error::other)?;
    extract(input, &place.directory, &Treatment { rename: Some(place.name), owners })
}
