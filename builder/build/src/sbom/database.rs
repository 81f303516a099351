//! dpkg's and apk's databases: paragraphs of `Key: value` lines.

use super::{Distribution, Package};

/// `var/lib/dpkg/status`: what is installed, and not what was removed.
pub(super) fn dpkg(text: &str, distribution: &Distribution) -> Vec<Package> {
    let installed = |paragraph: &&str| field(paragraph, "Status").is_some_and(|status| status.ends_with(" installed"));
    text.split("\n\n").filter(installed).filter_map(|paragraph| debian(paragraph, distribution)).collect()
}

/// `var/lib/dpkg/status.d/*`, which images without dpkg have.
pub(super) fn dpkg_part(text: &str, distribution: &Distribution) -> Vec<Package> {
    text.split("\n\n").filter_map(|paragraph| debian(paragraph, distribution)).collect()
}

fn debian(paragraph: &str, distribution: &Distribution) -> Option<Package> {
    Some(Package {
        kind: "deb",
        namespace: or(&distribution.id, "debian"),
        name: field(paragraph, "Package")?.to_owned(),
        version: field(paragraph, "Version")?.to_owned(),
        architecture: field(paragraph, "Architecture").unwrap_or_default().to_owned(),
        license: String::new(),
    })
}

/// `lib/apk/db/installed`: `P:name`, `V:version`, `A:architecture`, `L:license`.
pub(super) fn apk(text: &str, distribution: &Distribution) -> Vec<Package> {
    let package = |paragraph: &str| {
        let field = |key: char| {
            paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default().to_owned()
        };
        let package = Package {
            kind: "apk",
            namespace: or(&distribution.id, "alpine"),
            name: field('P'),
            version: field('V'),
            architecture: field('A'),
            license: field('L'),
        };
        (!package.name.is_empty() && !package.version.is_empty()).then_some(package)
    };
    text.split("\n\n").filter_map(package).collect()
}

fn field<'t>(paragraph: &'t str, key: &str) -> Option<&'t str> {
    paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

fn or(text: &str, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text.to_owned() }
}
