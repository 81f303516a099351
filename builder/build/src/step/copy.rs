//! COPY and ADD: files of the context, a stage or an image become a layer.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_store::changeset::{Bytes, Changeset, Numbered};
use kiln_store::layer::Files;
use kiln_store::layer_writer::{Attributes, Content, LayerWriter};
use kiln_store::snapshot::{Kind, Node};
use kiln_store::{DiffId, Snapshot};

use super::{Chain, Job, Outcome, advice, clamp_time};
use crate::context::Context;
use crate::key::{Key, KeyBuilder, Parts};
use crate::plan::{CopyStep, Origin};
use crate::selection::{Item, Match, Selection, select};
use crate::tree::Tree;
use crate::{Error, Result, archive};

/// A COPY whose sources were found.
pub(crate) struct Copy<'a> {
    job: &'a Job<'a>,
    step: &'a CopyStep,
    selection: Selection,
    trees: Trees<'a>,
    /// What it lies on: nothing with `--link`.
    base: Chain,
}

/// A key that needs no look at the files: stages and images never change under their layers' names.
pub(crate) fn quick_key(job: &Job<'_>, step: &CopyStep) -> Result<Option<Key>> {
    let mut key = KeyBuilder::new("copy by layers");
    for source in &step.sources {
        let Origin::Vertex(from) = source.origin else { return Ok(None) };
        key.layers("source", &job.result_of(from)?);
        key.part("path", &source.path);
    }
    if step.sources.is_empty() {
        return Ok(None);
    }
    add_step(&mut key, job, step, &base(job, step));
    Ok(Some(key.finish().0))
}

fn base(job: &Job<'_>, step: &CopyStep) -> Chain {
    if step.link { Chain::from([]) } else { job.parent.clone() }
}

fn add_step(key: &mut KeyBuilder, job: &Job<'_>, step: &CopyStep, base: &Chain) {
    key.layers("parent", base);
    key.part("destination", &step.destination);
    key.part("chown", step.chown.as_ref().map_or("", |(text, _)| text));
    key.part("chmod", step.chmod.as_ref().map_or("", |chmod| chmod.text()));
    let unpacked = step.sources.iter().map(|source| source.unpack);
    key.part("options", format!("parents={} unpack={:?}", step.parents, unpacked.collect::<Vec<_>>()));
    for pattern in &step.exclude {
        key.part("exclude", pattern);
    }
    for (name, body) in &step.heredocs {
        key.part(format!("<<{name}"), body);
    }
    super::run::add_epoch(key, job);
}

/// The trees that sources are in.
struct Trees<'a> {
    contexts: &'a [Context],
    snapshots: Vec<(Origin, Snapshot)>,
}

impl<'a> Trees<'a> {
    fn open(job: &Job<'a>, step: &CopyStep) -> Result<Self> {
        let mut snapshots: Vec<(Origin, Snapshot)> = Vec::new();
        for source in &step.sources {
            if let Origin::Vertex(vertex) = source.origin
                && !snapshots.iter().any(|(known, _)| *known == source.origin)
            {
                snapshots.push((source.origin, job.snapshot(&job.result_of(vertex)?)?));
            }
        }
        Ok(Self { contexts: job.site.contexts, snapshots })
    }

    fn get(&self, origin: Origin) -> Result<&dyn Tree> {
        if let Origin::Context(number) = origin {
            return Ok(&self.contexts[number]);
        }
        let snapshot = self.snapshots.iter().find(|(known, _)| *known == origin);
        snapshot.map(|(_, snapshot)| snapshot as &dyn Tree).ok_or_else(|| super::internal("copy: a source is missing"))
    }
}

impl<'a> Copy<'a> {
    /// Finds the sources and hashes what was not hashed before.
    pub(crate) fn find(job: &'a Job<'a>, step: &'a CopyStep) -> Result<Self> {
        let trees = Trees::open(job, step)?;
        let selection = select(&|origin| trees.get(origin), step)?;
        Ok(Self { job, step, selection, trees, base: base(job, step) })
    }

    /// Keyed by what is copied and where to, not by how it came about.
    pub(crate) fn key(&self) -> (Key, Parts) {
        let mut key = KeyBuilder::new("copy");
        add_step(&mut key, self.job, self.step, &self.base);
        key.files(&self.selection, self.step.parents);
        key.finish()
    }

    /// What is copied, for explaining a miss.
    pub(crate) fn files(&self) -> Vec<(String, u64)> {
        self.selection.list()
    }

    fn tree(&self, matched: &Match) -> Result<&dyn Tree> {
        self.trees.get(self.step.sources[matched.source].origin)
    }

    /// Makes the layer.
    pub(crate) fn perform(&self) -> Result<Outcome> {
        let store = self.job.site.store;
        let snapshot = self.job.snapshot(&self.base)?;
        let owner = match &self.step.chown {
            None => None,
            Some((text, span)) => Some(
                kiln_image::user::resolve_owner(&snapshot, text)
                    .map_err(|error| advice::of_user(&snapshot, error, *span, self.step.link))?,
            ),
        };
        let (uid, gid) = owner.unwrap_or((0, 0));
        let mode = self.step.chmod.as_ref().map_or(0o755, |chmod| chmod.apply(0o755, true));
        let new_directory = Attributes { uid, gid, mode, mtime: self.oldest() };
        let mut changeset = Changeset::new(store.stage()?);
        changeset.reserve(self.selection.matches.iter().map(|matched| matched.items.len()).sum());
        let writer = LayerWriter::new(&snapshot, changeset, new_directory);
        let sources = Sources { files: Vec::new(), unchanged: AtomicBool::new(true) };
        let mut placing = Placing { copy: self, writer, owner, links: HashMap::new(), sources };
        placing.place().map_err(|error| error.located(self.step.destination_span))?;
        let Placing { writer, sources, .. } = placing;
        let similar = self.similar()?;
        let layer = store.pack(writer.into_upper(), self.job.site.request.epoch, similar.as_ref(), &sources);
        let layer = layer.map_err(|error| error.located(self.step.destination_span))?;
        Ok(Outcome { layer, cacheable: sources.unchanged.into_inner() })
    }

    /// What the same step gave the last time: most of it may be the same.
    fn similar(&self) -> Result<Option<DiffId>> {
        if self.job.site.request.no_cache {
            return Ok(None);
        }
        let (store, step) = (self.job.site.store, &self.job.vertex.step);
        let records = store.step_records(step, 16)?;
        let layer = records.into_iter().find(|record| record.step == *step).and_then(|record| record.layer);
        // Asked for, so that it is not pruned before it was read.
        Ok(match layer {
            Some(layer) => store.layer(&layer)?.map(|layer| layer.diff_id),
            None => None,
        })
    }

    /// The oldest time of what is copied: directories that are made on the way bear it, so that no clock is involved, and
    /// an edit changes no entry but its own.
    fn oldest(&self) -> (i64, u32) {
        let times = self.selection.matches.iter().flat_map(|matched| &matched.items).map(|item| item.node.mtime);
        clamp_time(self.job.site.request, times.min().unwrap_or((0, 0)))
    }
}

/// The files of a selection, read when the layer is packed.
struct Sources<'a> {
    files: Vec<(&'a dyn Tree, &'a Node)>,
    /// None of them changed since it was hashed.
    unchanged: AtomicBool,
}

impl Sources<'_> {
    fn see(&self, tree: &dyn Tree, node: &Node, file: &File) {
        if !tree.unchanged(node, file) {
            self.unchanged.store(false, Ordering::Relaxed);
        }
    }
}

impl Files for Sources<'_> {
    type Error = Error;

    fn open(&self, number: usize) -> Result<File> {
        let (tree, node) = self.files[number];
        tree.open(node)
    }

    fn xattrs(&self, number: usize, file: &File) -> Result<Vec<(OsString, Vec<u8>)>> {
        let (tree, node) = self.files[number];
        tree.xattrs(node, Some(file))
    }

    fn was_read(&self, number: usize, file: &File) {
        let (tree, node) = self.files[number];
        self.see(tree, node, file);
    }
}

/// Puts a selection into a layer.
struct Placing<'a> {
    copy: &'a Copy<'a>,
    writer: LayerWriter<'a, Changeset>,
    owner: Option<(u32, u32)>,
    /// Where the first link of an inode was put.
    links: HashMap<(u64, u64), PathBuf>,
    sources: Sources<'a>,
}

impl<'a> Placing<'a> {
    fn place(&mut self) -> Result<()> {
        let step = self.copy.step;
        let destination = self.writer.real_path(Path::new(&step.destination), true)?;
        let wants_directory = step.destination.ends_with('/') || step.parents;
        if wants_directory {
            self.expect_directory(&destination)?;
            self.writer.ensure_directory(&destination)?;
        }
        for matched in &self.copy.selection.matches {
            self.place_match(matched, &destination)?;
        }
        for (name, body) in &step.heredocs {
            let into_directory = self.writer.kind(&destination)? == Some(Kind::Directory);
            let path = if into_directory { destination.join(name) } else { destination.clone() };
            let (uid, gid) = self.owner.unwrap_or((0, 0));
            let mode = step.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
            let attributes = Attributes { uid, gid, mode, mtime: self.copy.oldest() };
            let mut body = Cursor::new(body);
            self.writer.put_file(&path, Content::File(Bytes::Stream(&mut body)), attributes, &[])?;
        }
        Ok(())
    }

    /// What is to be a directory must not be a file of the image.
    fn expect_directory(&self, destination: &Path) -> Result<()> {
        match self.writer.kind(destination)? {
            None | Some(Kind::Directory) => Ok(()),
            Some(_) => {
                let step = self.copy.step;
                let path = step.destination.trim_end_matches('/');
                let help = format!("write `{path}` without the `/` at its end to replace it, or name a directory");
                Err(Error::at_with_help(step.destination_span, format!("{path} is a file of the image"), help)
                    .labelled("expected a directory"))
            }
        }
    }

    fn place_match(&mut self, matched: &'a Match, destination: &Path) -> Result<()> {
        let keeps_path = self.copy.step.parents;
        if matched.node.kind == Kind::Directory {
            let root = if keeps_path { destination.join(&matched.name) } else { destination.to_path_buf() };
            self.place_root(&matched.node, &root)?;
            let tree = self.copy.tree(matched)?;
            return matched.items.iter().try_for_each(|item| self.place_item(tree, item, &root.join(item.path())));
        }
        if self.copy.step.sources[matched.source].unpack
            && matched.node.kind == Kind::File
            && self.unpack(matched, destination)?
        {
            return Ok(());
        }
        let into_directory = keeps_path || self.writer.kind(destination)? == Some(Kind::Directory);
        let path = if into_directory { destination.join(&matched.name) } else { destination.to_path_buf() };
        let tree = self.copy.tree(matched)?;
        matched.items.iter().try_for_each(|item| self.place_item(tree, item, &path))
    }

    /// The directory that a directory's content goes to. One that is there keeps its owner and mode.
    fn place_root(&mut self, source: &Node, root: &Path) -> Result<()> {
        let made = self.writer.kind(root)?.is_none();
        if made && self.copy.step.parents {
            let attributes = self.attributes(source);
            return Ok(self.writer.put_directory(root, attributes, &[])?);
        }
        Ok(self.writer.ensure_directory(root)?)
    }

    fn place_item(&mut self, tree: &'a dyn Tree, item: &'a Item, path: &Path) -> Result<()> {
        let node = &item.node;
        let attributes = self.attributes(node);
        if node.kind == Kind::Directory {
            return Ok(self.writer.put_directory(path, attributes, &tree.xattrs(node, None)?)?);
        }
        if node.links > 1 {
            if let Some(first) = self.links.get(&node.inode)
                && self.writer.put_link(path, first)?
            {
                return Ok(());
            }
            self.links.insert(node.inode, path.to_path_buf());
        }
        match node.kind {
            Kind::File => {
                let content = item.content.ok_or_else(|| super::internal("hash a copied file"))?;
                let bytes = Numbered { number: self.sources.files.len(), size: node.size, content };
                self.sources.files.push((tree, node));
                Ok(self.writer.put_file(path, Content::File(Bytes::Numbered(bytes)), attributes, &[])?)
            }
            Kind::Symlink => {
                let target = item.target.clone().unwrap_or_default();
                Ok(self.writer.put_file(path, Content::Symlink(&target), attributes, &[])?)
            }
            Kind::Fifo => Ok(self.writer.put_file(path, Content::Fifo, attributes, &[])?),
            kind @ (Kind::CharDevice | Kind::BlockDevice) => {
                Ok(self.writer.put_file(path, Content::Device(kind, node.rdev), attributes, &[])?)
            }
            // A socket means nothing without its process: an empty file stands for it, as BuildKit does.
            Kind::Socket => {
                let nothing = Bytes::Stream(&mut std::io::empty());
                Ok(self.writer.put_file(path, Content::File(nothing), attributes, &[])?)
            }
            Kind::Directory => Ok(()),
        }
    }

    fn unpack(&mut self, matched: &'a Match, destination: &Path) -> Result<bool> {
        let tree = self.copy.tree(matched)?;
        let mut file = tree.open(&matched.node)?;
        let io = |error| Error::io("read", &matched.node.path, error);
        if !archive::is_archive(&mut file).map_err(io)? {
            return Ok(false);
        }
        self.writer.ensure_directory(destination)?;
        let name = matched.name.to_string_lossy();
        let changes = archive::Changes { owner: self.owner, chmod: self.copy.step.chmod.as_ref() };
        archive::unpack(&mut file, &name, &mut self.writer, destination, &changes)?;
        self.sources.see(tree, &matched.node, &file);
        Ok(true)
    }

    fn attributes(&self, node: &Node) -> Attributes {
        let (uid, gid) = self.owner.unwrap_or((node.uid, node.gid));
        let is_directory = node.kind == Kind::Directory;
        let mode = match &self.copy.step.chmod {
            Some(chmod) if node.kind != Kind::Symlink => chmod.apply(node.mode, is_directory),
            _ => node.mode,
        };
        Attributes { uid, gid, mode, mtime: clamp_time(self.copy.job.site.request, node.mtime) }
    }
}
