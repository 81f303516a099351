//! Ids and names of containers. `containers/.names/<name>` is a symlink to the id of whoever has the name; what counts
//! is the container's own record.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::directory::lock;
use crate::record::Record;
use crate::{Error, Result};

const MOODS: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "crisp", "deft", "eager", "early", "fair", "firm", "glad", "grand",
    "keen", "kind", "light", "lively", "lucid", "mellow", "merry", "mild", "neat", "noble", "plain", "proud", "quick",
    "quiet", "ready", "steady", "sunny", "warm", "wise",
];
const THINGS: [&str; 32] = [
    "anvil", "basin", "beacon", "bellows", "bowl", "brick", "clay", "crucible", "ember", "flask", "flue", "forge",
    "furnace", "glaze", "hearth", "jar", "jug", "ladle", "lamp", "loam", "mortar", "mould", "oven", "pitcher", "plate",
    "potter", "quarry", "shard", "slip", "stove", "tile", "wheel",
];

/// 64 hex digits.
pub(crate) fn random_id() -> Result<String> {
    Ok(random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `mood_thing`, with a number when that is taken.
pub(crate) fn random_name(is_taken: &dyn Fn(&str) -> bool) -> Result<String> {
    let [mood, thing, ..] = random::<8>()?;
    let pick = |words: &[&'static str; 32], number: u8| words[usize::from(number) % words.len()];
    let base = format!("{}_{}", pick(&MOODS, mood), pick(&THINGS, thing));
    let numbered = (1_u32..).map(|number| if number == 1 { base.clone() } else { format!("{base}{number}") });
    numbered.into_iter().find(|name| !is_taken(name)).ok_or_else(|| Error::Invalid("no name is free".to_owned()))
}

/// Checks a name that was given to `what`: docker's rule, which lets only a network's be a single letter.
pub(crate) fn check(what: &str, name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let goes_on = (name.len() > 1 || what == "network")
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if begins && goes_on {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "invalid {what} name {name:?}; expected a letter or digit, then letters, digits, `_`, `.` or `-`"
    )))
}

const NAMES: &str = ".names";

/// The lock that names are given and taken under.
pub(crate) fn lock_all(all: &Path) -> Result<File> {
    lock(&all.join(".lock"), FlockOperation::LockExclusive)
}

/// The directory of the container of this name.
pub(crate) fn named(all: &Path, name: &str) -> Option<PathBuf> {
    let id = std::fs::read_link(all.join(NAMES).join(name)).ok()?;
    let path = all.join(id);
    Record::read(&path).filter(|record| record.name == name).map(|_| path)
}

/// Points a name, which is nobody's, at a container.
pub(crate) fn give(all: &Path, name: &str, id: &str) -> Result<()> {
    let names = all.join(NAMES);
    let link = names.join(name);
    let _ = std::fs::create_dir(&names);
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(id, &link).map_err(|error| Error::io("make", link, error))
}

/// Frees the name of a container.
pub(crate) fn take_away(all: &Path, name: &str, id: &str) {
    let link = all.join(NAMES).join(name);
    if std::fs::read_link(&link).is_ok_and(|owner| owner == Path::new(id)) {
        let _ = std::fs::remove_file(link);
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let path = "/dev/urandom";
    let mut bytes = [0; N];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::io("read", path, error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(check("container", "web-1.a_b").is_ok());
        for wrong in ["", "a", "-a", "a b", "ä1"] {
            assert!(check("volume", wrong).is_err(), "{wrong}");
        }
        assert!(check("network", "a").is_ok() && check("network", "-").is_err());
        let name = random_name(&|name| !name.ends_with('2')).unwrap();
        assert!(name.ends_with('2') && check("container", &name).is_ok());
        assert_eq!(random_id().unwrap().len(), 64);
    }
}
