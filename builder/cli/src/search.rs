//! `kiln search`: repositories by a word.

use anyhow::{Context, Result, bail};
use kiln_image::registry;
use serde_json::{Map, Value};

use crate::pull::runtime;
use crate::registry_access::AccessArgs;
use crate::table;

/// Search a registry for images
///
/// docker.io is searched, or the registry that the word begins with (REGISTRY/WORD): by its own search, or else in its
/// catalog of repositories.
#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// What is looked for
    #[arg(value_name = "[REGISTRY/]WORD")]
    term: String,
    /// Only those for which this holds: stars=N, is-official=true|false, is-automated=true|false
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, or a Go template, after `table` if it is to have headings
    #[arg(long)]
    format: Option<String>,
    /// Results, at most
    #[arg(long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Characters of a description that is shortened.
const SHORT_DESCRIPTION: usize = 45;

const HEADINGS: [table::Column; 5] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

/// Searches.
///
/// # Errors
/// A filter that is wrong; a registry that cannot be reached, or does not tell what it has.
pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let found = runtime()?.block_on(registry::search(&args.term, args.limit, &args.access.options()?));
    let found = found.with_context(|| format!("search for {}", args.term))?;
    let kept = found.iter().filter(|found| filters.iter().all(|filter| filter.keeps(found)));
    let rows: Vec<_> = kept.map(|found| fields(found, args.no_trunc)).collect();
    let columns = HEADINGS.map(|(field, _)| field);
    table::print(args.format.as_deref(), &rows, &columns, &HEADINGS)
}

enum Filter {
    Stars(u64),
    Official(bool),
    Automated(bool),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || format!("filter {text:?}: there are stars=N, is-official=BOOL and is-automated=BOOL");
        let (name, value) = text.split_once('=').with_context(wrong)?;
        Ok(match name {
            "stars" => Self::Stars(value.parse().with_context(wrong)?),
            "is-official" => Self::Official(value.parse().with_context(wrong)?),
            "is-automated" => Self::Automated(value.parse().with_context(wrong)?),
            _ => bail!(wrong()),
        })
    }

    fn keeps(&self, found: &registry::Match) -> bool {
        match self {
            Self::Stars(least) => found.star_count >= *least,
            Self::Official(wanted) => found.is_official == *wanted,
            Self::Automated(wanted) => found.is_automated == *wanted,
        }
    }
}

fn fields(found: &registry::Match, whole: bool) -> Map<String, Value> {
    let description = found.description.as_deref().unwrap_or_default().replace(['\n', '\r', '\t'], " ");
    let description = match description.chars().count() {
        length if length > SHORT_DESCRIPTION && !whole => {
            description.chars().take(SHORT_DESCRIPTION - 1).chain(['…']).collect()
        }
        _ => description,
    };
    let mark = |holds: bool| if holds { "[OK]" } else { "" }.to_owned();
    let fields = [
        ("Name", found.name.clone()),
        ("Description", description),
        ("StarCount", found.star_count.to_string()),
        ("IsOfficial", mark(found.is_official)),
        ("IsAutomated", mark(found.is_automated)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}
