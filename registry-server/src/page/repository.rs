//! `/r/team/app`: the tags of a repository.

use std::collections::HashMap;

use kiln_store::Blobs;
use maud::{Markup, html};

use super::document::command;
use super::summary::Summary;
use super::{Refusal, View, text};
use crate::blocking::blocking;
use crate::database::{self, TagRow};
use crate::error::Error;
use crate::name::RepositoryName;

/// Tags on one page, and manifests without a tag.
const PAGE: usize = 100;

/// A row of the table.
struct Listed {
    row: TagRow,
    platforms: Vec<String>,
    /// In bytes; of an index its images' sizes together, where they are here.
    size: Option<u64>,
    kind: Option<String>,
}

impl View<'_> {
    pub(super) async fn repository(&self, name: RepositoryName) -> Result<Markup, Refusal> {
        let last = self.parameter("last").unwrap_or_default();
        let (wanted, first) = (name.clone(), last.is_empty());
        let read = move |connection: &_| {
            let tags = database::tags(connection, &wanted, &last, PAGE)?;
            let untagged = if first { database::untagged(connection, &wanted, PAGE)? } else { Vec::new() };
            Ok((tags, untagged))
        };
        let (mut tags, untagged) = self.front.registry.database.read(read).await?;
        if tags.is_empty() && untagged.is_empty() {
            return Err(Refusal::NotFound);
        }
        let more = tags.len() > PAGE;
        tags.truncate(PAGE);
        let next = tags.last().filter(|_| more).and_then(|row| row.tag.clone());
        let blobs = self.front.registry.blobs.clone();
        let (tags, untagged) = blocking(move || Ok::<_, Error>(list(tags, untagged, &blobs))).await?;
        let pulled = tags.iter().find(|tag| tag.row.tag.as_deref() == Some("latest")).or(tags.first());
        let (host, place) = (self.host(), self.place(&name));
        let body = html! {
            h1 { (name.as_str()) }
            @if let Some(tag) = pulled.and_then(|tag| tag.row.tag.as_ref()) {
                (command(&format!("kiln pull {host}/{}:{tag}", name.as_str())))
            }
            @if !tags.is_empty() {
                h2 { (text::count(tags.len() as u64, "tag")) @if next.is_some() { " on this page" } }
                (table(&place, &tags))
            }
            @if let Some(next) = &next {
                p.next { a href=(format!("{place}?last={next}")) rel="next" { "More tags" } }
            }
            @if !untagged.is_empty() {
                details {
                    summary { (text::count(untagged.len() as u64, "manifest")) " without a tag" }
                    (table(&place, &untagged))
                }
            }
        };
        Ok(self.document(name.as_str(), &body))
    }
}

/// What the manifests say, and the configs of those that are images.
fn list(tags: Vec<TagRow>, untagged: Vec<TagRow>, blobs: &Blobs) -> (Vec<Listed>, Vec<Listed>) {
    let parsed = |row: &TagRow| Summary::parse(row.manifest.as_deref().unwrap_or_default());
    // An index's images are usually among the manifests without a tag.
    let sizes: HashMap<String, u64> =
        untagged.iter().chain(&tags).map(|row| (row.digest.clone(), parsed(row).size())).collect();
    let look = |row: TagRow| {
        let summary = parsed(&row);
        let kind = summary.kind().map(str::to_owned);
        if summary.manifests.is_some() {
            let platforms = summary.images().filter_map(|image| image.platform.as_ref()).map(|found| found.text());
            let platforms = platforms.collect();
            let known: Option<Vec<u64>> = summary.images().map(|image| sizes.get(&image.digest).copied()).collect();
            return Listed { row, platforms, size: known.map(|sizes| sizes.into_iter().sum()), kind: None };
        }
        let platforms = summary.read_config(blobs).map(|config| config.platform.text());
        let size = row.manifest.is_some().then(|| summary.size());
        Listed { row, platforms: platforms.into_iter().collect(), size, kind }
    };
    let tags = tags.into_iter().map(look).collect();
    (tags, untagged.into_iter().map(look).collect())
}

/// `place` is the path of the repository's page.
fn table(place: &str, rows: &[Listed]) -> Markup {
    html! {
        table {
            thead { tr { th { "Tag" } th { "Platforms" } th.number { "Size" } th { "Pushed" } th { "Digest" } } }
            tbody {
                @for Listed { row, platforms, size, kind } in rows {
                    tr {
                        td {
                            @match &row.tag {
                                Some(tag) => a.name href=(format!("{place}:{tag}")) { (tag) },
                                None => a href=(format!("{place}@{}", row.digest)) { (text::digest(&row.digest)) },
                            }
                        }
                        td {
                            @for platform in platforms { span.platform { (platform) } " " }
                            @if let Some(kind) = kind { span.kind { (kind) } }
                        }
                        td.number { @if let Some(size) = size { (text::size(*size)) } }
                        td { (text::age(row.pushed_at)) }
                        td { (text::digest(&row.digest)) }
                    }
                }
            }
        }
    }
}
