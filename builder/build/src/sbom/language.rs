//! What npm, pip and cargo leave beside what they install.

use serde_json::Value;

use super::Package;

/// `…/node_modules/name/package.json` or `…/node_modules/@scope/name/package.json`, and nothing deeper.
pub(super) fn is_npm_package(path: &str) -> bool {
    let Some(directory) = path.strip_suffix("/package.json") else { return false };
    let Some((_, name)) = directory.rsplit_once("node_modules/") else { return false };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.matches('/').count() == 1,
        None => !name.is_empty() && !name.contains('/'),
    }
}

/// `package.json`
pub(super) fn npm(bytes: &[u8]) -> Option<Package> {
    let json: Value = serde_json::from_slice(bytes).ok()?;
    let name = json.get("name")?.as_str()?;
    let (namespace, name) = match name.split_once('/') {
        Some((scope, name)) => (scope, name),
        None => ("", name),
    };
    Some(Package {
        kind: "npm",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        version: json.get("version")?.as_str()?.to_owned(),
        architecture: String::new(),
        license: json.get("license").and_then(Value::as_str).unwrap_or_default().to_owned(),
    })
}

/// `METADATA` or `PKG-INFO`: headers, an empty line, a description.
pub(super) fn python(text: &str) -> Option<Package> {
    let headers = text.split("\n\n").next().unwrap_or_default();
    let header = |key: &str| headers.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim);
    Some(Package {
        kind: "pypi",
        namespace: String::new(),
        name: header("Name")?.to_lowercase().replace(['_', '.'], "-"),
        version: header("Version")?.to_owned(),
        architecture: String::new(),
        license: header("License-Expression").or(header("License")).unwrap_or_default().to_owned(),
    })
}

/// `.crates.toml`: `"ripgrep 14.1.0 (registry+…)" = ["rg"]`
pub(super) fn cargo(text: &str) -> Vec<Package> {
    let package = |line: &str| {
        let (name, rest) = line.strip_prefix('"')?.split_once(' ')?;
        let version = rest.split([' ', '"']).next()?;
        Some(Package {
            kind: "cargo",
            namespace: String::new(),
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: String::new(),
            license: String::new(),
        })
    };
    text.lines().filter_map(package).collect()
}
