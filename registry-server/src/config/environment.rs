//! Keys that the environment gives.

use toml::{Table, Value};

use super::keys::{self, Key};
use crate::error::Error;

/// Puts the values of `variables` into the file's table; the names of those that set something.
pub(super) fn overlay(table: &mut Table, variables: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Error> {
    let mut used = Vec::new();
    for key in keys::all() {
        let variable = key.variable();
        let Some(text) = variables(&variable).filter(|text| !text.is_empty()) else { continue };
        let invalid = |reason: String| Error::Config { place: format!("the variable {variable}"), reason };
        let value = parse(&key, &text).map_err(invalid)?;
        put(table, &key, value).map_err(invalid)?;
        used.push(variable);
    }
    Ok(used)
}

/// The text as a value of the type that the key has.
fn parse(key: &Key, text: &str) -> Result<Value, String> {
    match &key.example {
        Value::Boolean(_) => {
            text.parse().map(Value::Boolean).map_err(|_| format!("{text:?} is neither true nor false"))
        }
        Value::Integer(_) => text.parse().map(Value::Integer).map_err(|_| format!("{text:?} is no whole number")),
        Value::Array(_) => Ok(text.split(',').map(|item| Value::from(item.trim())).collect::<Vec<_>>().into()),
        _ => Ok(text.into()),
    }
}

fn put(table: &mut Table, key: &Key, value: Value) -> Result<(), String> {
    let Some((name, sections)) = key.path.split_last() else { return Ok(()) };
    let mut table = table;
    for section in sections {
        let entry = table.entry(section).or_insert_with(|| Table::new().into());
        table = entry.as_table_mut().ok_or_else(|| format!("`{section}` is no table in the file"))?;
    }
    table.insert(name.clone(), value);
    Ok(())
}
