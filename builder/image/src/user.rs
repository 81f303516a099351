//! `user[:group]` of USER and `--user`, looked up in the image's `/etc/passwd` and `/etc/group`.

use std::path::Path;

use kiln_store::Snapshot;

use crate::{Error, Result};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Bytes of either file, at most: a longer one counts as missing.
const FILE_LIMIT: u64 = 8 << 20;
/// The highest id, as runc's and docker's.
const HIGHEST_ID: u32 = i32::MAX as u32;

/// Numeric ids of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups: from `/etc/group`, unless a group was given.
    pub groups: Vec<u32>,
    /// Home directory; `/` when unknown.
    pub home: String,
}

/// Looks a user up; the empty string is root.
///
/// # Errors
/// A name that the image does not have.
pub fn resolve(snapshot: &Snapshot, text: &str) -> Result<User> {
    resolve_in(&read(snapshot, PASSWD)?, || read(snapshot, GROUP), text)
}

/// The same, by the text of the two files.
///
/// # Errors
/// A name that they do not have.
pub fn resolve_text(passwd: &str, group: &str, text: &str) -> Result<User> {
    resolve_in(passwd, || Ok(group.to_owned()), text)
}

/// `--chown=user[:group]`: like [`resolve`], but a user without a group gives that user's own id as the group
/// when it is numeric, and the group of `/etc/passwd` when it is a name.
///
/// # Errors
/// A name that the image does not have.
pub fn resolve_owner(snapshot: &Snapshot, text: &str) -> Result<(u32, u32)> {
    // Numbers need no file, and so no image at all (FROM scratch).
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if let Some(uid) = number("user", user)? {
        match number("group", group)? {
            Some(gid) => return Ok((uid, gid)),
            None if group.is_empty() => return Ok((uid, uid)),
            None => {}
        }
    }
    let user = resolve(snapshot, text)?;
    Ok((user.uid, user.gid))
}

fn read(snapshot: &Snapshot, file: &str) -> Result<String> {
    let bytes = snapshot.read(Path::new(file), FILE_LIMIT)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn resolve_in(passwd: &str, group_file: impl FnOnce() -> Result<String>, text: &str) -> Result<User> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let user_number = if user.is_empty() { Some(0) } else { number("user", user)? };
    let group_number = number("group", group)?;
    let entry = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| match user_number {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    });
    let mut found = match (&entry, user_number) {
        (Some(entry), _) => User { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.to_owned() },
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new(), home: String::new() },
        (None, None) => return Err(Error::NoSuchUser { kind: "user", name: user.to_owned(), file: PASSWD }),
    };
    if found.home.is_empty() {
        found.home.push('/');
    }
    let groups = group_file()?;
    let mut groups = groups.lines().filter_map(GroupEntry::parse);
    if let Some(gid) = group_number {
        found.gid = gid;
    } else if !group.is_empty() {
        let missing = || Error::NoSuchUser { kind: "group", name: group.to_owned(), file: GROUP };
        found.gid = groups.find(|entry| entry.name == group).ok_or_else(missing)?.gid;
    } else if let Some(entry) = entry {
        let member_of = |group: &GroupEntry<'_>| group.members.split(',').any(|member| member.trim() == entry.name);
        found.groups = groups.filter(member_of).map(|group| group.gid).collect();
    }
    Ok(found)
}

/// A numeric id; `None` for a name (and for nothing).
fn number(kind: &'static str, text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let in_range = text.parse().ok().filter(|id| *id <= HIGHEST_ID);
    in_range.map(Some).ok_or_else(|| Error::InvalidId { kind, text: text.to_owned() })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// `name:password:uid:gid:comment:home:shell`; a line that is no entry is passed over, as libc does.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.trim().parse().ok()?;
        let gid = fields.next()?.trim().parse().ok()?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    /// `name:password:gid:member,member`.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.trim().parse().ok()?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEOPLE: &str =
        "root:x:0:0:root:/root:/bin/sh\n# note\nbroken\napp:x:1000:1001::/srv/app:/bin/sh\n7:x:8:9::/:";
    const GROUPS: &str = "root:x:0:\nadm:x:4:app,root\napp:x:1001:\nweb:x:33: app\n";

    fn resolved(text: &str) -> Result<User> {
        resolve_in(PEOPLE, || Ok(GROUPS.to_owned()), text)
    }

    #[test]
    fn users_are_found_as_runc_finds_them() {
        let cases: [(&str, u32, u32, &[u32], &str); 8] = [
            ("", 0, 0, &[4], "/root"),
            ("app", 1000, 1001, &[4, 33], "/srv/app"),
            ("1000", 1000, 1001, &[4, 33], "/srv/app"),
            ("app:adm", 1000, 4, &[], "/srv/app"),
            ("app:77", 1000, 77, &[], "/srv/app"),
            ("55", 55, 0, &[], "/"),
            ("7", 7, 0, &[], "/"),
            ("55:web", 55, 33, &[], "/"),
        ];
        for (text, uid, gid, groups, home) in cases {
            let expected = User { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
            assert_eq!(resolved(text).expect(text), expected, "{text}");
        }
        for wrong in ["nobody", "app:nobody", "4294967296", "2147483648", "0:2147483648"] {
            assert!(resolved(wrong).is_err(), "{wrong}");
        }
    }
}
