//! What a word expands to.

/// The result: one text, or words.
pub(super) struct Output {
    text: String,
    words: Option<Vec<String>>,
    bytes: usize,
}

impl Output {
    pub(super) fn text() -> Self {
        Self { text: String::new(), words: None, bytes: 0 }
    }

    pub(super) fn words() -> Self {
        Self { words: Some(Vec::new()), ..Self::text() }
    }

    /// The bytes put out so far, those of finished words included.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// A character that was neither quoted nor escaped.
    pub(super) fn push(&mut self, character: char) {
        match &mut self.words {
            Some(words) if character.is_whitespace() => {
                if !self.text.is_empty() {
                    words.push(std::mem::take(&mut self.text));
                }
            }
            _ => self.push_raw(character),
        }
    }

    /// A character that is part of a word whatever it is.
    pub(super) fn push_raw(&mut self, character: char) {
        self.text.push(character);
        self.bytes += character.len_utf8();
    }

    /// Text that came out of quotes.
    pub(super) fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.bytes += text.len();
    }

    /// A variable's value, which is split like what is written.
    pub(super) fn push_expanded(&mut self, text: &str) {
        if self.words.is_some() {
            text.chars().for_each(|character| self.push(character));
        } else {
            self.push_quoted(text);
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn into_words(self) -> Vec<String> {
        let mut words = self.words.unwrap_or_default();
        if !self.text.is_empty() {
            words.push(self.text);
        }
        words
    }
}
