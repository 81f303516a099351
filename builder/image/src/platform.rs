//! `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A platform. `Display` and `FromStr` use the slash form; aliases (`x86_64`, `aarch64`) are normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "mips64" if cfg!(target_endian = "little") => "mips64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }

    /// The platform of what is no image: BuildKit's attestations have it.
    pub fn unknown() -> Self {
        Self { os: "unknown".to_owned(), architecture: "unknown".to_owned(), variant: None }
    }

    /// A platform of its parts, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), variant.unwrap_or_default());
        let os = os.to_ascii_lowercase();
        Self { os: if os == "macos" { "darwin".to_owned() } else { os }, architecture, variant }
    }

    /// Parses `linux/arm64/v8`, `arm64`, `linux`.
    ///
    /// # Errors
    /// Text that is no platform.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason| Error::Platform { text: text.to_owned(), reason };
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if !parts.iter().all(word) {
            return Err(wrong("each part is made of letters, digits and the characters _ . -"));
        }
        let host = Self::host();
        match parts.as_slice() {
            [os] if is_os(os) => Ok(Self::new(os, &host.architecture, host.variant.as_deref())),
            [architecture] if is_architecture(architecture) => Ok(Self::new(&host.os, architecture, None)),
            [_] => Err(wrong("neither an operating system nor an architecture that is known")),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(wrong("expected os/architecture[/variant]")),
        }
    }

    /// Whether an image made for `image` serves a request for `self`.
    pub fn accepts(&self, image: &Self) -> bool {
        self.preference(image).is_some()
    }

    /// How well an image made for `image` serves a request for `self`: of several that do, the highest is best.
    pub fn preference(&self, image: &Self) -> Option<u8> {
        let image = Self::new(&image.os, &image.architecture, image.variant.as_deref());
        let wanted = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        if wanted.os != image.os || wanted.architecture != image.architecture {
            return None;
        }
        match (variant_number(&wanted), variant_number(&image)) {
            (Some(wanted), Some(image)) => (image <= wanted).then_some(image),
            _ => (wanted.variant == image.variant).then_some(u8::MAX),
        }
    }
}

/// The level of an architecture whose variants include the lower ones: `arm/v7` runs `arm/v6`.
fn variant_number(platform: &Platform) -> Option<u8> {
    let implied = match platform.architecture.as_str() {
        "amd64" => 1,
        "arm64" => 8,
        "arm" => 7,
        _ => return None,
    };
    match &platform.variant {
        None => Some(implied),
        Some(variant) => variant.strip_prefix('v').and_then(|level| level.parse().ok()),
    }
}

/// The names that people and compilers use, as the names that images use (Go's), with the default variant left out.
fn normalise(architecture: &str, variant: &str) -> (String, Option<String>) {
    let variant = variant.to_ascii_lowercase();
    let numbered = if variant.len() == 1 && variant.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("v{variant}")
    } else {
        variant
    };
    let (architecture, variant) = match architecture {
        "i386" | "i486" | "i586" | "i686" | "x86" | "386" => ("386", String::new()),
        "x86_64" | "x86-64" | "amd64" if numbered == "v1" => ("amd64", String::new()),
        "x86_64" | "x86-64" | "amd64" => ("amd64", numbered),
        "aarch64" | "arm64" if numbered == "v8" => ("arm64", String::new()),
        "aarch64" | "arm64" => ("arm64", numbered),
        "armhf" => ("arm", "v7".to_owned()),
        "armel" => ("arm", "v6".to_owned()),
        "arm" if numbered.is_empty() => ("arm", "v7".to_owned()),
        other => (other, numbered),
    };
    (architecture.to_owned(), (!variant.is_empty()).then_some(variant))
}

fn is_os(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "linux"
            | "windows"
            | "darwin"
            | "macos"
            | "freebsd"
            | "netbsd"
            | "openbsd"
            | "dragonfly"
            | "solaris"
            | "aix"
            | "wasip1"
    )
}

fn is_architecture(text: &str) -> bool {
    let (architecture, _) = normalise(&text.to_ascii_lowercase(), "");
    matches!(
        architecture.as_str(),
        "386"
            | "amd64"
            | "arm"
            | "arm64"
            | "loong64"
            | "mips"
            | "mipsle"
            | "mips64"
            | "mips64le"
            | "ppc64"
            | "ppc64le"
            | "riscv64"
            | "s390x"
            | "wasm"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).expect(text)
    }

    #[test]
    fn aliases_and_short_forms() {
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("linux/aarch64/v8").to_string(), "linux/arm64");
        assert_eq!(platform("linux/arm").to_string(), "linux/arm/v7");
        assert_eq!(platform("arm64").architecture, "arm64");
        assert_eq!(platform("linux"), Platform::host());
        for wrong in ["", "/", "linux/", "nonsense", "a/b/c/d", "linux/a b"] {
            assert!(Platform::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn newer_machines_run_older_variants() {
        let wanted = platform("linux/arm/v7");
        assert!(wanted.accepts(&platform("linux/arm/v6")));
        assert!(!platform("linux/arm/v6").accepts(&wanted));
        assert!(wanted.preference(&platform("linux/arm/v7")) > wanted.preference(&platform("linux/arm/v5")));
        assert!(platform("linux/arm64").accepts(&platform("linux/arm64/v8")));
        assert!(!platform("linux/amd64").accepts(&platform("linux/amd64/v3")));
        assert!(!platform("linux/amd64").accepts(&platform("linux/arm64")));
    }
}
