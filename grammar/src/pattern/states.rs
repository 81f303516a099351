//! The positions in a pattern that a path can have brought it to, all of them at once.

use super::Element;

/// A set of positions: before element `n`, or behind the last one.
#[derive(Debug)]
pub(super) struct States {
    bits: Vec<u64>,
    next: Vec<u64>,
    /// Positions below this one are empty.
    last: usize,
    /// The character before was a slash, or there was none: names start here.
    at_name: bool,
}

impl States {
    /// At the start of a path.
    pub(super) fn new(elements: &[Element]) -> Self {
        let words = elements.len() / 64 + 1;
        let mut states = Self { bits: vec![0; words], next: vec![0; words], last: elements.len(), at_name: true };
        enter(&mut states.bits, elements, 0);
        states
    }

    /// Behind the last element.
    pub(super) fn accepts(&self) -> bool {
        self.bits[self.last / 64] & (1 << (self.last % 64)) != 0
    }

    pub(super) fn is_dead(&self) -> bool {
        self.bits.iter().all(|bits| *bits == 0)
    }

    /// Takes one character of the path.
    pub(super) fn step(&mut self, elements: &[Element], character: char) {
        self.next.fill(0);
        self.at_name = character == '/';
        for (word, bits) in self.bits.iter().enumerate() {
            let mut rest = *bits;
            while rest != 0 {
                let index = word * 64 + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let Some(element) = elements.get(index) else { continue };
                if !element.admits(character) {
                    continue;
                }
                match element {
                    // what follows may only start with a name
                    Element::Directories => {
                        self.next[index / 64] |= 1 << (index % 64);
                        if self.at_name {
                            enter(&mut self.next, elements, index + 1);
                        }
                    }
                    Element::Star | Element::Everything => enter(&mut self.next, elements, index),
                    _ => enter(&mut self.next, elements, index + 1),
                }
            }
        }
        std::mem::swap(&mut self.bits, &mut self.next);
    }
}

/// Adds a position, and those behind it that need no character.
fn enter(bits: &mut [u64], elements: &[Element], from: usize) {
    for index in from..=elements.len() {
        bits[index / 64] |= 1 << (index % 64);
        if !elements.get(index).is_some_and(Element::repeats) {
            break;
        }
    }
}
