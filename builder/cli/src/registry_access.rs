//! The flags that say how a registry is reached, and by whom: podman's names for them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use kiln_image::credentials::Credential;
use kiln_image::registry::Options;

/// A credential file without credentials.
const NO_FILE: &str = "/dev/null";

/// How much a registry is trusted, and who we are to it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct AccessArgs {
    /// Require HTTPS with a valid certificate; `--tls-verify=false` takes any, and plain HTTP (registries on loopback
    /// always may)
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    tls_verify: bool,
    /// Certificates for the registry: *.crt to trust, *.cert and *.key to show [default: its directory in certs.d]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Credential file, instead of docker's and podman's
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Credential for this once; others on this machine can see it there
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
    #[command(flatten)]
    patience: RetryArgs,
}

/// How often what fails is tried.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RetryArgs {
    /// Try a request that failed again so often [default: 2]
    #[arg(long, value_name = "N", visible_alias = "retry-times", aliases = ["push-retry", "image-download-retry"])]
    retry: Option<u32>,
    /// Pause before the second try; it doubles [default: 500ms]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    retry_delay: Option<Duration>,
}

impl RetryArgs {
    pub(crate) fn applied(&self, options: Options) -> Options {
        Options { retries: self.retry, retry_delay: self.retry_delay, ..options }
    }
}

impl AccessArgs {
    pub(crate) fn options(&self) -> Result<Options> {
        let options = options(self.tls_verify, self.cert_dir.clone(), self.authfile.clone(), self.creds.as_deref())?;
        Ok(self.patience.applied(options))
    }
}

/// The options of one registry.
///
/// # Errors
/// A credential that is not `USER:PASSWORD`.
pub(crate) fn options(
    tls_verify: bool,
    certificates: Option<PathBuf>,
    authentication_file: Option<PathBuf>,
    credential: Option<&str>,
) -> Result<Options> {
    let credential = credential.map(parse_credential).transpose()?;
    Ok(Options { insecure: !tls_verify, credential, authentication_file, certificates, ..Options::default() })
}

fn parse_credential(text: &str) -> Result<Credential> {
    // The text itself is a secret.
    let (username, password) = text.split_once(':').context("a credential is USER:PASSWORD")?;
    Ok(Credential::Password { username: username.to_owned(), password: password.to_owned() })
}

/// How the source is reached.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// Credential for the source
    #[arg(long, value_name = "USER:PASSWORD")]
    src_creds: Option<String>,
    /// Tell the source nobody's name, whatever the credential files have
    #[arg(long, conflicts_with = "src_creds")]
    src_no_creds: bool,
    /// Credential file for the source
    #[arg(long, value_name = "FILE")]
    src_authfile: Option<PathBuf>,
    /// As --tls-verify of `pull`, for the source
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    src_tls_verify: bool,
    /// Certificates for the source
    #[arg(long, value_name = "DIR")]
    src_cert_dir: Option<PathBuf>,
}

impl SourceArgs {
    /// With a credential file instead of docker's and podman's, if there is one.
    pub(crate) fn options(&self, authfile: Option<PathBuf>) -> Result<Options> {
        let authfile = if self.src_no_creds { Some(NO_FILE.into()) } else { self.src_authfile.clone().or(authfile) };
        options(self.src_tls_verify, self.src_cert_dir.clone(), authfile, self.src_creds.as_deref())
    }
}

/// How the destination is reached.
#[derive(Debug, clap::Args)]
pub(crate) struct DestinationArgs {
    /// Credential for the destination
    #[arg(long, value_name = "USER:PASSWORD")]
    dest_creds: Option<String>,
    /// Tell the destination nobody's name, whatever the credential files have
    #[arg(long, conflicts_with = "dest_creds")]
    dest_no_creds: bool,
    /// Credential file for the destination
    #[arg(long, value_name = "FILE")]
    dest_authfile: Option<PathBuf>,
    /// As --tls-verify of `push`, for the destination
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, require_equals = true, num_args = 0..=1, default_missing_value = "true")]
    dest_tls_verify: bool,
    /// Certificates for the destination
    #[arg(long, value_name = "DIR")]
    dest_cert_dir: Option<PathBuf>,
}

impl DestinationArgs {
    /// With a credential file instead of docker's and podman's, if there is one.
    pub(crate) fn options(&self, authfile: Option<PathBuf>) -> Result<Options> {
        let authfile = if self.dest_no_creds { Some(NO_FILE.into()) } else { self.dest_authfile.clone().or(authfile) };
        options(self.dest_tls_verify, self.dest_cert_dir.clone(), authfile, self.dest_creds.as_deref())
    }
}

/// `2s`, `1m30s`, `500ms`, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 2s, 1m30s or 500ms");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn durations() {
        for (text, milliseconds) in [("2", 2_000), ("2s", 2_000), ("1m30s", 90_000), ("500ms", 500)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "-2s", "soon", "2x"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
