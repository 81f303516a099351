//! Passwords checked: slowly the first time, as bcrypt is meant to be, and at once when they were right before.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use kiln_store::Digest;
use tokio::sync::Semaphore;

use super::users::Secret;
use crate::blocking::blocking;
use crate::error::Error;

/// Right passwords that are remembered, as digests.
const MOST_REMEMBERED: usize = 4_096;
/// What an unknown user's password is compared with, so that the answer takes as long as a known one's.
const NOBODY: &str = "$2b$10$CwTycUXWue0Thq9StjUM0uJ8i4ZUJk4Hh3lBvUdyQUH9ZZ5dpnh1e";

/// The memory of right passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    right: Mutex<HashSet<Digest>>,
    /// Hashes that are computed at once: wrong passwords must not take all the processors.
    turns: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { right: Mutex::default(), turns: Semaphore::new(processors.div_ceil(2)) }
    }
}

impl Passwords {
    /// Whether the password is the account's; `None` for an account that does not exist.
    pub(crate) async fn check(&self, secret: Option<Secret>, password: String) -> Result<bool, Error> {
        let (hash, known) = match secret {
            Some(Secret::Sha256(digest)) => return Ok(Digest::of(password.as_bytes()) == digest),
            Some(Secret::Bcrypt(hash)) => (hash, true),
            None => (NOBODY.to_owned(), false),
        };
        // With the hash in it, a changed password is a different one.
        let proof = Digest::of(format!("{hash}\0{password}").as_bytes());
        if known && self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&proof) {
            return Ok(true);
        }
        let turn = self.turns.acquire().await.map_err(|_| Error::Interrupted)?;
        let same = blocking(move || Ok::<_, Error>(bcrypt::verify(&password, &hash).unwrap_or(false))).await?;
        drop(turn);
        if same && known {
            let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if right.len() >= MOST_REMEMBERED {
                right.clear();
            }
            right.insert(proof);
        }
        Ok(same && known)
    }
}

/// The bcrypt hash of a password, as the users' file and htpasswd have it. Blocks for a while.
///
/// # Errors
/// [`Error::Password`] when it has more than 72 bytes, of which bcrypt would forget the rest, or none, or a NUL.
pub fn hash_password(password: &str) -> Result<String, Error> {
    if password.is_empty() || password.len() > 72 || password.contains('\0') {
        return Err(Error::Password);
    }
    let hashed = bcrypt::hash_with_result(password, 10).map_err(|_| Error::Password)?;
    Ok(hashed.format_for_version(bcrypt::Version::TwoY))
}

/// A random secret for a robot, and what the users' file has of it.
///
/// # Errors
/// [`Error::Random`] when the system gives no random bytes.
pub fn robot_secret() -> Result<(String, String), Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.into()))?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = Digest::of(secret.as_bytes()).to_string();
    Ok((secret, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_account_is_right() {
        let passwords = Passwords::default();
        let hash = Secret::Bcrypt(bcrypt::hash("correct", 4).unwrap());
        for _ in 0..2 {
            assert!(passwords.check(Some(hash.clone()), "correct".to_owned()).await.unwrap());
            assert!(!passwords.check(Some(hash.clone()), "wrong".to_owned()).await.unwrap());
        }
        let other = Secret::Bcrypt(bcrypt::hash("changed", 4).unwrap());
        assert!(!passwords.check(Some(other), "correct".to_owned()).await.unwrap());
        assert!(!passwords.check(None, String::new()).await.unwrap());
        let (secret, digest) = robot_secret().unwrap();
        let digest = Secret::Sha256(digest.parse().unwrap());
        assert!(passwords.check(Some(digest.clone()), secret).await.unwrap());
        assert!(!passwords.check(Some(digest), "x".to_owned()).await.unwrap());
    }

    #[test]
    fn hashes_are_those_of_htpasswd() {
        let hash = hash_password("correct").unwrap();
        assert!(hash.starts_with("$2y$10$") && bcrypt::verify("correct", &hash).unwrap());
        assert!(hash_password("").is_err() && hash_password(&"x".repeat(73)).is_err());
        assert!(!bcrypt::verify("", NOBODY).unwrap());
    }
}
