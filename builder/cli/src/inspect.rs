//! `kiln inspect`: everything that is known of a container, an image or a volume.

mod remote;

use std::io::{self, Write};

use anyhow::{Result, anyhow, bail};
use kiln_image::Image;
use kiln_image::copy::Location;
use kiln_image::inspect::inspect_json;
use kiln_store::Store;
use serde::Serialize;
use serde_json::Value;

use crate::template::Template;
use crate::{network, volume};
use remote::RemoteArgs;

/// Show everything that is known
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Names, ids, beginnings of ids; or images where they are, without fetching them: docker://NAME,
    /// oci:DIRECTORY[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
    /// Only of this kind: container, image, network or volume
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<String>,
    /// How much containers wrote, too
    #[arg(short, long)]
    size: bool,
    /// `json`, or a Go template
    #[arg(short, long)]
    format: Option<String>,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Shows images as docker does; those that are missing are named when the others are shown.
///
/// # Errors
/// An image is missing, or the format is wrong.
pub(crate) fn run(args: &InspectArgs, store: &Store) -> Result<()> {
    each(args, &|name| describe_image(store, name, args))
}

/// The same with containers.
pub(crate) fn run_containers(args: &InspectArgs, store: &Store) -> Result<()> {
    each(args, &|name| describe_container(store, name, args.size))
}

/// The same with whatever has the name: a container, an image, a network, a volume.
pub(crate) fn run_any(args: &InspectArgs, store: &Store) -> Result<()> {
    each(args, &|name| match args.kind.as_deref() {
        Some("container") => describe_container(store, name, args.size),
        Some("image") => describe_image(store, name, args),
        Some("network") => network::describe_named(store, name),
        Some("volume") => volume::describe_named(store, name),
        Some(other) => bail!("there is no kind {other:?}: expected container, image, network or volume"),
        None => describe_container(store, name, args.size)
            .or_else(|_| describe_image(store, name, args))
            .or_else(|_| network::describe_named(store, name))
            .or_else(|_| volume::describe_named(store, name))
            .map_err(|_| anyhow!("No such object: {name}")),
    })
}

fn describe_image(store: &Store, name: &str, args: &InspectArgs) -> Result<Value> {
    Ok(inspect_json(store, &Image::find_for(store, name, args.remote.platform.as_ref())?)?)
}

fn describe_container(store: &Store, name: &str, size: bool) -> Result<Value> {
    let container = kiln_container::find(store, name)?;
    let mut described = kiln_container::inspect(store, &container)?;
    if let Value::Object(fields) = &mut described
        && size
    {
        let own = kiln_container::disk_usage(&container.path.join("upper"));
        let layers = container.record.layers.iter();
        let image =
            layers.map(|layer| Ok(store.layer(layer)?.map_or(0, |layer| layer.tar_size))).sum::<Result<u64>>()?;
        fields.insert("SizeRw".to_owned(), own.into());
        fields.insert("SizeRootFs".to_owned(), (own + image).into());
    }
    Ok(described)
}

fn each(args: &InspectArgs, describe: &dyn Fn(&str) -> Result<Value>) -> Result<()> {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in &args.names {
        let described = if Location::is_explicit(name) { args.remote.describe(name) } else { describe(name).map(Some) };
        match described {
            Ok(Some(described)) => found.push(described),
            Ok(None) => {}
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !found.is_empty() || !args.remote.prints_documents() {
        print(&found, args.format.as_deref())?;
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// Prints descriptions: an array, or a template for each.
pub(crate) fn print(found: &[Value], format: Option<&str>) -> Result<()> {
    let mut out = io::stdout().lock();
    match format {
        None | Some("") => {
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut bytes = Vec::new();
            found.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indent))?;
            out.write_all(&bytes)?;
            writeln!(out)?;
        }
        Some("json") => {
            for described in found {
                writeln!(out, "{}", serde_json::to_string(described)?)?;
            }
        }
        Some(format) => {
            let template = Template::parse(format)?;
            for described in found {
                writeln!(out, "{}", template.render(described)?)?;
            }
        }
    }
    Ok(())
}
