//! Which files a COPY takes: sources and wildcards to matches, each with all that is below it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_grammar::Span;
use kiln_grammar::ignore::IgnorePatterns;
use kiln_grammar::pattern::Pattern;
use kiln_store::snapshot::{Kind, Node};

use crate::plan::{CopyStep, Origin};
use crate::tree::{ContentHash, Tree};
use crate::{Error, Result};

/// Everything one COPY takes, in order.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) matches: Vec<Match>,
}

/// One thing that a source named.
#[derive(Debug)]
pub(crate) struct Match {
    /// Which source, by its number in the step.
    pub(crate) source: usize,
    /// Its name in a destination directory; with `--parents` a path.
    pub(crate) name: OsString,
    /// The thing itself, symlinks followed.
    pub(crate) node: Node,
    /// Itself when it is no directory, or what is below it.
    pub(crate) items: Vec<Item>,
}

/// One file, directory or link to be made.
#[derive(Debug)]
pub(crate) struct Item {
    /// The source.
    pub(crate) node: Node,
    /// Bytes of its path that lead to the match.
    pub(crate) above: usize,
    /// Content hash of a file.
    pub(crate) content: Option<ContentHash>,
    /// A symlink's target.
    pub(crate) target: Option<PathBuf>,
    /// The first item of this selection that is the same inode.
    pub(crate) link_to: Option<PathBuf>,
}

impl Item {
    /// Below the match; empty for the match itself.
    pub(crate) fn path(&self) -> &Path {
        let path = self.node.path.as_os_str().as_bytes();
        Path::new(OsStr::from_bytes(path.get(self.above..).unwrap_or_default()))
    }

    /// All that counts of it, its times not.
    pub(crate) fn describe(&self, out: &mut Vec<u8>) {
        let node = &self.node;
        out.push(node.kind as u8);
        for number in [node.mode, node.uid, node.gid] {
            out.extend(number.to_le_bytes());
        }
        match node.kind {
            Kind::CharDevice | Kind::BlockDevice => out.extend(node.rdev.to_le_bytes()),
            _ => out.extend(self.content.as_ref().map_or(&[][..], |hash| hash.as_slice())),
        }
        for path in [&self.target, &self.link_to] {
            let path = path.as_ref().map(|path| path.as_os_str().as_bytes());
            out.extend(path.map_or(u64::MAX, |path| path.len() as u64).to_le_bytes());
            out.extend(path.unwrap_or_default());
        }
    }
}

impl Selection {
    /// Every file with the beginning of a hash of all that counts of it: what a miss is explained with.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        let mut description = Vec::new();
        for matched in &self.matches {
            for item in &matched.items {
                description.clear();
                item.describe(&mut description);
                let hash = *blake3::hash(&description).as_bytes();
                let short = hash.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
                let below = item.path();
                let path = Path::new(&matched.name).join(below);
                let path = if below.as_os_str().is_empty() { Path::new(&matched.name) } else { &path };
                files.push((path.to_string_lossy().into_owned(), short));
            }
        }
        files
    }
}

/// Finds what a step copies.
///
/// # Errors
/// A source that is not there, pointing at its words.
pub(crate) fn select<'t>(trees: &dyn Fn(Origin) -> Result<&'t dyn Tree>, step: &CopyStep) -> Result<Selection> {
    let exclude = IgnorePatterns::new(step.exclude.iter().map(String::as_str)).map_err(|wrong| {
        Error::at(step.destination_span, format!("--exclude {:?}: {}", wrong.pattern, wrong.reason))
    })?;
    let mut selection = Selection::default();
    // Inodes of one tree say nothing about those of another.
    let mut links: HashMap<Origin, HashMap<(u64, u64), PathBuf>> = HashMap::new();
    for (number, source) in step.sources.iter().enumerate() {
        let tree = trees(source.origin)?;
        let links = links.entry(source.origin).or_default();
        for (name, node) in find(tree, &source.path, source.span, step)? {
            if node.kind != Kind::Directory && exclude.is_ignored(&Path::new(&name).to_string_lossy()) {
                continue;
            }
            let items = items(tree, &node, &exclude, links)?;
            selection.matches.push(Match { source: number, name, node, items });
        }
    }
    if selection.matches.is_empty() && step.heredocs.is_empty() && exclude.is_empty() {
        let Some(source) = step.sources.first() else { return Ok(selection) };
        return Err(not_found(trees(source.origin)?, &source.path, source.span));
    }
    for origin in links.into_keys() {
        hash_files(trees(origin)?, &mut selection, |number| step.sources[number].origin == origin)?;
    }
    Ok(selection)
}

/// What stands at one path of a tree, for a key: the thing itself and all below it.
///
/// # Errors
/// It cannot be read.
pub(crate) fn select_path(tree: &dyn Tree, path: &str) -> Result<Selection> {
    let mut selection = Selection::default();
    if let Some(node) = tree.resolve(&clean(path))? {
        let items = items(tree, &node, &IgnorePatterns::default(), &mut HashMap::new())?;
        selection.matches.push(Match { source: 0, name: OsString::new(), node, items });
    }
    hash_files(tree, &mut selection, |_| true)?;
    Ok(selection)
}

fn not_found(tree: &dyn Tree, source: &str, span: Span) -> Error {
    let help = tree.advise(source);
    Error::Dockerfile(Box::new(
        kiln_grammar::Diagnostic::error(format!("{source:?}: not found"), span)
            .with_label("no such file")
            .with_help(help),
    ))
}

/// The matches of one source, with the names they get.
fn find(tree: &dyn Tree, source: &str, span: Span, step: &CopyStep) -> Result<Vec<(OsString, Node)>> {
    let base = pivot_base(source, step.parents);
    let path = clean(source);
    let name = |path: &Path| -> OsString {
        if step.parents {
            let base = clean(base);
            path.strip_prefix(&base).unwrap_or(path).as_os_str().to_owned()
        } else {
            path.file_name().unwrap_or_default().to_owned()
        }
    };
    if !Pattern::has_wildcards(source) {
        let node = tree.resolve(&path).map_err(|error| error.located(span))?;
        let node = node.ok_or_else(|| not_found(tree, source, span))?;
        return Ok(vec![(name(&path), node)]);
    }
    let mut found = Vec::new();
    for path in expand(tree, &path, span)? {
        if let Some(node) = tree.resolve(&path).map_err(|error| error.located(span))? {
            found.push((name(&path), node));
        }
    }
    Ok(found)
}

/// `a/./b`: what stands before the pivot is not kept by `--parents`.
fn pivot_base(source: &str, parents: bool) -> &str {
    match source.split_once("/./") {
        Some((base, _)) if parents => base,
        _ => "",
    }
}

/// No leading slash, no `.`, and `..` stops at the root.
fn clean(path: &str) -> PathBuf {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.iter().collect()
}

/// Expands wildcards name by name, in sorted order; `**` takes any depth.
fn expand(tree: &dyn Tree, pattern: &Path, span: Span) -> Result<Vec<PathBuf>> {
    let names: Vec<String> = pattern.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.iter().any(|name| name == "**") {
        let whole = Pattern::new(&pattern.to_string_lossy()).map_err(|reason| Error::at(span, reason))?;
        let all = tree.walk(Path::new(""))?;
        return Ok(all
            .into_iter()
            .filter(|node| whole.matches(&node.path.to_string_lossy()))
            .map(|node| node.path)
            .collect());
    }
    let mut paths = vec![PathBuf::new()];
    for name in &names {
        if !Pattern::has_wildcards(name) {
            paths.iter_mut().for_each(|path| path.push(name));
            continue;
        }
        let wildcard = Pattern::without_double_star(name)
            .map_err(|reason| Error::at(span, format!("pattern {name:?}: {reason}")))?;
        let mut next = Vec::new();
        for path in paths {
            let Some(node) = tree.resolve(&path)?.filter(|node| node.kind == Kind::Directory) else { continue };
            let entries = tree.read_dir(&node.path)?;
            next.extend(
                entries
                    .into_iter()
                    .filter(|(name, _)| wildcard.matches(&name.to_string_lossy()))
                    .map(|(name, _)| path.join(name)),
            );
        }
        paths = next;
    }
    Ok(paths)
}

fn items(
    tree: &dyn Tree,
    node: &Node,
    exclude: &IgnorePatterns,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> Result<Vec<Item>> {
    let nodes = if node.kind == Kind::Directory { tree.walk(&node.path)? } else { vec![node.clone()] };
    let mut items = Vec::with_capacity(nodes.len());
    for below in nodes {
        let mut item = Item { above: above(node, &below), node: below, content: None, target: None, link_to: None };
        let is_below = item.above < item.node.path.as_os_str().len();
        if is_below && !exclude.is_empty() && exclude.is_ignored(&item.path().to_string_lossy()) {
            continue;
        }
        if item.node.kind == Kind::Symlink {
            item.target = Some(tree.read_link(&item.node)?);
        }
        if item.node.links > 1 && item.node.kind == Kind::File {
            item.link_to = links.get(&item.node.inode).cloned();
            links.entry(item.node.inode).or_insert_with(|| item.node.path.clone());
        }
        items.push(item);
    }
    Ok(items)
}

/// How much of a path is that of the match it lies in.
pub(crate) fn above(matched: &Node, below: &Node) -> usize {
    let (matched, below) = (matched.path.as_os_str().as_bytes(), below.path.as_os_str().as_bytes());
    match matched.len() {
        0 => 0,
        length if below.len() > length => length + 1,
        length => length,
    }
}

fn hash_files(tree: &dyn Tree, selection: &mut Selection, of: impl Fn(usize) -> bool) -> Result<()> {
    let mut files: Vec<&mut Item> = selection
        .matches
        .iter_mut()
        .filter(|matched| of(matched.source))
        .flat_map(|matched| &mut matched.items)
        .filter(|item| matches!(item.node.kind, Kind::File | Kind::Directory))
        .collect();
    let nodes: Vec<&Node> = files.iter().map(|item| &item.node).collect();
    let hashes = tree.hash(&nodes)?;
    for (item, hash) in files.iter_mut().zip(hashes) {
        item.content = Some(hash);
    }
    Ok(())
}
