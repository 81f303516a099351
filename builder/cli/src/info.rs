//! `kiln info`.

use std::process::ExitCode;

use crate::failure::print;

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    /// `json` prints the findings as JSON
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let findings = kiln_sandbox::host::probe();
    if args.format.as_deref().is_some_and(|format| format == "json" || format.contains("json .")) {
        print(&(serde_json::to_string_pretty(&findings)? + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("kiln {}\n", env!("CARGO_PKG_VERSION"));
    for finding in &findings {
        let mark = if finding.available { "yes" } else { "no " };
        text.push_str(&format!(" {mark}  {}: {}\n", finding.name, finding.detail));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("      → {remedy}\n"));
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
