//! `algorithm:hex`, as the OCI image specification's "Digests".

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::de::Error as _;
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;

use crate::Error;

/// The algorithms that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the default everywhere.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Its name in a digest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Bytes of its digests.
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A checked digest. `Display` and `FromStr` use `algorithm:hex`, serde likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64], // unused tail is zero
}

/// The digest of a layer's uncompressed tar (OCI image specification, "Layer DiffID").
pub type DiffId = Digest;

/// Digits of the longest digest.
const HEX: usize = 128;

impl Digest {
    /// SHA-256 of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Algorithm::Sha256, &sha2::Sha256::digest(bytes))
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash itself, as long as the algorithm makes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.length()]
    }

    /// Lower-case hex without the algorithm.
    pub fn hex(&self) -> String {
        self.write_hex(&mut [0; HEX]).to_owned()
    }

    fn write_hex<'b>(&self, buffer: &'b mut [u8; HEX]) -> &'b str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (pair, byte) in buffer.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        // It is ASCII.
        std::str::from_utf8(&buffer[..self.algorithm.length() * 2]).unwrap_or_default()
    }

    /// The digest with this hex, which must be lower case and of the algorithm's length.
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> crate::Result<Self> {
        let invalid = |reason| Error::InvalidDigest { text: hex.chars().take(160).collect(), reason };
        if hex.len() != algorithm.length() * 2 {
            return Err(invalid("the hex has the wrong length"));
        }
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(invalid("only 0-9 and a-f may stand in the hex"));
            };
            *byte = high << 4 | low;
        }
        Ok(Self { algorithm, bytes })
    }

    /// `hash` is what the algorithm gave, so it has the right length.
    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        let mut bytes = [0; 64];
        for (to, from) in bytes.iter_mut().zip(hash) {
            *to = *from;
        }
        Self { algorithm, bytes }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        f.write_str(":")?;
        f.write_str(self.write_hex(&mut [0; HEX]))
    }
}

impl FromStr for Digest {
    type Err = Error;
    fn from_str(text: &str) -> crate::Result<Self> {
        let invalid = |reason| Error::InvalidDigest { text: text.chars().take(160).collect(), reason };
        let (name, hex) = text.split_once(':').ok_or_else(|| invalid("there is no `:`"))?;
        let algorithm = Algorithm::from_name(name).ok_or_else(|| invalid("the algorithm is not sha256 or sha512"))?;
        Self::from_hex(algorithm, hex)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Hashes what is written to it (and passes nothing on): an `io::Write`.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher of that algorithm.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// What it knows so far, to go on from in another process; of SHA-256 only.
    pub(crate) fn state(&self) -> Option<Vec<u8>> {
        match &self.0 {
            State::Sha256(hash) => Some(hash.serialize().to_vec()),
            State::Sha512(_) => None,
        }
    }

    /// Goes on from a [`Hasher::state`].
    pub(crate) fn resume(state: &[u8]) -> Option<Self> {
        let state = state.try_into().ok()?;
        Some(Self(State::Sha256(sha2::Sha256::deserialize(state).ok()?)))
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.finalize()),
            State::Sha512(hash) => Digest::from_hash(Algorithm::Sha512, &hash.finalize()),
        }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() -> crate::Result<()> {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>()?, Digest::of(b""));
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"abc");
        let long = hasher.finish();
        assert!(long.to_string().starts_with("sha512:ddaf35a193617aba"));
        assert_eq!(long.to_string().parse::<Digest>()?, long);
        Ok(())
    }

    #[test]
    fn hashing_goes_on_where_it_stopped() {
        for length in [0, 1, 63, 64, 65, 1 << 20] {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            hasher.update(&vec![1; length]);
            let mut resumed = Hasher::resume(&hasher.state().unwrap()).unwrap();
            hasher.update(b"more");
            resumed.update(b"more");
            assert_eq!(hasher.finish(), resumed.finish());
        }
        assert!(Hasher::resume(b"no state").is_none());
    }

    #[test]
    fn only_canonical_text_is_accepted() {
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:e3b0",
            &EMPTY.to_uppercase(),
            &EMPTY.replace("e3b0", "E3B0"),
            &EMPTY.replace("e3b0", "g3b0"),
            &EMPTY.replace("sha256", "sha512"),
            &EMPTY.replace("sha256", "md5"),
            &format!("{EMPTY}0"),
            "sha256:../../../../../../../../../../../../../../../../../../../../../../",
            "sha256:é3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
