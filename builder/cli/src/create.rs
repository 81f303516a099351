//! What `kiln run` and `kiln create` have in common: the container's options, and its image. And `kiln create`.

mod health;
mod kernel;
pub(crate) mod limits;
mod network;
mod unavailable;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln_build::base_image::{BaseImages, Pull};
use kiln_build::plan::ImageSource;
use kiln_container::{MountSource, NewVolume, Options, Record, RestartPolicy, Volume};
use kiln_image::{Image, Platform, Reference};
use kiln_sandbox::spec::Security;
use kiln_store::Store;

use crate::failure;
use crate::pull::TlsArgs;
use crate::transfer::{Display, PULL, Stream};

/// Arguments of `create`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, override_usage = "kiln create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    container: ContainerArgs,
}

/// The options of a container.
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    /// Show this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Remove the container, and its anonymous volumes, when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; without `=` it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount a directory of the host, or a named volume: [SOURCE:]TARGET[:ro]
    #[arg(short, long = "volume", value_name = "SPEC")]
    volumes: Vec<String>,
    /// Mount something: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long, value_name = "SPEC")]
    mount: Vec<String>,
    /// Mount memory: TARGET[:size=64m,mode=1777]
    #[arg(long, value_name = "SPEC")]
    tmpfs: Vec<String>,
    /// The volumes of other containers: CONTAINER[:ro]
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User in the container: name or id, with :group
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// More groups of that user
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Replace the image's ENTRYPOINT; empty removes it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    #[command(flatten)]
    pub(crate) network: network::NetworkArgs,
    #[command(flatten)]
    limits: limits::LimitArgs,
    #[command(flatten)]
    kernel: kernel::KernelArgs,
    #[command(flatten)]
    unavailable: unavailable::UnavailableArgs,
    /// Attach only to these: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr", "STDIN", "STDOUT", "STDERR"])]
    pub(crate) attach: Vec<String>,
    /// Run it by an OCI runtime instead of kiln's own: crun, runc, or a path
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,
    /// No writes to the container's root file system
    #[arg(long)]
    read_only: bool,
    /// A small init as process 1, which passes signals on and reaps orphans
    #[arg(long)]
    init: bool,
    /// Add a capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// All capabilities, no system call filter, the host's devices
    #[arg(long)]
    privileged: bool,
    /// A device of the host: HOST[:CONTAINER[:rwm]]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// no-new-privileges, or seccomp=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Resource limit: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Size of /dev/shm: 64m, 1g, …
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Label: NAME[=VALUE]
    #[arg(short, long, value_name = "LABEL")]
    label: Vec<String>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// What `stop` sends, instead of the image's STOPSIGNAL
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds until `stop` kills
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// When to start again: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: String,
    #[command(flatten)]
    health: health::HealthArgs,
    /// Keys that let go of the container
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// Run the image of this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// When to ask the registry: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: String,
    /// Say nothing about a pull
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    tls: TlsArgs,
    /// The image (a name, an id, or the beginning of an id), and perhaps what replaces its CMD: what follows the image is
    /// the command's, also what looks like a flag
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE")]
    line: Vec<String>,
}

impl ContainerArgs {
    fn image(&self) -> &str {
        self.line.first().map_or("", String::as_str)
    }
}

/// Makes a container.
pub(crate) fn run(args: &CreateArgs, store: &Store) -> Result<ExitCode> {
    let made = (|| {
        let (image, options) = prepare(&args.container, store, false)?;
        let record = kiln_container::create(store, &image, &options)?;
        args.container.write_cidfile(&record)?;
        Ok(record)
    })();
    let record = made.map_err(|error| failure::with_status(error, 1))?;
    failure::print(&format!("{}\n", record.id))?;
    Ok(ExitCode::SUCCESS)
}

impl ContainerArgs {
    /// Which of standard input, output and error are attached; all when nothing is said.
    pub(crate) fn streams(&self) -> [bool; 3] {
        let is_named =
            |name: &str| self.attach.is_empty() || self.attach.iter().any(|one| one.eq_ignore_ascii_case(name));
        ["stdin", "stdout", "stderr"].map(is_named)
    }

    /// What is refused before anything is made.
    pub(crate) fn check_cidfile(&self) -> Result<()> {
        match &self.cidfile {
            Some(path) if path.exists() => {
                bail!("the container id file {} is there already: remove it, or name another", path.display())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn write_cidfile(&self, record: &Record) -> Result<()> {
        let Some(path) = &self.cidfile else { return Ok(()) };
        std::fs::write(path, &record.id).with_context(|| format!("write {}", path.display()))
    }
}

/// The image and the options that the arguments mean.
pub(crate) fn prepare(args: &ContainerArgs, store: &Store, detach: bool) -> Result<(Image, Options)> {
    args.check_cidfile()?;
    args.unavailable.check()?;
    let mut volumes = Vec::new();
    for text in &args.volumes {
        volumes.push(Volume::parse(text)?);
    }
    for text in &args.mount {
        volumes.push(Volume::parse_mount(text)?);
    }
    for text in &args.tmpfs {
        volumes.push(Volume::parse_tmpfs(text)?);
    }
    for text in &args.volumes_from {
        add_volumes_of(store, text, &mut volumes)?;
    }
    let options = Options {
        image_name: args.image().to_owned(),
        args: args.line.iter().skip(1).cloned().collect(),
        entrypoint: args
            .entrypoint
            .as_ref()
            .map(|word| Some(word.clone()).filter(|word| !word.is_empty()).into_iter().collect()),
        env: environment(args)?,
        volumes,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        group_add: args.group_add.clone(),
        name: args.name.clone(),
        hostname: args.hostname.clone(),
        domainname: args.kernel.domainname.clone(),
        remove: args.rm,
        interactive: args.interactive,
        detach,
        tty: args.tty,
        init: args.init,
        network: args.network.options()?,
        limits: args.limits.limits()?,
        cgroup_parent: args.limits.cgroup_parent.clone(),
        readonly: args.read_only,
        security: security(args)?,
        devices: args.device.iter().map(|text| device(text)).collect::<Result<_>>()?,
        rlimits: args.ulimit.iter().map(|text| limit(text)).collect::<Result<_>>()?,
        shm_size: args.shm_size.as_deref().map(bytes).transpose()?,
        labels: labels(args)?,
        stop_signal: args.stop_signal.clone().map(checked_signal).transpose()?,
        stop_timeout: args.stop_timeout,
        restart: restart(args)?,
        health: args.health.check()?,
        log_driver: args.kernel.log_driver()?,
        namespaces: args.kernel.namespaces()?,
        sysctls: args.kernel.sysctls()?,
        oom_score_adj: args.kernel.oom_score_adj()?,
        annotations: args.kernel.annotations(),
        log_limits: args.kernel.log_limits()?,
        runtime: args.runtime.clone().filter(|runtime| !runtime.is_empty() && runtime != "kiln"),
    };
    Ok((image(args, store)?, options))
}

/// Those of another container, where nothing else is mounted.
fn add_volumes_of(store: &Store, text: &str, volumes: &mut Vec<Volume>) -> Result<()> {
    let (name, readonly) = text.strip_suffix(":ro").map_or((text, false), |name| (name, true));
    let other = kiln_container::find(store, name.strip_suffix(":rw").unwrap_or(name))?;
    for mount in &other.record.settings.mounts {
        let (target, readonly) = (mount.target.clone(), readonly || mount.readonly);
        if volumes.iter().any(|volume| volume.target() == target) {
            continue;
        }
        match &mount.source {
            MountSource::Bind(source) => {
                volumes.push(Volume::Bind { source: source.clone(), target, readonly, slave: mount.slave });
            }
            MountSource::Volume { name, .. } => {
                let fresh = NewVolume::default();
                volumes.push(Volume::Named { name: name.clone(), target, readonly, fresh });
            }
            MountSource::Image { .. } | MountSource::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

fn device(text: &str) -> Result<(PathBuf, PathBuf, String)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, permissions] if !permissions.starts_with('/') => (*source, *source, *permissions),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => bail!("invalid device {text:?}; expected HOST[:CONTAINER[:rwm]]"),
    };
    let known = !permissions.is_empty() && permissions.chars().all(|letter| "rwm".contains(letter));
    if !known || !source.starts_with('/') || !target.starts_with('/') {
        bail!("invalid device {text:?}; expected HOST[:CONTAINER[:rwm]]");
    }
    if !Path::new(source).exists() {
        bail!("no such device: {source}");
    }
    Ok((source.into(), target.into(), permissions.to_owned()))
}

fn checked_signal(text: String) -> Result<String> {
    kiln_container::parse_signal(&text)?;
    Ok(text)
}

fn restart(args: &ContainerArgs) -> Result<RestartPolicy> {
    let policy = RestartPolicy::parse(&args.restart)?;
    if args.rm && policy != RestartPolicy::No {
        bail!("conflicting options: --restart and --rm");
    }
    Ok(policy)
}

fn security(args: &ContainerArgs) -> Result<Security> {
    let mut security = Security {
        privileged: args.privileged,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        ..Security::default()
    };
    for option in &args.security_opt {
        match option.split_once(['=', ':']).unwrap_or((option, "true")) {
            ("no-new-privileges", value @ ("true" | "false")) => security.no_new_privileges = value == "true",
            ("seccomp", "unconfined") => security.seccomp = false,
            ("seccomp", "builtin") => security.seccomp = true,
            // kiln sets no labels and loads no profiles: nothing is there to be taken off.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            _ => bail!("--security-opt {option:?}; expected no-new-privileges or seccomp=unconfined"),
        }
    }
    Ok(security)
}

/// The image: one that is here, or one that is pulled.
fn image(args: &ContainerArgs, store: &Store) -> Result<Image> {
    let (always, never) = match args.pull.as_str() {
        "always" => (true, false),
        "missing" => (false, false),
        "never" => (false, true),
        other => bail!("--pull {other:?}; expected always, missing or never"),
    };
    let reference = Reference::parse(args.image());
    let here = || -> Option<Image> {
        let named = Image::find(store, args.image()).ok();
        let Some(platform) = &args.platform else { return named };
        let is_for_it = |image: &Image| platform.accepts(&image.platform());
        // Of an index that is here, whichever is asked for.
        let of_index = || Image::by_reference_for(store, reference.as_ref().ok()?, platform).ok().flatten();
        named.filter(is_for_it).or_else(|| of_index().filter(is_for_it))
    };
    if !always && let Some(image) = here() {
        return Ok(image);
    }
    if never && args.platform.is_none() {
        return Ok(Image::find(store, args.image())?);
    }
    let reference = reference?;
    let (platform, pull) = match (args.platform.clone().unwrap_or_else(Platform::host), never) {
        (platform, true) => bail!("no such image: {} for {platform}", reference.familiar()),
        (platform, false) if always => (platform, Pull::Always),
        (platform, false) => (platform, Pull::Missing),
    };
    if !always && !args.quiet {
        failure::tell(&format!("Unable to find image '{}' locally\n", reference.familiar()));
    }
    let display = Display::new(PULL, Stream::Stderr, args.quiet);
    let images = BaseImages::new(store, pull, args.tls.options(), &display);
    images.image(&reference, &platform).with_context(|| format!("no image {} here, and", args.image()))
}

/// `-e` after `--env-file`; a bare name is taken from our own environment. One that is not set there is taken away from
/// the image's by `-e`, and left out of a file.
fn environment(args: &ContainerArgs) -> Result<Vec<String>> {
    let own = |name: &str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    let mut lines: Vec<String> = Vec::new();
    for path in &args.env_file {
        let named = |line: String| if line.contains('=') { Some(line) } else { own(&line) };
        lines.extend(lines_of(path)?.into_iter().filter_map(named));
    }
    for line in &args.env {
        if line.is_empty() || line.starts_with('=') {
            bail!("invalid environment variable: {line}");
        }
        lines.push(if line.contains('=') { line.clone() } else { own(line).unwrap_or_else(|| line.clone()) });
    }
    Ok(lines)
}

/// Of a file of variables or labels.
pub(crate) fn lines_of(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

fn labels(args: &ContainerArgs) -> Result<BTreeMap<String, String>> {
    let mut lines = Vec::new();
    for path in &args.label_file {
        lines.extend(lines_of(path)?);
    }
    lines.extend(args.label.iter().cloned());
    Ok(lines.into_iter().map(label).collect())
}

/// `NAME[=VALUE]`.
pub(crate) fn label(text: String) -> (String, String) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text, String::new()),
    }
}

fn limit(text: &str) -> Result<(String, (u64, u64))> {
    let wrong = || format!("invalid ulimit {text:?}; expected NAME=SOFT[:HARD]");
    let (name, values) = text.split_once('=').with_context(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| if text == "-1" || text == "unlimited" { Some(u64::MAX) } else { text.parse().ok() };
    let (soft, hard) = (number(soft).with_context(wrong)?, number(hard).with_context(wrong)?);
    if soft > hard {
        bail!("ulimit {text:?}: the soft limit must be less than or equal to the hard limit");
    }
    Ok((name.to_owned(), (soft, hard)))
}

/// `64m`: bytes, in powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[number.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => bail!("invalid size: {text:?}"),
    };
    let number: u64 = number.trim().parse().with_context(|| format!("invalid size: {text:?}"))?;
    number.checked_mul(1 << shift).with_context(|| format!("invalid size: {text:?}"))
}

/// `1m30s`, `500ms`: nanoseconds.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("invalid duration {text:?}; expected e.g. 1m30s or 500ms");
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    #[allow(clippy::cast_possible_truncation, reason = "a cast of floats saturates")]
    let nanoseconds = total as i64;
    if text.is_empty() || nanoseconds < 0 { Err(wrong()) } else { Ok(nanoseconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(bytes("64m").unwrap(), 64 << 20);
        assert_eq!((bytes("1G").unwrap(), bytes("12").unwrap(), bytes("2kb").unwrap()), (1 << 30, 12, 2048));
        assert!(bytes("m").is_err() && bytes("1x").is_err() && bytes("99999999999g").is_err());
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(duration("1.5ms"), Ok(1_500_000));
        assert!(duration("5").is_err() && duration("").is_err() && duration("-1s").is_err());
        assert_eq!(limit("nofile=1:2").unwrap(), ("nofile".to_owned(), (1, 2)));
        assert!(limit("nofile=2:1").is_err() && limit("nofile").is_err());
    }
}
