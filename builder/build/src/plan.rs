//! The plan: a DAG of vertices, each one change of a file system, made from the AST and the base images' configs.
//! Instructions that only change the config are folded into it here and never become vertices.

mod advice;
pub(crate) mod arguments;
pub mod check;
mod dispatch;
mod history;
mod merge;
pub mod outline;
mod ports;
mod stages;
mod variables;

pub(crate) use dispatch::SCRIPT_DIRECTORY;
use std::path::Path;
pub use variables::PROXIES;

use kiln_grammar::mount::Sharing;
use kiln_grammar::{Dockerfile, Span};
use kiln_image::{Image, ImageConfig, Platform, Reference};
use kiln_store::DiffId;

use crate::progress::VertexId;
use crate::remote::Fetch;
use crate::request::{ContextDirectory, Network};
use crate::{Request, Result};

/// Where base images come from: the store, or a registry when they are not there.
pub trait ImageSource: Sync {
    /// The image of a reference for a platform; its layers are in the store, or come when they are needed.
    ///
    /// # Errors
    /// It can be had nowhere.
    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image>;

    /// The image of an OCI layout directory: that of a tag or digest, or its only one.
    ///
    /// # Errors
    /// It is not there.
    fn layout(&self, directory: &Path, wanted: Option<&str>, platform: &Platform) -> Result<Image>;
}

/// Everything a build will do.
#[derive(Debug)]
pub struct Plan {
    /// In an order in which every vertex comes after its inputs.
    pub vertices: Vec<Vertex>,
    /// The images to make: one for each platform.
    pub targets: Vec<Target>,
    /// The stages that become images, too.
    pub stages: Vec<Target>,
    /// The directories that files are taken from; the first is the build context.
    pub contexts: Vec<Option<ContextDirectory>>,
    /// What is to be said of build arguments that nothing asks for.
    pub unconsumed: Option<String>,
}

impl Plan {
    /// The config of the first image.
    pub fn into_config(self) -> ImageConfig {
        self.targets.into_iter().next().map(|target| target.config).unwrap_or_default()
    }
}

/// One image to make.
#[derive(Debug)]
pub struct Target {
    /// What it is for.
    pub platform: Platform,
    /// Its file system; `None` is empty.
    pub result: Option<VertexId>,
    /// Its config: layers and times are still missing from it.
    pub config: ImageConfig,
    /// One per history line that it adds to its base image's, in order: which vertex made its layer.
    pub history: Vec<Option<VertexId>>,
}

/// One change of a file system.
#[derive(Debug)]
pub struct Vertex {
    /// `[builder 2/4] RUN make`.
    pub name: String,
    /// The step's identity across builds, for explaining a miss.
    pub step: String,
    /// The instruction.
    pub span: Span,
    /// The file system it starts from; `None` is empty.
    pub parent: Option<VertexId>,
    /// What it does.
    pub operation: Operation,
}

impl Vertex {
    /// The stage of an instruction that makes a layer: its name in lower case, or its number.
    pub(crate) fn stage(&self) -> Option<&str> {
        self.step.rsplit('#').nth(1)
    }

    /// Every vertex whose result is needed first.
    pub fn inputs(&self) -> Vec<VertexId> {
        let mut inputs: Vec<VertexId> = self.parent.into_iter().collect();
        match &self.operation {
            Operation::Copy(copy) => {
                inputs.extend(copy.sources.iter().filter_map(|source| match source.origin {
                    Origin::Vertex(from) => from,
                    Origin::Context(_) => None,
                }));
            }
            Operation::Run(run) => {
                inputs.extend(run.mounts.iter().filter_map(|mount| match mount {
                    StepMount::Bind { from, .. } | StepMount::Cache { from, .. } => *from,
                    _ => None,
                }));
            }
            Operation::Image { .. } | Operation::Workdir(_) | Operation::Fetch(_) => {}
        }
        inputs
    }
}

/// The kinds of vertices.
#[derive(Debug)]
pub enum Operation {
    /// A base image.
    Image {
        /// Lowest first.
        layers: Vec<DiffId>,
    },
    /// Runs a process.
    Run(Box<RunStep>),
    /// Copies files in (COPY, ADD).
    Copy(Box<CopyStep>),
    /// Fetches what is not on this host (ADD, named contexts).
    Fetch(Box<Fetch>),
    /// Makes a working directory.
    Workdir(WorkdirStep),
}

/// RUN.
#[derive(Debug)]
pub struct RunStep {
    /// The argument vector.
    pub args: Vec<String>,
    /// ENV and ARG values that the process sees.
    pub env: Vec<(String, String)>,
    /// Proxy settings: seen by the process, in no key.
    pub proxies: Vec<(String, String)>,
    /// The working directory.
    pub cwd: String,
    /// USER as written.
    pub user: String,
    /// The network.
    pub network: Network,
    /// Its mounts.
    pub mounts: Vec<StepMount>,
    /// A here-document with a `#!` line: name and content of the script.
    pub script: Option<(String, String)>,
    /// `--security=insecure`: all capabilities, no seccomp.
    pub insecure: bool,
    /// The machine that its programs are for.
    pub platform: Platform,
}

/// One mount of a RUN.
#[derive(Debug)]
pub enum StepMount {
    /// Files of another vertex, read-only or with writes thrown away.
    Bind {
        /// Whose; `None` is empty.
        from: Option<VertexId>,
        /// Path in it.
        source: String,
        /// Path in the step.
        target: String,
        /// Writes are allowed, and thrown away.
        writable: bool,
    },
    /// A directory that stays from build to build.
    Cache {
        /// Its name.
        id: String,
        /// Path in the step.
        target: String,
        /// No writes.
        readonly: bool,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
        /// Whose files a new one starts with.
        from: Option<VertexId>,
        /// The directory of it that is mounted.
        source: String,
    },
    /// Memory.
    Tmpfs {
        /// Path in the step.
        target: String,
        /// Bytes.
        size: Option<u64>,
        /// It starts with what the image has there.
        copy_up: bool,
    },
    /// A secret.
    Secret {
        /// Its name.
        id: String,
        /// Path in the step.
        target: Option<String>,
        /// Variable in the step.
        env: Option<String>,
        /// Fail when it was not given.
        required: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// An agent's socket.
    Ssh {
        /// Its name.
        id: String,
        /// Path in the step.
        target: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// COPY and ADD.
#[derive(Debug)]
pub struct CopyStep {
    /// The sources.
    pub sources: Vec<CopySource>,
    /// Here-documents: file name and content.
    pub heredocs: Vec<(String, String)>,
    /// Absolute; a trailing slash says directory.
    pub destination: String,
    /// Where the destination was written.
    pub destination_span: Span,
    /// `--chown`, expanded.
    pub chown: Option<(String, Span)>,
    /// `--chmod`, checked.
    pub chmod: Option<crate::chmod::Chmod>,
    /// `--exclude`, expanded.
    pub exclude: Vec<String>,
    /// `--link`: on no parent at all.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone)]
pub struct CopySource {
    /// Where it is.
    pub origin: Origin,
    /// Path or pattern, expanded.
    pub path: String,
    /// Where it was written.
    pub span: Span,
    /// An archive is unpacked.
    pub unpack: bool,
}

/// Where a COPY takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A directory of the host, by its number in [`Plan::contexts`].
    Context(usize),
    /// A stage or an image; `None` is empty.
    Vertex(Option<VertexId>),
}

/// WORKDIR.
#[derive(Debug)]
pub struct WorkdirStep {
    /// Absolute.
    pub path: String,
    /// USER as written: a directory that is made belongs to it.
    pub user: String,
}

/// Makes the plan of a build.
///
/// # Errors
/// A Dockerfile that cannot be planned, or a base image that cannot be had.
pub fn make(dockerfile: &Dockerfile, request: &Request, images: &dyn ImageSource) -> Result<Plan> {
    let plan_for = |platform| {
        let planned =
            dispatch::Planner::new(dockerfile, request, platform, images).and_then(|planner| planner.plan(dockerfile));
        planned.map_err(|error| advice::advise(error, dockerfile))
    };
    let plans = request.platforms().map(plan_for).collect::<Result<Vec<_>>>()?;
    Ok(merge::merge(plans))
}
