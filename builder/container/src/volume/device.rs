//! The options of docker's driver `local`: a volume whose data are elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::mount::{TMPFS_MODE, bytes};
use crate::{Error, Result};

/// What is mounted in place of a volume's own directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// A directory of the host; no writes when true.
    Directory(PathBuf, bool),
    /// Memory: bytes, and permission bits.
    Memory(Option<u64>, u32),
}

/// `type=none,o=bind,device=/path`, or `type=tmpfs,device=tmpfs,o=size=…`; none when there are no options.
///
/// # Errors
/// What kiln does not mount.
pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Option<Device>> {
    let wrong = |why: &str| Error::Invalid(format!("volume options: {why}"));
    if let Some(unknown) = options.keys().find(|key| !["type", "device", "o"].contains(&key.as_str())) {
        return Err(wrong(&format!("invalid option: {unknown:?}; expected type, device and o")));
    }
    let get = |key: &str| options.get(key).map_or("", String::as_str);
    let words: Vec<&str> = get("o").split(',').filter(|word| !word.is_empty()).collect();
    let binds = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
    match get("type") {
        "" | "none" | "bind" if options.is_empty() || (!binds && get("device").is_empty()) => Ok(None),
        "" | "none" | "bind" if binds => {
            let source = PathBuf::from(get("device"));
            if !source.is_absolute() {
                return Err(wrong("device must be an absolute path"));
            }
            Ok(Some(Device::Directory(source, words.contains(&"ro"))))
        }
        "tmpfs" => {
            let (mut size, mut mode) = (None, TMPFS_MODE);
            for word in words {
                match word.split_once('=').unwrap_or((word, "")) {
                    ("size", value) => size = Some(bytes(value).ok_or_else(|| wrong("size is a size"))?),
                    ("mode", value) => {
                        mode = u32::from_str_radix(value, 8).map_err(|_| wrong("mode is an octal number"))?;
                    }
                    // What it is anyway, or what makes no difference to it.
                    _ => {}
                }
            }
            Ok(Some(Device::Memory(size, mode)))
        }
        other => Err(wrong(&format!(
            "kiln mounts no {other:?}: mount it on the host, and make the volume with type=none,o=bind,device=PATH"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_driver() {
        let options = |texts: &[(&str, &str)]| {
            parse(&texts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let bind = [("type", "none"), ("o", "bind,ro"), ("device", "/srv")];
        assert_eq!(options(&bind).unwrap(), Some(Device::Directory("/srv".into(), true)));
        let memory = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=10m,uid=1000")];
        assert_eq!(options(&memory).unwrap(), Some(Device::Memory(Some(10 << 20), 0o1777)));
        assert_eq!(options(&[]).unwrap(), None);
        for wrong in [&[("type", "nfs"), ("o", "addr=1.2.3.4")][..], &[("o", "bind"), ("device", "x")], &[("a", "b")]] {
            assert!(options(wrong).is_err(), "{wrong:?}");
        }
    }
}
