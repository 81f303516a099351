//! What becomes of the layers that steps make, and of the history that tells of them.

/// Nothing but the usual, unless it is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layering {
    /// Which layers become one.
    pub squash: Squash,
    /// `--omit-history`: the image does not tell how it was made.
    pub omit_history: bool,
    /// `--save-stages`: every stage that was built becomes an image, too.
    pub save_stages: bool,
}

/// Which layers become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Squash {
    /// None.
    #[default]
    Nothing,
    /// Those that the build made.
    New,
    /// All, the base image's too.
    All,
}
