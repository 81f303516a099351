//! Flags of kaniko's executor and of buildctl that `build` has under their own names.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_build::policy::Policy;
use kiln_build::recording::Recording;
use kiln_image::Reference;
use kiln_image::bundle::Form;
use kiln_image::registry::Options;
use kiln_store::Digest;
use serde_json::json;

use super::output::{Kind, Output};

/// The flags.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "As kaniko and buildctl have it")]
pub(super) struct KanikoArgs {
    /// The build context: a directory or dir://, tar://FILE, git:// or a URL
    #[arg(id = "kaniko_context", long = "context", value_name = "PLACE", conflicts_with = "context")]
    place: Option<String>,
    /// The directory of the context that counts
    #[arg(long, value_name = "DIR")]
    context_sub_path: Option<PathBuf>,
    /// Push the image under this name; may be given several times
    #[arg(short, long, value_name = "NAME")]
    destination: Vec<Reference>,
    /// Do not push to --destination
    #[arg(long, conflicts_with = "push")]
    no_push: bool,
    /// Write the digest of the image's manifest to a file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<PathBuf>,
    /// Write every name with the digest behind it, `NAME@DIGEST`, to a file
    #[arg(long, value_name = "FILE")]
    image_name_with_digest_file: Option<PathBuf>,
    /// Likewise with the tag, `NAME:TAG@DIGEST`
    #[arg(long, value_name = "FILE")]
    image_name_tag_with_digest_file: Option<PathBuf>,
    /// Write the image to an archive
    #[arg(long, value_name = "FILE")]
    tar_path: Option<PathBuf>,
    /// Write the image into an OCI layout directory
    #[arg(long, value_name = "DIR")]
    oci_layout_path: Option<PathBuf>,
    /// Make the same image whenever it is built: SOURCE_DATE_EPOCH is 0 unless it is given
    #[arg(long)]
    reproducible: bool,
    /// Take plain HTTP and any certificate from this registry; may be given several times
    #[arg(long, value_name = "HOST[:PORT]", alias = "skip-tls-verify-registry")]
    insecure_registry: Vec<String>,
    /// Take plain HTTP and any certificate from every registry
    #[arg(long, aliases = ["insecure-pull", "skip-tls-verify", "skip-tls-verify-pull"])]
    insecure: bool,
    /// Ask this registry first for what docker.io has; may be given several times
    #[arg(long, value_name = "HOST[/PATH]")]
    registry_mirror: Vec<String>,
    /// An OCI layout that --build-context may name: oci-layout://NAME
    #[arg(long, value_name = "NAME=DIR")]
    oci_layout: Vec<String>,
    /// What the build may use, and instead of what: a source policy of BuildKit's
    #[arg(long, value_name = "FILE", env = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")]
    source_policy_file: Option<PathBuf>,
    /// Write how many steps came from the cache, as JSON: stdout, stderr or a file
    #[arg(long, value_name = "PLACE")]
    debug_json_cache_metrics: Option<String>,
    #[command(flatten)]
    needless: NeedlessArgs,
}

/// Accepted for kaniko's sake: what they ask for is so anyway, or has no meaning here.
#[derive(Debug, clap::Args)]
struct NeedlessArgs {
    #[arg(long, hide = true)]
    cleanup: bool,
    #[arg(long, hide = true)]
    force: bool,
    #[arg(long, hide = true)]
    use_new_run: bool,
    #[arg(long, hide = true)]
    skip_push_permission_check: bool,
    #[arg(long, hide = true)]
    snapshot_mode: Option<String>,
    #[arg(long, hide = true)]
    verbosity: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    log_timestamp: Option<Option<bool>>,
}

impl KanikoArgs {
    /// The place of the context.
    pub(super) fn context(&self, positional: &str) -> Result<String> {
        let place = self.place.as_deref().unwrap_or(positional);
        if let Some(scheme) = ["s3://", "gs://"].iter().find(|scheme| place.starts_with(**scheme)) {
            bail!("a context at {scheme} is not fetched: fetch it first, and give it as tar://FILE or a directory");
        }
        let place = place.strip_prefix("dir://").unwrap_or(place);
        let Some(below) = &self.context_sub_path else { return Ok(place.to_owned()) };
        let whole = Path::new(place);
        if !whole.is_dir() {
            bail!("--context-sub-path is for a directory, and {place} is none");
        }
        let joined = whole.join(below);
        let (real, top) = (joined.canonicalize(), whole.canonicalize());
        if !matches!((&real, &top), (Ok(real), Ok(top)) if real.starts_with(top)) {
            bail!("the context has no directory {}", below.display());
        }
        Ok(joined.display().to_string())
    }

    /// What the image is called besides.
    pub(super) fn names(&self) -> impl Iterator<Item = Reference> {
        self.destination.iter().cloned()
    }

    /// Where the image goes besides.
    pub(super) fn outputs(&self, form: &Form) -> Vec<Output> {
        let mut outputs = Vec::new();
        if let Some(path) = &self.tar_path {
            outputs.push(Output::new(Kind::Archive { path: path.clone(), docker: true }, form.clone()));
        }
        if let Some(path) = &self.oci_layout_path {
            outputs.push(Output::new(Kind::Layout(path.clone()), form.clone()));
        }
        if !self.destination.is_empty() && !self.no_push {
            outputs.push(Output::new(Kind::Push, form.clone()));
        }
        outputs
    }

    /// Whether the manifest's digest is asked for.
    pub(super) fn wants_digest(&self) -> bool {
        self.digest_file.is_some()
            || self.image_name_with_digest_file.is_some()
            || self.image_name_tag_with_digest_file.is_some()
    }

    /// Writes the manifest's digest where it is asked for.
    pub(super) fn deliver_digest(&self, digest: &Digest, names: &[Reference]) -> Result<()> {
        let lines = |shown: &dyn Fn(&Reference) -> String| -> String {
            names.iter().map(|name| format!("{}@{digest}\n", shown(name))).collect()
        };
        let texts = [
            (&self.digest_file, digest.to_string()),
            (&self.image_name_with_digest_file, lines(&Reference::name)),
            (&self.image_name_tag_with_digest_file, lines(&Reference::tagged_name)),
        ];
        for (path, text) in texts {
            let Some(path) = path else { continue };
            std::fs::write(path, text).with_context(|| format!("write the digest to {}", path.display()))?;
        }
        Ok(())
    }

    /// The time of everything, when no other was asked for.
    pub(super) fn add_epoch(&self, build_args: &mut BTreeMap<String, String>) {
        if self.reproducible {
            build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| "0".to_owned());
        }
    }

    /// How registries are talked to.
    pub(super) fn access(&self, options: Options) -> Options {
        Options {
            insecure: options.insecure || self.insecure,
            insecure_registries: self.insecure_registry.clone(),
            mirrors: self.registry_mirror.clone(),
            ..options
        }
    }

    /// A `--build-context` with the layout's directory in the place of its name.
    pub(super) fn named_layout(&self, text: &str) -> Result<String> {
        let Some((start, layout)) = text.split_once("=oci-layout://") else { return Ok(text.to_owned()) };
        for known in &self.oci_layout {
            let Some((name, directory)) = known.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                bail!("--oci-layout {known:?} is not NAME=DIR");
            };
            let rest = layout.strip_prefix(name);
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with([':', '@'])) {
                return Ok(format!("{start}=oci-layout://{directory}{rest}"));
            }
        }
        Ok(text.to_owned())
    }

    /// What the build may use.
    pub(super) fn policy(&self) -> Result<Policy> {
        let Some(path) = &self.source_policy_file else { return Ok(Policy::default()) };
        let json = std::fs::read(path).with_context(|| format!("read the source policy {}", path.display()))?;
        Policy::parse(&json).map_err(anyhow::Error::msg).with_context(|| format!("source policy {}", path.display()))
    }

    /// Tells of the cache as buildctl does: a line for every miss, and the numbers.
    pub(super) fn deliver_metrics(&self, recording: &Recording) -> Result<()> {
        let Some(place) = self.debug_json_cache_metrics.as_deref() else { return Ok(()) };
        let text = metrics(recording);
        match place {
            "stdout" => crate::failure::print(&text),
            "stderr" => {
                crate::failure::tell(&text);
                Ok(())
            }
            path => std::fs::File::create(path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .with_context(|| format!("write the cache's metrics to {path}")),
        }
    }
}

fn metrics(recording: &Recording) -> String {
    let steps = recording.steps();
    let is_base = |name: &str| {
        name.starts_with("FROM ") || name.split_once("] ").is_some_and(|(_, rest)| rest.starts_with("FROM "))
    };
    let base = steps.values().filter(|step| is_base(&step.name)).count();
    let cached = steps.values().filter(|step| step.cached).count();
    let completed = steps.values().filter(|step| step.error.is_none()).count();
    let missed: Vec<&str> =
        steps.values().filter(|step| !step.cached && !is_base(&step.name)).map(|step| step.name.as_str()).collect();
    let numbers = json!({
        "total": steps.len(),
        "completed": completed,
        "user_total": steps.len(),
        "user_cached": cached,
        "user_completed": completed,
        "user_cacheable": steps.len() - base,
        "from": base,
        "miss": missed.len(),
        "client_duration_ms": u64::try_from(recording.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    let mut text: String = missed.iter().map(|name| format!("cache miss: {name}\n")).collect();
    text.push_str(&format!("{numbers}\n"));
    text
}
