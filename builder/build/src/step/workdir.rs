//! WORKDIR: the directory exists afterwards.

use std::path::Path;

use kiln_store::snapshot::Kind;

use super::{Job, Outcome, clamp_time};
use crate::Result;
use crate::key::{Key, KeyBuilder, Parts};
use crate::plan::WorkdirStep;
use kiln_store::layer_writer::{Attributes, Directory, LayerWriter};

pub(crate) fn key(job: &Job<'_>, step: &WorkdirStep) -> (Key, Parts) {
    let mut key = KeyBuilder::new("workdir");
    key.layers("parent", &job.parent);
    key.part("path", &step.path);
    key.part("user", &step.user);
    super::run::add_epoch(&mut key, job);
    key.finish()
}

pub(crate) fn perform(job: &Job<'_>, step: &WorkdirStep) -> Result<Outcome> {
    let snapshot = job.snapshot(&job.parent)?;
    let staging = job.site.store.stage()?;
    let user = kiln_image::user::resolve(&snapshot, &step.user)?;
    // No clock: the same parent gives the same layer on every machine.
    let above = nearest_time(&snapshot, Path::new(step.path.trim_start_matches('/')))?;
    let directory =
        Attributes { uid: user.uid, gid: user.gid, mode: 0o755, mtime: clamp_time(job.site.request, above) };
    let upper = Directory::open(staging.upper(), job.site.store.privilege())?;
    let mut writer = LayerWriter::new(&snapshot, upper, directory);
    let path = writer.real_path(Path::new(&step.path), true)?;
    match writer.kind(&path)? {
        Some(Kind::Directory) => {}
        _ => writer.ensure_directory(&path)?,
    }
    writer.into_upper().finish()?;
    Ok(Outcome { layer: job.site.store.commit(staging, job.site.request.epoch)?, cacheable: true })
}

/// The modification time of the nearest directory that exists.
fn nearest_time(snapshot: &kiln_store::Snapshot, path: &Path) -> Result<(i64, u32)> {
    for above in path.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        if let (_, Some(node)) = snapshot.resolve(above, true)? {
            return Ok(node.mtime);
        }
    }
    Ok(newest_at_root(snapshot)?.unwrap_or((0, 0)))
}

fn newest_at_root(snapshot: &kiln_store::Snapshot) -> Result<Option<(i64, u32)>> {
    Ok(snapshot.read_dir(Path::new(""))?.into_iter().map(|(_, node)| node.mtime).max())
}
