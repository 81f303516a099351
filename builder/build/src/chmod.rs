//! `--chmod`: an octal mode, or chmod's symbolic clauses.

/// A checked mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chmod {
    text: String,
    change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Octal(u32),
    Clauses(Vec<Clause>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    /// The classes it is about: bits 6 (user), 3 (group), 0 (others).
    classes: Vec<u32>,
    operator: char,
    permissions: String,
}

impl Chmod {
    /// Parses `644`, `u=rwX,go=rX`, `a+x`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("invalid mode {text:?}; expected octal digits such as 644, or clauses such as u=rwX,go=rX");
        let change = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
            if mode > 0o7777 {
                return Err(wrong());
            }
            Change::Octal(mode)
        } else {
            Change::Clauses(
                text.split(',').map(|clause| Clause::parse(clause).ok_or_else(wrong)).collect::<Result<_, _>>()?,
            )
        };
        Ok(Self { text: text.to_owned(), change })
    }

    /// As written: what a cache key is made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The permission bits of a file that had `mode`.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match &self.change {
            Change::Octal(octal) => *octal,
            Change::Clauses(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['+', '-', '='])?;
        let (who, rest) = text.split_at(at);
        let mut rest = rest.chars();
        let operator = rest.next()?;
        let permissions: String = rest.collect();
        let mut classes = Vec::new();
        for class in who.chars() {
            match class {
                'u' => classes.push(6),
                'g' => classes.push(3),
                'o' => classes.push(0),
                'a' => classes.extend([6, 3, 0]),
                _ => return None,
            }
        }
        if classes.is_empty() {
            classes.extend([6, 3, 0]);
        }
        permissions.chars().all(|c| "rwxXstugo".contains(c)).then_some(Self { classes, operator, permissions })
    }

    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut mode = mode;
        for &shift in &self.classes {
            let (bits, special) = self.bits(mode, shift, directory);
            let all = (0o7 << shift) | special_of(shift);
            mode = match self.operator {
                '+' => mode | bits | special,
                '-' => mode & !(bits | special),
                _ => (mode & !all) | bits | special,
            };
        }
        mode
    }

    fn bits(&self, mode: u32, shift: u32, directory: bool) -> (u32, u32) {
        let mut bits = 0;
        let mut special = 0;
        for permission in self.permissions.chars() {
            match permission {
                'r' => bits |= 4,
                'w' => bits |= 2,
                'x' => bits |= 1,
                'X' if directory || mode & 0o111 != 0 => bits |= 1,
                'u' => bits |= (mode >> 6) & 7,
                'g' => bits |= (mode >> 3) & 7,
                'o' => bits |= mode & 7,
                's' if shift == 6 => special |= 0o4000,
                's' if shift == 3 => special |= 0o2000,
                't' => special |= 0o1000,
                _ => {}
            }
        }
        (bits << shift, special)
    }
}

fn special_of(shift: u32) -> u32 {
    match shift {
        6 => 0o4000,
        3 => 0o2000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::Chmod;

    #[test]
    fn modes() {
        let table = [
            ("644", 0o755, false, 0o644),
            ("4711", 0o644, false, 0o4711),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("g-w,o=", 0o666, false, 0o640),
            ("u+s", 0o755, false, 0o4755),
            ("go=u", 0o700, false, 0o777),
        ];
        for (text, before, directory, after) in table {
            let mode = Chmod::parse(text).unwrap().apply(before, directory);
            assert_eq!(mode, after, "{text} on {before:o} gave {mode:o}");
        }
        for wrong in ["", "8", "99999", "u~x", "z+x", "u+q"] {
            assert!(Chmod::parse(wrong).is_err(), "{wrong}");
        }
    }
}
