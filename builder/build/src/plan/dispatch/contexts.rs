//! What `--from` and a FROM take files from: the build context, stages, images, named contexts.

use kiln_grammar::Span;
use kiln_grammar::ast::Word;
use kiln_image::Reference;

use super::{Planner, StageState};
use crate::plan::{CopySource, CopyStep, Operation, Origin, Vertex};
use crate::progress::VertexId;
use crate::remote::{Fetch, Form, Remote};
use crate::request::{ContextDirectory, ContextSource, NamedContext, context_name};
use crate::{Error, Result};

impl Planner<'_> {
    /// The named context that stands for a stage or image of this name.
    pub(super) fn context_named(&self, name: &str) -> Option<String> {
        if self.request.contexts.is_empty() {
            return None;
        }
        let name = context_name(name);
        self.request.contexts.contains_key(&name).then_some(name)
    }

    /// Where the files of the build context are.
    pub(super) fn context_origin(&mut self) -> Origin {
        let ContextSource::Layers { name, layers } = &self.request.context else { return Origin::Context(0) };
        let vertex = match self.context_vertices.get("") {
            Some(vertex) => *vertex,
            None => {
                let operation = Operation::Image { layers: layers.clone() };
                let name = format!("[context] {name}");
                let vertex = Vertex { name, step: String::new(), span: Span::default(), parent: None, operation };
                let vertex = self.add(vertex);
                self.context_vertices.insert(String::new(), vertex);
                vertex
            }
        };
        Origin::Vertex(Some(vertex))
    }

    /// A stage, a named context, or else an image.
    pub(super) fn origin(&mut self, state: &StageState, from: &Word) -> Result<Origin> {
        if from.raw.contains('$') {
            return Err(Error::at_with_help(
                from.span,
                "variables are not expanded in `from`",
                "declare a stage `FROM $IMAGE AS name` and use its name here",
            ));
        }
        if let Some(stage) = self.stages.find(&from.raw, state.number) {
            self.ensure_stage(stage)?;
            return Ok(Origin::Vertex(self.states[stage].as_ref().and_then(|state| state.result)));
        }
        if let Some(name) = self.context_named(&from.raw) {
            return self.named_origin(&name, from.span);
        }
        self.stages.check_not_later(from, state.number)?;
        if from.raw.chars().all(|c| c.is_ascii_digit()) {
            let help = match state.number {
                0 => "this is the first stage: it can take files from images and named contexts only".to_owned(),
                1 => "before this stage there is only stage 0".to_owned(),
                number => format!("the stages before this one are 0 to {}", number - 1),
            };
            return Err(Error::at_with_help(
                from.span,
                format!("there is no stage {} before this one", from.raw),
                help,
            ));
        }
        if from.raw == "scratch" {
            return Ok(Origin::Vertex(None));
        }
        let reference = Reference::parse(&from.raw)
            .map_err(|error| Error::at_with_help(from.span, error.to_string(), "expected a stage or an image"))?;
        self.image_origin(&reference, from.span)
    }

    /// The file system that `from` means.
    pub(super) fn source_vertex(&mut self, state: &StageState, from: &Word) -> Result<Option<VertexId>> {
        let origin = self.origin(state, from)?;
        Ok(self.origin_vertex(origin, from.span))
    }

    /// A file system of what an origin holds: of a directory it is a copy.
    pub(super) fn origin_vertex(&mut self, origin: Origin, span: Span) -> Option<VertexId> {
        let Origin::Context(number) = origin else {
            let Origin::Vertex(vertex) = origin else { return None };
            return vertex;
        };
        let copy = CopyStep {
            sources: vec![CopySource { origin, path: "/".to_owned(), span, unpack: false }],
            heredocs: Vec::new(),
            destination: "/".to_owned(),
            destination_span: span,
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            link: true,
            parents: false,
        };
        let label = self.contexts[number].0.clone();
        let step = self.step(&format!("context {label}"), "/");
        let operation = Operation::Copy(Box::new(copy));
        Some(self.add(Vertex { name: format!("[context {label}] load"), step, span, parent: None, operation }))
    }

    fn image_origin(&mut self, reference: &Reference, span: Span) -> Result<Origin> {
        let platform = self.platform.clone();
        let (reference, image) = self.find_image(reference, &platform, span)?;
        Ok(Origin::Vertex(Some(self.image_vertex(&image, reference.to_string(), &platform, span, None))))
    }

    fn named_origin(&mut self, name: &str, span: Span) -> Result<Origin> {
        match &self.request.contexts[name] {
            NamedContext::Directory(directory) => Ok(Origin::Context(self.directory(name, directory))),
            NamedContext::Image(reference) => self.image_origin(reference, span),
            NamedContext::Layout(directory, wanted) => {
                let platform = self.platform.clone();
                let image = self.images.layout(directory, wanted.as_deref(), &platform);
                let image = image.map_err(|error| error.located(span))?;
                let vertex = self.image_vertex(&image, layout_name(name), &platform, span, None);
                Ok(Origin::Vertex(Some(vertex)))
            }
            NamedContext::Remote(remote) => Ok(Origin::Vertex(Some(self.remote(name, remote, span)?))),
        }
    }

    /// The state of a stage that begins with a named context.
    pub(super) fn context_state(&mut self, number: usize, name: &str) -> Result<StageState> {
        let span = self.stages.stages[number].from.image.span;
        let platform = self.platform.clone();
        match &self.request.contexts[name] {
            NamedContext::Image(reference) => self.image_state(number, reference, &platform),
            NamedContext::Layout(directory, wanted) => {
                let image = self.images.layout(directory, wanted.as_deref(), &platform);
                let image = image.map_err(|error| error.located(span))?;
                Ok(self.state_of(number, image, layout_name(name), &platform, span))
            }
            NamedContext::Directory(_) | NamedContext::Remote(_) => {
                let origin = self.named_origin(name, span)?;
                let result = self.origin_vertex(origin, span);
                Ok(StageState { result, ..self.empty_state(number) })
            }
        }
    }

    fn directory(&mut self, name: &str, directory: &ContextDirectory) -> usize {
        match self.contexts.iter().skip(1).position(|(known, _)| known == name) {
            Some(number) => number + 1,
            None => {
                self.contexts.push((name.to_owned(), Some(directory.clone())));
                self.contexts.len() - 1
            }
        }
    }

    fn remote(&mut self, name: &str, remote: &Remote, span: Span) -> Result<VertexId> {
        if let Some(vertex) = self.context_vertices.get(name) {
            return Ok(*vertex);
        }
        let fetch = Fetch { source: remote.clone(), checksum: None, form: Form::Unpacked };
        let vertex = self.fetch_vertex(fetch, name, span)?;
        self.context_vertices.insert(name.to_owned(), vertex);
        Ok(vertex)
    }
}

fn layout_name(name: &str) -> String {
    format!("oci-layout://{name}")
}
