use super::*;

fn matches(pattern: &str, path: &str) -> bool {
    Pattern::new(pattern).unwrap().matches(path)
}

/// Proves: D1.12-8, D1.10-5
#[test]
fn patterns_match_whole_paths() {
    for (pattern, path, expected) in [
        ("a", "a", true),
        ("a", "b", false),
        ("a", "a/b", false),
        ("*", "abc", true),
        ("*", "a/b", false),
        ("a*", "a", true),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*", "axbxcxdxexxx", true),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("a?c", "aéc", true),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("ab[^b-d]", "abc", false),
        ("a[ü-ÿ]", "aý", true),
        ("[\\-x]", "-", true),
        ("[\\]a]", "]", true),
        ("[z-a]", "m", false),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("arr[[]0].txt", "arr[0].txt", true),
        ("a]", "a]", true),
        ("*.go", "main.go", true),
        ("*.go", "cmd/main.go", false),
        ("**", "", true),
        ("**", "a/b", true),
        ("**/a", "a", true),
        ("**/a", "x/y/a", true),
        ("**/a", "xa", false),
        ("**/*.go", "main.go", true),
        ("**/*.go", "a/b/main.go", true),
        ("a/**", "a/b/c", true),
        ("a/**", "a", false),
        ("a/**/z", "a/z", true),
        ("a/**/z", "a/b/c/z", true),
        ("a/**/z", "a/bz", false),
        ("**.md", "README.md", true),
        ("**.md", "docs/a.md", true),
        ("a**b", "ab", true),
        ("a**b", "ax/b", true),
        ("a**b", "axb", false),
        ("**/**/a", "b/a", true),
        ("*/**", "a/b", true),
        ("*/**", "a", false),
        ("***", "a/b", true),
    ] {
        assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
    }
}

#[test]
fn a_double_star_may_count_as_one() {
    let matches = |pattern: &str, path: &str| Pattern::without_double_star(pattern).unwrap().matches(path);
    assert!(matches("a/**/c", "a/b/c"));
    assert!(!matches("a/**/c", "a/b/b/c"));
    assert!(!matches("**", "a/b"));
}

#[test]
fn malformed_patterns_are_refused() {
    for pattern in ["[", "[a", "a[", "[^", "[]", "[]a]", "[-]", "[a-]", "[-x]", "[x-", "a\\", "[\\", "*[", "[a-]]"] {
        assert!(Pattern::new(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn wildcards_are_recognised() {
    for (text, expected) in [("a", false), ("a*", true), ("a?", true), ("[a]", true), ("a\\*", false), ("\\\\*", true)]
    {
        assert_eq!(Pattern::has_wildcards(text), expected, "{text}");
    }
}

#[test]
fn hostile_patterns_take_time_in_proportion() {
    let path = "a".repeat(4_000);
    assert!(!matches(&("*a".repeat(200) + "b"), &path));
    assert!(!matches(&("**/a*".repeat(100) + "b"), &"a/".repeat(2_000)));
    assert!(matches(&"*".repeat(10_000), &path));
}
