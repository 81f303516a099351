//! The build context: a directory of the host, less what the ignore file names. It is looked at, never copied.

mod fingerprints;
mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_grammar::diagnostic::nearest;
use kiln_grammar::ignore::IgnorePatterns;
use kiln_store::Store;
use kiln_store::snapshot::{Kind, Node};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

use crate::request::ContextDirectory;
use crate::tree::{ContentHash, Tree};
use crate::{Error, Result};

use fingerprints::Fingerprints;

/// An open build context.
pub struct Context {
    root: Option<Root>,
    ignore: IgnorePatterns,
    ignore_file: String,
    fingerprints: Fingerprints,
}

struct Root {
    path: PathBuf,
    directory: OwnedFd,
}

impl Context {
    /// Opens a context and the fingerprints that earlier builds left of it; `None` is one without files.
    ///
    /// # Errors
    /// The directory cannot be opened; the ignore file is malformed.
    pub fn open(store: &Store, directory: Option<&ContextDirectory>) -> Result<Self> {
        let (ignore_file, ignore) = match directory.and_then(|directory| directory.ignore.as_ref()) {
            None => (String::new(), IgnorePatterns::default()),
            Some((file, text)) => {
                let patterns = IgnorePatterns::parse(text).map_err(|wrong| Error::Ignore {
                    file: file.clone(),
                    line: wrong.line,
                    pattern: wrong.pattern,
                    reason: wrong.reason,
                })?;
                (file.clone(), patterns)
            }
        };
        let root = directory.map(|directory| Root::open(&directory.path)).transpose()?;
        let fingerprints = match &root {
            Some(root) => Fingerprints::load(store, &root.path)?,
            None => Fingerprints::default(),
        };
        Ok(Self { root, ignore, ignore_file, fingerprints })
    }

    /// A directory that is looked at once: no fingerprints are read or kept.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn without_memory(directory: &ContextDirectory) -> Result<Self> {
        let root = Some(Root::open(&directory.path)?);
        let (ignore, fingerprints) = (IgnorePatterns::default(), Fingerprints::default());
        Ok(Self { root, ignore, ignore_file: String::new(), fingerprints })
    }

    /// Keeps the fingerprints of what was hashed for the next build.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn remember(&self, store: &Store) -> Result<()> {
        match &self.root {
            Some(root) => self.fingerprints.save(store, &root.path),
            None => Ok(()),
        }
    }

    /// Whether the ignore file hides a path and all that could be below it.
    fn hides(&self, node: &Node) -> bool {
        walk::hides(&self.ignore, node.path.as_os_str().as_bytes(), node.kind == Kind::Directory)
    }

    fn root(&self) -> Result<&Root> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        self.root.as_ref().ok_or_else(|| Error::io("open the build context", "-", missing()))
    }
}

impl Root {
    fn open(path: &Path) -> Result<Self> {
        let io = |error| Error::io("open the build context", path, error);
        let path = std::fs::canonicalize(path).map_err(io)?;
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| io(error.into()))?;
        Ok(Self { path, directory })
    }

    /// Opens a path below the root; a symlink that leads out stays inside.
    fn open_at(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// The path that an open descriptor has below the root.
    fn real_path(&self, file: &OwnedFd) -> rustix::io::Result<PathBuf> {
        use std::os::fd::AsRawFd;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = rustix::fs::readlink(link, Vec::new())?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        path.strip_prefix(&self.path).map(Path::to_path_buf).map_err(|_| rustix::io::Errno::XDEV)
    }
}

impl Tree for Context {
    fn resolve(&self, path: &Path) -> Result<Option<Node>> {
        let Some(root) = &self.root else { return Ok(None) };
        let io = |error| Error::io("look up in the build context", path, error);
        let file = match root.open_at(path, OFlags::PATH, ResolveFlags::IN_ROOT) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(io)?;
        let node = walk::node(root.real_path(&file).map_err(io)?.as_os_str().as_bytes(), &stat);
        Ok(if self.hides(&node) { None } else { Some(node) })
    }

    fn read_dir(&self, directory: &Path) -> Result<Vec<(OsString, Node)>> {
        let root = self.root()?;
        let io = |error| Error::io("read directory of the build context", directory, error);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let file = root.open_at(directory, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).map_err(io)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&file).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()).to_os_string();
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&file, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                stat => stat.map_err(io)?,
            };
            let node = walk::node(directory.join(&name).as_os_str().as_bytes(), &stat);
            if !self.hides(&node) {
                entries.push((name, node));
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn walk(&self, directory: &Path) -> Result<Vec<Node>> {
        walk::walk(self.root()?, directory, &self.ignore)
    }

    fn open(&self, node: &Node) -> Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = self.root()?.open_at(&node.path, flags, resolve);
        Ok(File::from(file.map_err(|error| Error::io("read context file", &node.path, error))?))
    }

    fn read_link(&self, node: &Node) -> Result<PathBuf> {
        let io = |error| Error::io("read symlink of the build context", &node.path, error);
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let link = self.root()?.open_at(&node.path, flags, ResolveFlags::BENEATH).map_err(io)?;
        let target = rustix::fs::readlinkat(&link, "", Vec::new()).map_err(io)?;
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes())))
    }

    fn xattrs(&self, node: &Node, file: Option<&File>) -> Result<Vec<(OsString, Vec<u8>)>> {
        use xattr::FileExt;
        let opened;
        let file = match (file, node.kind) {
            (Some(file), _) => file,
            (None, Kind::File | Kind::Directory) => {
                opened = self.open(node)?;
                &opened
            }
            _ => return Ok(Vec::new()),
        };
        let Ok(names) = file.list_xattr() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in names.filter(|name| is_kept(name)) {
            let io = |error| Error::io("read extended attributes of", &node.path, error);
            if let Some(value) = file.get_xattr(&name).map_err(io)? {
                found.push((name, value));
            }
        }
        found.sort();
        Ok(found)
    }

    fn hash(&self, nodes: &[&Node]) -> Result<Vec<ContentHash>> {
        self.fingerprints.hash(self, nodes)
    }

    fn unchanged(&self, node: &Node, file: &File) -> bool {
        rustix::fs::fstat(file).is_ok_and(|stat| {
            let now = walk::node(b"", &stat);
            (now.size, now.mtime, now.ctime, now.inode) == (node.size, node.mtime, node.ctime, node.inode)
        })
    }

    fn advise(&self, path: &str) -> String {
        let clean = path.trim_matches('/');
        let Some(root) = &self.root else {
            return "this build has no context: give it a directory instead of `-`".to_owned();
        };
        if root.open_at(Path::new(clean), OFlags::PATH, ResolveFlags::IN_ROOT).is_ok() {
            return format!("{clean} is in the context and excluded by {}", self.ignore_file);
        }
        let (directory, name) = clean.rsplit_once('/').unwrap_or(("", clean));
        let entries = self.read_dir(Path::new(directory)).unwrap_or_default();
        let names: Vec<String> = entries.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match nearest(name, &names) {
            Some(near) if directory.is_empty() => format!("did you mean `{near}`?"),
            Some(near) => format!("did you mean `{directory}/{near}`?"),
            None => format!("there is no {clean} in the build context {}", root.path.display()),
        }
    }
}

/// Attributes that belong to the file and not to the host's security modules.
fn is_kept(name: &std::ffi::OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") || name == b"security.capability"
}
