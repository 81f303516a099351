//! `kiln container …`: the commands about containers under one roof; and `diff`, `commit`, `cp` and `top`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use kiln_container::{CommitOptions, CopyOptions, Endpoint, find};
use kiln_image::Reference;
use kiln_store::Store;

use crate::failure::{print, tell};
use crate::run::{self};
use crate::{create, exec, export, inspect, lifecycle, logs, ps, resources, size, system};

/// Everything about containers
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    #[command(subcommand)]
    command: ContainerCommand,
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// Make a container without starting it
    Create(Box<create::CreateArgs>),
    /// Start containers
    Start(lifecycle::StartArgs),
    /// End containers
    Stop(lifecycle::StopArgs),
    /// End containers and start them again
    Restart(lifecycle::StopArgs),
    /// Send containers a signal
    Kill(lifecycle::KillArgs),
    /// Wait until containers end, and print their exit statuses
    Wait(lifecycle::WaitArgs),
    /// Execute a command in a container that runs
    Exec(exec::ExecArgs),
    /// Attach to a container that runs
    Attach(exec::AttachArgs),
    /// Show what a container wrote
    Logs(logs::LogsArgs),
    /// Give a container another name
    Rename(lifecycle::RenameArgs),
    /// Change the limits and the restart policy of containers
    Update(lifecycle::UpdateArgs),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::PsArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(lifecycle::RmArgs),
    /// Show everything about containers
    Inspect(inspect::InspectArgs),
    /// Show what a container changed in its files
    Diff(DiffArgs),
    /// Make an image of a container
    Commit(CommitArgs),
    /// Copy files between a container and the host
    Cp(CopyArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// Write the files of a container to a tar archive
    Export(export::ExportArgs),
    /// Stop all processes of containers where they are
    Pause(resources::ContainerNames),
    /// Let them go on
    Unpause(resources::ContainerNames),
    /// Show which ports of the host lead to a container
    Port(resources::PortArgs),
    /// Show what containers use
    Stats(resources::StatsArgs),
    /// Remove all containers that do not run
    Prune(system::PruneArgs),
}

impl ContainerArgs {
    /// Whether containers may be connected to a bridge.
    pub(crate) fn connects(&self) -> bool {
        match &self.command {
            ContainerCommand::Run(args) => args.uses_bridges(),
            ContainerCommand::Start(_) | ContainerCommand::Restart(_) => true,
            _ => false,
        }
    }
}

/// Does what the command of the same name does.
///
/// # Errors
/// That command's.
pub(crate) fn run(args: ContainerArgs, store: Store) -> Result<ExitCode> {
    match args.command {
        ContainerCommand::Run(args) => return Ok(run::run(&args, store)),
        ContainerCommand::Create(args) => return create::run(&args, &store),
        ContainerCommand::Start(args) => return lifecycle::start(&args, &store),
        ContainerCommand::Stop(args) => lifecycle::stop(&args, &store)?,
        ContainerCommand::Restart(args) => lifecycle::restart(&args, &store)?,
        ContainerCommand::Kill(args) => lifecycle::kill(&args, &store)?,
        ContainerCommand::Wait(args) => lifecycle::wait(&args, &store)?,
        ContainerCommand::Exec(args) => return Ok(exec::run(&args, store)),
        ContainerCommand::Attach(args) => return exec::attach(&args, store),
        ContainerCommand::Logs(args) => logs::run(&args, store)?,
        ContainerCommand::Rename(args) => lifecycle::rename(&args, &store)?,
        ContainerCommand::Update(args) => lifecycle::update(&args, &store)?,
        ContainerCommand::Ls(args) => ps::run(&args, &store)?,
        ContainerCommand::Rm(args) => lifecycle::remove(&args, &store)?,
        ContainerCommand::Inspect(args) => inspect::run_containers(&args, &store)?,
        ContainerCommand::Diff(args) => diff(&args, &store)?,
        ContainerCommand::Commit(args) => commit(&args, &store)?,
        ContainerCommand::Cp(args) => copy(&args, &store)?,
        ContainerCommand::Top(args) => top(&args, &store)?,
        ContainerCommand::Export(args) => export::run(&args, &store)?,
        ContainerCommand::Pause(args) => resources::pause(&args, &store, true)?,
        ContainerCommand::Unpause(args) => resources::pause(&args, &store, false)?,
        ContainerCommand::Port(args) => resources::port(&args, &store)?,
        ContainerCommand::Stats(args) => resources::stats(&args, &store)?,
        ContainerCommand::Prune(args) => system::prune_containers(&args, &store)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// Name, id, or beginning of an id
    container: String,
    /// `json`
    #[arg(long)]
    format: Option<String>,
}

pub(crate) fn diff(args: &DiffArgs, store: &Store) -> Result<()> {
    let changes = kiln_container::diff(store, &find(store, &args.container)?)?;
    if args.format.as_deref() == Some("json") {
        let list = changes.iter().map(|change| serde_json::json!({"Path": change.path, "Kind": change.kind.number()}));
        return print(&(serde_json::to_string(&list.collect::<Vec<_>>())? + "\n"));
    }
    let line = |change: &kiln_container::Change| format!("{} {}\n", change.kind.letter(), change.path.display());
    print(&changes.iter().map(line).collect::<String>())
}

/// Arguments of `commit`.
#[derive(Debug, clap::Args)]
pub(crate) struct CommitArgs {
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,
    /// A message for the history
    #[arg(short, long, default_value = "")]
    message: String,
    /// A Dockerfile instruction that changes the configuration
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Hold the container's processes meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    pause: bool,
    /// Do not hold them
    #[arg(long, conflicts_with = "pause")]
    no_pause: bool,
    /// Name, id, or beginning of an id
    container: String,
    /// What the image is called
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub(crate) fn commit(args: &CommitArgs, store: &Store) -> Result<()> {
    let container = find(store, &args.container)?;
    let config = kiln_container::committed_config(store, &container)?;
    let options = CommitOptions {
        author: args.author.clone(),
        message: args.message.clone(),
        config: Some(crate::import::change(config, &args.change)?),
        name: args.name.as_deref().map(Reference::parse).transpose()?,
        pause: args.pause && !args.no_pause,
    };
    let image = kiln_container::commit(store, &container, &options)?;
    print(&format!("{}\n", image.id))
}

/// Arguments of `cp`.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// A symlink that is named means what it leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path, or `-` for a tar archive
    #[arg(allow_hyphen_values = true)]
    source: String,
    /// CONTAINER:PATH, a path, or `-` for a tar archive
    #[arg(allow_hyphen_values = true)]
    target: String,
}

pub(crate) fn copy(args: &CopyArgs, store: &Store) -> Result<()> {
    let endpoint = |text: &str| -> Result<Endpoint> {
        // What begins like a path is one, with whatever colons.
        match text.split_once(':').filter(|(name, _)| !name.is_empty() && !name.starts_with(['/', '.'])) {
            _ if text == "-" => Ok(Endpoint::Stream),
            Some((name, path)) => Ok(Endpoint::Container(Box::new(find(store, name)?), path.to_owned())),
            None => Ok(Endpoint::Host(text.to_owned())),
        }
    };
    let (source, target) = (endpoint(&args.source)?, endpoint(&args.target)?);
    let options = CopyOptions { archive: args.archive, follow: args.follow_link };
    let total = kiln_container::copy(store, &source, &target, options)?;
    if !args.quiet && !matches!(target, Endpoint::Stream) {
        tell(&format!("Successfully copied {} to {}\n", size::human(total), args.target));
    }
    Ok(())
}

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Name, id, or beginning of an id
    container: String,
    /// Options of ps: only the default columns are shown
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTIONS")]
    options: Vec<String>,
}

pub(crate) fn top(args: &TopArgs, store: &Store) -> Result<()> {
    let container = find(store, &args.container)?;
    let processes = kiln_container::processes(&container)?;
    let mut rows = vec![["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned)];
    for process in processes {
        let started = jiff::Timestamp::from_second(process.started).context("a start time")?;
        let started = started.to_zoned(jiff::tz::TimeZone::UTC);
        let name = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(process.uid)).then(|| name.to_owned())
        });
        rows.push([
            name.unwrap_or_else(|| process.uid.to_string()),
            process.pid.to_string(),
            process.parent.to_string(),
            "0".to_owned(),
            started.strftime("%H:%M").to_string(),
            if process.terminal == 0 { "?".to_owned() } else { format!("pts/{}", process.terminal & 0xff) },
            format!("{:02}:{:02}:{:02}", process.time / 3600, process.time / 60 % 60, process.time % 60),
            process.command,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(15) + 5;
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = Vec::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "{cell:<width$}")?;
        }
        writeln!(text, "{}", row[7])?;
    }
    print(&String::from_utf8_lossy(&text))
}

/// Asks before something that cannot be undone.
pub(crate) fn confirm(force: bool, warning: &str) -> Result<bool> {
    if force {
        return Ok(true);
    }
    print(&format!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    if std::io::stdin().read_line(&mut answer).is_err() {
        bail!("no answer: say -f to go on without asking");
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
