//! What a client is answered when its request cannot be fulfilled: the specification's "Error Codes".

use std::fmt;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::{Error, chain};

/// An error code of the specification, or `UNKNOWN` for a fault of the server's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    /// distribution's, for a status that the specification has no code for.
    RangeInvalid,
    Denied,
    Unsupported,
    TooManyRequests,
    StorageFull,
    Unauthorized,
    /// `UNAUTHORIZED`, too: what was shown is wrong, which another word than "sign in" has to say.
    WrongPassword,
    Unknown,
}

impl Code {
    /// Its text, the status it usually comes with, and its meaning.
    fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", S::NOT_FOUND, "the blob is not in this repository"),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", S::BAD_REQUEST, "the upload cannot go on like this"),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", S::NOT_FOUND, "there is no such upload"),
            Self::DigestInvalid => ("DIGEST_INVALID", S::BAD_REQUEST, "the digest is not that of the content"),
            Self::ManifestBlobUnknown => {
                ("MANIFEST_BLOB_UNKNOWN", S::NOT_FOUND, "the manifest needs a blob that is not in this repository")
            }
            Self::ManifestInvalid => ("MANIFEST_INVALID", S::BAD_REQUEST, "the manifest is not valid"),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", S::NOT_FOUND, "the manifest is not in this repository"),
            Self::NameInvalid => ("NAME_INVALID", S::BAD_REQUEST, "this is no repository name"),
            Self::NameUnknown => ("NAME_UNKNOWN", S::NOT_FOUND, "there is no such repository"),
            Self::SizeInvalid => ("SIZE_INVALID", S::BAD_REQUEST, "the length is not that of the content"),
            Self::RangeInvalid => ("RANGE_INVALID", S::RANGE_NOT_SATISFIABLE, "the range is not one of the content's"),
            Self::Denied => ("DENIED", S::FORBIDDEN, "the requested access is denied"),
            Self::Unsupported => ("UNSUPPORTED", S::METHOD_NOT_ALLOWED, "this operation is not supported"),
            Self::TooManyRequests => ("TOOMANYREQUESTS", S::TOO_MANY_REQUESTS, "the server is busy; try again"),
            Self::StorageFull => ("UNKNOWN", S::INSUFFICIENT_STORAGE, "the registry's disk is full"),
            Self::Unauthorized => ("UNAUTHORIZED", S::UNAUTHORIZED, "sign in first"),
            Self::WrongPassword => ("UNAUTHORIZED", S::UNAUTHORIZED, "invalid user name or password"),
            Self::Unknown => ("UNKNOWN", S::INTERNAL_SERVER_ERROR, "the server failed"),
        }
    }
}

/// An error response.
#[derive(Debug)]
pub(crate) struct Failure(Box<Parts>); // results that carry it stay small

#[derive(Debug)]
struct Parts {
    code: Code,
    status: StatusCode,
    /// One error per detail; one without when there are none.
    details: Vec<Value>,
    headers: HeaderMap,
}

impl Failure {
    pub(crate) fn new(code: Code) -> Self {
        Self(Box::new(Parts { code, status: code.row().1, details: Vec::new(), headers: HeaderMap::new() }))
    }

    /// With another status than the code's usual one.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds one error of this code with that detail.
    pub(crate) fn detail(mut self, detail: impl Into<Value>) -> Self {
        self.0.details.push(detail.into());
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// With another code, and all else as it was.
    pub(crate) fn coded(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code.row().2)?;
        self.0.details.iter().try_for_each(|detail| match detail {
            Value::String(text) => write!(f, ": {text}"),
            other => write!(f, ": {other}"),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        tracing::error!(error = chain(&error), "request failed");
        Self::new(if error.is_storage_full() { Code::StorageFull } else { Code::Unknown })
    }
}

impl From<kiln_store::Error> for Failure {
    fn from(error: kiln_store::Error) -> Self {
        Error::from(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Parts { code, status, details, headers } = *self.0;
        let (text, _, message) = code.row();
        let error = |detail: Value| {
            // Most clients show the message and nothing else.
            let message = detail.as_str().map_or(message.to_owned(), |reason| format!("{message}: {reason}"));
            json!({"code": text, "message": message, "detail": detail})
        };
        let mut errors: Vec<Value> = details.into_iter().map(error).collect();
        if errors.is_empty() {
            errors.push(json!({"code": text, "message": message}));
        }
        (status, headers, Json(json!({ "errors": errors }))).into_response()
    }
}
