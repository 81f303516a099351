//! What this machine lets kiln do, for `kiln info`.

/// One finding.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// e.g. "user namespaces".
    pub name: String,
    /// Whether it can be used.
    pub available: bool,
    /// What was found, in a few words.
    pub detail: String,
    /// What to install or change, when something is missing.
    pub remedy: Option<String>,
}

/// Looks at the machine as this user sees it: user namespaces, subuids, overlay, cgroups, seccomp, network parts.
pub fn probe() -> Vec<Finding> {
    todo!()
}
