use super::*;

fn ignored(text: &str, path: &str) -> bool {
    IgnorePatterns::parse(text).unwrap().is_ignored(path)
}

/// Proves: D1.12-7
#[test]
fn the_last_match_wins() {
    for (text, path, expected) in [
        ("", "a", false),
        ("a", "a", true),
        ("a", "a/b/c", true),
        ("a", "x/a", false),
        ("a", "ab", false),
        ("/a", "a", true),
        ("a/", "a/b", true),
        ("./a/../b", "b", true),
        ("../a", "a", false),
        ("*.md", "a.md", true),
        ("*.md", "x/a.md", false),
        ("*/a", "x/a/deep", true),
        ("**/*.md", "x/y/a.md", true),
        ("**/node_modules", "x/node_modules/y/z", true),
        ("**/node_modules", "x/my_node_modules/y", false),
        ("**.log", "x/a.log", true),
        ("x/**", "x", false),
        ("x/**", "x/a", true),
        ("*\n!keep", "keep", false),
        ("*\n!keep", "keep/deep", false),
        ("*\n!keep", "other", true),
        ("*\n!a/b", "a/b/c", false),
        ("*\n!a/b", "a/c", true),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
        ("# a\nb", "# a", false),
        (" # a", "# a", true),
        ("  a  ", "a", true),
        ("! a", "a", false),
        ("a\r\nb\r\n", "b", true),
        ("\u{FEFF}a", "a", true),
        ("\u{FEFF}# c\na", "a", true),
        ("a b", "a b", true),
        ("\\#a", "#a", true),
        (".", "a", false),
        ("**", "a/b", true),
        ("a?c", "abc/x", true),
        ("[a-c]/x", "b/x/y", true),
        ("**/aa", "xaa/aa/y", true),
        ("**aa", "xaaa/y", true),
    ] {
        assert_eq!(ignored(text, path), expected, "{text:?} {path}");
    }
}

/// Proves: D1.12-8
#[test]
fn malformed_patterns_name_their_line() {
    for (text, line, pattern) in
        [("a\n!", 2, "!"), ("!  \n", 1, "!"), ("# c\n\n[a", 3, "[a"), ("a\\", 1, "a\\"), ("![", 1, "![")]
    {
        let error = IgnorePatterns::parse(text).unwrap_err();
        assert_eq!((error.line, error.pattern.as_str()), (line, pattern), "{text}");
    }
    assert!(IgnorePatterns::new(["a", "[z"]).is_err());
    assert!(IgnorePatterns::parse("# only\n\n").unwrap().is_empty());
}

#[test]
fn ignored_directories_are_walked_for_exceptions() {
    for (text, directory, expected) in [
        ("*", "a", false),
        ("*\n!a/b", "a", true),
        ("*\n!a/b", "b", false),
        ("*\n!a/b", "a/b", false),
        ("*\n!a/b/c", "a/b", true),
        ("*\n!a/*.txt", "a", true),
        ("*\n!a/*.txt", "b", false),
        ("*\n!a/*.txt", "a/x", false),
        ("*\n!**/*.txt", "any/where", true),
        ("*\n!a/**", "a/b", true),
        ("*\n!a/**", "ab", false),
        ("*\n!**/x", "q", true),
        ("*\n!a*/x", "abc", true),
    ] {
        assert_eq!(
            IgnorePatterns::parse(text).unwrap().may_reinclude_below(directory),
            expected,
            "{text:?} {directory}"
        );
    }
}

/// The rules said again, one path at a time, as a check of the shortcuts.
fn slowly(text: &str, path: &str) -> bool {
    let mut ignored = false;
    for line in text.lines() {
        let rule = Rule::parse(line).unwrap().unwrap();
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
        if parents.any(|path| rule.pattern.matches(path)) {
            ignored = !rule.exception;
        }
    }
    ignored
}

#[test]
fn shortcuts_agree_with_the_rules() {
    let parts = ["a", "b", "ab", "*", "**", "?", "[ab]"];
    let patterns: Vec<String> = parts
        .iter()
        .flat_map(|first| parts.iter().map(move |second| format!("{first}/{second}")))
        .chain(parts.iter().flat_map(|first| parts.iter().map(move |second| format!("{first}{second}"))))
        .collect();
    let paths = ["a", "b", "ab", "a/b", "b/a", "ab/b", "a/ab/b", "a/b/a/b", "bb/aa"];
    for pattern in &patterns {
        for exception in ["", "!"] {
            let text = format!("*\n{exception}{pattern}\n!a/b");
            for path in paths {
                assert_eq!(ignored(&text, path), slowly(&text, path), "{text:?} {path}");
            }
        }
        let all = IgnorePatterns::parse(&format!("!{pattern}")).unwrap();
        for (directory, below) in
            paths.iter().flat_map(|path| path.match_indices('/').map(move |(at, _)| (&path[..at], *path)))
        {
            if Pattern::new(pattern).unwrap().matches(below) {
                assert!(all.may_reinclude_below(directory), "{pattern} {directory} {below}");
            }
        }
    }
}
