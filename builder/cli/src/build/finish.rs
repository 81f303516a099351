//! From images to what was asked for: attestations, names, outputs, files that tell of them.

use anyhow::Result;
use jiff::Timestamp;
use kiln_build::Request;
use kiln_build::progress::{Event, Reporter};
use kiln_build::provenance::Recorded;
use kiln_image::Image;
use kiln_image::bundle::{Bundle, Form, Member};
use kiln_image::registry::Options;
use kiln_store::Store;

use super::BuildArgs;
use super::attest::Wanted;
use super::output::{Output, Sending};
use super::values;
use crate::failure::print;
use crate::progress::Screen;

/// What the build went by.
pub(super) struct Built<'a> {
    pub(super) args: &'a BuildArgs,
    pub(super) store: &'a Store,
    pub(super) request: &'a Request,
    pub(super) recorded: &'a Recorded<'a>,
    pub(super) started: Timestamp,
    pub(super) options: &'a Options,
    pub(super) screen: &'a Screen,
}

impl Built<'_> {
    /// Sends the images where they are wanted.
    pub(super) fn finish(&self, images: Vec<Image>, wanted: Wanted, outputs: &[Output]) -> Result<()> {
        let Self { args, store, request, screen, .. } = *self;
        let bundle = self.bundle(images, wanted)?;
        let form = args.image.form()?;
        let names = request.names.as_slice();
        let mut id = bundle.members.first().map(|member| member.image.id);
        if bundle.is_index() || form != Form::default() {
            let packed = bundle.pack(store, &form, names)?;
            packed.keep(store, names)?;
            if packed.config().is_none() {
                id = Some(if bundle.members.len() > 1 { packed.root.digest } else { id.unwrap_or(packed.root.digest) });
            }
            if bundle.members.len() > 1 {
                screen.event(Event::Image(&packed.root.digest));
                names.iter().for_each(|name| screen.event(Event::Named(name)));
            }
        }
        let sending = Sending { store, bundle: &bundle, names, options: self.options, progress: screen };
        for output in outputs {
            output.write(&sending)?;
        }
        if let Some(name) = &args.image.manifest {
            bundle.pack(store, &form, names)?.add_to(store, name)?;
        }
        request.exchange.export(store, screen)?;
        screen.finish();
        if let (Some(_), Some(member)) = (&args.image.metadata_file, bundle.members.first()) {
            let form = outputs.iter().find(|output| output.is_image()).map_or(&form, |output| &output.form);
            args.image.deliver_metadata(&bundle.describe(store, form, names)?, &member.image, names)?;
        }
        if args.kaniko.wants_digest() {
            args.kaniko.deliver_digest(&bundle.describe(store, &form, names)?.root.digest, names)?;
        }
        let Some(id) = id else { return Ok(()) };
        args.image.deliver_id(&id)?;
        if args.quiet {
            print(&format!("{id}\n"))?;
        }
        Ok(())
    }

    fn bundle(&self, images: Vec<Image>, wanted: Wanted) -> Result<Bundle> {
        let request = self.request;
        let mut members = Vec::with_capacity(images.len());
        for (platform, image) in request.platforms().zip(images) {
            let attestations = wanted.say(self.store, (platform, &image), request, self.recorded, self.started)?;
            members.push(Member { platform: platform.clone(), image, attestations });
        }
        Ok(Bundle { members, indexed: values::is_given(&request.build_args, "BUILDKIT_MULTI_PLATFORM") })
    }
}
