//! The OCI runtime of a container that somebody else's program runs, and what it knows of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::record::Record;

/// A runtime, and where it keeps what it knows of one container.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    program: PathBuf,
    state: PathBuf,
}

impl Runtime {
    /// That of a container, when it is not kiln.
    pub(crate) fn of(record: &Record, home: &Path) -> Option<Self> {
        let program = record.settings.runtime.as_ref()?;
        Some(Self { program: PathBuf::from(program), state: home.join("runtime") })
    }

    /// As the user called it.
    pub(crate) fn name(&self) -> String {
        self.program.display().to_string()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Whether it knows the container: it forgets one that was deleted.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.state.join(id).exists()
    }

    /// Ends and forgets a container, should it know one.
    pub(crate) fn delete(&self, id: &str) {
        if self.knows(id) {
            let _ = self.command().args(["delete", "--force", id]).status();
        }
    }
}
