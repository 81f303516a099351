//! Which keys there are: those of the reference. What somebody wrote instead of one is told which he meant.

use std::sync::LazyLock;

use toml::{Table, Value};

use super::REFERENCE;

/// The reference with its examples, so with every key.
static EXAMPLE: LazyLock<Table> = LazyLock::new(|| example_of(REFERENCE).parse().unwrap_or_default());

/// A key of the reference.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// The tables it is in and its own name.
    pub(super) path: Vec<String>,
    /// An example, which shows its type.
    pub(super) example: Value,
}

impl Key {
    /// The environment variable that gives it.
    pub(super) fn variable(&self) -> String {
        format!("KILN_REGISTRY_{}", self.path.join("_").to_uppercase())
    }
}

/// A `#` that no space follows marks an example.
fn example_of(reference: &str) -> String {
    let lines = reference.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every key, but for those in lists of tables.
pub(super) fn all() -> Vec<Key> {
    let mut keys = Vec::new();
    for (name, value) in EXAMPLE.iter() {
        let top = [(name, value)];
        let (section, members): (&[String], Vec<_>) = match value {
            Value::Table(section) => (std::slice::from_ref(name), section.iter().collect()),
            _ => (&[], top.to_vec()),
        };
        for (key, example) in members {
            if !is_list_of_tables(example) {
                let path = section.iter().chain([key]).cloned().collect();
                keys.push(Key { path, example: example.clone() });
            }
        }
    }
    keys
}

fn is_list_of_tables(value: &Value) -> bool {
    matches!(value, Value::Array(items) if items.iter().any(Value::is_table))
}

/// The key of this path's last table that is most like the path's last name.
pub(super) fn nearest(path: &str) -> Option<String> {
    let mut names = path.split('.').filter(|name| !name.bytes().all(|byte| byte.is_ascii_digit()));
    let wrong = names.next_back()?;
    let mut table = &*EXAMPLE;
    for name in names {
        table = match table.get(name)? {
            Value::Table(table) => table,
            Value::Array(items) => items.first()?.as_table()?,
            _ => return None,
        };
    }
    closest(wrong, table.keys().map(String::as_str)).map(str::to_owned)
}

/// The one that somebody probably meant.
pub(super) fn closest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = candidates.map(|candidate| (strsim::jaro_winkler(wrong, candidate), candidate));
    rated.filter(|(likeness, _)| *likeness > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    /// `http.listen`, `webhook.url`, ...
    fn paths(table: &Table) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, value) in table {
            let section = match value {
                Value::Table(table) => Some(table),
                Value::Array(items) => items.first().and_then(Value::as_table),
                _ => None,
            };
            match section {
                Some(section) => paths.extend(self::paths(section).iter().map(|key| format!("{name}.{key}"))),
                None => paths.push(name.clone()),
            }
        }
        paths.sort();
        paths
    }

    #[test]
    fn the_reference_says_what_happens_without_it() {
        assert_eq!(toml::from_str::<Config>(REFERENCE).unwrap(), Config::default());
    }

    #[test]
    fn the_reference_has_every_key_and_no_other() {
        let full: Config = toml::from_str(&example_of(REFERENCE)).unwrap();
        let known = paths(&Table::try_from(&full).unwrap());
        assert_eq!(paths(&EXAMPLE), known);
    }

    #[test]
    fn a_slip_is_told_from_a_different_word() {
        assert_eq!(nearest("http.listn").as_deref(), Some("listen"));
        assert_eq!(nearest("webhook.0.event").as_deref(), Some("events"));
        assert_eq!(nearest("gc.retention.0.keep_lst").as_deref(), Some("keep_last"));
        assert_eq!(nearest("acess").as_deref(), Some("access"));
        assert_eq!(nearest("http.zzz"), None);
        assert_eq!(nearest("nothing.of.this"), None);
    }
}
