//! Paths in JSON: text where they are text, bytes where they are not, since file names are bytes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Path> for Form {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl From<Form> for PathBuf {
    fn from(form: Form) -> Self {
        match form {
            Form::Text(text) => Self::from(text),
            Form::Bytes(bytes) => Self::from(OsString::from_vec(bytes)),
        }
    }
}

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    Form::from(path).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Form::deserialize(deserializer).map(PathBuf::from)
}

pub(super) mod list {
    use super::{Deserialize, Deserializer, Form, PathBuf, Serialize, Serializer};

    pub(in crate::spec) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        paths.iter().map(|path| Form::from(path.as_path())).collect::<Vec<_>>().serialize(serializer)
    }

    pub(in crate::spec) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        Ok(Vec::<Form>::deserialize(deserializer)?.into_iter().map(PathBuf::from).collect())
    }
}

pub(super) mod pair {
    use super::{Deserialize, Deserializer, Form, PathBuf, Serialize, Serializer};

    #[allow(clippy::ref_option, reason = "serde asks for a reference to the field")]
    pub(in crate::spec) fn serialize<S: Serializer>(
        pair: &Option<(PathBuf, PathBuf)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pair = pair.as_ref().map(|(one, other)| (Form::from(one.as_path()), Form::from(other.as_path())));
        pair.serialize(serializer)
    }

    pub(in crate::spec) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<(PathBuf, PathBuf)>, D::Error> {
        Ok(Option::<(Form, Form)>::deserialize(deserializer)?.map(|(one, other)| (one.into(), other.into())))
    }
}
