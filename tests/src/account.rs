//! Who runs kiln: root, or one of the two ordinary users that `tests/run.sh` makes.

use std::{fs, path::Path};

/// An account of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Its primary gid.
    pub gid: u32,
}

impl Account {
    /// Whoever runs the tests.
    pub fn current() -> Self {
        let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let id = |key: &str| -> u32 {
            let line = status.lines().find(|line| line.starts_with(key)).expect("a status line");
            line.split_whitespace().nth(2).expect("an effective id").parse().expect("a number")
        };
        Self { name: "current".to_owned(), uid: id("Uid:"), gid: id("Gid:") }
    }

    /// The ordinary user with 65,536 subordinate uids and gids.
    pub fn with_subuids() -> Self {
        Self::named("kiln-test")
    }

    /// The ordinary user without any subordinate id.
    pub fn without_subuids() -> Self {
        Self::named("kiln-plain")
    }

    fn named(name: &str) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let fields: Vec<&str> = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))
            .unwrap_or_else(|| panic!("there is no user {name}: tests/run.sh makes it (as root)"));
        Self {
            name: name.to_owned(),
            uid: fields[2].parse().expect("a uid in /etc/passwd"),
            gid: fields[3].parse().expect("a gid in /etc/passwd"),
        }
    }

    /// Whether the tests already run as it.
    pub fn is_current(&self) -> bool {
        self.uid == Self::current().uid
    }

    /// Gives a file or directory (not what is inside) to the account.
    pub fn take(&self, path: &Path) {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .unwrap_or_else(|error| panic!("giving {} to {}: {error}", path.display(), self.name));
    }
}
