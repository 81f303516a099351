//! Who is who: the ids of a user namespace.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use crate::system_call::{Fork, fork};

/// Users and groups are mapped alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Group,
}

/// First id and count of a range of subordinate ids.
pub(crate) type Range = (u32, u32);

/// The subordinate ids of a user, by name or number, as /etc/subuid or /etc/subgid has them.
pub(crate) fn ranges(kind: Kind, uid: u32) -> Vec<Range> {
    let file = match kind {
        Kind::User => "/etc/subuid",
        Kind::Group => "/etc/subgid",
    };
    let text = fs::read_to_string(file).unwrap_or_default();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    // Users that are in no local file (LDAP, systemd-homed).
    parse_ranges(&text, &name.or_else(|| std::env::var("USER").ok()).unwrap_or_default(), uid)
}

fn parse_ranges(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next().filter(|owner| !owner.is_empty() && (*owner == name || *owner == number))?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (!owner.starts_with('#') && range.1 > 0).then_some(range)
        })
        .collect()
}

/// A program of PATH, or of where it usually is.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The command that maps root to `id`, and what follows to the ranges, for this process.
pub(crate) fn arguments(program: &std::path::Path, id: u32, ranges: &[Range]) -> Vec<OsString> {
    let mut arguments = vec![program.as_os_str().to_owned()];
    let mut inside = 1_u32;
    let mut numbers = vec![getpid().as_raw_nonzero().get().unsigned_abs(), 0, id, 1];
    for (first, count) in ranges {
        numbers.extend([inside, *first, *count]);
        inside = inside.saturating_add(*count);
    }
    arguments.extend(numbers.iter().map(|number| OsString::from(number.to_string())));
    arguments
}

/// A child that stayed outside of the namespace, which is where the mapping is made from.
pub(crate) struct Helper {
    pid: Pid,
    go: OwnedFd,
    complaint: OwnedFd,
}

impl Helper {
    pub(crate) fn fork(users: &[OsString], groups: &[OsString]) -> io::Result<Self> {
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
        let (complaint, complain) = pipe_with(PipeFlags::CLOEXEC)?;
        match fork()? {
            Fork::Parent(pid) => Ok(Self { pid, go, complaint }),
            Fork::Child => {
                drop((go, complaint));
                let mut byte = [0];
                // Closed without a byte: the namespace was not made.
                let mut failed = fs::File::from(wait).read_exact(&mut byte).is_err();
                for command in [users, groups] {
                    if failed {
                        break;
                    }
                    let error = run(command).err();
                    failed = error.is_some();
                    if let Some(error) = error {
                        let _ = rustix::io::write(&complain, error.to_string().as_bytes());
                    }
                }
                std::process::exit(i32::from(failed))
            }
        }
    }

    /// Maps; the namespace is there now.
    pub(crate) fn map(self) -> io::Result<()> {
        fs::File::from(self.go).write_all(&[1])?;
        let mut complaint = String::new();
        fs::File::from(self.complaint).read_to_string(&mut complaint)?;
        let status = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()))?;
        match status.and_then(|(_, status)| status.exit_status()) {
            Some(0) => Ok(()),
            _ => Err(io::Error::other(complaint)),
        }
    }
}

fn run(command: &[OsString]) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let output = Command::new(program).args(arguments).stdin(std::process::Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Maps root to the caller, and nobody else: that needs no help.
pub(crate) fn map_one(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "other:1:2\nme:100000:65536\n# me:5:5\nme:broken\n1000:300000:10\nme:7:0\n";
        assert_eq!(parse_ranges(text, "me", 1000), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(parse_ranges(text, "", 7), []);
    }

    #[test]
    fn ranges_follow_each_other_inside() {
        let arguments = arguments(std::path::Path::new("/bin/newuidmap"), 1000, &[(100_000, 10), (300_000, 5)]);
        let words: Vec<_> = arguments.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(words, ["0", "1000", "1", "1", "100000", "10", "11", "300000", "5"]);
    }
}
