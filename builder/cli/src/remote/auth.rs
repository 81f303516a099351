//! Credentials and tokens, for programs that speak to registries themselves.

use anyhow::{Context, Result};
use clap::Subcommand;
use kiln_image::credentials::{self, Credential};
use kiln_image::{Reference, registry};
use serde_json::json;

use crate::failure::print;
use crate::pull::runtime;
use crate::registry_access::AccessArgs;

/// Print credentials and tokens: get, token
#[derive(Debug, clap::Args)]
pub(super) struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Print the credential for a registry, as a credential helper does
    Get(GetArgs),
    /// Print a registry's token for a repository
    Token(Box<TokenArgs>),
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    /// The registry
    registry: String,
    /// Credential file, instead of docker's and podman's
    #[arg(long, value_name = "FILE")]
    authfile: Option<std::path::PathBuf>,
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    /// The repository
    repository: Reference,
    /// One that is good for pushing, too
    #[arg(long)]
    push: bool,
    /// Print it as the header of a request
    #[arg(short = 'H', long)]
    header: bool,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) fn run(args: &AuthArgs) -> Result<()> {
    match &args.command {
        AuthCommand::Get(args) => {
            let known = credentials::find_in(args.authfile.as_deref(), &args.registry)?;
            let (name, secret) = match known.with_context(|| format!("not logged into {}", args.registry))? {
                Credential::Password { username, password } => (username, password),
                // What docker calls such a user.
                Credential::IdentityToken(token) => ("<token>".to_owned(), token),
            };
            print(&format!("{}\n", json!({"ServerURL": args.registry, "Username": name, "Secret": secret})))
        }
        AuthCommand::Token(args) => {
            let options = args.access.options()?;
            let found = runtime()?.block_on(registry::token(&args.repository, args.push, &options));
            let token = found.with_context(|| format!("get a token for {}", args.repository.familiar_name()))?;
            let token = token.with_context(|| format!("{} asks for no token", args.repository.registry()))?;
            match args.header {
                true => print(&format!("Authorization: Bearer {token}\n")),
                false => print(&format!("{}\n", json!({ "token": token }))),
            }
        }
    }
}
