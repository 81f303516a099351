//! `--mount` and `--tmpfs`.

use std::path::PathBuf;

use super::{NewVolume, Volume, propagation};
use crate::{Error, Result, names};

pub(super) const TMPFS_MODE: u32 = 0o1777;

impl Volume {
    /// Parses docker's `--mount`: `type=bind|volume|tmpfs|image,source=…,target=…[,readonly]…`.
    ///
    /// # Errors
    /// Text that is no mount; says what is expected.
    pub fn parse_mount(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Invalid(format!("invalid mount {text:?}: {why}"));
        let (mut kind, mut source, mut target) = ("volume", None, None);
        let (mut readonly, mut size, mut mode) = (false, None, TMPFS_MODE);
        let (mut slave, mut fresh, mut part) = (false, NewVolume::default(), "/");
        let pair = |text: &str| -> (String, String) {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        for field in text.split(',') {
            let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
            let given = || value.ok_or_else(|| wrong(&format!("{key:?} needs a value")));
            match key.to_ascii_lowercase().as_str() {
                "type" => kind = given()?,
                "source" | "src" => source = Some(given()?),
                "target" | "dst" | "destination" => target = Some(given()?),
                "readonly" | "ro" => readonly = is_true(value).ok_or_else(|| wrong("readonly is true or false"))?,
                "tmpfs-size" => size = Some(bytes(given()?).ok_or_else(|| wrong("tmpfs-size is a size"))?),
                "tmpfs-mode" => {
                    mode = u32::from_str_radix(given()?, 8).map_err(|_| wrong("tmpfs-mode is an octal number"))?;
                }
                "bind-propagation" => {
                    let known = propagation(given()?);
                    slave = known.ok_or_else(|| wrong("bind-propagation is private, rprivate, slave or rslave"))?;
                }
                "volume-nocopy" => {
                    fresh.empty = is_true(value).ok_or_else(|| wrong("volume-nocopy is true or false"))?;
                }
                "volume-label" => fresh.labels.extend([pair(given()?)]),
                "volume-opt" => fresh.options.extend([pair(given()?.trim_matches('"'))]),
                "volume-driver" if value == Some("local") => {}
                "image-subpath" => part = given()?,
                // What is mounted in a directory comes along, and there is nothing between to be consistent with.
                "consistency" | "bind-nonrecursive" | "bind-recursive" => {}
                other => return Err(wrong(&format!("unknown field {other:?}"))),
            }
        }
        let target = target.filter(|target| target.starts_with('/') && !target.trim_matches('/').is_empty());
        let target = PathBuf::from(target.ok_or_else(|| wrong("an absolute target is needed, and not /"))?);
        match (kind, source) {
            ("bind", Some(source)) => {
                let source = std::path::absolute(source).map_err(|error| Error::io("find", source, error))?;
                // Other than -v, which makes it.
                if !source.exists() {
                    return Err(wrong(&format!("bind source path does not exist: {}", source.display())));
                }
                Ok(Self::Bind { source, target, readonly, slave })
            }
            ("bind", None) => Err(wrong("a bind mount needs a source")),
            ("volume", Some(name)) if !name.is_empty() => {
                names::check("volume", name)?;
                Ok(Self::Named { name: name.to_owned(), target, readonly, fresh })
            }
            ("volume", _) => Ok(Self::Anonymous { target }),
            ("tmpfs", None) if readonly => Err(wrong("a read-only tmpfs has nothing in it")),
            ("tmpfs", None) => Ok(Self::Tmpfs { target, size, mode }),
            ("tmpfs", Some(_)) => Err(wrong("a tmpfs has no source")),
            ("image", Some(name)) if !name.is_empty() => {
                Ok(Self::Image { name: name.to_owned(), part: PathBuf::from(part), target })
            }
            ("image", _) => Err(wrong("an image is needed as the source")),
            (other, _) => Err(wrong(&format!("unknown type {other:?}; expected bind, volume, tmpfs or image"))),
        }
    }

    /// Parses docker's `--tmpfs`: `/path[:size=64m,mode=1777]`.
    ///
    /// # Errors
    /// Text that is none; says what is expected.
    pub fn parse_tmpfs(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Invalid(format!("invalid tmpfs {text:?}: {why}"));
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        if !target.starts_with('/') || target.trim_matches('/').is_empty() {
            return Err(wrong("the path must be absolute, and not /"));
        }
        let (mut size, mut mode) = (None, TMPFS_MODE);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("size", value) => size = Some(bytes(value).ok_or_else(|| wrong("size is a size"))?),
                ("mode", value) => {
                    mode = u32::from_str_radix(value, 8).map_err(|_| wrong("mode is an octal number"))?;
                }
                // What it is anyway, or what makes no difference to it.
                ("rw" | "nosuid" | "nodev" | "noexec" | "exec" | "suid" | "dev" | "noatime" | "relatime", "") => {}
                ("uid" | "gid" | "nr_inodes" | "nr_blocks", _) => {}
                _ => return Err(wrong(&format!("unknown option {option:?}"))),
            }
        }
        Ok(Self::Tmpfs { target: PathBuf::from(target), size, mode })
    }
}

fn is_true(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(_) => None,
    }
}

/// `64m`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(['b', 'k', 'm', 'g', 'i']);
    let shift = match lower[number.len()..].chars().next() {
        None | Some('b') => 0,
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some(_) => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let target = PathBuf::from("/p");
        let mount = |text: &str| Volume::parse_mount(text);
        let bind = Volume::Bind { source: "/tmp".into(), target: target.clone(), readonly: true, slave: false };
        assert_eq!(mount("type=bind,source=/tmp,target=/p,readonly").unwrap(), bind);
        let named = |fresh| Volume::Named { name: "n1".into(), target: target.clone(), readonly: false, fresh };
        assert_eq!(mount("src=n1,dst=/p").unwrap(), named(NewVolume::default()));
        let fresh = NewVolume {
            empty: true,
            labels: [("a".to_owned(), "b".to_owned())].into(),
            options: [("type".to_owned(), "tmpfs".to_owned())].into(),
        };
        assert_eq!(mount("src=n1,dst=/p,volume-nocopy,volume-label=a=b,volume-opt=type=tmpfs").unwrap(), named(fresh));
        let image = Volume::Image { name: "a:1".into(), part: "/usr".into(), target: target.clone() };
        assert_eq!(mount("type=image,src=a:1,dst=/p,image-subpath=/usr").unwrap(), image);
        assert!(mount("type=bind,src=/tmp,dst=/p,bind-propagation=shared").is_err());
        assert_eq!(mount("target=/p").unwrap(), Volume::Anonymous { target: target.clone() });
        let memory = Volume::Tmpfs { target: target.clone(), size: Some(1 << 20), mode: 0o700 };
        assert_eq!(mount("type=tmpfs,target=/p,tmpfs-size=1m,tmpfs-mode=700").unwrap(), memory);
        for wrong in
            ["", "target=p", "type=bind,target=/p", "type=bind,src=/no/such,dst=/p", "type=x,dst=/p", "dst=/p,x=y"]
        {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
        let memory = Volume::Tmpfs { target, size: Some(65536), mode: 0o1777 };
        assert_eq!(Volume::parse_tmpfs("/p:rw,size=64k").unwrap(), memory);
        assert!(Volume::parse_tmpfs("p").is_err() && Volume::parse_tmpfs("/p:what").is_err());
    }
}
