//! Finding the command and becoming it.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::mount::failed;
use crate::process::Error;
use crate::system_call;

/// Where a command is looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments and environment in the form that exec takes.
pub(crate) struct Command {
    name: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    path: String,
}

impl Command {
    pub(crate) fn new(arguments: &[String], environment: &[String]) -> Result<Self, Error> {
        let strings = |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>();
        let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
        Ok(Self {
            name: arguments.first().cloned().unwrap_or_default(),
            arguments: strings(arguments).map_err(failed("read the arguments"))?,
            environment: strings(environment).map_err(failed("read the environment"))?,
            path: path.unwrap_or(DEFAULT_PATH).to_owned(),
        })
    }

    /// Becomes the command; returns only when that fails.
    pub(crate) fn execute(&self) -> Error {
        if self.name.is_empty() {
            return Error::NotFound("no command".to_owned());
        }
        if self.name.contains('/') {
            return self.explain(&self.name, self.attempt(&self.name));
        }
        let mut denied = None;
        for directory in self.path.split(':') {
            // An empty entry is the working directory.
            let directory = if directory.is_empty() { "." } else { directory };
            let file = format!("{directory}/{}", self.name);
            let error = self.attempt(&file);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) if !exists(&file) => {}
                // A directory, or a file that is not for this user: there may be a better one.
                Some(libc::EACCES) => denied = denied.or(Some((file, error))),
                _ => return self.explain(&file, error),
            }
        }
        match denied {
            Some((file, error)) => self.explain(&file, error),
            None => Error::NotFound(self.name.clone()),
        }
    }

    fn attempt(&self, file: &str) -> io::Error {
        match CString::new(OsStr::new(file).as_bytes()) {
            Ok(path) => system_call::execute(&path, &self.arguments, &self.environment),
            Err(error) => error.into(),
        }
    }

    fn explain(&self, file: &str, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::ENOENT) if exists(file) => {
                Error::NotFound(format!("{}: the interpreter or loader it names", self.name))
            }
            Some(libc::ENOENT | libc::ENOTDIR) => Error::NotFound(self.name.clone()),
            Some(libc::E2BIG) => failed("pass the arguments and the environment")(error),
            _ => Error::NotExecutable(self.name.clone(), error),
        }
    }
}

fn exists(file: &str) -> bool {
    std::fs::metadata(Path::new(file)).is_ok()
}
