//! What a failure looks like to a person, and which exit code it has.

use std::io::Write;
use std::process::ExitCode;

/// Writes to standard output; a reader that went away is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes to standard error.
pub(crate) fn tell(text: &str) {
    // Nobody is left to be told when standard error is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// An error that was shown already: only its exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub(crate) struct Shown(pub(crate) u8);

/// Shows an error with its causes, and leaves only its exit code.
pub(crate) fn with_status(error: anyhow::Error, status: u8) -> anyhow::Error {
    report(&error);
    drop(error);
    Shown(status).into()
}

/// Shows an error with its causes; returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Shown(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let mut text = "kiln: ".to_owned();
    let mut last = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let cause = cause.to_string();
        if last.ends_with(&cause) {
            continue;
        }
        if depth > 0 {
            text.push_str(": ");
        }
        text.push_str(&cause);
        last = cause;
    }
    text.push('\n');
    tell(&text);
    ExitCode::FAILURE
}
