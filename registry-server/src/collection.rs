//! The collector: what nobody needs any more goes, while pushes and pulls go on.
//!
//! Every deletion is a transaction of the one writing thread that asks again whether the thing is needed. What a push
//! may count on without the database knowing is covered by the grace period: see [`Collection::grace`].

pub(crate) mod report;
mod retention;
mod rules;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use kiln_store::Digest;
use kiln_store::digest::Algorithm;
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::database::garbage::{self, Cutoffs, Ids};
use crate::database::{Batch, now};
use crate::error::{Error, chain};
use crate::name::RepositoryName;
use crate::pulls;
use crate::registry::Registry;
use crate::upload::Unfinished;
use report::{CollectionReport, RemovedKind};
pub(crate) use retention::PushedTag;
pub use rules::{Collection, Retention, TagPatterns};

/// Rows that one transaction deletes at most, so that a push never waits long for its turn.
const BATCH: usize = 200;
/// Repositories that are looked up at once.
const REPOSITORIES: usize = 100;
/// Files that are looked up at once.
const FILES: usize = 1_000;

/// Runs the collector at its intervals, until the sender of `stopped` is gone.
pub(crate) async fn run(registry: Arc<Registry>, mut stopped: watch::Receiver<()>) {
    let interval = registry.collection.interval.0;
    if registry.read_only || interval.is_zero() {
        return;
    }
    let mut interval = tokio::time::interval(interval);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopped.changed() => return,
        }
        let collected = tokio::select! {
            collected = collect(&registry, false) => collected,
            _ = stopped.changed() => return,
        };
        match collected {
            Ok(report) => tracing::info!(
                tags = report.tags,
                manifests = report.manifests,
                blobs = report.blobs,
                uploads = report.uploads,
                files = report.files,
                bytes = report.bytes,
                "collected"
            ),
            Err(error) => tracing::error!(error = chain(&error), "the collector failed"),
        }
    }
}

/// Runs the collector once.
pub(crate) async fn collect(registry: &Arc<Registry>, dry_run: bool) -> Result<CollectionReport, Error> {
    let _turn = registry.collecting.lock().await;
    pulls::write(registry).await?;
    let mut run = Run { registry, now: now(), report: CollectionReport { dry_run, ..CollectionReport::default() } };
    let uploads = run.collect_uploads().await?;
    let mut last = String::new();
    loop {
        let after = last.clone();
        let list = move |connection: &_| garbage::repositories(connection, &after, REPOSITORIES);
        let repositories = registry.database.read(list).await?;
        let Some(next) = repositories.last() else { break };
        last = next.as_str().to_owned();
        for repository in repositories {
            run.collect_repository(&repository, &uploads).await?;
        }
    }
    run.collect_files().await?;
    if !dry_run {
        registry.database.change("give space back", garbage::shrink).await?;
    }
    Ok(run.report)
}

/// One run under way.
struct Run<'a> {
    registry: &'a Arc<Registry>,
    /// Seconds since 1970.
    now: i64,
    report: CollectionReport,
}

impl Run<'_> {
    fn is_dry(&self) -> bool {
        self.report.dry_run
    }

    /// Removes abandoned uploads; returns those that somebody may be writing to.
    async fn collect_uploads(&mut self) -> Result<Vec<Unfinished>, Error> {
        let cutoff = self.now - self.registry.collection.uploads.as_seconds();
        let (registry, dry_run) = (Arc::clone(self.registry), self.is_dry());
        let work = move || -> Result<_, Error> {
            let (mut removed, mut kept) = (Vec::new(), Vec::new());
            for upload in registry.uploads.list()? {
                let goes =
                    if dry_run { upload.written_at < cutoff } else { registry.uploads.purge(&upload, cutoff)? };
                if goes { &mut removed } else { &mut kept }.push(upload);
            }
            Ok((removed, kept))
        };
        let (removed, mut kept) = blocking(work).await?;
        for upload in removed {
            self.report.add(RemovedKind::Upload, None, upload.name, upload.size);
        }
        kept.retain(|upload| upload.written_at >= self.now - self.registry.grace());
        Ok(kept)
    }

    async fn collect_repository(&mut self, repository: &RepositoryName, uploads: &[Unfinished]) -> Result<(), Error> {
        let grace = self.registry.grace();
        let begun = uploads.iter().filter(|upload| upload.is_into(repository)).filter_map(Unfinished::id);
        let oldest = begun.map(|id| id.started()).min().map_or(self.now, |started| started.min(self.now));
        let untagged = self.registry.collection.untagged.map(|period| self.now - period.as_seconds().max(grace));
        let cutoffs = Cutoffs { grace: self.now - grace, blobs: oldest - grace, untagged };
        self.collect_tags(repository, cutoffs).await?;
        self.collect_manifests(repository, cutoffs).await?;
        self.collect_blobs(repository, cutoffs).await?;
        let name = repository.clone();
        let empty = move |connection: &_| garbage::is_empty(connection, &name);
        if !self.is_dry() && self.registry.database.read(empty).await? {
            let name = repository.clone();
            let delete = move |batch: &mut Batch<'_>| garbage::delete_empty_repository(batch, &name);
            self.registry.database.change("forget a repository", delete).await?;
        }
        Ok(())
    }

    /// Removes the tags that the rules do not keep, and those about manifests that are gone.
    async fn collect_tags(&mut self, repository: &RepositoryName, cutoffs: Cutoffs) -> Result<(), Error> {
        let name = repository.clone();
        let (rules, now) = (Arc::clone(&self.registry.collection), self.now);
        let choose = move |connection: &_| {
            let mut chosen = garbage::orphaned_tags(connection, &name, cutoffs)?;
            chosen.retain(|tag| !rules.is_protected(name.as_str(), &tag.name));
            if !rules.retention.is_empty() {
                let tags = garbage::pushed_tags(connection, &name)?;
                let expired = retention::expired(&rules, name.as_str(), &tags, now);
                let orphaned: HashSet<String> = chosen.iter().map(|tag| tag.name.clone()).collect();
                chosen.extend(expired.into_iter().filter(|tag| !orphaned.contains(&tag.name)).cloned());
            }
            Ok(chosen)
        };
        let chosen = self.registry.database.read(choose).await?;
        for tags in chosen.chunks(BATCH) {
            let deleted =
                if self.is_dry() { tags.to_vec() } else { self.delete_tags(repository, tags.to_vec()).await? };
            for tag in deleted {
                self.report.add(RemovedKind::Tag, Some(repository.as_str()), tag.name, 0);
            }
        }
        Ok(())
    }

    async fn delete_tags(&self, repository: &RepositoryName, tags: Vec<PushedTag>) -> Result<Vec<PushedTag>, Error> {
        let name = repository.clone();
        let delete = move |batch: &mut Batch<'_>| {
            let mut deleted = Vec::new();
            for tag in &tags {
                if garbage::delete_expired_tag(batch, &name, tag)? {
                    deleted.push(tag.clone());
                }
            }
            Ok(deleted)
        };
        self.registry.database.change("delete tags", delete).await
    }

    /// Removes the manifests that nothing leads to. What goes with one of them waits for another run, since its grace
    /// period begins now; so one pass is enough.
    async fn collect_manifests(&mut self, repository: &RepositoryName, cutoffs: Cutoffs) -> Result<(), Error> {
        let mut ids = Ids::ALL;
        loop {
            let name = repository.clone();
            let find = move |connection: &_| garbage::dead_manifests(connection, &name, cutoffs, ids, BATCH);
            let mut dead = self.registry.database.read(find).await?;
            let Some(last) = dead.last().map(|manifest| manifest.id) else { return Ok(()) };
            if !self.is_dry() {
                let (name, found) = (repository.clone(), Ids { last, ..ids });
                let delete =
                    move |batch: &mut Batch<'_>| garbage::delete_dead_manifests(batch, &name, cutoffs, found, BATCH);
                dead = self.registry.database.change("delete manifests", delete).await?;
            }
            for manifest in dead {
                let digest = manifest.digest.to_string();
                self.report.add(RemovedKind::Manifest, Some(repository.as_str()), digest, manifest.size);
            }
            ids.after = last;
        }
    }

    /// Removes the blobs that no manifest refers to.
    async fn collect_blobs(&mut self, repository: &RepositoryName, cutoffs: Cutoffs) -> Result<(), Error> {
        let mut ids = Ids::ALL;
        loop {
            let name = repository.clone();
            let find = move |connection: &_| garbage::dead_links(connection, &name, cutoffs, ids, BATCH);
            let mut dead = self.registry.database.read(find).await?;
            let Some(last) = dead.last().map(|link| link.blob) else { return Ok(()) };
            if !self.is_dry() {
                let (name, found) = (repository.clone(), Ids { last, ..ids });
                let delete =
                    move |batch: &mut Batch<'_>| garbage::delete_dead_links(batch, &name, cutoffs, found, BATCH);
                dead = self.registry.database.change("delete blobs", delete).await?;
            }
            for link in dead {
                let bytes = if link.last { link.size } else { 0 };
                self.report.add(RemovedKind::Blob, Some(repository.as_str()), link.digest.to_string(), bytes);
            }
            ids.after = last;
        }
    }

    /// Removes blobs' files that no row names: a crash came between the file and the row, or between the row's
    /// deletion and the file's.
    async fn collect_files(&mut self) -> Result<(), Error> {
        let cutoff = self.now - self.registry.grace();
        for algorithm in Algorithm::ALL {
            let directory = self.registry.root.join("blobs").join(algorithm.name());
            let mut entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
            loop {
                let path = directory.clone();
                let work = move || {
                    let files = old_files(&mut entries, algorithm, cutoff).map_err(Error::io("list", path))?;
                    Ok::<_, Error>((entries, files))
                };
                let (rest, files) = blocking(work).await?;
                entries = rest;
                let Some(files) = files else { break };
                self.collect_unknown(files).await?;
            }
        }
        Ok(())
    }

    async fn collect_unknown(&mut self, files: Vec<(Digest, u64)>) -> Result<(), Error> {
        let digests: Vec<Digest> = files.iter().map(|(digest, _)| *digest).collect();
        let find = move |connection: &_| garbage::unknown_blobs(connection, &digests);
        let mut unknown = self.registry.database.read(find).await?;
        if !self.is_dry() && !unknown.is_empty() {
            let delete = move |batch: &mut Batch<'_>| {
                let unknown = garbage::unknown_blobs(batch.connection, &unknown)?;
                unknown.iter().for_each(|digest| batch.unlink(*digest));
                Ok(unknown)
            };
            unknown = self.registry.database.change("look for lost files", delete).await?;
        }
        for (digest, size) in files.iter().filter(|(digest, _)| unknown.contains(digest)) {
            self.report.add(RemovedKind::File, None, digest.to_string(), *size);
        }
        Ok(())
    }
}

/// Of the next entries, the blobs whose files were put there before `cutoff` (seconds since 1970), with their sizes
/// in bytes. `None` at the end of the directory. Blocks.
fn old_files(entries: &mut fs::ReadDir, algorithm: Algorithm, cutoff: i64) -> io::Result<Option<Vec<(Digest, u64)>>> {
    let mut old = Vec::new();
    let mut count = 0;
    for entry in entries.by_ref().take(FILES) {
        let entry = entry?;
        count += 1;
        let name = entry.file_name();
        // Names that are no digests are not ours, and a file may be gone by now.
        let digest = name.to_str().and_then(|hex| Digest::from_hex(algorithm, hex).ok());
        if let (Some(digest), Ok(metadata)) = (digest, entry.metadata())
            && metadata.ctime() < cutoff
        {
            old.push((digest, metadata.len()));
        }
    }
    Ok((count > 0).then_some(old))
}
