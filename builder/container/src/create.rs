//! Making a container: its record, its directory, its volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_image::Image;
use kiln_image::config::{Healthcheck, RunConfig};
use kiln_sandbox::spec::{self, Kernel, Sharing};
use kiln_store::{Snapshot, Store};

use crate::directory::{Home, now, write_record};
use crate::network::{Mode, Port};
use crate::settings::Settings;
use crate::{Error, Namespace, Options, Record, Result, Volume, command};

/// Makes a container that does not run yet.
///
/// # Errors
/// The options cannot be met, or the name is somebody else's.
pub fn create(store: &Store, image: &Image, options: &Options) -> Result<Record> {
    make(store, image, options).map(|(_, record)| record)
}

/// The same, with the container's lock held on.
pub(crate) fn make(store: &Store, image: &Image, options: &Options) -> Result<(Home, Record)> {
    if let Some(directory) = options.workdir.as_deref().filter(|directory| !directory.starts_with('/')) {
        return Err(Error::Invalid(format!("the working directory {directory:?} is not an absolute path")));
    }
    check_sysctls(options)?;
    let snapshot = Snapshot::open(store, &image.layers)?;
    let settings = settings(&image.config.config, options)?;
    // A name that the image does not have is told now rather than at the start.
    kiln_image::user::resolve(&snapshot, &settings.user)?;
    let volumes = with_image_volumes(&image.config.config, &options.volumes);
    check_volumes(&volumes, options.runtime.as_deref())?;
    let (home, mut record) = Home::create(store, options.name.as_deref(), |id, name| Record {
        id,
        name,
        image: image.id,
        image_name: options.image_name.clone(),
        layers: image.layers.clone(),
        created: now(),
        settings,
    })?;
    let mounted = volumes.iter().try_for_each(|volume| {
        record.settings.mounts.push(volume.resolve(store, &snapshot)?);
        Ok(())
    });
    match mounted.and_then(|()| write_record(&home.path, &record)) {
        Ok(()) => Ok((home, record)),
        Err(error) => {
            home.remove(&record, true)?;
            Err(error)
        }
    }
}

/// Those of the host are not for a container.
fn check_sysctls(options: &Options) -> Result<()> {
    let sharing = |namespace: &Namespace| if *namespace == Namespace::Own { Sharing::Own } else { Sharing::Host };
    let (ipc, uts) = (sharing(&options.namespaces.ipc), sharing(&options.namespaces.uts));
    let kernel = Kernel { ipc, uts, ..Kernel::default() };
    let network = match options.network.mode {
        Mode::Host | Mode::Container(_) => spec::Network::Host,
        Mode::None | Mode::Bridges(_) => spec::Network::None,
    };
    options
        .sysctls
        .keys()
        .try_for_each(|name| kiln_sandbox::kernel::setting(name, &kernel, &network).map(drop).map_err(Error::Invalid))
}

fn settings(config: &RunConfig, options: &Options) -> Result<Settings> {
    let (entrypoint, cmd) = command::arguments(config, options.entrypoint.as_deref(), &options.args)?;
    let mut env = config.env.clone().unwrap_or_default();
    command::merge(&mut env, &options.env);
    let mut labels: BTreeMap<String, String> = config.labels.clone().unwrap_or_default();
    labels.extend(options.labels.clone());
    let mut network = options.network.clone();
    for (port, _) in config.exposed_ports.iter().flatten() {
        // An image may say anything.
        network.exposed.extend(Port::parse_range(port).unwrap_or_default());
    }
    network.exposed.sort_unstable();
    network.exposed.dedup();
    let image_timeout = config.other.get("StopTimeout").and_then(serde_json::Value::as_i64);
    Ok(Settings {
        entrypoint,
        cmd,
        env,
        user: options.user.clone().unwrap_or_else(|| config.user.clone()),
        group_add: options.group_add.clone(),
        workdir: options.workdir.clone().unwrap_or_else(|| config.working_dir.clone()),
        hostname: options.hostname.clone(),
        domainname: options.domainname.clone(),
        tty: options.tty,
        interactive: options.interactive,
        stdin_once: options.interactive && !options.detach,
        remove: options.remove,
        init: options.init,
        readonly: options.readonly,
        labels,
        stop_signal: options.stop_signal.clone().or_else(|| config.stop_signal.clone()),
        stop_timeout: options.stop_timeout.or(image_timeout),
        restart: options.restart,
        health: health(config.healthcheck.as_ref(), options.health.as_ref()),
        mounts: Vec::new(),
        network,
        limits: options.limits.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        security: options.security.clone(),
        devices: options.devices.clone(),
        rlimits: options.rlimits.clone(),
        shm_size: options.shm_size,
        log_driver: options.log_driver.clone(),
        namespaces: options.namespaces.clone(),
        sysctls: options.sysctls.clone(),
        oom_score_adj: options.oom_score_adj,
        annotations: options.annotations.clone(),
        log_limits: options.log_limits,
        runtime: options.runtime.clone(),
    })
}

/// The image's check, with what was given in place of its parts.
fn health(image: Option<&Healthcheck>, given: Option<&Healthcheck>) -> Option<Healthcheck> {
    let Some(given) = given else { return image.cloned() };
    let mut health = image.cloned().unwrap_or_default();
    health.test = given.test.clone().or(health.test);
    let parts = [
        (&mut health.interval, given.interval),
        (&mut health.timeout, given.timeout),
        (&mut health.start_period, given.start_period),
        (&mut health.start_interval, given.start_interval),
        (&mut health.retries, given.retries),
    ];
    for (part, given) in parts.into_iter().filter(|(_, given)| *given != 0) {
        *part = given;
    }
    Some(health)
}

/// The volumes that were given, and those that the image declares and nobody gave.
fn with_image_volumes(config: &RunConfig, given: &[Volume]) -> Vec<Volume> {
    let mut volumes = given.to_vec();
    for path in config.volumes.iter().flatten().map(|(path, _)| PathBuf::from(path)) {
        if path.is_absolute() && !volumes.iter().any(|volume| volume.target() == path) {
            volumes.push(Volume::Anonymous { target: path });
        }
    }
    volumes
}

fn check_volumes(volumes: &[Volume], runtime: Option<&str>) -> Result<()> {
    if let Some(runtime) = runtime
        && let Some(image) = volumes.iter().find(|volume| matches!(volume, Volume::Image { .. }))
    {
        let target = image.target().display();
        return Err(Error::Invalid(format!("{runtime} cannot mount an image ({target}): leave out --runtime")));
    }
    for (at, volume) in volumes.iter().enumerate() {
        if volumes[..at].iter().any(|other| other.target() == volume.target()) {
            return Err(Error::Invalid(format!("duplicate mount point: {}", volume.target().display())));
        }
    }
    Ok(())
}
