//! Patterns of names as in a shell: `*` and `?` stop at slashes, `[a-z]` is one of several characters.

/// Whether the whole text matches.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // One row of the table "pattern up to here matches text up to there".
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while let Some(step) = pattern.get(at) {
        let mut next = vec![false; text.len() + 1];
        if *step == '*' {
            for position in 0..=text.len() {
                let longer = position > 0 && next[position - 1] && text[position - 1] != '/';
                next[position] = reached[position] || longer;
            }
            at += 1;
        } else {
            let (one, length) = One::parse(&pattern[at..]);
            for position in 0..text.len() {
                next[position + 1] = reached[position] && one.accepts(text[position]);
            }
            at += length;
        }
        reached = next;
    }
    reached[text.len()]
}

/// What matches one character.
enum One<'a> {
    Any,
    Exactly(char),
    Class { negated: bool, members: &'a [char] },
}

impl<'a> One<'a> {
    /// The next of a pattern, and how many characters it takes there.
    fn parse(pattern: &'a [char]) -> (Self, usize) {
        match pattern {
            ['?', ..] => (Self::Any, 1),
            ['\\', letter, ..] => (Self::Exactly(*letter), 2),
            ['[', rest @ ..] => {
                let negated = matches!(rest, ['^' | '!', ..]);
                let members = &rest[usize::from(negated)..];
                match members.iter().position(|letter| *letter == ']') {
                    Some(end) => (Self::Class { negated, members: &members[..end] }, 2 + usize::from(negated) + end),
                    None => (Self::Exactly('['), 1),
                }
            }
            [letter, ..] => (Self::Exactly(*letter), 1),
            [] => (Self::Any, 1),
        }
    }

    fn accepts(&self, letter: char) -> bool {
        match self {
            Self::Any => letter != '/',
            Self::Exactly(wanted) => *wanted == letter,
            Self::Class { negated, members } => {
                let range = |window: &[char]| matches!(window, [low, '-', high] if (*low..=*high).contains(&letter));
                let member = members.contains(&letter) || members.windows(3).any(range);
                member != *negated && letter != '/'
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_stop_at_slashes() {
        for (pattern, text) in [
            ("a*", "abc"),
            ("*:1", "x:1"),
            ("a?c", "abc"),
            ("a[b-d]e", "ace"),
            ("a[^x]e", "ace"),
            ("*/b", "a/b"),
            ("", ""),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*", "a/b"), ("a", "ab"), ("a?c", "a/c"), ("[!a]", "a"), ("a\\*", "ab")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        let stars = "*a".repeat(200);
        assert!(!matches(&stars, &"a".repeat(100)), "no exponential time");
    }
}
