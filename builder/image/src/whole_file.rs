//! A file that appears in its place when it is whole. Until then it has no name, where the file system can do that, and
//! a process that is killed leaves nothing. Elsewhere it has a hidden name; the next one removes what is left so.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat};
use rustix::io::Errno;
use tempfile::TempPath;

use crate::abandoned;

/// What hidden names begin with.
const PREFIX: &str = ".kiln-save-";
/// What a process's open files are found in.
const OPEN_FILES: &str = "/proc/self/fd";

/// A file that is being written; dropped, it is gone.
#[derive(Debug)]
pub struct WholeFile {
    target: PathBuf,
    file: File,
    /// Its name, where it must have one, and the lock that says it is somebody's.
    name: Option<(TempPath, File)>,
}

impl WholeFile {
    /// What is to be at `target`, with these permissions (less the umask).
    ///
    /// # Errors
    /// It cannot be made in that directory.
    pub fn new(target: &Path, mode: u32) -> io::Result<Self> {
        let target = target.to_path_buf();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let nameless = Path::new(OPEN_FILES).is_dir();
        let nameless = nameless.then(|| rustix::fs::open(parent(&target), flags, Mode::from_raw_mode(mode)));
        if let Some(Ok(file)) = nameless {
            // Whoever finds it with a name knows that it is somebody's; where files cannot be locked, nobody takes it.
            let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
            return Ok(Self { target, file: file.into(), name: None });
        }
        let directory = parent(&target);
        clear(directory);
        let named = abandoned::make(|| {
            let permissions = Permissions::from_mode(mode);
            let made = tempfile::Builder::new().prefix(PREFIX).permissions(permissions).tempfile_in(directory)?;
            let (file, name) = made.into_parts();
            let lock = abandoned::lock(&name, OFlags::empty());
            Ok(lock.map(|lock| (file, (name, lock))))
        });
        let (file, name) = named?;
        Ok(Self { target, file, name: Some(name) })
    }

    /// Where its content is written.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it in its place, and in that of what was there.
    ///
    /// # Errors
    /// The directory cannot be written; what was there is unharmed.
    pub fn place(mut self) -> io::Result<()> {
        let name = match self.name.take() {
            Some((name, _)) => name,
            None => match self.link(&self.target) {
                Err(Errno::EXIST) => self.hidden()?,
                linked => return Ok(linked?),
            },
        };
        name.persist(&self.target).map_err(|error| error.error)
    }

    /// Gives it a hidden name: only what has one takes another's place.
    fn hidden(&self) -> io::Result<TempPath> {
        let directory = parent(&self.target);
        clear(directory);
        let link = |path: &Path| Ok(self.link(path)?);
        Ok(tempfile::Builder::new().prefix(PREFIX).make_in(directory, link)?.into_temp_path())
    }

    fn link(&self, path: &Path) -> Result<(), Errno> {
        let own = format!("{OPEN_FILES}/{}", self.file.as_raw_fd());
        linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)
    }
}

/// Removes what killed processes of ours left.
fn clear(directory: &Path) {
    for path in abandoned::named(directory, PREFIX) {
        let file = abandoned::lock(&path, OFlags::NONBLOCK);
        if file.is_some_and(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(%error, "remove {}", path.display());
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn until_it_is_whole_nothing_can_be_seen_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("target");
        for content in ["first", "second"] {
            let mut file = WholeFile::new(&target, 0o600).expect("a file");
            let before = names(directory.path());
            write!(file.file(), "{content}").expect("written");
            assert_eq!(names(directory.path()), before, "a process that is killed now leaves nothing");
            assert_ne!(fs::read_to_string(&target).unwrap_or_default(), content);
            file.place().expect("in its place");
            assert_eq!(fs::read_to_string(&target).expect("the file"), content);
            assert_eq!(fs::metadata(&target).expect("the file").permissions().mode() & 0o7777, 0o600);
        }
        drop(WholeFile::new(&target, 0o600).expect("a file"));
        assert_eq!(names(directory.path()), ["target"]);
    }

    #[test]
    fn what_was_left_with_a_name_goes_and_what_is_being_written_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        for name in [".kiln-save-dead", ".kiln-save-alive", "target"] {
            fs::write(path(name), "").expect("a file");
        }
        let alive = File::open(path(".kiln-save-alive")).expect("the file");
        flock(&alive, FlockOperation::LockExclusive).expect("a lock");
        WholeFile::new(&path("target"), 0o644).expect("a file").place().expect("in its place");
        assert_eq!(names(directory.path()), [".kiln-save-alive", "target"]);
    }
}
