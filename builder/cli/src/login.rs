//! `kiln login` and `kiln logout`: who one is to a registry.

use std::io::{self, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln_image::credentials::{self, Credential, Kept};
use kiln_image::reference::DEFAULT_REGISTRY;
use kiln_image::registry::{self, Options};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

use crate::failure::Shown;
use crate::pull::{TlsArgs, runtime};

/// Log in to a registry
///
/// The credential is tried, and then kept where docker keeps it: in the helper that `~/.docker/config.json` names, or
/// in that file.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The registry; docker.io if none is given
    server: Option<String>,
    /// Who
    #[arg(short, long)]
    username: Option<String>,
    /// The password; others on this machine can see it there: prefer --password-stdin
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from the standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Keep the credential in this file [default: $REGISTRY_AUTH_FILE, or docker's config.json]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Only tell who is logged in
    #[arg(long)]
    get_login: bool,
    /// Certificates for the registry [default: its directory in certs.d]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Log out of a registry
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The registry; docker.io if none is given
    server: Option<String>,
    /// Log out of all registries
    #[arg(short, long, conflicts_with = "server")]
    all: bool,
    /// The credential file [default: $REGISTRY_AUTH_FILE, or docker's config.json]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;
/// Bytes of a password, at most.
const PASSWORD_LIMIT: u64 = 64 << 10;

/// Logs in.
///
/// # Errors
/// The registry refuses the credential, or it cannot be kept.
pub(crate) fn run(args: &LoginArgs) -> Result<()> {
    let registry = server_name(args.server.as_deref());
    let file = args.authfile.as_deref();
    if args.get_login {
        let known = credentials::find_in(file, &registry)?;
        let Some(Credential::Password { username, .. }) = known else { bail!("not logged into {registry}") };
        writeln!(io::stdout(), "{username}")?;
        return Ok(());
    }
    if args.password.is_some() {
        writeln!(io::stderr(), "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")?;
    }
    let asked = args.username.is_some() || args.password.is_some();
    let known = if asked { None } else { credentials::find_in(file, &registry)? };
    let mut out = io::stdout();
    let runtime = runtime()?;
    let options = Options { certificates: args.cert_dir.clone(), ..args.tls.options() };
    if let Some(known) = known {
        writeln!(out, "Authenticating with existing credentials...")?;
        if runtime.block_on(registry::check_credential(&registry, &known, &options)).is_ok() {
            writeln!(out, "Login Succeeded")?;
            return Ok(());
        }
        writeln!(out, "Login did not succeed")?;
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ", false)?,
    };
    let password = if args.password_stdin {
        let mut password = String::new();
        io::stdin().lock().take(PASSWORD_LIMIT).read_to_string(&mut password).context("read the password")?;
        password.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        match &args.password {
            Some(password) => password.clone(),
            None => ask("Password: ", true)?,
        }
    };
    if username.is_empty() || password.is_empty() {
        bail!("a user name and a password are needed");
    }
    let credential = Credential::Password { username, password };
    runtime
        .block_on(registry::check_credential(&registry, &credential, &options))
        .with_context(|| format!("log in to {registry}"))?;
    if let Kept::File(path) = credentials::save(file, &registry, &credential)? {
        let warning = format!("WARNING! Your password will be stored unencrypted in {}.", path.display());
        writeln!(io::stderr(), "{warning}\nConfigure a credential helper (\"credsStore\") to remove this warning.")?;
    }
    writeln!(out, "Login Succeeded")?;
    Ok(())
}

/// Logs out.
///
/// # Errors
/// The credential file or the helper does not work.
pub(crate) fn run_logout(args: &LogoutArgs) -> Result<()> {
    let file = args.authfile.as_deref();
    let mut out = io::stdout();
    if args.all {
        for registry in credentials::kept(file)? {
            credentials::remove(file, &registry)?;
        }
        writeln!(out, "Removed login credentials for all registries")?;
        return Ok(());
    }
    let registry = server_name(args.server.as_deref());
    if credentials::remove(file, &registry)? {
        writeln!(out, "Removing login credentials for {registry}")?;
    } else {
        writeln!(out, "Not logged in to {registry}")?;
    }
    // podman's logins are read, too, but are podman's.
    for other in if file.is_none() { credentials::holders(&registry)? } else { Vec::new() } {
        writeln!(io::stderr(), "{} has a credential for {registry}: see --authfile", other.display())?;
    }
    Ok(())
}

/// A registry as references name it: `https://` and a path are taken off.
fn server_name(server: Option<&str>) -> String {
    let server = server.unwrap_or(DEFAULT_REGISTRY);
    let server = server.strip_prefix("https://").or(server.strip_prefix("http://")).unwrap_or(server);
    let host = server.split('/').next().unwrap_or(server);
    match host {
        "index.docker.io" | "registry-1.docker.io" | "" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_owned(),
    }
}

/// Asks on the terminal; `secret` answers are not shown.
pub(crate) fn ask(question: &str, secret: bool) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        bail!("there is no terminal to ask on: use --username and --password-stdin");
    }
    let mut err = io::stderr();
    let before = if secret { Some(tcgetattr(&stdin)?) } else { None };
    if let Some(before) = &before {
        // Before the question is seen, so that nothing is shown of an early answer. Ctrl-C ends the line instead of
        // us, so that the terminal does not stay silent.
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    }
    write!(err, "{question}")?;
    err.flush()?;
    let mut answer = Vec::new();
    let line = stdin.lock().take(PASSWORD_LIMIT);
    let read = line.bytes().try_for_each(|byte| match byte {
        Ok(b'\n') => ControlFlow::Break(Ok(())),
        Ok(byte) => {
            answer.push(byte);
            if secret && byte == INTERRUPT { ControlFlow::Break(Ok(())) } else { ControlFlow::Continue(()) }
        }
        Err(error) => ControlFlow::Break(Err(error)),
    });
    if let Some(before) = &before {
        tcsetattr(&stdin, OptionalActions::Flush, before)?;
        writeln!(err)?;
    }
    if let ControlFlow::Break(Err(error)) = read {
        return Err(error).context("read the answer");
    }
    if answer.last() == Some(&INTERRUPT) {
        return Err(Shown(128 + 2).into());
    }
    let answer = String::from_utf8(answer).context("read the answer")?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::server_name;

    #[test]
    fn servers_are_named_as_in_references() {
        for (given, name) in [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("localhost:5000"), "localhost:5000"),
            (Some("https://quay.io/"), "quay.io"),
        ] {
            assert_eq!(server_name(given), name);
        }
    }
}
