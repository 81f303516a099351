//! What build arguments mean beside the values of ARGs: a time for the whole build, and those that nothing asks for.

use std::borrow::Cow;
use std::collections::BTreeSet;

use kiln_grammar::Dockerfile;
use kiln_grammar::ast::InstructionKind;
use kiln_grammar::diagnostic::nearest;
use kiln_grammar::expand::{Variables, expand};

use super::stages::Stages;
use super::variables::{GlobalScope, PROXIES};
use crate::{Error, Request, Result};

/// The argument that sets the times of what a build makes.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Arguments of the builder itself begin like this.
const BUILDER: &str = "BUILDKIT_";

/// The request with the time that the Dockerfile sets by `ARG SOURCE_DATE_EPOCH=…` before its first FROM. What was
/// given to the build wins, also an empty value, which asks for no such time.
///
/// # Errors
/// The value is not a number of seconds.
pub(crate) fn with_epoch<'a>(dockerfile: &Dockerfile, request: &'a Request) -> Result<Cow<'a, Request>> {
    let stages = Stages::cut(dockerfile);
    let declares = |raw: &str| raw == EPOCH;
    let declaration = stages.globals.iter().rev().find(|declaration| declares(&declaration.name.raw));
    let (Some(declaration), None, None) = (declaration, request.epoch, request.build_args.get(EPOCH)) else {
        return Ok(Cow::Borrowed(request));
    };
    let escape = dockerfile.directives.escape;
    let mut globals = GlobalScope::platform(request, &request.platform, "");
    for declaration in &stages.globals {
        let default = declaration.default.as_ref().map(|word| expand(word, escape, &globals)).transpose()?;
        let value = request.build_args.get(&declaration.name.raw).cloned().or(default);
        globals.0.insert(declaration.name.raw.clone(), value);
    }
    let text = globals.get(EPOCH).unwrap_or_default();
    if text.is_empty() {
        return Ok(Cow::Borrowed(request));
    }
    let span = declaration.default.as_ref().map_or(declaration.name.span, |word| word.span);
    let seconds = text.parse().map_err(|_| {
        Error::at_with_help(
            span,
            format!("{EPOCH} {text:?} is not a number of seconds"),
            "give the seconds since 1970, such as `git log -1 --format=%ct` prints",
        )
        .labelled("expected a number")
    })?;
    Ok(Cow::Owned(Request { epoch: Some(seconds), ..request.clone() }))
}

/// A line about the build arguments that no ARG declares, if there are any. `used` are those of triggers.
pub(super) fn unconsumed(dockerfile: &Dockerfile, request: &Request, used: &BTreeSet<String>) -> Option<String> {
    if request.build_args.is_empty() {
        return None;
    }
    let mut declared: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    for instruction in &dockerfile.instructions {
        if let InstructionKind::Arg(declarations) = &instruction.kind {
            declared.extend(declarations.iter().map(|declaration| declaration.name.raw.as_str()));
        }
    }
    // The builder uses these itself; and a name with a variable in it may be any.
    let automatic = GlobalScope::platform(request, &request.platform, "").0;
    let is_known = |name: &str| {
        declared.contains(name)
            || PROXIES.contains(&name)
            || name == EPOCH
            || name.starts_with(BUILDER)
            || automatic.contains_key(name)
    };
    let unknown: Vec<&str> = request.build_args.keys().map(String::as_str).filter(|name| !is_known(name)).collect();
    if unknown.is_empty() || declared.iter().any(|name| name.contains('$')) {
        return None;
    }
    let declared: Vec<&str> = declared.into_iter().take(1_000).collect();
    let meant: Vec<String> = unknown
        .iter()
        .filter_map(|name| Some(format!("; did you mean {} by {name}?", nearest(name, &declared)?)))
        .collect();
    Some(format!("[Warning] One or more build-args [{}] were not consumed{}", unknown.join(" "), meant.concat()))
}
