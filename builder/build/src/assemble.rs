//! The images: the plan's configs with the solution's layers and times.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_image::config::History;
use kiln_image::{Image, ImageConfig, Reference};
use kiln_store::Store;
use kiln_store::metadata::CacheRecord;

use crate::cache::exchange::Known;
use crate::cache::exchange::document::INLINE;
use crate::key::Key;
use crate::plan::{Plan, Target};
use crate::progress::{Event, Reporter};
use crate::request::Squash;
use crate::solve::{Solution, now};
use crate::step::internal;
use crate::{Request, Result, squash};

/// Writes the config of each target, and points the names at the image when there is only one.
pub(crate) fn commit(
    store: &Store,
    request: &Request,
    plan: &Plan,
    solution: &Solution,
    reporter: &dyn Reporter,
) -> Result<Vec<Image>> {
    let names: &[Reference] = if plan.targets.len() == 1 { &request.names } else { &[] };
    let mut images = Vec::with_capacity(plan.targets.len());
    for (target, chain) in plan.targets.iter().zip(&solution.chains) {
        let mut config = target.config.clone();
        config.rootfs.diff_ids = chain.to_vec();
        complete_base_history(&mut config, target, chain.len());
        let first_built = set_times(store, request, target, solution, &mut config, reporter)?;
        squash::squash(store, request, target, &mut config)?;
        if request.layering.omit_history {
            config.history.clear();
        }
        let first_built = first_built.as_ref().map(|(key, created)| (*key, created.as_str()));
        let known = Known::of(plan, target, solution, first_built);
        if request.exchange.is_inline() && request.layering.squash == Squash::Nothing {
            let inline = serde_json::to_value(known.inline(store, chain)?);
            config.other.insert(INLINE.to_owned(), inline.map_err(|_| internal("encode the image's cache"))?);
        }
        request.exchange.note(known);
        let elsewhere = match request.passed_on_to.as_slice() {
            [] => BTreeMap::new(),
            _ => request.exchange.left_elsewhere(store, chain)?,
        };
        if !elsewhere.is_empty() {
            let image = Image::pass_on(store, &config, elsewhere)?;
            reporter.event(Event::Image(&image.id));
            let count = image.elsewhere.len();
            let note = format!("not kept here: {count} of its layers stay where they are (--load brings them)");
            reporter.event(Event::Note(&note));
            images.push(image);
            continue;
        }
        let image = Image::commit(store, &config, names)?;
        reporter.event(Event::Image(&image.id));
        names.iter().for_each(|name| reporter.event(Event::Named(name)));
        images.push(image);
    }
    save_stages(store, request, plan, solution, reporter)?;
    Ok(images)
}

/// Makes images without names of the stages that the targets needed.
fn save_stages(
    store: &Store,
    request: &Request,
    plan: &Plan,
    solution: &Solution,
    reporter: &dyn Reporter,
) -> Result<()> {
    for (stage, chain) in plan.stages.iter().zip(&solution.stages) {
        let mut config = stage.config.clone();
        config.rootfs.diff_ids = chain.to_vec();
        complete_base_history(&mut config, stage, chain.len());
        set_times(store, request, stage, solution, &mut config, reporter)?;
        let image = Image::commit(store, &config, &[])?;
        reporter.event(Event::Note(&format!("stage saved as {}", image.id)));
    }
    Ok(())
}

/// Base images may have layers without a history line (imported ones): readers expect one per layer.
fn complete_base_history(config: &mut ImageConfig, target: &Target, layers: usize) {
    let lines = config.history.iter().filter(|line| !line.empty_layer).count();
    let missing = layers.saturating_sub(lines);
    let at = config.history.len() - target.history.len().min(config.history.len());
    let line = History { created_by: Some("imported layer".to_owned()), ..History::default() };
    config.history.splice(at..at, std::iter::repeat_n(line, missing));
}

/// Layers bear the time they were made, so a rebuild from the cache gives the same bytes. What made no layer bears
/// the time at which this very image was first built, which is told with its key.
fn set_times(
    store: &Store,
    request: &Request,
    target: &Target,
    solution: &Solution,
    config: &mut ImageConfig,
    reporter: &dyn Reporter,
) -> Result<Option<(Key, String)>> {
    config.created = None;
    let first = config.history.len() - target.history.len();
    if let Some(epoch) = request.epoch {
        let epoch = time(i128::from(epoch) * 1_000_000_000);
        config.history[first..].iter_mut().for_each(|line| line.created = Some(epoch.clone()));
        config.created = Some(epoch);
        return Ok(None);
    }
    for (line, vertex) in config.history[first..].iter_mut().zip(&target.history) {
        line.created = vertex.and_then(|vertex| solution.made(vertex)).map(time);
    }
    let (key, created) = first_built(store, request, config, reporter)?;
    for line in config.history[first..].iter_mut().filter(|line| line.created.is_none()) {
        line.created = Some(created.clone());
    }
    config.created = Some(created.clone());
    Ok(Some((key, created)))
}

/// When an image that is the same but for this was first built here.
fn first_built(
    store: &Store,
    request: &Request,
    config: &ImageConfig,
    reporter: &dyn Reporter,
) -> Result<(Key, String)> {
    let json = serde_json::to_vec(config).map_err(|_| internal("encode an image config"))?;
    let key = *blake3::Hasher::new().update(b"kiln image 1").update(&json).finalize().as_bytes();
    if !request.no_cache
        && let Some(record) = store.cache_record(&key)?
    {
        return Ok((key, String::from_utf8_lossy(&record.value).into_owned()));
    }
    let now = now();
    let elsewhere = if request.no_cache { None } else { request.exchange.first_built(store, reporter, &key) };
    let created = elsewhere.unwrap_or_else(|| time(now));
    let record = CacheRecord {
        key,
        step: String::new(),
        parts: Vec::new(),
        value: created.clone().into_bytes(),
        layer: None,
        description: String::new(),
        created: i64::try_from(now / 1_000_000_000).unwrap_or(i64::MAX),
    };
    store.put_cache_record(&record)?;
    Ok((key, created))
}

fn time(nanoseconds: i128) -> String {
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
