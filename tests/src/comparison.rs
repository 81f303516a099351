//! What differs between two images, as a list that people can read and a file can list.

use std::{collections::BTreeSet, io};

use serde_json::{Map, Value, json};

use crate::{
    image_archive::ArchivedImage,
    layer::{Filesystem, Kind, Node},
};

/// One property that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// `/path mode`, `config.Env`, `history[3].created_by`.
    pub what: String,
    /// In the first image.
    pub first: String,
    /// In the second image.
    pub second: String,
}

/// Every difference of content, metadata and configuration. Times are left out: of files, because a file that RUN
/// writes has the time of its build; of the config and its history, for the same reason.
pub fn compare(first: &ArchivedImage, second: &ArchivedImage) -> io::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    compare_filesystems(&first.filesystem()?, &second.filesystem()?, &mut differences);
    compare_configs(&comparable(&first.config), &comparable(&second.config), &mut differences);
    for (name, image) in [("first", first), ("second", second)] {
        let expected = layer_history(&image.config);
        let found = image.layers.len();
        if expected != found {
            differences.push(difference(&format!("{name} image: layers"), &expected.to_string(), &found.to_string()));
        }
    }
    differences.sort();
    Ok(differences)
}

fn difference(what: &str, first: &str, second: &str) -> Difference {
    Difference { what: what.to_owned(), first: first.to_owned(), second: second.to_owned() }
}

fn compare_filesystems(first: &Filesystem, second: &Filesystem, out: &mut Vec<Difference>) {
    let paths: BTreeSet<&str> = first.paths().chain(second.paths()).collect();
    for path in paths {
        match (first.get(path), second.get(path)) {
            (Some(one), Some(two)) => {
                compare_nodes(path, one, two, out);
                let (one, two) = (first.hard_links(path).join(" "), second.hard_links(path).join(" "));
                if one != two {
                    out.push(difference(&format!("/{path} hard links"), &one, &two));
                }
            }
            (one, two) => {
                let describe = |node: Option<&Node>| node.map_or_else(|| "absent".to_owned(), kind_text);
                out.push(difference(&format!("/{path}"), &describe(one), &describe(two)));
            }
        }
    }
}

fn compare_nodes(path: &str, one: &Node, two: &Node, out: &mut Vec<Difference>) {
    let mut property = |name: &str, first: String, second: String| {
        if first != second {
            out.push(Difference { what: format!("/{path} {name}"), first, second });
        }
    };
    property("kind", kind_text(one), kind_text(two));
    if !matches!(one.kind, Kind::Symlink { .. }) {
        property("mode", format!("{:04o}", one.mode), format!("{:04o}", two.mode));
    }
    property("owner", format!("{}:{}", one.uid, one.gid), format!("{}:{}", two.uid, two.gid));
    property("xattrs", format!("{:?}", one.xattrs), format!("{:?}", two.xattrs));
}

fn kind_text(node: &Node) -> String {
    match &node.kind {
        Kind::File { size, sha256 } => format!("file of {size} bytes, sha256 {}", &sha256[..12]),
        Kind::Directory => "directory".to_owned(),
        Kind::Symlink { target } => format!("symlink to {target}"),
        Kind::CharacterDevice { major, minor } => format!("character device {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        Kind::Fifo => "fifo".to_owned(),
    }
}

/// The number of history entries that made a layer.
fn layer_history(config: &Value) -> usize {
    let entries = config["history"].as_array().map_or(&[][..], Vec::as_slice);
    entries.iter().filter(|entry| entry["empty_layer"] != json!(true)).count()
}

/// What the config says, without times, without what says nothing (null, empty, false, zero), and without fields that
/// only docker's own containers need.
fn comparable(config: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["architecture", "variant", "os", "author"] {
        insert(&mut kept, key, &config[key]);
    }
    let mut run = Map::new();
    if let Some(fields) = config["config"].as_object() {
        for (key, value) in fields {
            if !["Hostname", "Domainname", "Image"].contains(&key.as_str()) {
                insert(&mut run, key, value);
            }
        }
    }
    kept.insert("config".to_owned(), Value::Object(run));
    let history = config["history"].as_array().map_or(&[][..], Vec::as_slice);
    let history = history.iter().map(|entry| {
        let mut kept = Map::new();
        for key in ["created_by", "author", "comment", "empty_layer"] {
            insert(&mut kept, key, &entry[key]);
        }
        Value::Object(kept)
    });
    kept.insert("history".to_owned(), Value::Array(history.collect()));
    kept.insert("layers".to_owned(), json!(config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len)));
    Value::Object(kept)
}

fn insert(into: &mut Map<String, Value>, key: &str, value: &Value) {
    let empty = match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    };
    if !empty {
        into.insert(key.to_owned(), value.clone());
    }
}

fn compare_configs(one: &Value, two: &Value, out: &mut Vec<Difference>) {
    compare_values("", one, two, out);
}

/// Objects and the history go deeper; anything else differs as a whole.
fn compare_values(path: &str, one: &Value, two: &Value, out: &mut Vec<Difference>) {
    match (one, two) {
        (Value::Object(first), Value::Object(second)) => {
            let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare_values(&path, &one[key.as_str()], &two[key.as_str()], out);
            }
        }
        (Value::Array(first), Value::Array(second)) if path == "history" => {
            for index in 0..first.len().max(second.len()) {
                compare_values(&format!("history[{index}]"), &one[index], &two[index], out);
            }
        }
        _ if one != two => out.push(difference(path, &one.to_string(), &two.to_string())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(mode: u32, text: &str, environment: &[&str]) -> ArchivedImage {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, "file", text.as_bytes()).unwrap();
        let config = json!({
            "os": "linux", "created": text, "config": {"Env": environment, "OnBuild": null},
            "history": [{"created_by": "COPY", "created": text}], "rootfs": {"diff_ids": ["x"]}
        });
        ArchivedImage {
            names: Vec::new(),
            config,
            config_bytes: Vec::new(),
            layers: vec![builder.into_inner().unwrap()],
        }
    }

    #[test]
    fn an_image_equals_itself_and_every_difference_is_found() {
        let one = image(0o644, "a", &["A=1"]);
        assert_eq!(compare(&one, &image(0o644, "a", &["A=1"])).unwrap(), []);
        let found = compare(&one, &image(0o600, "b", &["A=2"])).unwrap();
        let what: Vec<&str> = found.iter().map(|difference| difference.what.as_str()).collect();
        assert_eq!(what, ["/file kind", "/file mode", "config.Env"]);
    }
}
