//! `--call` and `--check`: what a Dockerfile says, without building it.

mod check;
mod json;
mod outline;
mod sarif;

use std::process::ExitCode;

use anyhow::bail;
use kiln_build::Request;
use kiln_store::Store;

/// The flags.
#[derive(clap::Args)]
pub(crate) struct CallArgs {
    /// What to do: build, check, outline or targets; `check,format=json`, `check,format=sarif`
    #[arg(long, value_name = "METHOD", default_value = "build")]
    call: String,
    /// Check the Dockerfile and build nothing: --call=check
    #[arg(long)]
    check: bool,
}

/// What is asked for instead of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    method: Method,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Sarif,
}

impl CallArgs {
    /// `None` is a build.
    pub(super) fn parse(&self) -> anyhow::Result<Option<Call>> {
        let mut parts = self.call.split(',');
        let method = match parts.next().unwrap_or_default() {
            "build" | "" if self.check => Method::Check,
            "build" | "" => return Ok(None),
            "check" | "lint" => Method::Check,
            _ if self.check => bail!("--check and --call={} exclude each other", self.call),
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => bail!("unknown call {other:?}; expected build, check, outline or targets"),
        };
        let mut format = Format::Text;
        for option in parts {
            format = match option.split_once('=') {
                Some(("format", "text")) => Format::Text,
                Some(("format", "json")) => Format::Json,
                Some(("format", "sarif")) if method == Method::Check => Format::Sarif,
                _ => bail!(
                    "unknown option {option:?} of --call; expected format=text, format=json or, of a check, format=sarif"
                ),
            };
        }
        Ok(Some(Call { method, format }))
    }
}

/// Answers; a check that found something has the exit code 1, as docker's.
pub(super) fn run(call: Call, store: &Store, request: &Request) -> anyhow::Result<ExitCode> {
    match call.method {
        Method::Check => check::run(call.format, store, request),
        Method::Outline => outline::outline(call.format, request),
        Method::Targets => outline::targets(call.format, request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(call: &str, check: bool) -> Option<Call> {
        CallArgs { call: call.to_owned(), check }.parse().unwrap()
    }

    #[test]
    fn calls() {
        let of = |method, format| Some(Call { method, format });
        assert_eq!(parse("build", false), None);
        assert_eq!(parse("build", true), of(Method::Check, Format::Text));
        assert_eq!(parse("check,format=sarif", false), of(Method::Check, Format::Sarif));
        assert_eq!(parse("targets,format=json", false), of(Method::Targets, Format::Json));
        for (call, check) in [("what", false), ("targets", true), ("outline,format=sarif", false), ("check,x", false)] {
            assert!(CallArgs { call: call.to_owned(), check }.parse().is_err(), "{call}");
        }
    }
}
