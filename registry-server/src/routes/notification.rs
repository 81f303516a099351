//! What others are told of a manifest that was pushed or deleted.

use axum::http::{HeaderMap, HeaderName, Method, header};

use super::{Call, DOCKER_CONTENT_DIGEST};
use crate::failure::Failure;
use crate::name::{Reference, RepositoryName};
use crate::webhook::Event;

/// Tells of it; `headers` are those that its client is answered.
pub(super) async fn tell(call: &Call<'_>, name: &str, reference: &str, headers: &HeaderMap) -> Result<(), Failure> {
    let action = match call.parts.method {
        Method::PUT => "push",
        Method::DELETE => "delete",
        _ => return Ok(()),
    };
    let Some(reference) = Reference::parse(reference)? else { return Ok(()) };
    let (tag, digest) = match &reference {
        Reference::Tag(tag) => {
            let digest = headers.get(DOCKER_CONTENT_DIGEST).and_then(|value| value.to_str().ok());
            (Some(tag.as_str().to_owned()), digest.map(str::to_owned))
        }
        Reference::Digest(digest) => (None, Some(digest.to_string())),
    };
    // Its size and type, as they are now: of what was deleted they are not known any more.
    let stored = call.registry.manifest(&name.parse::<RepositoryName>()?, &reference).await?;
    let text = |name: HeaderName| call.header(&name).unwrap_or_default().to_owned();
    let origin = call.front.access.origin(&call.parts.headers, &call.parts.uri);
    let prefix = call.front.config.http.prefix.as_str();
    let target = digest.as_deref().or(tag.as_deref()).unwrap_or_default();
    let event = Event {
        action,
        repository: name.to_owned(),
        url: format!("{origin}{prefix}/v2/{name}/manifests/{target}"),
        tag,
        digest,
        media_type: stored.as_ref().map(|manifest| manifest.media_type.to_string()),
        size: stored.as_ref().map(|manifest| manifest.bytes.len()),
        actor: call.caller.name.as_deref().map(str::to_owned),
        client: call.peer.to_string(),
        host: text(header::HOST),
        method: call.parts.method.to_string(),
        agent: text(header::USER_AGENT),
    };
    Ok(call.front.webhooks.tell(&event).await?)
}
