//! `kiln version`.

use anyhow::Result;
use serde_json::json;

use crate::failure::print;
use crate::template::Template;

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// `json`, or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// Shows the version, as docker's client does: there is no server beside it, so that both are this one.
///
/// # Errors
/// The template is wrong.
pub(crate) fn run(args: &VersionArgs) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let described = json!({"Version": version, "Os": std::env::consts::OS, "Arch": architecture()});
    let both = json!({"Client": described, "Server": described});
    match args.format.as_deref() {
        Some("json") => print(&format!("{both}\n")),
        Some(format) => print(&(Template::parse(format)?.render(&both)? + "\n")),
        None => print(&format!(
            "Client:\n Version:           {version}\n OS/Arch:           {}/{}\n",
            std::env::consts::OS,
            architecture()
        )),
    }
}

/// In the words of images.
fn architecture() -> String {
    kiln_image::Platform::host().architecture
}
