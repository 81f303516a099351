//! RUN steps whose programs are for another machine than this one.

use kiln_image::Platform;
use kiln_sandbox::emulation::{self, Emulation};
use kiln_store::Store;

use crate::context::Context;
use crate::dry_run::{self, Outlook};
use crate::plan::{Operation, Plan, Vertex};
use crate::progress::Reporter;
use crate::step::Site;
use crate::{Error, Request, Result, solve};

/// Says what to install when a step that is to run cannot, before any is run. One that the cache has needs nothing.
pub(crate) fn check(
    store: &Store,
    request: &Request,
    plan: &Plan,
    contexts: &[Context],
    reporter: &dyn Reporter,
) -> Result<()> {
    let wanted = solve::wanted(plan);
    let is_lacking = |(id, vertex): (usize, &Vertex)| wanted[id] && lacking(vertex).is_some();
    if !plan.vertices.iter().enumerate().any(is_lacking) {
        return Ok(());
    }
    let site = Site { store, request, plan, contexts, reporter };
    for step in dry_run::foresee(&site, plan)? {
        if matches!(step.outlook, Outlook::Runs(_)) {
            check_vertex(&plan.vertices[step.id])?;
        }
    }
    Ok(())
}

/// Says what to install when this step cannot be run.
pub(crate) fn check_vertex(vertex: &Vertex) -> Result<()> {
    let Some((platform, emulation)) = lacking(vertex) else { return Ok(()) };
    let message = format!("this machine ({}) cannot run programs for {platform}", Platform::host());
    let help = match emulation {
        Emulation::NotMounted => {
            "mount binfmt_misc (`mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc`) and install an emulator \
             (`apt install qemu-user-static binfmt-support`), or cross-compile in a stage `FROM \
             --platform=$BUILDPLATFORM`"
        }
        _ => {
            "install an emulator for them (`apt install qemu-user-static binfmt-support`), or cross-compile in a stage \
             `FROM --platform=$BUILDPLATFORM`"
        }
    };
    Err(Error::at_with_help(vertex.span, message, help).labelled(format!("runs on {platform}")))
}

/// The platform of a RUN that this machine cannot do, and why not.
fn lacking(vertex: &Vertex) -> Option<(&Platform, Emulation)> {
    let Operation::Run(run) = &vertex.operation else { return None };
    if run.platform.os != Platform::host().os {
        return Some((&run.platform, Emulation::None));
    }
    let emulation = emulation::of(&Platform::host().architecture, &run.platform.architecture);
    (!emulation.runs()).then_some((&run.platform, emulation))
}
