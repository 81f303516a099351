//! The users: those of the TOML file, and those of an htpasswd file.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kiln_store::Digest;
use serde::Deserialize;

use super::rights::{Allow, Rights};
use crate::error::Error;

/// Everyone who can sign in, and what those who do not may do.
#[derive(Debug, Default)]
pub(crate) struct Users {
    accounts: HashMap<String, Account>,
    pub(crate) anonymous: Arc<Rights>,
}

/// A user or a robot.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) secret: Secret,
    pub(crate) rights: Arc<Rights>,
    /// Seconds since 1970 after which it cannot sign in.
    expires: Option<i64>,
}

/// What proves who somebody is.
#[derive(Debug, Clone)]
pub(crate) enum Secret {
    /// Of a password that a person chose.
    Bcrypt(String),
    /// Of a secret that is random, and needs no slow hash.
    Sha256(Digest),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    user: BTreeMap<String, UserTable>,
    robot: BTreeMap<String, RobotTable>,
    group: BTreeMap<String, AllowTable>,
    anonymous: AllowTable,
    everyone: AllowTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserTable {
    password: String,
    #[serde(default)]
    allow: Allow,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RobotTable {
    secret: String,
    expires: Option<toml::value::Datetime>,
    #[serde(default)]
    allow: Allow,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AllowTable {
    allow: Allow,
}

impl Users {
    /// Reads the files that are configured.
    pub(crate) fn read(users: Option<&Path>, htpasswd: Option<&Path>) -> Result<Self, Error> {
        let document = match users {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
                Some(toml::from_str(&text).map_err(|error| invalid(path, error.to_string()))?)
            }
            None => None,
        };
        let mut found = match (&document, users) {
            (Some(document), Some(path)) => Self::of(document).map_err(|reason| invalid(path, reason))?,
            _ => Self::default(),
        };
        if let Some(path) = htpasswd {
            let rights = document.as_ref().map_or_else(|| Ok(Rights::all()), everyone);
            let rights = Arc::new(rights.map_err(|reason| invalid(users.unwrap_or(path), reason))?);
            let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
            found.add_htpasswd(&text, &rights).map_err(|reason| invalid(path, reason))?;
        }
        Ok(found)
    }

    fn of(document: &Document) -> Result<Self, String> {
        let mut anonymous = Rights::default();
        anonymous.add(&document.anonymous.allow).map_err(|reason| format!("`anonymous`: {reason}"))?;
        let mut users = Self { accounts: HashMap::new(), anonymous: Arc::new(anonymous) };
        for (name, table) in &document.user {
            let secret = Secret::parse(&table.password).map_err(|reason| format!("user `{name}`: {reason}"))?;
            let rights = rights(document, &table.allow, &table.groups);
            users.add(name, secret, rights.map_err(|reason| format!("user `{name}`: {reason}"))?, None)?;
        }
        for (name, table) in &document.robot {
            let secret = Secret::parse(&table.secret).map_err(|reason| format!("robot `{name}`: {reason}"))?;
            let rights = rights(document, &table.allow, &table.groups);
            let expires = table.expires.as_ref().map(|time| instant(&time.to_string())).transpose();
            let expires = expires.map_err(|reason| format!("robot `{name}`: {reason}"))?;
            users.add(name, secret, rights.map_err(|reason| format!("robot `{name}`: {reason}"))?, expires)?;
        }
        Ok(users)
    }

    fn add(&mut self, name: &str, secret: Secret, rights: Rights, expires: Option<i64>) -> Result<(), String> {
        if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
            return Err(format!("{name:?} cannot be a user's name"));
        }
        let account = Account { secret, rights: Arc::new(rights), expires };
        if self.accounts.insert(name.to_owned(), account).is_some() {
            return Err(format!("there are two `{name}`"));
        }
        Ok(())
    }

    /// Users of the TOML file win over those of the same name.
    fn add_htpasswd(&mut self, text: &str, rights: &Arc<Rights>) -> Result<(), String> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = line.split_once(':').ok_or_else(|| format!("line {} has no colon", number + 1))?;
            let secret = Secret::parse(hash).map_err(|reason| format!("line {}: {reason}", number + 1))?;
            let account = Account { secret, rights: Arc::clone(rights), expires: None };
            self.accounts.entry(name.to_owned()).or_insert(account);
        }
        Ok(())
    }

    /// An account that has not expired.
    pub(crate) fn account(&self, name: &str) -> Option<&Account> {
        let account = self.accounts.get(name)?;
        let expired = account.expires.is_some_and(|time| time <= jiff::Timestamp::now().as_second());
        (!expired).then_some(account)
    }
}

impl Secret {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("sha256:") {
            return text.parse().map(Self::Sha256).map_err(|_| "the secret is no sha256 digest".to_owned());
        }
        // Everything else that htpasswd can write is too weak to be accepted.
        let is_bcrypt = text.parse::<bcrypt::HashParts>().is_ok();
        if is_bcrypt { Ok(Self::Bcrypt(text.to_owned())) } else { Err("the password is no bcrypt hash".to_owned()) }
    }
}

fn rights(document: &Document, allow: &Allow, groups: &[String]) -> Result<Rights, String> {
    let mut rights = everyone(document)?;
    rights.add(allow)?;
    for group in groups {
        rights.add(&document.group.get(group).ok_or_else(|| format!("there is no group `{group}`"))?.allow)?;
    }
    Ok(rights)
}

/// What whoever signed in may do; what the others may, he may too.
fn everyone(document: &Document) -> Result<Rights, String> {
    let mut rights = Rights::default();
    rights.add(&document.anonymous.allow)?;
    rights.add(&document.everyone.allow)?;
    Ok(rights)
}

/// Seconds since 1970 at a date or time of TOML; without an offset it is UTC's.
fn instant(text: &str) -> Result<i64, String> {
    let timestamp = text.parse::<jiff::Timestamp>().or_else(|_| {
        text.parse::<jiff::civil::DateTime>()
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC))
            .map(|time| time.timestamp())
    });
    timestamp.map(jiff::Timestamp::as_second).map_err(|_| format!("{text} is no date"))
}

fn invalid(path: &Path, reason: String) -> Error {
    Error::Config { place: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::super::rights::Action;
    use super::*;

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuTLPzHIxnZCIsZ4ZLiRZ5S8t3W1mXyJq";

    fn users(text: &str) -> Result<Users, String> {
        Users::of(&toml::from_str(text).map_err(|error| error.to_string())?)
    }

    #[test]
    fn rights_come_from_the_account_its_groups_and_everyone() {
        let text = format!(
            "[user.alice]\npassword = \"{HASH}\"\nallow = {{ \"alice/**\" = [\"pull\", \"push\", \"delete\"] }}\n\
             groups = [\"dev\"]\n[robot.ci]\nsecret = \"{}\"\nexpires = 2100-01-01\n\
             [robot.old]\nsecret = \"{HASH}\"\nexpires = 2001-01-01T00:00:00Z\n\
             [group.dev]\nallow = {{ \"team/*\" = [\"push\"] }}\n\
             [everyone]\nallow = {{ \"team/*\" = [\"pull\"] }}\n[anonymous]\nallow = {{ \"public/*\" = [\"pull\"] }}\n",
            Digest::of(b"secret")
        );
        let users = users(&text).unwrap();
        let may = |name: &str, action, repository: &str| users.account(name).unwrap().rights.permit(action, repository);
        assert!(may("alice", Action::Delete, "alice/x") && may("alice", Action::Push, "team/x"));
        assert!(may("ci", Action::Pull, "team/x") && !may("ci", Action::Push, "team/x"));
        assert!(may("ci", Action::Pull, "public/x"));
        assert!(users.account("old").is_none() && users.account("nobody").is_none());
        assert!(users.anonymous.permit(Action::Pull, "public/x") && !users.anonymous.permit(Action::Pull, "team/x"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("[user.a]\npasword = \"x\"\n", "pasword"),
            ("[user.a]\npassword = \"plain\"\n", "user `a`: the password is no bcrypt hash"),
            (&format!("[user.a]\npassword = \"{HASH}\"\ngroups = [\"x\"]"), "no group `x`"),
            (&format!("[user.a]\npassword = \"{HASH}\"\n[robot.a]\nsecret = \"{HASH}\""), "two `a`"),
            (&format!("[user.a]\npassword = \"{HASH}\"\nallow = {{ x = [\"write\"] }}"), "write"),
            (&format!("[user.\"a:b\"]\npassword = \"{HASH}\""), "name"),
        ] {
            let error = users(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let mut users = Users::default();
        let rights = Arc::new(Rights::all());
        users.add_htpasswd(&format!("# people\n\nbob:{HASH}\n"), &rights).unwrap();
        assert!(users.account("bob").is_some());
        assert!(users.add_htpasswd("bob:{SHA}xyz", &rights).unwrap_err().contains("line 1"));
    }
}
