use super::*;
use crate::span::Span;

struct Table(&'static [(&'static str, &'static str)]);

impl Variables for Table {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }
}

const TABLE: Table = Table(&[
    ("a", "one"),
    ("empty", ""),
    ("path", "/usr/local/lib/x.tar.gz"),
    ("spaced", " b  c "),
    ("stars", "a*b*c"),
    ("é", "umlaut"),
    ("1", "positional"),
]);

fn word(raw: &str) -> Word {
    Word { raw: raw.to_owned(), span: Span::new(100, 100 + raw.len()) }
}

fn expanded(raw: &str) -> Result<String, String> {
    expand(&word(raw), '\\', &TABLE).map_err(|error| error.message)
}

/// Proves: D1.3-1, D1.3-2, D1.3-3, D1.3-4, D1.3-5, D1.3-6, D1.3-7, D1.3-8, D1.3-9, D1.3-11, D1.3-12
#[test]
fn words_are_expanded() {
    for (raw, expected) in [
        ("plain", "plain"),
        ("$a", "one"),
        ("${a}", "one"),
        ("x$a/y", "xone/y"),
        ("$a$a", "oneone"),
        ("$ab", ""),
        ("${a}b", "oneb"),
        ("$unset", ""),
        ("$", "$"),
        ("$/x", "$/x"),
        ("100%$", "100%$"),
        ("$1x", "positionalx"),
        ("$@$*$#$?$-$!", ""),
        ("$é", "umlaut"),
        ("\\$a", "$a"),
        ("\\${a}", "${a}"),
        ("\\\\$a", "\\one"),
        ("a\\ b", "a b"),
        ("trailing\\", "trailing"),
        ("'$a'", "$a"),
        ("\"$a\"", "one"),
        ("'a\\b'", "a\\b"),
        ("\"a\\b\"", "a\\b"),
        ("\"a\\\"b\\$\\\\\"", "a\"b$\\"),
        ("\"'$a'\"", "'one'"),
        ("'\"'$a\"'\"", "\"one'"),
        ("\"\"", ""),
        ("${unset:-w}", "w"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${unset-w}", "w"),
        ("${a:-w}", "one"),
        ("${a:+w}", "w"),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${unset+w}", ""),
        ("${a:?no}", "one"),
        ("${empty?no}", ""),
        ("${unset:-${empty:-$a}}", "one"),
        ("${unset:-\"a } b\"}", "a } b"),
        ("${unset:-a\\}b}", "a}b"),
        ("${path#/usr/}", "local/lib/x.tar.gz"),
        ("${path#*/}", "usr/local/lib/x.tar.gz"),
        ("${path##*/}", "x.tar.gz"),
        ("${path%.*}", "/usr/local/lib/x.tar"),
        ("${path%%.*}", "/usr/local/lib/x"),
        ("${path%/x.???.gz}", "/usr/local/lib"),
        ("${path#nothing}", "/usr/local/lib/x.tar.gz"),
        ("${path#${unset:-/usr}}", "/local/lib/x.tar.gz"),
        ("${stars#a\\*}", "b*c"),
        ("${path/local/share}", "/usr/share/lib/x.tar.gz"),
        ("${path/\\//_}", "_usr/local/lib/x.tar.gz"),
        ("${path//\\//_}", "_usr_local_lib_x.tar.gz"),
        ("${path//l?/<>}", "/usr/<>ca<><>b/x.tar.gz"),
        ("${path/x*}", "unterminated"),
        ("${path/x*/}", "/usr/local/lib/"),
        ("${unset/x/y}", ""),
        ("${unset#x}", ""),
        ("$spaced", " b  c "),
    ] {
        let expected = if expected == "unterminated" { Err(()) } else { Ok(expected.to_owned()) };
        assert_eq!(expanded(raw).map_err(|_| ()), expected, "{raw}");
    }
}

/// Proves: D1.3-4, D1.3-8, D1.3-10
#[test]
fn mistakes_are_pointed_at() {
    for (raw, message, start, end) in [
        ("x${", "missing `}` in `${…}`", 1, 3),
        ("x${a", "missing `}` in `${…}`", 1, 4),
        ("${a:", "missing `}` in `${…}`", 0, 4),
        ("${a:-b", "missing `}` in `${…}`", 0, 6),
        ("${}", "unsupported substitution `${`", 0, 2),
        ("${.}", "unsupported substitution `${.`", 0, 3),
        ("${a=b}", "unsupported substitution `${a=`", 0, 4),
        ("y${a:=b}", "unsupported substitution `${a:=`", 1, 6),
        ("${a^^}", "unsupported substitution `${a^`", 0, 4),
        ("${{a}}", "unsupported substitution `${`", 0, 2),
        ("a'b", "unterminated quote", 1, 3),
        ("a\"b$a", "unterminated quote", 1, 5),
        ("${unset:-'a}", "unterminated quote", 9, 12),
        ("${unset:?}", "unset: is not set, and must be", 0, 10),
        ("x${unset?say so}y", "unset: say so", 1, 17),
        ("${empty:?}", "empty: is not set, and must be", 0, 10),
        ("${path/x}", "missing `/` in `${…}`", 7, 9),
        ("${path#\\x}", "invalid pattern `\\x`", 0, 10),
    ] {
        let error = expand(&word(raw), '\\', &TABLE).expect_err(raw);
        assert_eq!((error.message.as_str(), error.span), (message, Span::new(100 + start, 100 + end)), "{raw}");
        assert!(error.label.is_some());
    }
}

#[test]
fn a_word_in_pieces_is_pointed_at_as_a_whole() {
    let word = Word { raw: "ab${".to_owned(), span: Span::new(5, 30) };
    assert_eq!(expand(&word, '\\', &TABLE).unwrap_err().span, word.span);
}

/// Proves: D1.2-4
#[test]
fn a_backtick_can_be_the_escape() {
    for (raw, expected) in [
        ("`$a", "$a"),
        ("C:\\dir\\$a", "C:\\dir\\one"),
        ("\"`\"`$`` `x\"", "\"$` `x"),
        ("${path//`//_}", "_usr_local_lib_x.tar.gz"),
    ] {
        assert_eq!(expand(&word(raw), '`', &TABLE).unwrap(), expected, "{raw}");
    }
}

/// Proves: D1.3-15
#[test]
fn words_are_split_where_they_are_not_quoted() {
    for (raw, expected) in [
        ("80 443", &["80", "443"][..]),
        ("$spaced", &["b", "c"]),
        ("x$spaced", &["x", "b", "c"]),
        ("\"$spaced\"", &[" b  c "]),
        ("'a b'c\\ d e", &["a bc d", "e"]),
        ("$unset", &[]),
        ("\"\"", &[]),
        ("", &[]),
    ] {
        assert_eq!(expand_split(&word(raw), '\\', &TABLE).unwrap(), expected, "{raw}");
    }
}

/// Proves: D1.9-7
#[test]
fn heredocs_keep_their_quotes() {
    let body = "echo \"$a\" '$a' it's \\$a \\\\ \\x\n${unset:-\"d\"}\n";
    let expected = "echo \"one\" 'one' it's $a \\ x\n\"d\"\n";
    assert_eq!(expand_heredoc(&word(body), '\\', &TABLE).unwrap(), expected);
}

#[test]
fn references_are_listed_in_order() {
    let names =
        |raw: &str| -> Vec<String> { references(&word(raw), '\\').into_iter().map(|found| found.name).collect() };
    assert_eq!(
        names("$b ${a:-$c}x${d#${e}} \"$f\" '$g' \\$h ${i:?} ${j/$k/$l}"),
        ["b", "a", "c", "d", "e", "f", "i", "j", "k", "l"]
    );
    assert_eq!(names("$a ${b"), ["a", "b"]);
    assert!(names("none $ $/").is_empty());
}

#[test]
fn references_know_their_place_and_their_default() {
    let raw = "a/$b-${c}${d:-${e}}${f?x}${g#*x}";
    let word = word(raw);
    let found: Vec<(&str, bool)> = references(&word, '\\')
        .iter()
        .map(|found| (&raw[found.span.start - word.span.start..][..found.span.len()], found.has_default))
        .collect();
    assert_eq!(
        found,
        [("$b", false), ("${c}", false), ("${d:-${e}}", true), ("${e}", false), ("${f?x}", true), ("${g#*x}", false)]
    );
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| "${x:-".repeat(depth) + "end" + &"}".repeat(depth);
    assert_eq!(expanded(&nested(64)).unwrap(), "end");
    assert_eq!(expanded(&nested(65)).unwrap_err(), "`${…}` is nested more than 64 times");
    assert!(expanded(&"${x:-".repeat(100_000)).is_err());
    assert!(expanded(&"\"${x:-".repeat(100_000)).is_err());
}

#[test]
fn values_have_a_limit() {
    struct Long(String);
    impl Variables for Long {
        fn get(&self, _name: &str) -> Option<String> {
            Some(self.0.clone())
        }
    }
    let long = Long("x".repeat(1 << 20));
    assert!(expand(&word(&"$a".repeat(10)), '\\', &long).is_ok());
    let error = expand(&word(&"$a".repeat(20)), '\\', &long).unwrap_err();
    assert!(error.message.contains("too long"));
    assert!(expand(&word("${a//x/twenty characters long}"), '\\', &long).is_err());
}
