//! The project's fixtures: base file systems and real applications.

use std::path::{Path, PathBuf};

use crate::{command, run};

/// The checkout.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the project").to_owned()
}

/// A file or folder of `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    project().join("fixtures").join(name)
}

/// The root file system of `busybox:latest`.
pub fn busybox_tar() -> PathBuf {
    base_tar("busybox")
}

/// The root file system of `debian:12`.
pub fn debian_tar() -> PathBuf {
    base_tar("debian")
}

/// The proxies of this machine, `name=value`: what a step or a container needs to reach the mirrors.
pub fn proxies() -> Vec<String> {
    ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]
        .iter()
        .filter_map(|name| std::env::var(name).ok().map(|value| format!("{name}={value}")))
        .collect()
}

/// The scripts keep their tars, so this is quick but for the first time.
fn base_tar(name: &str) -> PathBuf {
    let script = fixture("base").join(format!("{name}.sh"));
    let outcome = run(command(script, ["--tar"])).success();
    PathBuf::from(outcome.text())
}
