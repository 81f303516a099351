//! `--squash`: several layers become one that changes the same.

use kiln_image::ImageConfig;
use kiln_image::config::History;
use kiln_store::{DiffId, Snapshot, Store};

use crate::cache::record::Value;
use crate::key::Parts;
use crate::plan::Target;
use crate::request::Squash;
use crate::solve::now;
use crate::{Request, Result};

/// Makes one layer of the target's new layers, or of all, and lets the config say so.
pub(crate) fn squash(store: &Store, request: &Request, target: &Target, config: &mut ImageConfig) -> Result<()> {
    let new = target.history.iter().filter(|vertex| vertex.is_some()).count();
    let layers = &config.rootfs.diff_ids;
    let kept = match request.layering.squash {
        Squash::Nothing => return Ok(()),
        Squash::New => layers.len().saturating_sub(new),
        Squash::All => 0,
    };
    let merged = layers.len() - kept;
    if merged < 2 {
        return Ok(());
    }
    let layer = layer(store, request, layers, kept)?;
    config.rootfs.diff_ids.truncate(kept);
    config.rootfs.diff_ids.push(layer);
    let mut left = kept;
    for line in config.history.iter_mut().filter(|line| !line.empty_layer) {
        line.empty_layer = left == 0;
        left = left.saturating_sub(1);
    }
    let comment = Some(format!("merge of {merged} layers"));
    config.history.push(History { created: config.created.clone(), comment, ..History::default() });
    Ok(())
}

/// The layer that changes what those above the first `kept` do; the one that was made of them before.
fn layer(store: &Store, request: &Request, layers: &[DiffId], kept: usize) -> Result<DiffId> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"kiln squash 1").update(&(kept as u64).to_le_bytes());
    for layer in layers {
        hasher.update(layer.to_string().as_bytes());
    }
    if let Some(epoch) = request.epoch {
        hasher.update(&epoch.to_le_bytes());
    }
    let key = *hasher.finalize().as_bytes();
    if !request.no_cache
        && let Some(value) = store.cache_record(&key)?.and_then(|record| Value::decode(&record.value))
        && store.layer(&value.layer)?.is_some()
    {
        return Ok(value.layer);
    }
    let base = Snapshot::open(store, &layers[..kept])?;
    let staging = store.stage()?;
    Snapshot::open(store, layers)?.copy_changes(store, &base, staging.upper())?;
    let layer = store.commit(staging, request.epoch)?.diff_id;
    Value { layer, made: now(), content_key: None }.put(store, key, &Parts::default(), "", "squashed layers")?;
    Ok(layer)
}
