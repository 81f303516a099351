//! The keys that let go of a container.

use crate::{Error, Result};

/// A sequence of bytes; an empty one never lets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// Control-P, control-Q.
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl DetachKeys {
    /// Parses docker's `ctrl-p,ctrl-q`: letters, and `ctrl-` with `a`–`z`, `@`, `[`, `\`, `]`, `^` or `_`.
    ///
    /// # Errors
    /// Something else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::Invalid(format!("invalid detach keys {text:?}; expected keys such as ctrl-p,ctrl-q"));
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (None, [letter]) => Some(*letter),
            (Some(key), _) => match key.as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                [letter @ (b'@' | b'['..=b'_')] => Some(letter - b'@'),
                _ => None,
            },
            _ => None,
        };
        text.split(',').map(|text| key(text).ok_or_else(wrong)).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn watch(self) -> Watch {
        Watch { keys: self.0, seen: 0 }
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    /// So many of them came last.
    seen: usize,
}

impl Watch {
    /// What is to be passed on, and whether the keys were complete: what follows them is dropped.
    pub(crate) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(self.keys.first() == Some(byte));
            if self.seen == 0 {
                passed.push(*byte);
            } else if self.keys.len() == 1 {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_parsed() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(DetachKeys::parse("a,ctrl-@,ctrl-[").unwrap(), DetachKeys(vec![b'a', 0, 27]));
        for wrong in ["ctrl-", "ctrl-P", "ab", "a,,b", "ctrl-1"] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_whole_sequence_lets_go() {
        let mut watch = DetachKeys::default().watch();
        assert_eq!(watch.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watch.pass(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(watch.pass(b"\x11more"), (Vec::new(), true));
        assert_eq!(DetachKeys(Vec::new()).watch().pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        assert_eq!(DetachKeys(vec![b'q']).watch().pass(b"aq"), (b"a".to_vec(), true));
    }
}
