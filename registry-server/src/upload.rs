//! Uploads: a file that grows under `uploads/` until it is the blob that was promised.
//!
//! An upload's state is its file: its offset is the file's length, so that it goes on after a restart. What is kept in
//! memory (the hash of what came so far) only saves reading the file again.

mod receive;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use kiln_store::Digest;
use kiln_store::digest::{Algorithm, Hasher};
use kiln_store::large_file::write_past_cache;
use tokio::sync::OwnedMutexGuard;

use crate::blocking::blocking;
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::name::RepositoryName;

/// Bytes that are read at once when a file is hashed again.
const READ: usize = 256 << 10;
/// Bytes at an upload's beginning that stay in memory: those of smaller blobs are all that there are.
const KEPT: u64 = 32 << 20;
/// Bytes that are worth a write to the disk of their own.
const LONG: usize = 256 << 10;
/// Hash states that are kept; of older uploads the file is read again at the end.
const MOST_SESSIONS: usize = 4_096;
/// How long a request waits for another one that is writing to the same upload.
const TURN: Duration = Duration::from_secs(10);
/// Bytes that uploads leave free on the disk, of a small one this part.
const RESERVE: u64 = 16 << 20;
const RESERVED_PART: u64 = 20;
/// Random bits of an id; the others are the time.
const RANDOM_BITS: u32 = 80;

/// An upload's id: the milliseconds since 1970 when it began, then 80 random bits; written as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(u128);

impl UploadId {
    fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.into()))?;
        let random = u128::from_ne_bytes(bytes) >> (u128::BITS - RANDOM_BITS);
        let now = u128::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        Ok(Self(now << RANDOM_BITS | random))
    }

    /// When the upload began, in seconds since 1970.
    pub(crate) fn started(self) -> i64 {
        i64::try_from((self.0 >> RANDOM_BITS) / 1_000).unwrap_or(i64::MAX)
    }
}

impl FromStr for UploadId {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let unknown = || Failure::new(Code::BlobUploadUnknown);
        if text.len() != 32 || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(unknown());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| unknown())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The directory of uploads.
#[derive(Debug)]
pub(crate) struct Uploads {
    directory: PathBuf,
    /// Bytes of the largest blob; 0 for any.
    largest: u64,
    sessions: Mutex<HashMap<UploadId, Arc<tokio::sync::Mutex<Session>>>>,
}

/// What is remembered of an upload between requests.
#[derive(Default)]
struct Session {
    /// The hash of the file's first bytes, and how many.
    hashed: Option<(Hasher, u64)>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("hashed", &self.hashed.as_ref().map(|(_, count)| count)).finish()
    }
}

/// An upload that this request alone may write to.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: UploadId,
    path: PathBuf,
    file: File,
    length: u64,
    /// Its length when this request began.
    start: u64,
    /// Bytes it may have; 0 for any number.
    largest: u64,
    session: OwnedMutexGuard<Session>,
}

/// An upload whose bytes are those of its digest, and on disk.
#[derive(Debug)]
pub(crate) struct VerifiedUpload {
    pub(crate) id: UploadId,
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
    /// Nobody else opens the upload until its file is in its place.
    _session: OwnedMutexGuard<Session>,
}

/// The part of an upload's file name that tells its repository.
fn scope(repository: &RepositoryName) -> String {
    let mut hex = Digest::of(repository.as_str().as_bytes()).hex();
    hex.truncate(32);
    hex
}

/// An upload's file.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) name: String,
    /// In bytes.
    pub(crate) size: u64,
    /// When bytes came last, in seconds since 1970.
    pub(crate) written_at: i64,
}

impl Unfinished {
    pub(crate) fn id(&self) -> Option<UploadId> {
        self.name.split('.').next()?.parse().ok()
    }

    pub(crate) fn is_into(&self, repository: &RepositoryName) -> bool {
        self.name.split('.').nth(1) == Some(&scope(repository))
    }
}

impl Uploads {
    pub(crate) fn open(directory: &Path, largest: u64) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
        Ok(Self { directory: directory.to_path_buf(), largest, sessions: Mutex::default() })
    }

    /// The file of an upload. It belongs to one repository: a hash of its name is part of the file's.
    fn path(&self, repository: &RepositoryName, id: UploadId) -> PathBuf {
        self.directory.join(format!("{id}.{}", scope(repository)))
    }

    /// Starts an upload into a repository.
    pub(crate) async fn create(&self, repository: &RepositoryName, algorithm: Algorithm) -> Result<UploadId, Failure> {
        let id = UploadId::random()?;
        let path = self.path(repository, id);
        let create = move || File::create_new(&path).map_err(Error::io("create upload", path));
        blocking(create).await?;
        if algorithm != Algorithm::Sha256 {
            // The default needs no session before there are bytes.
            let hashed = Some((Hasher::new(algorithm), 0));
            let session = Arc::new(tokio::sync::Mutex::new(Session { hashed }));
            self.sessions().insert(id, session);
        }
        Ok(id)
    }

    /// Bytes that arrived so far.
    pub(crate) async fn length(&self, repository: &RepositoryName, id: UploadId) -> Result<u64, Failure> {
        let path = self.path(repository, id);
        let examine = move || {
            let metadata = fs::symlink_metadata(&path);
            metadata.map(|metadata| metadata.len()).map_err(|error| unknown_or(error, "examine upload", &path))
        };
        blocking(examine).await
    }

    /// Opens an upload for one request. `algorithm` is that of the digest it shall have, when it is known.
    pub(crate) async fn write(
        &self,
        repository: &RepositoryName,
        id: UploadId,
        algorithm: Option<Algorithm>,
    ) -> Result<Upload, Failure> {
        self.length(repository, id).await?; // guessing ids makes no sessions
        let session = self.session(id);
        let turn = tokio::time::timeout(TURN, session.lock_owned()).await;
        let session =
            turn.map_err(|_| Failure::new(Code::TooManyRequests).detail("another request writes to this upload"))?;
        let path = self.path(repository, id);
        let largest = self.largest;
        let opened = blocking(move || Upload::open(id, path, largest, session, algorithm)).await;
        if opened.is_err() {
            self.forget(id);
        }
        opened
    }

    /// Ends an upload without a blob.
    pub(crate) async fn cancel(&self, repository: &RepositoryName, id: UploadId) -> Result<(), Failure> {
        let upload = self.write(repository, id, None).await?;
        blocking(move || fs::remove_file(&upload.path).map_err(Error::io("remove upload", &upload.path))).await?;
        self.forget(id);
        Ok(())
    }

    /// The upload is over.
    pub(crate) fn forget(&self, id: UploadId) {
        self.sessions().remove(&id);
    }

    /// Every upload that is not over.
    pub(crate) fn list(&self) -> Result<Vec<Unfinished>, Error> {
        let entries = fs::read_dir(&self.directory).map_err(Error::io("list", &self.directory))?;
        let mut uploads = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.directory))?;
            // It may be over by now.
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let written_at = i64::try_from(
                metadata
                    .modified()
                    .ok()
                    .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
                    .map_or(0, |age| age.as_secs()),
            );
            uploads.push(Unfinished { name, size: metadata.len(), written_at: written_at.unwrap_or(i64::MAX) });
        }
        Ok(uploads)
    }

    /// Removes an upload that nobody wrote to since `cutoff` (seconds since 1970), unless somebody just does.
    pub(crate) fn purge(&self, upload: &Unfinished, cutoff: i64) -> Result<bool, Error> {
        if upload.written_at >= cutoff {
            return Ok(false);
        }
        // Whoever writes to it holds its session's lock.
        let session = upload.id().map(|id| self.session(id));
        let turn = session.as_ref().map(|session| session.try_lock());
        if matches!(turn, Some(Err(_))) {
            return Ok(false);
        }
        let path = self.directory.join(&upload.name);
        let removed = match fs::remove_file(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::io("remove upload", path)(error)),
        };
        drop(turn);
        if let Some(id) = upload.id() {
            self.forget(id);
        }
        Ok(removed)
    }

    fn session(&self, id: UploadId) -> Arc<tokio::sync::Mutex<Session>> {
        let mut sessions = self.sessions();
        if sessions.len() >= MOST_SESSIONS {
            sessions.retain(|_, session| Arc::strong_count(session) > 1);
        }
        Arc::clone(sessions.entry(id).or_default())
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<tokio::sync::Mutex<Session>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    fn open(
        id: UploadId,
        path: PathBuf,
        largest: u64,
        mut session: OwnedMutexGuard<Session>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, Failure> {
        let file = OpenOptions::new().read(true).append(true).open(&path);
        let file = file.map_err(|error| unknown_or(error, "open upload", &path))?;
        let length = file.metadata().map_err(Error::io("examine upload", &path))?.len();
        if length == 0 {
            let algorithm = algorithm.or_else(|| session.hashed.is_none().then_some(Algorithm::Sha256));
            if let Some(algorithm) = algorithm {
                session.hashed = Some((Hasher::new(algorithm), 0));
            }
        }
        Ok(Self { id, path, file, length, start: length, largest, session })
    }

    /// Bytes so far: the offset of the next one.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The file, to be read while it grows.
    pub(crate) fn reader(&self) -> Result<File, Error> {
        File::open(&self.path).map_err(Error::io("open upload", &self.path))
    }

    /// Appends bytes. When they find no room, what this request brought before them goes, too. Blocks.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let write = |file: &mut File| -> Result<(), Error> {
            require_room(file, bytes.len(), &self.path)?;
            append_all(file, bytes, self.length).map_err(Error::io("write upload", &self.path))
        };
        if let Err(error) = write(&mut self.file) {
            // Some of them may be in the file: its length tells, the hash does not.
            self.session.hashed = None;
            if error.is_storage_full() {
                self.truncate(self.start)?;
            }
            return Err(error);
        }
        if let Some((hasher, count)) = &mut self.session.hashed {
            hasher.update(bytes);
            *count += bytes.len() as u64;
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes back the bytes from `length` on. Blocks.
    fn truncate(&mut self, length: u64) -> Result<(), Error> {
        self.session.hashed = None;
        self.file.set_len(length).map_err(Error::io("truncate upload", &self.path))?;
        self.length = length;
        Ok(())
    }

    /// Checks that the bytes are those of `expected`, and flushes them. Bytes that are not are thrown away, and the
    /// upload with them. Blocks.
    fn verify(mut self, expected: Digest) -> Result<VerifiedUpload, Failure> {
        let hashed = self.session.hashed.take();
        self.length = self.file.metadata().map_err(Error::io("examine upload", &self.path))?.len();
        let digest = match hashed {
            Some((hasher, count)) if count == self.length && algorithm_of(&hasher) == expected.algorithm() => {
                hasher.finish()
            }
            _ => self.hash(expected.algorithm()).map_err(Error::io("read upload", &self.path))?,
        };
        if digest != expected {
            fs::remove_file(&self.path).map_err(Error::io("remove upload", &self.path))?;
            return Err(
                Failure::new(Code::DigestInvalid).detail(format!("the content has digest {digest}, not {expected}"))
            );
        }
        self.file.sync_data().map_err(Error::io("flush upload", &self.path))?;
        let Self { id, path, length, session, .. } = self;
        Ok(VerifiedUpload { id, path, digest, size: length, _session: session })
    }

    fn hash(&self, algorithm: Algorithm) -> io::Result<Digest> {
        let mut file = File::open(&self.path)?;
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; READ];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    }
}

/// Appends to a file of `length` bytes. What is long is written to the disk at once and not kept in memory: its end
/// waits for the disk anyway, and few blobs are so long; who pulls one of them first reads it from there.
fn append_all(file: &mut File, bytes: &[u8], length: u64) -> io::Result<()> {
    let mut written = 0;
    if length >= KEPT && bytes.len() >= LONG {
        written = write_past_cache(&*file, &[IoSlice::new(bytes)], length)?;
    }
    file.write_all(bytes.get(written..).unwrap_or_default())
}

/// Uploads leave some room on the disk, so that deletions and the collector can always do their work.
fn require_room(file: &File, length: usize, path: &Path) -> Result<(), Error> {
    let disk = rustix::fs::fstatvfs(file).map_err(|error| Error::io("examine the disk of", path)(error.into()))?;
    let reserve = RESERVE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVED_PART);
    if disk.f_bavail.saturating_mul(disk.f_frsize) < reserve.saturating_add(length as u64) {
        return Err(Error::StorageFull(path.to_path_buf()));
    }
    Ok(())
}

fn unknown_or(error: io::Error, action: &'static str, path: &Path) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Code::BlobUploadUnknown),
        _ => Error::io(action, path)(error).into(),
    }
}

fn algorithm_of(hasher: &Hasher) -> Algorithm {
    hasher.clone().finish().algorithm()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_ids_are_ids() {
        let id = UploadId::random().unwrap();
        assert!(id.to_string().parse::<UploadId>().unwrap() == id);
        for text in ["", "..", "+0000000000000000000000000000001", &"A".repeat(32), &"0".repeat(33)] {
            assert!(text.parse::<UploadId>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn an_upload_belongs_to_one_repository_and_outlives_its_session() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other): (RepositoryName, RepositoryName) = ("one".parse().unwrap(), "other".parse().unwrap());
        let uploads = Uploads::open(directory.path(), 0).unwrap();
        let id = uploads.create(&one, Algorithm::Sha256).await.unwrap();
        assert!(uploads.write(&other, id, None).await.is_err());
        let mut upload = uploads.write(&one, id, None).await.unwrap();
        upload.append(b"some ").unwrap();
        drop(upload);

        let uploads = Uploads::open(directory.path(), 0).unwrap();
        assert_eq!(uploads.length(&one, id).await.unwrap(), 5);
        let mut upload = uploads.write(&one, id, Some(Algorithm::Sha256)).await.unwrap();
        upload.append(b"bytes").unwrap();
        assert_eq!(upload.verify(Digest::of(b"some bytes")).unwrap().size, 10);
    }

    #[tokio::test]
    async fn wrong_bytes_end_an_upload_and_old_ones_are_purged() {
        let directory = tempfile::tempdir().unwrap();
        let name: RepositoryName = "one".parse().unwrap();
        let uploads = Uploads::open(directory.path(), 0).unwrap();
        let id = uploads.create(&name, Algorithm::Sha512).await.unwrap();
        let upload = uploads.write(&name, id, None).await.unwrap();
        assert_eq!(upload.verify(Digest::of(b"x")).unwrap_err().code(), Code::DigestInvalid);
        assert!(uploads.length(&name, id).await.is_err());

        let id = uploads.create(&name, Algorithm::Sha256).await.unwrap();
        let listed = uploads.list().unwrap();
        let listed = listed.first().unwrap();
        assert!(listed.is_into(&name) && !listed.is_into(&"other".parse().unwrap()));
        assert!(listed.id() == Some(id) && (listed.written_at - id.started()).abs() < 60);
        assert!(!uploads.purge(listed, listed.written_at).unwrap());
        let writing = uploads.write(&name, id, None).await.unwrap();
        assert!(!uploads.purge(listed, i64::MAX).unwrap());
        drop(writing);
        assert!(uploads.purge(listed, i64::MAX).unwrap());
        assert!(uploads.length(&name, id).await.is_err());
    }
}
