//! Finding the Dockerfile and the ignore file of a build.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Names that are tried in the context, in order.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];
/// A Dockerfile or ignore file longer than this is a mistake.
const LARGEST: u64 = 256 << 20;

/// The Dockerfile: what `-f` names (`-` is standard input), or the first of the usual names in the context.
/// Returns its path, name and bytes.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn dockerfile(file: Option<&Path>, context: Option<&Path>) -> Result<(Option<PathBuf>, String, Vec<u8>)> {
    if file == Some(Path::new("-")) || (file.is_none() && context.is_none()) {
        let bytes = read_bounded(&mut std::io::stdin(), Path::new("standard input"))?;
        return Ok((None, "Dockerfile".to_owned(), bytes));
    }
    let path = match (file, context) {
        (Some(file), _) => file.to_path_buf(),
        (None, Some(context)) => {
            let found = NAMES.iter().map(|name| context.join(name)).find(|path| path.is_file());
            found.unwrap_or_else(|| context.join(NAMES[0]))
        }
        (None, None) => PathBuf::from(NAMES[0]),
    };
    let mut opened = std::fs::File::open(&path).map_err(|error| Error::io("read the Dockerfile", &path, error))?;
    let bytes = read_bounded(&mut opened, &path)?;
    let name = path.strip_prefix("./").unwrap_or(&path).display().to_string();
    Ok((Some(path), name, bytes))
}

/// The ignore file that applies: the Dockerfile's own, or the context's. Returns its name and text.
///
/// # Errors
/// It is there and cannot be read.
pub fn ignore_file(dockerfile: Option<&Path>, context: &Path) -> Result<Option<(String, String)>> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let candidates = own.into_iter().chain([context.join(".containerignore"), context.join(".dockerignore")]);
    for path in candidates {
        match std::fs::File::open(&path) {
            Ok(mut file) => {
                let bytes = read_bounded(&mut file, &path)?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Ok(Some((name, String::from_utf8_lossy(&bytes).into_owned())));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read the ignore file", path, error)),
        }
    }
    Ok(None)
}

fn read_bounded(from: &mut dyn Read, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::io("read", path, std::io::Error::other("the file is larger than 256 MiB")));
    }
    Ok(bytes)
}
