//! Finding the kiln binary under test.

use std::{env, fs, path::PathBuf, sync::OnceLock};

use tempfile::TempDir;

/// `$KILN_BIN`, or the one built beside this test: the release build if it is newer than the debug one.
pub fn kiln_binary() -> PathBuf {
    if let Some(path) = env::var_os("KILN_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "KILN_BIN is {}, which is no file", path.display());
        return path;
    }
    let test = env::current_exe().expect("the test knows its own path");
    // …/target/<triple>/debug/deps/<test>
    let profiles = test.ancestors().nth(3).expect("the test lies in a target directory");
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = ["release", "debug"]
        .iter()
        .map(|profile| profiles.join(profile).join("kiln"))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    match found.pop() {
        Some((_, path)) => path,
        None => panic!("no kiln binary in {}: run `cargo build --release` first", profiles.display()),
    }
}

/// A copy of the binary that every account can reach, whatever the permissions of the checkout are.
pub(crate) fn shared_binary() -> PathBuf {
    static COPY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COPY.get_or_init(|| {
        let directory = tempfile::Builder::new()
            .prefix("kiln-binary-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a directory for the binary");
        let path = directory.path().join("kiln");
        fs::copy(kiln_binary(), &path).expect("the binary can be copied");
        (directory, path)
    });
    path.clone()
}
