//! The content and the metadata of small files, written by a thread of their own while the next ones are made.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::failed;
use super::metadata::{Creator, Metadata};
use crate::archive::reader::{Member, Reader};
use crate::store::Privilege;
use crate::{Error, Result};

/// Files that are handed over together, and bytes of content after which they are. Three batches may exist at once,
/// and several layers are unpacked at once: their open files must stay far below what a process may have.
const FILES: usize = 32;
const BYTES: usize = 256 << 10;

/// Fills files that are empty yet. The thread is started when the first batch is full, so that small archives do
/// without one.
pub(super) struct Filler {
    privilege: Privilege,
    batch: Batch,
    thread: Option<Thread>,
}

struct Thread {
    full: SyncSender<Batch>,
    emptied: Receiver<Batch>,
    handle: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Batch {
    content: Vec<u8>,
    files: Vec<Empty>,
}

struct Empty {
    file: OwnedFd,
    member: Member,
    creator: Option<Creator>,
}

impl Filler {
    pub(super) fn new(privilege: Privilege) -> Self {
        Self { privilege, batch: Batch::default(), thread: None }
    }

    /// Takes a new file, and its content from the archive.
    pub(super) fn add<R: Read>(
        &mut self,
        file: OwnedFd,
        member: Member,
        creator: Option<Creator>,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let content = &mut self.batch.content;
        let start = content.len();
        let size =
            usize::try_from(member.size).map_err(|_| Error::ArchiveRead(std::io::ErrorKind::InvalidData.into()))?;
        content.resize(start + size, 0);
        reader.read_exact(&mut content[start..]).map_err(Error::ArchiveRead)?;
        self.batch.files.push(Empty { file, member, creator });
        if self.batch.files.len() >= FILES || content.len() >= BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<()> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => Thread::start(self.privilege)?,
        };
        let next = thread.emptied.try_recv().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, next);
        if thread.full.send(batch).is_err() {
            // It ended, so it failed.
            return thread.join();
        }
        self.thread = Some(thread);
        Ok(())
    }

    /// Returns when every file is filled.
    pub(super) fn finish(mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return self.batch.fill(self.privilege) };
        // If it cannot be sent, joining tells why.
        let _ = thread.full.send(std::mem::take(&mut self.batch));
        thread.join()
    }
}

impl Drop for Filler {
    /// Nobody writes into the directory any more when it is given up.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Thread {
    fn start(privilege: Privilege) -> Result<Self> {
        let (full, batches) = sync_channel::<Batch>(1);
        let (back, emptied) = sync_channel(2);
        let fill = move || {
            for mut batch in batches {
                batch.fill(privilege)?;
                let _ = back.try_send(batch);
            }
            Ok(())
        };
        let handle = std::thread::Builder::new().name("fill".to_owned()).spawn(fill);
        let handle = handle.map_err(Error::io("start a thread for", "the files of a layer"))?;
        Ok(Self { full, emptied, handle })
    }

    fn join(self) -> Result<()> {
        let Self { full, handle, .. } = self;
        drop(full);
        handle.join().map_err(|_| Error::ThreadLost("the thread that fills files"))?
    }
}

impl Batch {
    fn fill(&mut self, privilege: Privilege) -> Result<()> {
        let mut content = self.content.as_slice();
        for Empty { file, member, creator } in self.files.drain(..) {
            // As many as were read for it.
            let (own, rest) = content.split_at(usize::try_from(member.size).unwrap_or(usize::MAX).min(content.len()));
            content = rest;
            let mut file = File::from(file);
            file.write_all(own).map_err(failed(&member, "write"))?;
            Metadata { member: &member, privilege, creator }.set(&OwnedFd::from(file), true)?;
        }
        self.content.clear();
        Ok(())
    }
}
