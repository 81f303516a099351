//! `kiln run`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln_build::base_image::BaseImages;
use kiln_build::plan::ImageSource;
use kiln_container::{Network, RunOptions, Volume};
use kiln_image::{Image, Platform, Reference};
use kiln_sandbox::spec::Security;
use kiln_store::Store;

use crate::failure;
use crate::pull::TlsArgs;
use crate::transfer::{Display, PULL, Stream};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without `=` it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount a directory of the host, or a named volume: SOURCE:TARGET[:ro]
    #[arg(short, long = "volume", value_name = "SPEC")]
    volumes: Vec<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User in the container: name or id, with :group
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Replace the image's ENTRYPOINT; empty removes it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Network: host (for now the default too) or none
    #[arg(long, visible_alias = "net", value_name = "MODE", default_value = "default")]
    network: String,
    /// No writes to the container's root file system
    #[arg(long)]
    read_only: bool,
    /// Add a capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// All capabilities, no system call filter
    #[arg(long)]
    privileged: bool,
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
    /// The image: a name, an id, or the beginning of an id
    image: String,
    /// Replaces the image's CMD
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs a container; its exit status is kiln's.
pub(crate) fn run(args: &RunArgs, store: &Store) -> ExitCode {
    let options = match prepare(args, store) {
        Ok(options) => options,
        Err(error) => {
            failure::report(&error);
            return ExitCode::from(125);
        }
    };
    match kiln_container::run(store, &options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let status = error.exit_status();
            failure::report(&anyhow::Error::from(error));
            ExitCode::from(status)
        }
    }
}

fn prepare(args: &RunArgs, store: &Store) -> Result<RunOptions> {
    use std::io::IsTerminal;
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        bail!("the input is not a terminal: leave out -t, or -i");
    }
    let security = Security {
        privileged: args.privileged,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        ..Security::default()
    };
    Ok(RunOptions {
        image: image(args, store)?,
        image_name: args.image.clone(),
        args: args.command.clone(),
        entrypoint: args
            .entrypoint
            .as_ref()
            .map(|word| Some(word.clone()).filter(|word| !word.is_empty()).into_iter().collect()),
        env: environment(args)?,
        volumes: args.volumes.iter().map(|text| Volume::parse(text)).collect::<Result<_, _>>()?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        name: args.name.clone(),
        hostname: args.hostname.clone(),
        remove: args.rm,
        interactive: args.interactive,
        tty: args.tty,
        network: match args.network.as_str() {
            "default" | "host" | "bridge" => Network::Host,
            "none" => Network::None,
            other => bail!("network {other:?} is not supported yet; expected host or none"),
        },
        readonly: args.read_only,
        security,
    })
}

/// The image: one that is here, or one that is pulled.
fn image(args: &RunArgs, store: &Store) -> Result<Image> {
    let (always, never) = match args.pull.as_str() {
        "always" => (true, false),
        "missing" => (false, false),
        "never" => (false, true),
        other => bail!("--pull {other:?}; expected always, missing or never"),
    };
    let here = if always { None } else { Image::find(store, &args.image).ok() };
    match here {
        Some(image) => Ok(image),
        None if never => Ok(Image::find(store, &args.image)?),
        None => {
            let reference = Reference::parse(&args.image)?;
            let display = Display::new(PULL, Stream::Stderr, args.quiet);
            let platform = args.platform.clone().unwrap_or_else(Platform::host);
            let images = BaseImages::new(store, always, args.tls.options(), &display);
            images.image(&reference, &platform).with_context(|| format!("no image {} here, and", args.image))
        }
    }
}

/// `-e` after `--env-file`; a bare name is taken from our own environment, and left out when it is not set.
fn environment(args: &RunArgs) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in &args.env_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        lines.extend(
            text.lines()
                .map(str::trim_start)
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    lines.extend(args.env.iter().cloned());
    let valued = |line: String| {
        if line.contains('=') { Some(line) } else { std::env::var(&line).ok().map(|value| format!("{line}={value}")) }
    };
    Ok(lines.into_iter().filter_map(valued).collect())
}
