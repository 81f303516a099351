//! Where the registry listens: an address, or a socket in the file system.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How sockets in the file system are written.
const UNIX: &str = "unix:";

/// `127.0.0.1:5000`, or `unix:/run/kiln/registry.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenPlace {
    /// An address with a port; 0 chooses a free one.
    Address(SocketAddr),
    /// A socket in the file system, for a proxy on this machine.
    Socket(PathBuf),
}

impl FromStr for ListenPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Socket(path.into())),
            Some(_) => Err(format!("{text:?}: a socket has an absolute path")),
            None => text.parse().map(Self::Address).map_err(|_| format!("{text:?} is neither IP:PORT nor unix:PATH")),
        }
    }
}

impl TryFrom<String> for ListenPlace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ListenPlace> for String {
    fn from(place: ListenPlace) -> Self {
        place.to_string()
    }
}

impl From<SocketAddr> for ListenPlace {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<([u8; 4], u16)> for ListenPlace {
    fn from(address: ([u8; 4], u16)) -> Self {
        Self::Address(address.into())
    }
}

impl fmt::Display for ListenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}
