//! Who may do what to which repositories.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::pattern::Patterns;

/// What can be done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    pub(crate) const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// As a token's scope has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// What somebody may do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rights(Vec<(Patterns, Vec<Action>)>);

/// As it is written: `{ "team/**" = ["pull", "push"] }`.
pub(crate) type Allow = BTreeMap<String, Vec<Action>>;

impl Rights {
    /// Everything.
    pub(crate) fn all() -> Self {
        Self(vec![(Patterns::everything(), Action::ALL.to_vec())])
    }

    /// Adds what is allowed; an error names a pattern that is none.
    pub(crate) fn add(&mut self, allow: &Allow) -> Result<(), String> {
        for (pattern, actions) in allow {
            let patterns = Patterns::new([pattern]).map_err(|error| error.to_string())?;
            self.0.push((patterns, actions.clone()));
        }
        Ok(())
    }

    pub(crate) fn permit(&self, action: Action, repository: &str) -> bool {
        self.0.iter().any(|(pattern, actions)| actions.contains(&action) && pattern.matches(repository))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_add_up() {
        let mut rights = Rights::default();
        assert!(!rights.permit(Action::Pull, "a"));
        rights.add(&Allow::from([("a/**".to_owned(), vec![Action::Pull])])).unwrap();
        rights.add(&Allow::from([("a/b".to_owned(), vec![Action::Push])])).unwrap();
        assert!(rights.add(&Allow::from([("[".to_owned(), vec![])])).is_err());
        assert!(rights.permit(Action::Pull, "a/b") && rights.permit(Action::Push, "a/b"));
        assert!(!rights.permit(Action::Push, "a/c") && !rights.permit(Action::Delete, "a/b"));
        assert!(Action::ALL.into_iter().all(|action| Rights::all().permit(action, "x/y")));
    }
}
