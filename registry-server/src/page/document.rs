//! What every page has: head, search, foot.

use maud::{DOCTYPE, Markup, html};

use super::View;

impl View<'_> {
    /// A whole page.
    pub(super) fn document(&self, title: &str, body: &Markup) -> Markup {
        let site = &self.front.config.page.title;
        let prefix = self.prefix();
        let wanted = self.parameter("q").unwrap_or_default();
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " · " (site) }
                    link rel="icon" href=(format!("{prefix}/icon.svg")) type="image/svg+xml";
                    link rel="stylesheet" href=(format!("{prefix}/page.css"));
                    script src=(format!("{prefix}/copy.js")) defer {}
                }
                body {
                    header {
                        a.site href=(format!("{prefix}/")) { img src=(format!("{prefix}/icon.svg")) alt="" width="22" height="22"; (site) }
                        form role="search" action=(format!("{prefix}/")) method="get" {
                            input type="search" name="q" value=(wanted) placeholder="Search repositories and tags"
                                aria-label="Search repositories and tags";
                        }
                        @if let Some(name) = &self.caller.name {
                            span.user { (name) }
                        } @else if self.is_stranger() {
                            a.user href=(format!("{prefix}/sign-in")) { "Sign in" }
                        }
                    }
                    main { (body) }
                    footer { "kiln " (env!("CARGO_PKG_VERSION")) }
                }
            }
        }
    }
}

/// A command that can be copied.
pub(super) fn command(text: &str) -> Markup {
    html! {
        div.command {
            code { (text) }
            button type="button" data-copy=(text) hidden { "Copy" }
        }
    }
}
