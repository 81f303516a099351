//! `kiln import`: a root file system becomes an image of one layer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kiln_build::plan::{self, ImageSource};
use kiln_build::request::Network;
use kiln_grammar::ast::InstructionKind;
use kiln_image::config::{History, RunConfig};
use kiln_image::{Image, ImageConfig, Platform, Reference};
use kiln_store::Store;

/// Make an image of a root file system
///
/// Takes a tar (plain, or compressed with gzip, bzip2, xz or zstd).
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The archive; `-` is the standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// What the image will be called
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<Reference>,
    /// Apply an instruction of a Dockerfile to the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long)]
    change: Vec<String>,
    /// What history will say of it
    #[arg(short, long)]
    message: Option<String>,
    /// What it runs on, if not on machines like this
    #[arg(long)]
    platform: Option<Platform>,
}

/// Makes the image and prints its id.
///
/// # Errors
/// The archive or an instruction is wrong.
pub(crate) fn run(args: &ImportArgs, store: &Store) -> Result<()> {
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let config = changed(&args.change, &platform)?;
    let layer = if args.file == "-" {
        store.import_tar(&mut io::stdin().lock())
    } else {
        let mut file = File::open(Path::new(&args.file)).with_context(|| format!("open {}", args.file))?;
        store.import_tar(&mut file as &mut dyn Read)
    };
    let layer = layer.with_context(|| format!("import {}", args.file))?;
    let created = created()?.to_string();
    let comment = args.message.clone().unwrap_or_else(|| format!("Imported from {}", args.file));
    let mut image = ImageConfig {
        created: Some(created.clone()),
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config,
        history: vec![History { created: Some(created), comment: Some(comment), ..History::default() }],
        ..ImageConfig::default()
    };
    image.rootfs.diff_ids.push(layer.diff_id);
    let image = Image::commit(store, &image, args.name.as_slice())?;
    store.settle()?;
    writeln!(io::stdout().lock(), "{}", image.id)?;
    Ok(())
}

/// Now, or SOURCE_DATE_EPOCH, by which the same archive always becomes the same image.
fn created() -> Result<Timestamp> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            let seconds = text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text} is no number of seconds"))?;
            Ok(Timestamp::from_second(seconds)?)
        }
        _ => Ok(Timestamp::now()),
    }
}

/// The configuration that the instructions make: that of a Dockerfile which has only them.
fn changed(changes: &[String], platform: &Platform) -> Result<RunConfig> {
    if changes.is_empty() {
        return Ok(RunConfig::default());
    }
    let mut text = String::from("FROM scratch\n");
    for change in changes {
        text.push_str(change);
        text.push('\n');
    }
    let request = kiln_build::Request {
        dockerfile_name: "--change".to_owned(),
        platform: platform.clone(),
        network: Network::None,
        ..kiln_build::Request::new(text.into_bytes())
    };
    let wrong = |diagnostic: Box<kiln_grammar::Diagnostic>| kiln_build::Error::Dockerfile(diagnostic);
    let dockerfile = kiln_grammar::parse(&request.dockerfile).map_err(wrong).context("--change")?;
    for instruction in dockerfile.instructions.iter().skip(1) {
        use InstructionKind as Kind;
        if let Kind::From(_) | Kind::Arg(_) | Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) = instruction.kind {
            bail!("--change: {} does not only change the configuration", instruction.keyword.value.to_uppercase());
        }
    }
    let mut config = plan::make(&dockerfile, &request, &NoImages).context("--change")?.into_config().config;
    // The path that FROM scratch has by itself is no change that was asked for.
    if !dockerfile.instructions.iter().any(|instruction| sets_path(&instruction.kind)) {
        let kept = config.env.take().into_iter().flatten().filter(|variable| !variable.starts_with("PATH="));
        config.env = Some(kept.collect()).filter(|env: &Vec<String>| !env.is_empty());
    }
    // Nor is its working directory; and ArgsEscaped is what a build says of CMD.
    if !dockerfile.instructions.iter().any(|instruction| matches!(instruction.kind, InstructionKind::Workdir(_))) {
        config.working_dir.clear();
    }
    config.args_escaped = None;
    Ok(config)
}

fn sets_path(kind: &InstructionKind) -> bool {
    matches!(kind, InstructionKind::Env(pairs) if pairs.iter().any(|pair| pair.key.raw == "PATH"))
}

/// A configuration with instructions of a Dockerfile carried out on it.
///
/// # Errors
/// One of them is none, or does not only change the configuration.
pub(crate) fn change(config: RunConfig, changes: &[String]) -> Result<RunConfig> {
    let changed = changed(changes, &Platform::host())?;
    let mut config = config;
    let mut env = config.env.take().unwrap_or_default();
    for variable in changed.env.into_iter().flatten() {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name).to_owned() + "=";
        env.retain(|known| !known.starts_with(&name));
        env.push(variable);
    }
    config.env = Some(env).filter(|env| !env.is_empty());
    config.labels.get_or_insert_default().extend(changed.labels.into_iter().flatten());
    config.volumes.get_or_insert_default().extend(changed.volumes.into_iter().flatten());
    config.exposed_ports.get_or_insert_default().extend(changed.exposed_ports.into_iter().flatten());
    config.labels = config.labels.filter(|labels| !labels.is_empty());
    config.volumes = config.volumes.filter(|volumes| !volumes.is_empty());
    config.exposed_ports = config.exposed_ports.filter(|ports| !ports.is_empty());
    config.entrypoint = changed.entrypoint.or(config.entrypoint);
    config.cmd = changed.cmd.or(config.cmd);
    config.healthcheck = changed.healthcheck.or(config.healthcheck);
    config.on_build = changed.on_build.or(config.on_build);
    config.stop_signal = changed.stop_signal.or(config.stop_signal);
    for (value, new) in [(&mut config.user, changed.user), (&mut config.working_dir, changed.working_dir)] {
        if !new.is_empty() {
            *value = new;
        }
    }
    Ok(config)
}

/// FROM scratch needs none.
struct NoImages;

impl ImageSource for NoImages {
    fn image(&self, reference: &Reference, _: &Platform) -> kiln_build::Result<Image> {
        Err(kiln_image::Error::NoSuchImage { text: reference.familiar() }.into())
    }

    fn layout(&self, directory: &Path, _: Option<&str>, _: &Platform) -> kiln_build::Result<Image> {
        Err(kiln_image::Error::NoSuchImage { text: directory.display().to_string() }.into())
    }
}
