//! The `kiln` command: arguments in, messages and exit codes out.

mod age;
mod build;
mod cache;
mod config;
mod container;
mod context;
mod copy;
mod create;
mod debug;
mod exec;
mod export;
mod failure;
mod history;
mod image;
mod images;
mod import;
mod info;
mod inspect;
mod lifecycle;
mod load;
mod login;
mod logs;
mod manifest;
mod network;
mod progress;
mod ps;
mod pull;
mod push;
mod registry;
mod registry_access;
mod remote;
mod resources;
mod rmi;
mod run;
mod save;
mod search;
mod size;
mod sync;
mod system;
mod table;
mod tag;
mod tags;
mod template;
mod transfer;
mod version;
mod volume;
mod wildcard;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kiln_sandbox::user_namespace::{self, Identity};
use kiln_store::Store;
use kiln_store::store::Privilege;

/// Builds OCI images from Dockerfiles, runs them, and pushes them to a registry that it also serves.
#[derive(Parser)]
#[command(name = "kiln", version, about, max_term_width = 110, args_override_self = true)]
struct Arguments {
    /// Where images, layers and the build cache are kept [default: /var/lib/kiln, or ~/.local/share/kiln].
    #[arg(long, global = true, env = "KILN_ROOT", value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[command(defer = true)]
enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Open a shell in the root file system of the RUN that failed last, as its command left it
    Debug(debug::DebugArgs),
    /// Show what the build cache takes
    Du(cache::du::DuArgs),
    /// Remove build cache
    Prune(cache::prune::PruneArgs),
    /// Look at build contexts: ls
    Context(context::ContextArgs),
    /// Commands about the build cache: du, prune
    #[command(visible_alias = "buildx")]
    Builder(cache::BuilderArgs),
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
    /// Show what a container changed in its files
    Diff(container::DiffArgs),
    /// Make an image of a container
    Commit(container::CommitArgs),
    /// Copy files between a container and the host
    Cp(container::CopyArgs),
    /// Show the processes of a container
    Top(container::TopArgs),
    /// Write the files of a container to a tar archive
    Export(export::ExportArgs),
    /// Everything about containers: run, ls, inspect, prune, …
    Container(container::ContainerArgs),
    /// Everything about volumes: create, ls, inspect, rm, prune
    Volume(volume::VolumeArgs),
    /// About all of it: df, prune, info
    System(system::SystemArgs),
    /// Stop all processes of containers where they are
    Pause(resources::ContainerNames),
    /// Let them go on
    Unpause(resources::ContainerNames),
    /// Show which ports of the host lead to a container
    Port(resources::PortArgs),
    /// Show what containers use
    Stats(resources::StatsArgs),
    /// Everything about networks: create, ls, rm, inspect, connect, …
    Network(network::NetworkArgs),
    /// List containers
    Ps(ps::PsArgs),
    /// Remove containers
    Rm(lifecycle::RmArgs),
    /// List images
    Images(images::ImagesArgs),
    /// Everything about images: ls, rm, inspect, history, …
    Image(image::ImageArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Remove images, or names of images
    Rmi(rmi::RmiArgs),
    /// Show everything about containers, images and volumes
    Inspect(inspect::InspectArgs),
    /// Show how an image was made
    History(history::HistoryArgs),
    /// Make an image from a root file system tar
    Import(import::ImportArgs),
    /// Write images to an archive that docker and OCI tools read
    Save(save::SaveArgs),
    /// Read images from an archive or an OCI layout
    Load(load::LoadArgs),
    /// Fetch an image from a registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(push::PushArgs),
    /// Copy an image between registries, layouts, archives and the store
    Copy(Box<copy::CopyArgs>),
    /// Mirror repositories: every tag of them, from a registry, a directory or a list
    Sync(Box<sync::SyncArgs>),
    /// Look at images, and change them, where they are: digest, blob, mutate, rebase, attach, …
    Remote(Box<remote::RemoteArgs>),
    /// List the tags of a repository at its registry
    Tags(tags::TagsArgs),
    /// Search a registry for images
    Search(search::SearchArgs),
    /// Make, look at and push indexes: one name for images of several platforms
    #[command(visible_alias = "index")]
    Manifest(manifest::ManifestArgs),
    /// Remember a user name and password for a registry
    Login(login::LoginArgs),
    /// Forget them
    Logout(login::LogoutArgs),
    /// Serve a registry
    Registry(registry::RegistryArguments),
    /// Show what this machine lets kiln do, and what to install for the rest
    Info(info::InfoArgs),
    /// Show which kiln this is
    Version(version::VersionArgs),
}

fn main() -> ExitCode {
    kiln_container::init();
    kiln_sandbox::init();
    start_log();
    let arguments = match command_line() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match run(arguments) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

/// Reads the command line. Only the command that is meant makes its arguments: those of all take longer than a whole
/// cached build. A command whose arguments are made late forgets what the list of commands says of it, so that help
/// is shown by a parser that has everything.
fn command_line() -> Result<Arguments, clap::Error> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
    Arguments::try_parse().or_else(|error| match error.kind() {
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand => {
            Arguments::from_arg_matches(&whole_parser().try_get_matches()?)
        }
        _ => Err(error),
    })
}

fn whole_parser() -> clap::Command {
    let mut parser = Arguments::command();
    let about = |command: &clap::Command| (command.get_about().cloned(), command.get_long_about().cloned());
    let mut abouts = parser.get_subcommands().map(about).collect::<Vec<_>>().into_iter();
    parser.build();
    parser.mut_subcommands(|command| match abouts.next() {
        Some((short, long)) => command.about(Resettable::from(short)).long_about(Resettable::from(long)),
        None => command,
    })
}

/// Shows help or what is wrong with the command line. As docker does, kiln says 125 of flags, and 1 of arguments or
/// commands that are missing or unknown.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    // Nobody is left to be told when the stream is gone.
    let _ = error.print();
    match error.kind() {
        _ if !error.use_stderr() => ExitCode::SUCCESS,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::from(1),
        _ => ExitCode::from(125),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { root, command } = arguments;
    let makes_files = matches!(command, Command::Build(_) | Command::Import(_) | Command::Load(_) | Command::Pull(_));
    let connects = match &command {
        Command::Run(args) => args.uses_bridges(),
        Command::Start(_) | Command::Restart(_) => true,
        Command::Container(args) => args.connects(),
        Command::System(args) => args.starts(),
        Command::Network(args) => network::touches_interfaces(args),
        _ => false,
    };
    let open = || open_store(root.clone(), makes_files, connects);
    match command {
        Command::Info(args) => return info::run(&args),
        Command::Version(args) => version::run(&args)?,
        Command::Build(args) => return build::run(&args, &open()?),
        Command::Debug(args) => return debug::run(&args, &open()?),
        Command::Run(args) => return Ok(run::run(&args, open().map_err(|error| failure::with_status(error, 125))?)),
        Command::Create(args) => return create::run(&args, &open()?),
        Command::Start(args) => return lifecycle::start(&args, &open()?),
        Command::Stop(args) => lifecycle::stop(&args, &open()?)?,
        Command::Restart(args) => lifecycle::restart(&args, &open()?)?,
        Command::Kill(args) => lifecycle::kill(&args, &open()?)?,
        Command::Wait(args) => lifecycle::wait(&args, &open()?)?,
        Command::Exec(args) => return Ok(exec::run(&args, open()?)),
        Command::Attach(args) => return exec::attach(&args, open()?),
        Command::Logs(args) => logs::run(&args, open()?)?,
        Command::Rename(args) => lifecycle::rename(&args, &open()?)?,
        Command::Update(args) => lifecycle::update(&args, &open()?)?,
        Command::Diff(args) => container::diff(&args, &open()?)?,
        Command::Commit(args) => container::commit(&args, &open()?)?,
        Command::Cp(args) => container::copy(&args, &open()?)?,
        Command::Top(args) => container::top(&args, &open()?)?,
        Command::Export(args) => export::run(&args, &open()?)?,
        Command::Container(args) => return container::run(args, open()?),
        Command::Volume(args) => volume::run(&args, &open()?)?,
        Command::System(args) => system::run(&args, &open()?)?,
        Command::Pause(args) => resources::pause(&args, &open()?, true)?,
        Command::Unpause(args) => resources::pause(&args, &open()?, false)?,
        Command::Port(args) => resources::port(&args, &open()?)?,
        Command::Stats(args) => resources::stats(&args, &open()?)?,
        Command::Network(args) => network::run(&args, &open()?)?,
        Command::Context(args) => context::run(&args)?,
        Command::Du(args) => cache::du::run(&args, &open()?)?,
        Command::Prune(args) => cache::prune::run(&args, &open()?)?,
        Command::Builder(args) => cache::run(&args, &open()?)?,
        Command::Ps(args) => ps::run(&args, &open()?)?,
        Command::Rm(args) => lifecycle::remove(&args, &open()?)?,
        Command::Image(args) => image::run(&args, &open()?)?,
        Command::Images(args) => images::run(&args, &open()?)?,
        Command::Tag(args) => tag::run(&args, &open()?)?,
        Command::Rmi(args) => rmi::run(&args, &open()?)?,
        Command::Inspect(args) => inspect::run_any(&args, &open()?)?,
        Command::History(args) => history::run(&args, &open()?)?,
        Command::Import(args) => import::run(&args, &open()?)?,
        Command::Save(args) => save::run(&args, &open()?)?,
        Command::Load(args) => load::run(&args, &open()?)?,
        Command::Pull(args) => pull::run(&args, &open()?)?,
        Command::Push(args) => push::run(&args, &open()?)?,
        Command::Search(args) => search::run(&args)?,
        Command::Copy(args) => copy::run(&args, &store_root(root.clone())?, open)?,
        Command::Sync(args) => sync::run(&args, &store_root(root.clone())?)?,
        Command::Remote(args) => remote::run(&args, &store_root(root.clone())?, open)?,
        Command::Tags(args) => tags::run(&args)?,
        Command::Manifest(args) => manifest::run(&args, &open()?)?,
        Command::Login(args) => login::run(&args)?,
        Command::Logout(args) => login::run_logout(&args)?,
        Command::Registry(args) => serve(args, root)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(args: registry::RegistryArguments, root: Option<PathBuf>) -> anyhow::Result<()> {
    let root = store_root(root)?;
    registry::run(args, &root)
}

/// What a user without subordinate ids is told whenever files are made.
const SINGLE: &str = "kiln: you have no subordinate ids (/etc/subuid, /etc/subgid): every file of an image belongs to one \
user, and steps cannot become another. `kiln info` says how to get some.\n";

/// Becomes root of a user namespace where that is needed, and opens the store. What `connects` containers does so in
/// one that they all share.
fn open_store(root: Option<PathBuf>, makes_files: bool, connects: bool) -> anyhow::Result<Store> {
    use anyhow::Context;
    let root = store_root(root)?;
    let identity = if connects {
        user_namespace::enter_shared(&root.join("networks"))
    } else {
        user_namespace::enter_where_shared(&root.join("networks"))
    };
    let identity = identity.context("become root of a user namespace")?;
    if identity == Identity::Single && makes_files {
        failure::tell(SINGLE);
    }
    let privilege = match identity {
        Identity::Root => Privilege::Root,
        Identity::Mapped => Privilege::Mapped,
        Identity::Single => Privilege::Single,
    };
    Ok(Store::open(&root, privilege)?)
}

fn store_root(root: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(root) = root {
        return Ok(std::path::absolute(root)?);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/kiln"));
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    match data.or_else(home) {
        Some(data) => Ok(data.join("kiln")),
        None => anyhow::bail!("neither HOME nor XDG_DATA_HOME is set: say with --root where the store is"),
    }
}

/// `KILN_LOG=debug` shows what happens inside.
fn start_log() {
    if let Ok(filter) = std::env::var("KILN_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_of_itself_what_the_list_says() {
        let list = Arguments::command();
        let whole = whole_parser();
        for command in list.get_subcommands() {
            let itself = whole.find_subcommand(command.get_name()).unwrap();
            assert!(command.get_about().is_some(), "{}", command.get_name());
            assert_eq!(command.get_about(), itself.get_about(), "{}", command.get_name());
            assert_eq!(command.get_long_about(), itself.get_long_about(), "{}", command.get_name());
        }
    }

    #[test]
    fn the_parser_is_sound() {
        Arguments::command().debug_assert();
    }
}
