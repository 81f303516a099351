use super::*;

fn lines(source: &str) -> Vec<LogicalLine> {
    let mut lines = LogicalLines::new(source.as_bytes()).unwrap();
    std::iter::from_fn(|| lines.next_line(&mut Vec::new()).unwrap()).collect()
}

fn texts(source: &str) -> Vec<String> {
    lines(source).into_iter().map(|line| line.text).collect()
}

/// Proves: D1.1-6, D1.1-8, D1.1-9
#[test]
fn lines_are_joined_as_written() {
    for (source, expected) in [
        ("RUN a && \\\n    b\n", &["RUN a &&     b"][..]),
        ("  RUN a  \n", &["RUN a"]),
        ("RUN a \\ \t \n b", &["RUN a  b"]),
        ("RUN a\\\r\nb\r\nRUN c\r\n", &["RUN ab", "RUN c"]),
        ("RUN a \\\n# comment\n  # indented\nb", &["RUN a b"]),
        ("RUN a \\\n\n   \nb", &["RUN a b"]),
        ("RUN a \\", &["RUN a"]),
        ("RUN a \\\\\nRUN b", &["RUN a \\\\", "RUN b"]),
        ("# escape=`\nRUN a `\n b\\\nRUN c", &["RUN a  b\\", "RUN c"]),
        ("\\\nRUN a", &["RUN a"]),
        ("\\\n", &[]),
        ("\u{FEFF}RUN a", &["RUN a"]),
        ("RUN a # b\n#RUN c\n", &["RUN a # b"]),
        ("\u{A0}RUN a", &["RUN a"]),
    ] {
        assert_eq!(texts(source), expected, "{source:?}");
    }
}

#[test]
fn offsets_lead_back_through_continuations() {
    let source = "\u{FEFF}# x\nRUN one \\\r\n  # no\n  two\u{e9} three\n";
    let line = lines(source).remove(0);
    for word in ["RUN", "one", "two\u{e9}", "three"] {
        let start = line.text.find(word).unwrap();
        let span = line.map.span(start, start + word.len());
        assert_eq!(&source[span.start..span.end], word);
    }
    assert_eq!(&source[line.span.start..], "RUN one \\\r\n  # no\n  two\u{e9} three\n");
}

#[test]
fn comments_above_belong_to_the_instruction() {
    let all = lines("# syntax=x\n# a\n# b\nFROM x\n# c\n\nRUN y\n# d\n#\n# e\nRUN z");
    let comments: Vec<Vec<&str>> =
        all.iter().map(|line| line.comments.iter().map(|comment| comment.value.as_str()).collect()).collect();
    assert_eq!(comments, [&["a", "b"][..], &[], &["e"]]);
}

/// Proves: D1.1-11, D1.2-1, D1.2-11
#[test]
fn directives_come_first() {
    let of = |source: &str| LogicalLines::new(source.as_bytes()).unwrap().directives().clone();
    let all = of("#!/usr/bin/env x\n# Syntax = a/b:1 --more\n#ESCAPE=`\n# check=skip=all;error=true \nFROM x");
    assert_eq!(all.syntax.unwrap().value, "a/b:1");
    assert_eq!(all.escape, '`');
    assert_eq!(all.check.unwrap().value, "skip=all;error=true");
    assert_eq!(of("# hello\n# escape=`\n").escape, '\\');
    assert_eq!(of("\n# escape=`\n").escape, '\\');
    assert_eq!(of("# unknown=1\n# escape=`\n").escape, '\\');
    assert!(LogicalLines::new(b"# escape=x\n").is_err());
    assert!(LogicalLines::new(b"# check=a\n# check=b\n").is_err());
}

#[test]
fn heredoc_markers() {
    let of = |text: &str| -> Vec<(String, bool, bool, u32)> {
        let found = heredoc::markers(text).into_iter();
        found.map(|marker| (marker.name, marker.expand, marker.strip_tabs, marker.fd)).collect()
    };
    let plain = |name: &str| vec![(name.to_owned(), true, false, 0)];
    assert_eq!(of("RUN <<EOF"), plain("EOF"));
    assert_eq!(of("run cat << EOF"), plain("EOF"));
    assert_eq!(of("ONBUILD COPY <<a.txt /"), plain("a.txt"));
    assert_eq!(of("RUN <<-'EOF' sh"), [("EOF".to_owned(), false, true, 0)]);
    assert_eq!(of("RUN 3<<E\"O\"F"), [("EOF".to_owned(), false, false, 3)]);
    assert_eq!(of("RUN <<A cat 4<<B").len(), 2);
    assert_eq!(of("RUN <<$EOF"), plain("$EOF"));
    for none in [
        "RUN cat <<<EOF",
        "RUN echo a<<EOF",
        "RUN echo \"<<EOF\"",
        "RUN echo it's <<EOF",
        "RUN echo $((1 << 2))",
        "RUN echo \\<<EOF",
        "RUN <<''",
        "RUN cat <<",
        "CMD <<EOF",
        "ENV a=<<EOF",
        "COPY [\"<<EOF\", \"/\"]",
    ] {
        assert_eq!(of(none), [], "{none}");
    }
}

#[test]
fn heredoc_bodies_are_taken_out() {
    let all = lines("RUN <<A cat <<-B\n# one \\\nA\n\tFROM x\n\tB\nRUN c\n");
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].heredocs[0].raw, "# one \\\n");
    assert_eq!(all[0].heredocs[1].raw, "\tFROM x\n");
    assert_eq!(all[1].text, "RUN c");
}

#[test]
fn invalid_utf8_keeps_spans_right() {
    let source = b"RUN a\xFFb \xF0\x9Fx end";
    let mut warnings = Vec::new();
    let line = LogicalLines::new(source).unwrap().next_line(&mut warnings).unwrap().unwrap();
    assert_eq!(line.text, "RUN a\u{FFFD}b \u{FFFD}x end");
    let end = line.text.find("end").unwrap();
    assert_eq!(line.map.span(end, end + 3), Span::new(12, 15));
    assert_eq!(warnings[0].span, Span::new(5, 6));
}

/// Proves: D1.1-12
#[test]
fn an_instruction_has_a_longest_length() {
    let read = |source: &str| LogicalLines::new(source.as_bytes()).unwrap().next_line(&mut Vec::new());
    assert!(read(&format!("RUN {}", "x".repeat(LONGEST - 4))).is_ok());
    let error = read(&format!("RUN {}", "x \\\n".repeat(LONGEST / 2))).unwrap_err();
    assert_eq!(error.span, Span::new(0, 3));
    assert!(read(&"x".repeat(2 * LONGEST)).is_err());
    assert!(read(&format!("RUN <<EOF\n{}EOF", "line\n".repeat(LONGEST))).is_ok());
}
