//! `/`: the repositories, or those that somebody looks for.

use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::document::command;
use super::{Refusal, View, text};
use crate::database::{self, RepositoryRow};

/// Repositories on one page.
const PAGE: usize = 50;
/// Bytes of what somebody looks for, at most.
const LONGEST_QUERY: usize = 256;

impl View<'_> {
    pub(super) async fn repositories(&self) -> Result<Markup, Refusal> {
        let wanted: String = self.parameter("q").unwrap_or_default().trim().chars().take(LONGEST_QUERY).collect();
        let last = self.parameter("last").unwrap_or_default();
        let (caller, sought, after) = (self.caller.clone(), wanted.clone(), last.clone());
        let search = move |connection: &_| {
            database::search(connection, &sought, &after, PAGE, |repository| caller.sees(repository))
        };
        let mut rows = self.front.registry.database.read(search).await?;
        let more = rows.len() > PAGE;
        rows.truncate(PAGE);
        let next = rows.last().filter(|_| more).map(|row| {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            format!("{}/?q={}&last={}", self.prefix(), encode(&wanted), encode(&row.name))
        });
        let body = html! {
            @if wanted.is_empty() {
                h1 { "Repositories" }
            } @else {
                h1 { "Repositories with “" (wanted) "”" }
            }
            @if rows.is_empty() {
                (self.nothing(&wanted))
            } @else {
                (table(self.prefix(), &rows))
            }
            @if let Some(next) = next {
                p.next { a href=(next) rel="next" { "More repositories" } }
            }
        };
        Ok(self.document("Repositories", &body))
    }

    fn nothing(&self, wanted: &str) -> Markup {
        let (host, prefix) = (self.host(), self.prefix());
        html! {
            @if !wanted.is_empty() {
                p { "Nothing you can see has this in its name or tags. " a href=(format!("{prefix}/")) { "All repositories" } }
            } @else if self.is_stranger() {
                p { "Nothing is public here. " a href=(format!("{prefix}/sign-in")) { "Sign in" } " to see more." }
            } @else {
                p { "There is nothing here yet. Push a first image:" }
                (command(&format!("kiln tag hello:1 {host}/hello:1 && kiln push {host}/hello:1")))
            }
        }
    }
}

fn table(prefix: &str, rows: &[RepositoryRow]) -> Markup {
    html! {
        table {
            thead { tr { th { "Repository" } th.number { "Tags" } th.number { "Size" } th { "Last push" } } }
            tbody {
                @for row in rows {
                    tr {
                        td { a.name href=(format!("{prefix}/r/{}", row.name)) { (row.name) } }
                        td.number { (row.tags) }
                        td.number { (text::size(row.size)) }
                        td { (text::age(row.pushed_at)) }
                    }
                }
            }
        }
    }
}
