//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, neither matching a newline.

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Character(char),
    Any,
    Star,
}

/// A compiled pattern. Matching is linear in the value for a given pattern, whatever the pattern.
#[derive(Debug)]
pub(super) struct Wildcard {
    elements: Vec<Element>,
}

impl Wildcard {
    /// # Errors
    /// An escape of a character that needs none, or at the end.
    pub(super) fn new(pattern: &str, escape: char) -> Result<Self, &'static str> {
        let mut elements = Vec::new();
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            let separator = matches!(characters.peek(), Some('}' | '/'));
            elements.push(match character {
                // an escape that kept the separator out of the syntax is not part of the pattern
                '\\' if separator => continue,
                _ if character == escape && separator => continue,
                '*' => Element::Star,
                '?' => Element::Any,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => Element::Character(escaped),
                    Some(_) => return Err("this character cannot be escaped here"),
                    None => return Err("nothing follows the escape character"),
                },
                _ => Element::Character(character),
            });
        }
        // two stars in a row match what one does
        elements.dedup_by(|second, first| *second == Element::Star && *first == Element::Star);
        Ok(Self { elements })
    }

    /// The value without the shortest or longest prefix that matches.
    pub(super) fn without_prefix<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let length = self.match_length(value.chars(), longest).unwrap_or(0);
        value.get(length..).unwrap_or(value)
    }

    /// The value without the shortest or longest suffix that matches.
    pub(super) fn without_suffix<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let reversed = Self { elements: self.elements.iter().rev().copied().collect() };
        let length = reversed.match_length(value.chars().rev(), longest).unwrap_or(0);
        value.get(..value.len() - length).unwrap_or(value)
    }

    /// The first match or all of them replaced, the longest one at the leftmost place; `None` above `limit` bytes.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool, limit: usize) -> Option<String> {
        let mut result = String::new();
        let mut at = 0;
        let mut after_match = false;
        while let Some((start, end)) = self.find(value, at) {
            result.push_str(value.get(at..start)?);
            // an empty match right behind another one is none
            if end > start || !(after_match && start == at) {
                result.push_str(replacement);
            }
            at = end;
            after_match = true;
            if end == start {
                let Some(next) = value.get(end..)?.chars().next() else { break };
                result.push(next);
                at += next.len_utf8();
                after_match = false;
            }
            if result.len() > limit {
                return None;
            }
            if !all {
                break;
            }
        }
        result.push_str(value.get(at.min(value.len())..)?);
        (result.len() <= limit).then_some(result)
    }

    /// The length in bytes of the match at the start.
    fn match_length(&self, characters: impl Iterator<Item = char>, longest: bool) -> Option<usize> {
        let mut states = vec![None; self.elements.len() + 1];
        self.enter(&mut states, 0, 0);
        let mut length = 0;
        let mut found = self.accepted(&states).map(|_| 0);
        for character in characters {
            if found.is_some() && !longest || states.iter().all(Option::is_none) {
                break;
            }
            states = self.step(&states, character);
            length += character.len_utf8();
            if self.accepted(&states).is_some() {
                found = Some(length);
            }
        }
        found
    }

    /// The leftmost match from `from` on, and of those the longest.
    fn find(&self, value: &str, from: usize) -> Option<(usize, usize)> {
        let rest = value.get(from..)?;
        let mut states = vec![None; self.elements.len() + 1];
        let mut best: Option<(usize, usize)> = None;
        for (at, character) in rest.char_indices() {
            if best.is_none() {
                self.enter(&mut states, 0, at);
            }
            self.note(&mut states, &mut best, at);
            if best.is_some() && states.iter().all(Option::is_none) {
                break;
            }
            states = self.step(&states, character);
        }
        if best.is_none() {
            self.enter(&mut states, 0, rest.len());
        }
        self.note(&mut states, &mut best, rest.len());
        best.map(|(start, end)| (from + start, from + end))
    }

    /// Takes a match that ends at `end` when no other one starts earlier, and forgets attempts that start later.
    fn note(&self, states: &mut [Option<usize>], best: &mut Option<(usize, usize)>, end: usize) {
        if let Some(start) = self.accepted(states)
            && best.is_none_or(|(earlier, _)| start <= earlier)
        {
            *best = Some((start, end));
        }
        if let Some((start, _)) = *best {
            for state in states.iter_mut() {
                *state = state.filter(|attempt| *attempt <= start);
            }
        }
    }

    fn accepted(&self, states: &[Option<usize>]) -> Option<usize> {
        states.last().copied().flatten()
    }

    /// Puts an attempt that started at `start` before element `index`, and behind every star that may match nothing.
    fn enter(&self, states: &mut [Option<usize>], index: usize, start: usize) {
        for (at, state) in states.iter_mut().enumerate().skip(index) {
            *state = Some(state.map_or(start, |earlier: usize| earlier.min(start)));
            if self.elements.get(at) != Some(&Element::Star) {
                break;
            }
        }
    }

    /// Every state holds the earliest start of the attempts that are there.
    fn step(&self, states: &[Option<usize>], character: char) -> Vec<Option<usize>> {
        let mut next = vec![None; states.len()];
        for (index, element) in self.elements.iter().enumerate() {
            let Some(start) = states[index] else { continue };
            match element {
                Element::Character(expected) if *expected == character => self.enter(&mut next, index + 1, start),
                Element::Any if character != '\n' => self.enter(&mut next, index + 1, start),
                Element::Star if character != '\n' => self.enter(&mut next, index, start),
                _ => {}
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wildcard(pattern: &str) -> Wildcard {
        Wildcard::new(pattern, '\\').unwrap()
    }

    #[test]
    fn prefixes_and_suffixes() {
        for (value, pattern, shortest, longest) in [
            ("a.b.c", "*.", "b.c", "c"),
            ("a.b.c", "?", ".b.c", ".b.c"),
            ("a.b.c", "x", "a.b.c", "a.b.c"),
            ("a.b.c", "*", "a.b.c", ""),
            ("*x", "\\*", "x", "x"),
            ("a\nb", "*b", "a\nb", "a\nb"),
            ("äöü", "?ö", "ü", "ü"),
        ] {
            assert_eq!(wildcard(pattern).without_prefix(value, false), shortest, "{value} # {pattern}");
            assert_eq!(wildcard(pattern).without_prefix(value, true), longest, "{value} ## {pattern}");
        }
        assert_eq!(wildcard(".*").without_suffix("a.b.c", false), "a.b");
        assert_eq!(wildcard(".*").without_suffix("a.b.c", true), "a");
        assert_eq!(wildcard("?c").without_suffix("a.bäc", false), "a.b");
    }

    #[test]
    fn replacements() {
        for (value, pattern, replacement, first, all) in [
            ("a-b-c", "-", "+", "a+b-c", "a+b+c"),
            ("fast/slow", "fast\\/", "", "slow", "slow"),
            ("abc", "*", "x", "x", "x"),
            ("aXbXc", "a*X", "_", "_c", "_c"),
            ("abab", "?b", "z", "zab", "zz"),
            ("abc", "", "-", "-abc", "-a-b-c-"),
            ("", "x", "y", "", ""),
            ("aab", "ab", "!", "a!", "a!"),
        ] {
            assert_eq!(wildcard(pattern).replace(value, replacement, false, 99).unwrap(), first, "{value}/{pattern}");
            assert_eq!(wildcard(pattern).replace(value, replacement, true, 99).unwrap(), all, "{value}//{pattern}");
        }
        assert!(wildcard("a").replace("aaaa", "bbbbbbbb", true, 16).is_none());
    }

    #[test]
    fn hostile_patterns_are_linear() {
        let value = "a".repeat(20_000);
        let pattern = "*a".repeat(40) + "b";
        assert_eq!(wildcard(&pattern).replace(&value, "x", true, 1 << 20).unwrap(), value);
        assert_eq!(wildcard(&pattern).without_suffix(&value, true), value);
    }

    #[test]
    fn only_wildcards_are_escaped() {
        assert!(Wildcard::new("\\a", '\\').is_err());
        assert!(Wildcard::new("a\\", '\\').is_err());
        assert!(Wildcard::new("\\*\\?\\\\\\}\\/", '\\').is_ok());
    }
}
