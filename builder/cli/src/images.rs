//! `kiln images`: what is in the store.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kiln_image::listing::{self, ListRow};
use kiln_image::{Image, Reference};
use kiln_store::{Digest, Store};
use serde_json::{Map, Value};

use crate::image::tree;
use crate::{age, size, table, wildcard};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct ImagesArgs {
    /// Only images of this repository, or repository and tag; may have wildcards
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
    /// Show all images (kiln keeps no intermediate ones, so there are no more)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only images for which this holds: dangling=true|false, reference=PATTERN, label=NAME[=VALUE], before=IMAGE,
    /// since=IMAGE
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, or a Go template, after `table` if it is to have headings
    #[arg(long)]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only show ids
    #[arg(short, long)]
    quiet: bool,
    /// Show which platforms names stand for
    #[arg(long, conflicts_with_all = ["digests", "filter", "format", "quiet"])]
    tree: bool,
}

/// Hexadecimal digits of a short id.
pub(crate) const SHORT_ID: usize = 12;

/// Lists images.
///
/// # Errors
/// A filter or format that is wrong, or a store that cannot be read.
pub(crate) fn run(args: &ImagesArgs, store: &Store) -> Result<()> {
    if args.tree {
        let wanted = |name: &Reference| {
            args.repository.as_ref().is_none_or(|pattern| {
                [name.familiar(), name.familiar_name()].iter().any(|shown| wildcard::matches(pattern, shown))
            })
        };
        return tree::platforms(store, wanted);
    }
    let mut filters = args.filter.iter().map(|text| Filter::parse(store, text)).collect::<Result<Vec<_>>>()?;
    filters.extend(args.repository.clone().map(Filter::Reference));
    let mut rows = Vec::new();
    for row in listing::rows(store)? {
        let mut kept = true;
        for filter in &filters {
            kept = kept && filter.keeps(store, &row)?;
        }
        if kept {
            rows.push(row);
        }
    }
    if args.quiet {
        let mut out = io::stdout().lock();
        for row in &rows {
            writeln!(out, "{}", shown_id(&row.id, args.no_trunc))?;
        }
        return Ok(());
    }
    let now = Timestamp::now();
    let rows: Vec<_> = rows.iter().map(|row| fields(row, args.no_trunc, now)).collect();
    let plain = ["Repository", "Tag", "ID", "CreatedSince", "Size"];
    let with_digests = ["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"];
    let default: &[&str] = if args.digests { &with_digests } else { &plain };
    table::print(args.format.as_deref(), &rows, default, &HEADINGS)
}

const HEADINGS: [table::Column; 9] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("VirtualSize", "SIZE"),
    ("Containers", "CONTAINERS"),
];

/// `sha256:…` in full, or its first digits.
pub(crate) fn shown_id(id: &Digest, full: bool) -> String {
    if full { id.to_string() } else { id.hex().chars().take(SHORT_ID).collect() }
}

fn fields(row: &ListRow, full_ids: bool, now: Timestamp) -> Map<String, Value> {
    let none = || "<none>".to_owned();
    let size = size::human(row.size);
    let fields = [
        ("Containers", "N/A".to_owned()),
        ("CreatedAt", row.created.clone().unwrap_or_else(|| "N/A".to_owned())),
        ("CreatedSince", age::since(row.created.as_deref(), now)),
        ("Digest", row.digest.map_or_else(none, |digest| digest.to_string())),
        ("ID", shown_id(&row.id, full_ids)),
        ("Repository", row.repository.clone().unwrap_or_else(none)),
        ("Size", size.clone()),
        ("Tag", row.tag.clone().unwrap_or_else(none)),
        ("VirtualSize", size),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

enum Filter {
    Dangling(bool),
    Reference(String),
    Label(String, Option<String>),
    Before(Option<Timestamp>),
    Since(Option<Timestamp>),
}

impl Filter {
    fn parse(store: &Store, text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').with_context(|| format!("filter {text:?} is not NAME=VALUE"))?;
        let created = || Image::find(store, value).map(|image| instant(image.config.created.as_deref()));
        Ok(match name {
            "dangling" => Self::Dangling(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => bail!("filter {text:?}: dangling is true or false"),
            }),
            "reference" => Self::Reference(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "before" => Self::Before(created()?),
            "since" => Self::Since(created()?),
            _ => bail!("filter {text:?}: there are dangling, reference, label, before and since"),
        })
    }

    fn keeps(&self, store: &Store, row: &ListRow) -> Result<bool> {
        Ok(match self {
            Self::Dangling(wanted) => row.repository.is_none() == *wanted,
            Self::Reference(pattern) => is_named(row, pattern),
            Self::Label(name, wanted) => {
                let image = Image::open(store, &row.id)?;
                let labels = image.and_then(|image| image.config.config.labels).unwrap_or_default();
                labels.get(name).is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
            }
            Self::Before(time) => instant(row.created.as_deref()) < *time,
            Self::Since(time) => instant(row.created.as_deref()) > *time,
        })
    }
}

/// Whether a pattern matches the repository, or repository and tag, as they are shown.
fn is_named(row: &ListRow, pattern: &str) -> bool {
    let Some(repository) = &row.repository else { return false };
    let with_tag = row.tag.as_ref().map(|tag| format!("{repository}:{tag}"));
    let with_digest = row.digest.map(|digest| format!("{repository}@{digest}"));
    // A name in full means what its short form means.
    let familiar = Reference::parse(pattern).ok().map(|reference| {
        let tagged = pattern.ends_with(&format!(":{}", reference.tag().unwrap_or_default()));
        if tagged { reference.familiar() } else { reference.familiar_name() }
    });
    [Some(repository), with_tag.as_ref(), with_digest.as_ref()]
        .into_iter()
        .flatten()
        .any(|name| wildcard::matches(pattern, name) || familiar.as_ref().is_some_and(|familiar| familiar == name))
}

fn instant(created: Option<&str>) -> Option<Timestamp> {
    created.and_then(|text| text.parse().ok())
}
