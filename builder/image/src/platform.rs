//! `os/architecture[/variant]`.

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
        todo!()
    }
    /// Parses `linux/arm64/v8`, `arm64`, `linux`.
    ///
    /// # Errors
    /// Text that is no platform.
    pub fn parse(text: &str) -> crate::Result<Self> {
        let _ = text;
        todo!()
    }
    /// Whether an image made for `image` serves a request for `self`.
    pub fn accepts(&self, image: &Self) -> bool {
        let _ = image;
        todo!()
    }
}
impl std::fmt::Display for Platform {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
