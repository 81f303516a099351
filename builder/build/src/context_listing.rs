//! What a build context holds, and which line of the ignore file keeps the rest out: `context ls`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_grammar::ignore::IgnorePatterns;

use crate::{Error, Result};

/// A file, directory or link of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Below the context's root, with `/` behind a directory.
    pub path: String,
    /// Bytes of a file; of an ignored directory, of everything in it.
    pub size: u64,
    /// Files that stand for this entry: more than one for an ignored directory.
    pub files: u64,
    /// The line of the ignore file that keeps it out, from 1, and its text.
    pub ignored_by: Option<(usize, String)>,
}

/// Everything in the context, sorted by path. A directory that is ignored with all that is in it is one entry.
///
/// # Errors
/// The directory cannot be read; a pattern of the ignore file (given as name and text) is malformed.
pub fn list(root: &Path, ignore: Option<&(String, String)>) -> Result<Vec<Listed>> {
    let patterns = match ignore {
        None => IgnorePatterns::default(),
        Some((file, text)) => IgnorePatterns::parse(text).map_err(|wrong| Error::Ignore {
            file: file.clone(),
            line: wrong.line,
            pattern: wrong.pattern,
            reason: wrong.reason,
        })?,
    };
    let mut listed = Vec::new();
    let mut walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let failed = |error: walkdir::Error| Error::io("list the build context", root, std::io::Error::from(error));
        let entry = entry.map_err(failed)?;
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_string_lossy().into_owned();
        let ignored_by = patterns.ignored_by(&path).map(|(line, text)| (line, text.to_owned()));
        let is_directory = entry.file_type().is_dir();
        if is_directory && ignored_by.is_some() && !patterns.may_reinclude_below(&path) {
            walk.skip_current_dir();
            let (size, files) = total(entry.path());
            listed.push(Listed { path: path + "/", size, files, ignored_by });
            continue;
        }
        let size = if entry.file_type().is_file() { entry.metadata().map_or(0, |metadata| metadata.size()) } else { 0 };
        // What is taken back in shows itself; the directory around it is only on the way.
        if !(is_directory && ignored_by.is_some()) {
            let (path, files) = if is_directory { (path + "/", 0) } else { (path, 1) };
            listed.push(Listed { path, size, files, ignored_by });
        }
    }
    Ok(listed)
}

/// Bytes and number of the files below a directory.
fn total(directory: &Path) -> (u64, u64) {
    let entries = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    files.fold((0, 0), |(size, files), entry| {
        let length = if entry.file_type().is_file() { entry.metadata().map_or(0, |data| data.len()) } else { 0 };
        (size + length, files + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_decides_is_told() {
        let root = tempfile_directory();
        for path in ["src/main.c", "src/main.o", "node_modules/a/b.js", "logs/old.log", "logs/keep.log"] {
            let file = root.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "12345").unwrap();
        }
        let ignore = "# comment\nnode_modules\n\n**/*.o\nlogs\n!logs/keep.log\n";
        let listed = list(&root, Some(&(".dockerignore".to_owned(), ignore.to_owned()))).unwrap();
        let shown: Vec<String> = listed
            .iter()
            .map(|entry| match &entry.ignored_by {
                None => format!("{} {}", entry.path, entry.size),
                Some((line, text)) => format!("- {} {} {} {line} {text}", entry.path, entry.size, entry.files),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "logs/keep.log 5",
                "- logs/old.log 5 1 5 logs",
                "- node_modules/ 5 1 2 node_modules",
                "src/ 0",
                "src/main.c 5",
                "- src/main.o 5 1 4 **/*.o"
            ]
        );
        std::fs::remove_dir_all(&root).unwrap();
    }

    fn tempfile_directory() -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("kiln-context-listing-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        root
    }
}
