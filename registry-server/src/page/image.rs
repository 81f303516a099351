//! `/r/team/app:1.0` and `/r/team/app@sha256:…`: one image, index or artifact.

use kiln_store::Digest;
use maud::{Markup, html};
use serde_json::Value;

use super::document::command;
use super::summary::{Config, Descriptor, Summary};
use super::{Refusal, View, text};
use crate::blocking::blocking;
use crate::cache::StoredManifest;
use crate::database;
use crate::error::Error;
use crate::name::{Reference, RepositoryName};

/// Rows of any table on this page.
const MOST_ROWS: usize = 500;

impl View<'_> {
    pub(super) async fn image(&self, name: RepositoryName, reference: Reference) -> Result<Markup, Refusal> {
        let registry = &self.front.registry;
        let manifest = registry.manifest(&name, &reference).await?.ok_or(Refusal::NotFound)?;
        let StoredManifest { digest, media_type, bytes, .. } = manifest;
        let (repository, text) = (name.as_str().to_owned(), digest.to_string());
        let read = move |connection: &_| database::pushed_at(connection, &repository, &text);
        let pushed_at = registry.database.read(read).await?;
        let blobs = registry.blobs.clone();
        let length = bytes.len();
        let look = move || {
            let summary = Summary::parse(&bytes);
            let config = summary.read_config(&blobs);
            Ok::<_, Error>((summary, config))
        };
        let (summary, config) = blocking(look).await?;
        let referrers = self.referrers(&name, digest).await?;
        let title = match &reference {
            Reference::Tag(tag) => format!("{}:{}", name.as_str(), tag.as_str()),
            Reference::Digest(digest) => format!("{}@{}", name.as_str(), short(&digest.to_string())),
        };
        let pulled = match &reference {
            Reference::Tag(tag) => format!("{}/{}:{}", self.host(), name.as_str(), tag.as_str()),
            Reference::Digest(digest) => format!("{}/{}@{digest}", self.host(), name.as_str()),
        };
        let place = self.place(&name);
        let body = html! {
            p.path { a href=(place) { (name.as_str()) } }
            h1 { (title) }
            @if summary.is_image() || summary.manifests.is_some() {
                (command(&format!("kiln pull {pulled}")))
                (command(&format!("docker pull {pulled}")))
            }
            dl {
                dt { "Digest" } dd { code { (digest) } }
                dt { "Type" } dd { (media_type) " · " (text::size(length as u64)) }
                @if let Some(kind) = summary.kind() { dt { "Artifact" } dd { (kind) } }
                dt { "Pushed" } dd { (text::age(pushed_at)) }
                @if summary.manifests.is_none() { dt { "Size" } dd { (text::size(summary.size())) } }
                @if let Some(subject) = &summary.subject {
                    dt { "About" } dd { a href=(format!("{place}@{}", subject.digest)) { (text::digest(&subject.digest)) } }
                }
                @if let Some(config) = &config { (facts(config)) }
            }
            @if summary.manifests.is_some() { (platforms(&place, &summary)) }
            @else { (layers(&summary, config.as_ref())) }
            @if !referrers.is_empty() { (refer(&place, &referrers)) }
            (annotations(&summary))
        };
        Ok(self.document(&title, &body))
    }

    async fn referrers(&self, name: &RepositoryName, subject: Digest) -> Result<Vec<Value>, Refusal> {
        let name = name.clone();
        let list = move |connection: &_| database::list_referrers(connection, &name, &subject, None, "");
        Ok(self.front.registry.database.read(list).await?.items)
    }
}

fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn facts(config: &Config) -> Markup {
    let execution = &config.config;
    let words =
        |words: &Option<Vec<String>>| words.as_ref().filter(|words| !words.is_empty()).map(|words| words.join(" "));
    html! {
        dt { "Platform" } dd { span.platform { (config.platform.text()) } }
        @if let Some(created) = &config.created { dt { "Created" } dd { (text::age_of(created)) } }
        @if let Some(author) = config.author.as_ref().filter(|text| !text.is_empty()) { dt { "Author" } dd { (author) } }
        @if let Some(text) = words(&execution.entrypoint) { dt { "Entrypoint" } dd { code { (text) } } }
        @if let Some(text) = words(&execution.cmd) { dt { "Command" } dd { code { (text) } } }
        @if let Some(user) = execution.user.as_ref().filter(|text| !text.is_empty()) { dt { "User" } dd { code { (user) } } }
        @if let Some(text) = execution.working_dir.as_ref().filter(|text| !text.is_empty()) { dt { "Directory" } dd { code { (text) } } }
        @if let Some(ports) = execution.exposed_ports.as_ref().filter(|ports| !ports.is_empty()) {
            dt { "Ports" } dd { @for port in ports.keys() { code { (port) } " " } }
        }
        @if let Some(env) = execution.env.as_ref().filter(|env| !env.is_empty()) {
            dt { "Environment" } dd { @for variable in env { code.line { (variable) } } }
        }
        @if let Some(labels) = execution.labels.as_ref().filter(|labels| !labels.is_empty()) {
            dt { "Labels" } dd { @for (key, value) in labels { code.line { (key) "=" (value) } } }
        }
    }
}

/// The images of an index, and what goes with them; `place` is the path of the repository's page.
fn platforms(place: &str, index: &Summary) -> Markup {
    let manifests = index.manifests.as_deref().unwrap_or_default();
    html! {
        h2 { (text::count(index.images().count() as u64, "platform")) }
        table {
            thead { tr { th { "Platform" } th { "Digest" } th.number { "Manifest" } } }
            tbody {
                @for found in manifests.iter().take(MOST_ROWS) {
                    tr {
                        td {
                            @if found.is_attestation() {
                                span.kind { "attestation" }
                            } @else {
                                @match &found.platform {
                                    Some(platform) => span.platform { (platform.text()) },
                                    None => (found.media_type),
                                }
                            }
                        }
                        td { a href=(format!("{place}@{}", found.digest)) { (text::digest(&found.digest)) } }
                        td.number { (text::size(found.size)) }
                    }
                }
            }
        }
    }
}

/// The layers, each with the instruction that made it, and the instructions that made none.
fn layers(summary: &Summary, config: Option<&Config>) -> Markup {
    let largest = summary.layers.iter().map(|layer| layer.size).max().unwrap_or(0).max(1);
    let steps = config.map(|config| config.history.as_slice()).unwrap_or_default();
    let made = steps.iter().filter(|step| !step.empty_layer).count();
    // A history that does not fit says nothing about any layer.
    let rows: Vec<(Option<&Descriptor>, Option<String>)> = if made == summary.layers.len() {
        let mut layers = summary.layers.iter();
        let row = |step: &super::summary::Step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            let written = if step.created_by.is_empty() { &step.comment } else { &step.created_by };
            (layer, Some(text::instruction(written)))
        };
        steps.iter().map(row).collect()
    } else {
        summary.layers.iter().map(|layer| (Some(layer), None)).collect()
    };
    let title = |layer: &Descriptor| {
        let title = layer.annotations.get("org.opencontainers.image.title").and_then(Value::as_str);
        title.unwrap_or(&layer.media_type).to_owned()
    };
    html! {
        h2 { (text::count(summary.layers.len() as u64, "layer")) }
        table.layers {
            thead { tr { th { "Instruction" } th.number { "Size" } th {} th { "Digest" } } }
            tbody {
                @for (layer, instruction) in rows.iter().take(MOST_ROWS) {
                    tr.empty[layer.is_none()] {
                        td {
                            @match (instruction, layer) {
                                (Some(instruction), _) if !instruction.is_empty() => code.instruction { (instruction) },
                                (_, Some(layer)) => (title(layer)),
                                _ => "",
                            }
                        }
                        @if let Some(layer) = layer {
                            td.number { (text::size(layer.size)) }
                            td { meter min="0" max=(largest) value=(layer.size) { (text::size(layer.size)) } }
                            td { (text::digest(&layer.digest)) }
                        } @else {
                            td {} td {} td {}
                        }
                    }
                }
            }
        }
    }
}

/// What is attached: signatures, attestations, SBOMs; `place` is the path of the repository's page.
fn refer(place: &str, referrers: &[Value]) -> Markup {
    let text_of = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    html! {
        h2 { (text::count(referrers.len() as u64, "referrer")) }
        table {
            thead { tr { th { "Kind" } th { "Digest" } th.number { "Manifest" } } }
            tbody {
                @for found in referrers.iter().take(MOST_ROWS) {
                    @let kind = text_of(found, "artifactType");
                    tr {
                        td { span.kind { @if kind.is_empty() { (text_of(found, "mediaType")) } @else { (kind) } } }
                        td { a href=(format!("{place}@{}", text_of(found, "digest"))) { (text::digest(&text_of(found, "digest"))) } }
                        td.number { (text::size(found["size"].as_u64().unwrap_or(0))) }
                    }
                }
            }
        }
    }
}

fn annotations(summary: &Summary) -> Markup {
    html! {
        @if !summary.annotations.is_empty() {
            h2 { "Annotations" }
            dl {
                @for (key, value) in summary.annotations.iter().take(MOST_ROWS) {
                    dt { (key) }
                    dd { @if let Some(text) = value.as_str() { (text) } @else { (value) } }
                }
            }
        }
    }
}
