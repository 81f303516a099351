//! Programs of kiln's own that run in a sandbox in place of a command: they have what a command would have, and no more.

use std::sync::OnceLock;

/// Name and function: gets the arguments after the name, gives the exit status.
pub type Program = (&'static str, fn(&[String]) -> u8);

static PROGRAMS: OnceLock<&'static [Program]> = OnceLock::new();

/// Says which ones there are; before [`crate::init`].
pub fn register(programs: &'static [Program]) {
    // Whoever comes second has the same ones.
    let _ = PROGRAMS.set(programs);
}

/// Runs one; returns only when there is none of this name.
pub(crate) fn run(name: &str, arguments: &[String]) {
    let found = PROGRAMS.get().into_iter().copied().flatten().find(|(known, _)| *known == name);
    if let Some((_, program)) = found {
        std::process::exit(i32::from(program(arguments.get(1..).unwrap_or_default())));
    }
}
