//! Finding the kiln binary under test.

use std::{env, fs, path::PathBuf};

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
