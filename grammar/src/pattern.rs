//! The wildcards of COPY and ADD sources: Go's `filepath.Match`, with `**` as BuildKit's `--exclude` and `--parents` allow.

mod states;

use states::States;

/// One pattern.
///
/// `*` matches any characters of one name, `?` one of them, `[a-z]` and `[^a-z]` one of a set, `\` makes the next
/// character an ordinary one, and `**` any number of whole names. Matching takes time in proportion to pattern times
/// path, whatever the pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    elements: Vec<Element>,
    /// The path that the pattern is when it has no wildcard, else what every match starts with.
    literal: String,
    /// The longest text that every match contains.
    needle: String,
    shape: Shape,
}

/// Patterns that need no simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Exactly `literal`.
    Literal,
    /// Anything that starts with `literal`: `a/**`.
    Prefix,
    /// `literal` below any directory: `**/name`.
    AnyDirectory,
    /// Anything that ends with `literal`: `**.md`.
    Suffix,
    /// All else.
    General,
}

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    Character(char),
    /// `?`
    AnyCharacter,
    /// `*`
    Star,
    /// `**`, or `**/`, before something else: nothing, or whole names.
    Directories,
    /// `**` at the end: everything.
    Everything,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// # Errors
    /// A malformed pattern (an open bracket, a trailing escape).
    pub fn new(pattern: &str) -> Result<Self, String> {
        Self::compile(pattern, true)
    }

    /// A pattern in which `**` is no more than `*`, as in a COPY without `--parents`.
    ///
    /// # Errors
    /// As [`Pattern::new`].
    pub fn without_double_star(pattern: &str) -> Result<Self, String> {
        Self::compile(pattern, false)
    }

    /// Whether the text has a wildcard at all.
    pub fn has_wildcards(text: &str) -> bool {
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => {
                    characters.next();
                }
                '*' | '?' | '[' => return true,
                _ => {}
            }
        }
        false
    }

    /// Whether the whole path (no leading slash) matches; `*` and `?` do not match `/`.
    pub fn matches(&self, path: &str) -> bool {
        match self.shape {
            Shape::Literal => path == self.literal,
            Shape::Prefix => path.starts_with(&self.literal),
            Shape::AnyDirectory => is_below_any_directory(path, &self.literal),
            Shape::Suffix => path.ends_with(&self.literal),
            Shape::General => self.simulate(path, |_, _| false) == Simulation::Matched,
        }
    }

    /// Whether the path or one of the directories it is in matches.
    pub(crate) fn matches_path_or_parent(&self, path: &str) -> bool {
        match self.shape {
            Shape::Literal => {
                path.strip_prefix(self.literal.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Shape::Prefix => path.starts_with(&self.literal),
            Shape::AnyDirectory => paths_to(path).any(|path| is_below_any_directory(path, &self.literal)),
            Shape::Suffix => paths_to(path).any(|path| path.ends_with(&self.literal)),
            Shape::General => {
                path.contains(&self.needle)
                    && self.simulate(path, |states, next| next == '/' && states.accepts()) == Simulation::Matched
            }
        }
    }

    /// Whether some path below the directory may match.
    pub(crate) fn may_match_below(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        match self.shape {
            Shape::Literal => self.literal.len() > below.len() && self.literal.starts_with(&below),
            Shape::Prefix => self.literal.starts_with(&below) || below.starts_with(&self.literal),
            Shape::AnyDirectory | Shape::Suffix => true,
            Shape::General => self.simulate(&below, |_, _| false) != Simulation::Dead,
        }
    }

    fn compile(pattern: &str, double_star: bool) -> Result<Self, String> {
        let mut elements = Vec::new();
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            elements.push(match character {
                '*' if double_star && characters.next_if_eq(&'*').is_some() => {
                    characters.next_if_eq(&'/');
                    if characters.peek().is_none() { Element::Everything } else { Element::Directories }
                }
                '*' => Element::Star,
                '?' => Element::AnyCharacter,
                '[' => class(&mut characters)?,
                '\\' => Element::Character(characters.next().ok_or("nothing follows the `\\` at its end")?),
                _ => Element::Character(character),
            });
        }
        // a repeated star matches what one does, and costs nothing then
        elements.dedup_by(|second, first| second == first && matches!(second, Element::Star | Element::Directories));
        Ok(Self::of(elements, double_star && pattern.starts_with("**") && !pattern.starts_with("**/")))
    }

    /// `glued`: the `**` at the start is not a name of its own, as in `**.md`.
    fn of(elements: Vec<Element>, glued: bool) -> Self {
        let text_of = |elements: &[Element]| -> Option<String> { elements.iter().map(Element::character).collect() };
        let (shape, literal) = match elements.as_slice() {
            [Element::Directories, name @ ..] if text_of(name).is_some() => {
                (if glued { Shape::Suffix } else { Shape::AnyDirectory }, text_of(name))
            }
            [prefix @ .., Element::Everything] if text_of(prefix).is_some() => (Shape::Prefix, text_of(prefix)),
            all if text_of(all).is_some() => (Shape::Literal, text_of(all)),
            all => {
                let wildcard = all.iter().position(|element| !matches!(element, Element::Character(_)));
                (Shape::General, text_of(&all[..wildcard.unwrap_or(all.len())]))
            }
        };
        let runs = elements.split(|element| element.character().is_none());
        let needle = runs.max_by_key(|run| run.len()).and_then(text_of).unwrap_or_default();
        Self { elements, literal: literal.unwrap_or_default(), needle, shape }
    }

    /// Runs all attempts at once over the path; `stop` looks at them before each character and ends with a match.
    fn simulate(&self, path: &str, stop: impl Fn(&States, char) -> bool) -> Simulation {
        let common = path.len().min(self.literal.len());
        if path.as_bytes()[..common] != self.literal.as_bytes()[..common] {
            return Simulation::Dead;
        }
        let mut states = States::new(&self.elements);
        for character in path.chars() {
            if stop(&states, character) {
                return Simulation::Matched;
            }
            states.step(&self.elements, character);
            if states.is_dead() {
                return Simulation::Dead;
            }
        }
        if states.accepts() { Simulation::Matched } else { Simulation::Open }
    }
}

/// How far a path brought a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Simulation {
    /// The path matches.
    Matched,
    /// Some longer path may.
    Open,
    /// No path that starts so does.
    Dead,
}

impl Element {
    fn admits(&self, character: char) -> bool {
        match self {
            Self::Character(expected) => *expected == character,
            Self::AnyCharacter | Self::Star => character != '/',
            Self::Directories | Self::Everything => true,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
            }
        }
    }

    fn character(&self) -> Option<char> {
        if let Self::Character(character) = self { Some(*character) } else { None }
    }

    fn repeats(&self) -> bool {
        matches!(self, Self::Star | Self::Directories | Self::Everything)
    }
}

fn is_below_any_directory(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|directory| directory.is_empty() || directory.ends_with('/'))
}

/// The directories that a path goes through, and the path.
fn paths_to(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at)).chain([path])
}

/// The inside of `[…]`, after the bracket.
fn class(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Element, String> {
    const OPEN: &str = "a `[` is not closed";
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && characters.next_if_eq(&']').is_some() {
            return Ok(Element::Class { negated, ranges });
        }
        let low = class_character(characters)?.ok_or(OPEN)?;
        let high = match characters.next_if_eq(&'-') {
            Some(_) => class_character(characters)?.ok_or(OPEN)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn class_character(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<char>, String> {
    match characters.next() {
        Some('\\') => Ok(characters.next()),
        Some(character @ ('-' | ']')) => Err(format!("a `{character}` in `[…]` has no character before it")),
        character => Ok(character),
    }
}

#[cfg(test)]
mod tests;
