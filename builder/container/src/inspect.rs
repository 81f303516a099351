//! A container as `docker container inspect` describes it.

mod network;

use std::collections::BTreeMap;

use kiln_image::Image;
use kiln_sandbox::cgroup::Limits;
use kiln_store::Store;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::record::Container;
use crate::settings::{MountPoint, MountSource, RestartPolicy, Settings};
use crate::state::{Health, Phase};

/// What is said of a time that has not come.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
const SHM_SIZE: u64 = 64 << 20;

/// The container with the names of docker's fields.
///
/// # Errors
/// The store cannot be read.
pub fn inspect(store: &Store, container: &Container) -> Result<Value> {
    let (record, settings) = (&container.record, &container.record.settings);
    let command = settings.command();
    let path = |name: &str| container.path.join(name).display().to_string();
    let platform = Image::open(store, &record.image)?.map(|image| image.config.os).unwrap_or_default();
    let mounts = settings.mounts.iter().map(|mount| describe_mount(store, mount)).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "Id": record.id,
        "Created": time(record.created),
        "Path": command.first(),
        "Args": command.get(1..).unwrap_or_default(),
        "State": state(container),
        "Image": record.image,
        "ResolvConfPath": "",
        "HostnamePath": path("hostname"),
        "HostsPath": "",
        "LogPath": path("log"),
        "Name": format!("/{}", record.name),
        "RestartCount": container.state.restarts,
        "Driver": "overlay",
        "Platform": platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(container),
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": path("upper"), "WorkDir": path("work")}},
        "Mounts": mounts,
        "Config": config(container),
        "NetworkSettings": network::settings(store, container)?,
    }))
}

/// Nanoseconds since 1970 as text.
fn time(nanoseconds: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)) {
        Ok(time) if nanoseconds != 0 => time.to_string(),
        _ => NO_TIME.to_owned(),
    }
}

fn state(container: &Container) -> Value {
    let state = &container.state;
    let mut described = json!({
        "Status": state.phase.name(),
        "Running": state.is_alive(),
        "Paused": state.phase == Phase::Paused,
        "Restarting": state.phase == Phase::Restarting,
        "OOMKilled": state.out_of_memory,
        "Dead": false,
        "Pid": state.pid,
        "ExitCode": state.status,
        "Error": state.error,
        "StartedAt": time(state.started),
        "FinishedAt": time(state.finished),
    });
    if let (Some(health), Value::Object(fields)) = (&state.health, &mut described) {
        fields.insert("Health".to_owned(), describe_health(health));
    }
    described
}

fn describe_health(health: &Health) -> Value {
    let checks = health.log.iter().map(|check| {
        json!({
            "Start": time(check.times.0),
            "End": time(check.times.1),
            "ExitCode": check.status,
            "Output": check.output,
        })
    });
    json!({"Status": health.status, "FailingStreak": health.failing, "Log": checks.collect::<Vec<_>>()})
}

fn host_config(container: &Container) -> Value {
    let settings = &container.record.settings;
    let binds = settings.mounts.iter().filter_map(bind);
    let tmpfs: BTreeMap<String, &str> = settings
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Tmpfs { .. }))
        .map(|mount| (mount.target.display().to_string(), ""))
        .collect();
    let retries = if let RestartPolicy::OnFailure(limit) = settings.restart { limit } else { 0 };
    let ulimits = settings
        .rlimits
        .iter()
        .map(|(name, (soft, hard))| json!({"Name": name, "Soft": limit(*soft), "Hard": limit(*hard)}));
    let devices = settings.devices.iter().map(|(host, inside, permissions)| {
        json!({"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions})
    });
    let mut described = json!({
        "Binds": binds.collect::<Vec<_>>(),
        "NetworkMode": network::mode(&settings.network),
        "PortBindings": network::port_bindings(&settings.network),
        "RestartPolicy": {"Name": settings.restart.name(), "MaximumRetryCount": retries},
        "AutoRemove": settings.remove,
        "CapAdd": list_or_null(&settings.security.cap_add),
        "CapDrop": list_or_null(&settings.security.cap_drop),
        "Dns": settings.network.naming.servers,
        "DnsOptions": settings.network.naming.options,
        "DnsSearch": settings.network.naming.search,
        "ExtraHosts": network::extra_hosts(&settings.network),
        "PublishAllPorts": settings.network.publish_all,
        "UsernsMode": "",
        "Isolation": "",
        "VolumeDriver": "",
        "VolumesFrom": null,
        "Links": network::links(&container.record),
        "GroupAdd": list_or_null(&settings.group_add),
        "Init": settings.init,
        "LogConfig": {"Type": settings.log_driver.as_deref().unwrap_or("k8s-file"), "Config": log_options(settings)},
        "PidMode": settings.namespaces.pid.name(),
        "IpcMode": settings.namespaces.ipc.name(),
        "UTSMode": settings.namespaces.uts.name(),
        "CgroupnsMode": settings.namespaces.cgroup.name(),
        "CgroupParent": settings.cgroup_parent.as_deref().unwrap_or_default(),
        "Sysctls": settings.sysctls,
        "OomScoreAdj": settings.oom_score_adj.unwrap_or_default(),
        "Annotations": settings.annotations,
        "Privileged": settings.security.privileged,
        "ReadonlyRootfs": settings.readonly,
        "SecurityOpt": security_options(container),
        "ShmSize": settings.shm_size.unwrap_or(SHM_SIZE),
        "Tmpfs": tmpfs,
        "Ulimits": ulimits.collect::<Vec<_>>(),
        "Devices": devices.collect::<Vec<_>>(),
        "Runtime": settings.runtime.as_deref().unwrap_or("kiln"),
    });
    if let (Value::Object(fields), Value::Object(limits)) = (&mut described, limits(&settings.limits)) {
        fields.extend(limits);
    }
    described
}

/// What it may use.
fn limits(limits: &Limits) -> Value {
    json!({
        "Memory": limits.memory.unwrap_or_default(),
        "MemorySwap": limits.memory_swap.unwrap_or_default(),
        "PidsLimit": limits.pids,
        "CpuQuota": limits.cpu_quota.unwrap_or_default(),
        "CpuPeriod": limits.cpu_period.unwrap_or_default(),
        "NanoCpus": nano_cpus(limits),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or_default(),
        "MemoryReservation": limits.memory_reservation.unwrap_or_default(),
        "MemorySwappiness": limits.swappiness,
        "BlkioWeight": limits.blkio_weight.unwrap_or_default(),
        "OomKillDisable": false,
        "CpuShares": limits.cpu_shares.unwrap_or_default(),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or_default(),
    })
}

/// `--cpus`, by which quota and period were set.
fn nano_cpus(limits: &Limits) -> i64 {
    match (limits.cpu_quota, limits.cpu_period) {
        (Some(quota @ 1..), Some(period @ 1..)) => {
            quota.saturating_mul(1_000_000_000) / i64::try_from(period).unwrap_or(i64::MAX)
        }
        _ => 0,
    }
}

fn log_options(settings: &Settings) -> BTreeMap<&'static str, String> {
    let size = settings.log_limits.size.map(|size| ("max-size", size.to_string()));
    let files = settings.log_limits.files.map(|files| ("max-file", files.to_string()));
    size.into_iter().chain(files).collect()
}

/// docker says -1 for no limit.
fn limit(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(-1)
}

fn list_or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn security_options(container: &Container) -> Value {
    let security = &container.record.settings.security;
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if !security.seccomp {
        options.push("seccomp=unconfined".to_owned());
    }
    list_or_null(&options)
}

fn bind(mount: &MountPoint) -> Option<String> {
    let source = match &mount.source {
        MountSource::Bind(source) => source.display().to_string(),
        MountSource::Volume { name, anonymous: false } => name.clone(),
        _ => return None,
    };
    Some(format!("{source}:{}{}", mount.target.display(), if mount.readonly { ":ro" } else { "" }))
}

fn describe_mount(store: &Store, mount: &MountPoint) -> Result<Value> {
    let mut described = Map::new();
    match &mount.source {
        MountSource::Bind(source) => {
            described.insert("Type".to_owned(), json!("bind"));
            described.insert("Source".to_owned(), json!(source));
        }
        MountSource::Volume { name, .. } => {
            described.insert("Type".to_owned(), json!("volume"));
            described.insert("Name".to_owned(), json!(name));
            described.insert("Source".to_owned(), json!(store.directory("volumes")?.join(name).join("_data")));
        }
        MountSource::Image { name, .. } => {
            described.insert("Type".to_owned(), json!("image"));
            described.insert("Source".to_owned(), json!(name));
        }
        MountSource::Tmpfs { .. } => {
            described.insert("Type".to_owned(), json!("tmpfs"));
            described.insert("Source".to_owned(), json!(""));
        }
    }
    described.insert("Destination".to_owned(), json!(mount.target));
    if matches!(mount.source, MountSource::Volume { .. }) {
        described.insert("Driver".to_owned(), json!("local"));
    }
    described.insert("Mode".to_owned(), json!(if mount.readonly { "ro" } else { "" }));
    described.insert("RW".to_owned(), json!(!mount.readonly));
    described.insert(
        "Propagation".to_owned(),
        json!(match mount.source {
            MountSource::Bind(_) if mount.slave => "rslave",
            MountSource::Bind(_) => "rprivate",
            _ => "",
        }),
    );
    Ok(Value::Object(described))
}

fn config(container: &Container) -> Value {
    let (record, settings) = (&container.record, &container.record.settings);
    let exposed = settings.network.exposed.iter();
    let exposed: BTreeMap<String, Value> = exposed.map(|port| (port.to_string(), json!({}))).collect();
    let volumes = settings.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Volume { .. }));
    let volumes: BTreeMap<String, Value> =
        volumes.map(|mount| (mount.target.display().to_string(), json!({}))).collect();
    let mut described = json!({
        "Hostname": settings.hostname.as_deref().unwrap_or_else(|| record.short_id()),
        "Domainname": settings.domainname.as_deref().unwrap_or_default(),
        "User": settings.user,
        "AttachStdin": settings.stdin_once,
        "AttachStdout": false,
        "AttachStderr": false,
        "ExposedPorts": exposed,
        "Tty": settings.tty,
        "OpenStdin": settings.interactive,
        "StdinOnce": settings.stdin_once,
        "Env": settings.env,
        "Cmd": list_or_null(&settings.cmd),
        "Image": record.image_name,
        "Volumes": if volumes.is_empty() { Value::Null } else { json!(volumes) },
        "WorkingDir": settings.workdir,
        "Entrypoint": list_or_null(&settings.entrypoint),
        "OnBuild": null,
        "Labels": settings.labels,
    });
    if let Value::Object(fields) = &mut described {
        if settings.network.exposed.is_empty() {
            fields.remove("ExposedPorts");
        }
        let more = [
            ("StopSignal", settings.stop_signal.as_ref().map(|signal| json!(signal))),
            ("StopTimeout", settings.stop_timeout.map(|seconds| json!(seconds))),
            ("Healthcheck", settings.health.as_ref().and_then(|health| serde_json::to_value(health).ok())),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
    }
    described
}
