//! The variables of each stage while the checks go through it. A stage that goes on from another only points at it:
//! ten thousand of them in a row must not copy what all of them inherit.

use std::collections::HashMap;

use kiln_grammar::expand::Variables;

/// The stages that are done, in order.
#[derive(Debug, Default)]
pub(super) struct Scopes(Vec<Scope>);

/// One stage's own variables, and where it goes on from.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// A stage with variables of its own below this one.
    pub(super) base: Option<usize>,
    /// Value (`None` is not known, or not set) and whether it is an ENV.
    own: HashMap<String, (Option<String>, bool)>,
    /// A base image that is not here may set anything.
    pub(super) open: bool,
    /// There was a WORKDIR.
    pub(super) has_working_directory: bool,
}

impl Scopes {
    pub(super) fn push(&mut self, scope: Scope) {
        self.0.push(scope);
    }

    /// What a stage that goes on from this one begins with.
    pub(super) fn inherit(&self, stage: usize) -> Scope {
        let Some(base) = self.0.get(stage) else { return Scope::open() };
        let nearest = if base.own.is_empty() { base.base } else { Some(stage) };
        Scope { base: nearest, open: base.open, has_working_directory: base.has_working_directory, own: HashMap::new() }
    }
}

impl Scope {
    /// Of a base image that is not here.
    pub(super) fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    fn chain<'a>(&'a self, scopes: &'a Scopes) -> impl Iterator<Item = &'a Self> {
        std::iter::successors(Some(self), |scope| scopes.0.get(scope.base?))
    }

    fn find<'a>(&'a self, scopes: &'a Scopes, name: &str) -> Option<&'a (Option<String>, bool)> {
        self.chain(scopes).find_map(|scope| scope.own.get(name))
    }

    pub(super) fn has(&self, scopes: &Scopes, name: &str) -> bool {
        self.find(scopes, name).is_some()
    }

    pub(super) fn has_env(&self, scopes: &Scopes, name: &str) -> bool {
        self.find(scopes, name).is_some_and(|(_, env)| *env)
    }

    pub(super) fn value(&self, scopes: &Scopes, name: &str) -> Option<String> {
        self.find(scopes, name)?.0.clone()
    }

    pub(super) fn set(&mut self, name: String, value: Option<String>, env: bool) {
        self.own.insert(name, (value, env));
    }

    /// Names for suggestions: a thousand are enough.
    pub(super) fn names<'a>(&'a self, scopes: &'a Scopes) -> Vec<&'a str> {
        self.chain(scopes).flat_map(|scope| scope.own.keys()).take(1_000).map(String::as_str).collect()
    }

    pub(super) fn variables<'a>(&'a self, scopes: &'a Scopes) -> Values<'a> {
        Values { scope: self, scopes }
    }
}

/// A scope as expansion sees it.
pub(super) struct Values<'a> {
    scope: &'a Scope,
    scopes: &'a Scopes,
}

impl Variables for Values<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.scope.value(self.scopes, name)
    }
}
