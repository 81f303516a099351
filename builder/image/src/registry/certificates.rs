//! The certificates that a host's directory holds, as docker and podman lay them out: `certs.d/<host[:port]>/` with
//! `*.crt` for authorities, and `NAME.cert` with `NAME.key` for who we are.

use std::path::{Path, PathBuf};

use kiln_trust::Peers;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, Result};

/// Bytes of one file, at most.
const FILE_LIMIT: u64 = 1 << 20;

/// Of the given directory, or of the first `certs.d` that knows the host.
pub(super) fn find(host: &str, given: Option<&Path>) -> Result<Peers> {
    let directory = match given {
        Some(directory) if directory.is_dir() => Some(directory.to_path_buf()),
        Some(directory) => {
            return Err(Error::invalid(directory.display().to_string(), "not a directory of certificates"));
        }
        None => places().into_iter().map(|place| place.join("certs.d").join(host)).find(|path| path.is_dir()),
    };
    directory.map_or_else(|| Ok(Peers::default()), |directory| read_directory(&directory))
}

fn read_directory(directory: &Path) -> Result<Peers> {
    let failed = || Error::io("list", directory);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed())? {
        paths.push(entry.map_err(failed())?.path());
    }
    paths.sort();
    let mut found = Peers::default();
    for path in paths {
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("crt") => found.authorities.extend(certificates(&path)?),
            Some("cert") if found.identity.is_none() => {
                let key = path.with_extension("key");
                if !key.is_file() {
                    return Err(Error::invalid(path.display().to_string(), "its key, NAME.key, is missing"));
                }
                let wrong = |_| Error::invalid(key.display().to_string(), "there is no private key in it");
                let secret = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(wrong)?;
                found.identity = Some((certificates(&path)?, secret));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Those of a file, which has one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let none = || Error::invalid(path.display().to_string(), "there is no certificate in it");
    kiln_trust::certificates(&read(path)?).ok_or_else(none)
}

/// The user's places before the machine's, podman's before docker's.
fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let own = [".config/containers", ".config/docker", ".docker"];
    let own = home.into_iter().flat_map(|home| own.map(|place| home.join(place)));
    own.chain(["/etc/containers", "/etc/docker"].map(PathBuf::from)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if size > FILE_LIMIT {
        return Err(Error::invalid(path.display().to_string(), format!("longer than {FILE_LIMIT} bytes")));
    }
    std::fs::read(path).map_err(Error::io("read", path))
}
