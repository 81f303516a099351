//! `kiln system df -v`.

use std::collections::HashMap;

use anyhow::Result;
use kiln_container::MountSource;
use kiln_image::Image;
use kiln_store::{DiffId, Store};

use crate::failure::print;
use crate::images::SHORT_ID;
use crate::table::{LEAST, align};
use crate::{cache, ps, size};

/// Shows what each image, container and volume takes, and then the build cache.
pub(super) fn show(store: &Store) -> Result<()> {
    let mut text = String::new();
    let mut section = |title: &str, lines: &[String]| text.push_str(&format!("{title}\n\n{}\n", align(lines, LEAST)));
    section("Images space usage:", &images(store)?);
    section("Containers space usage:", &containers(store)?);
    section("Local Volumes space usage:", &volumes(store)?);
    print(&text)?;
    cache::du::run(&cache::du::DuArgs::default(), store)
}

fn images(store: &Store) -> Result<Vec<String>> {
    let containers = kiln_container::list(store)?;
    let all = store.images()?;
    let mut uses: HashMap<DiffId, usize> = HashMap::new();
    for layer in all.iter().flat_map(|image| &image.layers) {
        *uses.entry(*layer).or_default() += 1;
    }
    let mut lines = vec!["REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS".to_owned()];
    for record in &all {
        let Some(image) = Image::open(store, &record.id)? else { continue };
        let (mut shared, mut own) = (0, 0);
        for layer in &image.layers {
            let bytes = store.layer(layer)?.map_or(0, |layer| layer.tar_size);
            *(if uses.get(layer).is_some_and(|count| *count > 1) { &mut shared } else { &mut own }) += bytes;
        }
        let names = image.names(store)?;
        let name = names.first();
        let tag = name.and_then(|name| name.tag()).unwrap_or("<none>");
        let created = image.config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let created = created.map_or_else(|| "N/A".to_owned(), |time| ps::ago(time.as_second()));
        lines.push(format!(
            "{}\t{tag}\t{}\t{created}\t{}\t{}\t{}\t{}",
            name.map_or_else(|| "<none>".to_owned(), |name| name.familiar_name()),
            image.id.hex().chars().take(SHORT_ID).collect::<String>(),
            size::human(shared + own),
            size::human(shared),
            size::human(own),
            containers.iter().filter(|container| container.record.image == image.id).count(),
        ));
    }
    Ok(lines)
}

fn containers(store: &Store) -> Result<Vec<String>> {
    let mut lines = vec!["CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES".to_owned()];
    for container in kiln_container::list(store)? {
        let record = &container.record;
        let mounts = record.settings.mounts.iter();
        lines.push(format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            record.short_id(),
            record.image_name,
            ps::command(record, false),
            mounts.filter(|mount| matches!(mount.source, MountSource::Volume { .. })).count(),
            size::human(kiln_container::disk_usage(&container.path.join("upper"))),
            ps::ago(record.created / 1_000_000_000),
            ps::status(&container.state),
            record.name,
        ));
    }
    Ok(lines)
}

fn volumes(store: &Store) -> Result<Vec<String>> {
    let mut lines = vec!["VOLUME NAME\tLINKS\tSIZE".to_owned()];
    for volume in kiln_container::list_volumes(store)? {
        let bytes = size::human(kiln_container::disk_usage(&volume.data));
        lines.push(format!("{}\t{}\t{bytes}", volume.name, volume.users.len()));
    }
    Ok(lines)
}
