//! `kiln build`.

mod attest;
mod cache;
mod call;
mod config_flags;
mod contexts;
mod finish;
mod image_flags;
mod kaniko_flags;
mod layer_flags;
mod output;
mod pull_flags;
mod step_flags;
mod values;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use kiln_build::base_image::BaseImages;
use kiln_build::provenance::Recorded;
use kiln_build::request::{Entitlements, Layering, Network};
use kiln_build::{Error, Request, locate};
use kiln_image::bundle::Form;
use kiln_image::registry::TransferProgress;
use kiln_image::{Platform, Reference};
use kiln_store::Store;

use crate::failure::{Shown, tell};
use crate::progress::{Mode, Screen};
use crate::registry_access::AccessArgs;
use output::{Kind, Output};

/// Arguments of `build`.
#[derive(clap::Args)]
pub(crate) struct BuildArgs {
    /// The build context: a directory, a URL, a git repository, or `-` for an archive or a Dockerfile on standard input
    #[arg(value_name = "PATH|URL|-", default_value = ".")]
    context: String,
    /// Name the image `name[:tag]`; may be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The Dockerfile [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE", alias = "dockerfile")]
    file: Option<String>,
    /// Another context: NAME=directory, docker-image://IMAGE, oci-layout://DIR[:TAG], a URL or a git repository
    #[arg(long = "build-context", value_name = "NAME=PLACE")]
    contexts: Vec<String>,
    /// The ignore file [default: the Dockerfile's own, or PATH/.dockerignore]
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// Build this stage instead of the last
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Give an ARG a value; without `=` it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Add a label to the image
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    pull: pull_flags::PullArgs,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    progress: Mode,
    /// Print nothing but the image id
    #[arg(short, long)]
    quiet: bool,
    /// Where the result goes: type=oci|docker|local|tar|image|registry,dest=PATH; or a directory
    #[arg(short, long = "output", value_name = "SPEC")]
    outputs: Vec<String>,
    /// Push the image under its names when it is built
    #[arg(long)]
    push: bool,
    /// Keep the image in the store, as kiln does anyway; with --push also when some layers need not come here for that
    #[arg(long)]
    load: bool,
    /// Offer a secret to RUN --mount=type=secret: id=NAME[,src=FILE|env=VARIABLE]
    #[arg(long = "secret", value_name = "SPEC")]
    secrets: Vec<String>,
    /// Network of RUN steps: default, host or none
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Add a line to /etc/hosts of RUN steps
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
    /// Size of /dev/shm in RUN steps
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Open a shell where a RUN fails, when standard input is a terminal (`kiln debug` does it afterwards)
    #[arg(long)]
    debug: bool,
    #[command(flatten)]
    call: call::CallArgs,
    #[command(flatten)]
    attest: attest::AttestArgs,
    #[command(flatten)]
    cache: cache::CacheArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    layers: layer_flags::LayerArgs,
    /// Write what is shown to a file instead
    #[arg(long, value_name = "FILE")]
    logfile: Option<PathBuf>,
    /// Accepted for docker's sake: nothing intermediate is ever kept
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    force_rm: bool,
    #[command(flatten)]
    image: image_flags::ImageArgs,
    #[command(flatten)]
    steps: step_flags::StepArgs,
    #[command(flatten)]
    config: config_flags::ConfigArgs,
    #[command(flatten)]
    kaniko: kaniko_flags::KanikoArgs,
}

pub(crate) fn run(args: &BuildArgs, store: &Store) -> anyhow::Result<ExitCode> {
    let call = args.call.parse()?;
    let wanted = args.attest.parse()?;
    let (mut request, outputs) = prepare(args, store)?;
    request.passed_on_to = passed_on_to(args, store, &wanted, &request, &outputs)?;
    if let Some(call) = call {
        return call::run(call, store, &request);
    }
    let screen = match &args.logfile {
        Some(path) => Screen::to_file(path, &request)?,
        None => Screen::new(if args.quiet { Mode::Quiet } else { args.progress }, &request),
    };
    let options = args.kaniko.access(args.access.options()?);
    let images = BaseImages::new(store, args.pull.policy()?, options.clone(), &screen as &dyn TransferProgress);
    let images = images.for_build(&request);
    let images = Recorded::new(&images);
    let started = jiff::Timestamp::now();
    if args.cache.dry_run {
        return cache::dry_run(store, &request, &images, &screen, args.progress);
    }
    let built = kiln_build::build(store, &request, &images, &screen);
    screen.finish();
    args.cache.afterwards(&screen.recording, &request)?;
    args.kaniko.deliver_metrics(&screen.recording)?;
    let made = match built {
        Ok(made) => made,
        Err(error) => {
            let failed = fail(&error, &request);
            let kept = matches!(&error, Error::Step { hints, .. } if hints.kept);
            if args.debug && kept && std::io::stdin().is_terminal() {
                crate::debug::after_build(store)?;
            }
            return failed;
        }
    };
    let (request, recorded, options, screen) = (&request, &images, &options, &screen);
    finish::Built { args, store, request, recorded, started, options, screen }.finish(made, wanted, &outputs)?;
    Ok(ExitCode::SUCCESS)
}

/// `64m`, `1g`, `1024`: bytes.
pub(crate) fn bytes(text: &str) -> anyhow::Result<u64> {
    values::size(text)
}

/// Where the result goes; checked before anything is done.
fn outputs(args: &BuildArgs, platforms: usize) -> anyhow::Result<Vec<Output>> {
    let form = args.image.form()?;
    let mut outputs = args.outputs.iter().map(|text| Output::parse(text, &form)).collect::<anyhow::Result<Vec<_>>>()?;
    outputs.extend(args.kaniko.outputs(&form));
    if args.push {
        outputs.push(Output::new(Kind::Push, form));
    }
    for output in &outputs {
        output.check(platforms)?;
        let named = !args.tags.is_empty() || !output.names.is_empty() || args.kaniko.names().next().is_some();
        if matches!(output.kind, Kind::Push) && !named {
            bail!("a push needs a name: give one with --tag");
        }
    }
    Ok(outputs)
}

/// Where the image goes, when that is all that becomes of it: a push alone, of one image in its plain form.
fn passed_on_to(
    args: &BuildArgs,
    store: &Store,
    wanted: &attest::Wanted,
    request: &Request,
    outputs: &[Output],
) -> anyhow::Result<Vec<Reference>> {
    let plain = Form::default();
    let is_plain = args.image.form()? == plain && outputs.iter().all(|output| output.is_plain_push());
    let is_one = request.other_platforms.is_empty() && *wanted == attest::Wanted::default();
    let takes_files = request.layering != Layering::default() || args.image.manifest.is_some();
    let indexed = values::is_given(&request.build_args, "BUILDKIT_MULTI_PLATFORM") || request.exchange.is_inline();
    if args.load || outputs.is_empty() || !is_plain || !is_one || takes_files || indexed {
        return Ok(Vec::new());
    }
    for name in &request.names {
        // It would go on meaning what it meant before.
        if store.reference(&name.tagged_name())?.is_some() {
            return Ok(Vec::new());
        }
    }
    Ok(request.names.clone())
}

fn prepare(args: &BuildArgs, store: &Store) -> anyhow::Result<(Request, Vec<Output>)> {
    let mut names = args.tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>, _>>()?;
    let mut platforms = args.image.platforms()?.into_iter();
    names.extend(args.kaniko.names());
    let mut build_args: BTreeMap<String, String> = values::build_args(&args.build_args);
    args.config.read_build_args(&mut build_args)?;
    values::add_epoch(&mut build_args);
    args.kaniko.add_epoch(&mut build_args);
    let epoch = args.config.epoch().map_or_else(|| values::epoch(&build_args), |epoch| Ok(Some(epoch)))?;
    let outputs = outputs(args, platforms.len())?;
    if names.is_empty() {
        let kept = |output: &&Output| matches!(output.kind, Kind::Store | Kind::Push);
        names = outputs.iter().filter(kept).flat_map(|output| output.names.clone()).collect();
    }
    let entitlements = args.steps.entitlements()?;
    let inline_cache = values::is_given(&build_args, "BUILDKIT_INLINE_CACHE");
    let located = locate::open(
        store,
        &locate::Places {
            context: &args.kaniko.context(&args.context)?,
            file: args.file.as_deref(),
            ignore_file: args.ignorefile.as_deref(),
            keep_git_dir: values::is_given(&build_args, "BUILDKIT_CONTEXT_KEEP_GIT_DIR"),
            epoch,
            no_cache: args.no_cache,
        },
    )?;
    let request = Request {
        dockerfile_name: located.dockerfile_name,
        context: located.context,
        contexts: args
            .contexts
            .iter()
            .map(|text| contexts::parse(&args.kaniko.named_layout(text)?))
            .collect::<Result<_, _>>()?,
        target: args.target.clone(),
        run: args.steps.options(&build_args)?,
        build_args,
        labels: values::labels(&args.labels)?.into_iter().chain(args.layers.identity()).collect(),
        layering: args.layers.layering(),
        names,
        no_cache: args.no_cache || args.cache.exchange.uses_nothing(),
        platform: platforms.next().unwrap_or_else(Platform::host),
        other_platforms: platforms.collect(),
        network: match args.network.as_str() {
            "default" | "host" | "bridge" => Network::Host,
            "none" => Network::None,
            other => bail!("unknown network {other:?}; expected default, host or none"),
        },
        secrets: args.secrets.iter().map(|text| values::secret(text)).collect::<Result<_, _>>()?,
        hosts: args.hosts.iter().map(|text| values::host(text)).collect::<Result<_, _>>()?,
        shm_size: args.shm_size.as_deref().map(values::size).transpose()?,
        jobs: args.cache.jobs.filter(|jobs| *jobs > 0),
        cache_limit: args.cache.limit(store)?,
        allow: Entitlements {
            // Who gives every step the host's network gives it to those that ask, too.
            host_network: args.network == "host" || entitlements.host_network,
            ..entitlements
        },
        exchange: args.cache.exchange.open(&args.access.options()?, inline_cache)?,
        uncached_stages: args.cache.uncached_stages(),
        cache_ttl: args.cache.exchange.ttl(),
        agents: args.steps.agents()?,
        edits: args.config.edits()?,
        epoch,
        policy: args.kaniko.policy()?,
        ..Request::new(located.dockerfile)
    };
    Ok((request, outputs))
}

/// Shows why the build failed, with the place in the Dockerfile.
fn fail(error: &Error, request: &Request) -> anyhow::Result<ExitCode> {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let diagnostic = match error {
        Error::Dockerfile(diagnostic) => (**diagnostic).clone(),
        Error::Step { name, span, reason, tail, hints, .. } => {
            if !tail.is_empty() {
                let tail = String::from_utf8_lossy(tail);
                tell(&format!("------\n > {name}:\n{}\n------\n", tail.trim_end_matches('\n')));
            }
            if let Some(log) = &hints.log {
                tell(&format!("All of its output: {}\n", log.display()));
            }
            if hints.kept {
                tell("Look around where it failed: kiln debug\n");
            }
            let message = format!("{name} did not complete successfully: {reason}");
            let diagnostic = kiln_grammar::Diagnostic::error(message, *span).with_label(reason.clone());
            match &hints.help {
                Some(help) => diagnostic.with_help(help.clone()),
                None => diagnostic,
            }
        }
        _ => return Err(anyhow::anyhow!(kiln_build::error::chain(error))),
    };
    tell(&format!("{}\n", diagnostic.render(&request.dockerfile_name, &request.dockerfile, color).trim_end()));
    Err(Shown(1).into())
}
