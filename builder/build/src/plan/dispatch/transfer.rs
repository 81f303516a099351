//! COPY and ADD.

use kiln_grammar::Span;
use kiln_grammar::ast::{Instruction, Transfer, TransferSource, Word};

use super::instructions::absolute;
use super::{Planner, StageState};
use crate::chmod::Chmod;
use crate::plan::history::LAYER_MARK;
use crate::plan::{CopyStep, Operation, Origin};
use crate::{Error, Result};

impl Planner<'_> {
    pub(super) fn transfer(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        transfer: &Transfer,
        add: bool,
    ) -> Result<()> {
        let keyword = if add { "ADD" } else { "COPY" };
        let mut sources = Vec::new();
        let mut heredocs = Vec::new();
        for source in &transfer.sources {
            match source {
                TransferSource::Path(word) => {
                    let text = self.expand(word, &state.scope)?;
                    check_local(&text, word.span, add)?;
                    sources.push((text, word.span));
                }
                TransferSource::Heredoc(heredoc) => {
                    let body = if heredoc.expand {
                        let word = Word { raw: heredoc.body.clone(), span: heredoc.span };
                        kiln_grammar::expand::expand_heredoc(&word, '\\', &state.scope)?
                    } else {
                        heredoc.body.clone()
                    };
                    heredocs.push((heredoc.name.clone(), body));
                }
            }
        }
        let written = self.expand(&transfer.destination, &state.scope)?;
        let chown = self.expand_optional(state, transfer.chown.as_ref())?;
        let chmod_text = self.expand_optional(state, transfer.chmod.as_ref())?;
        let created_by = created_by(keyword, transfer, &sources, &heredocs, &written, [&chown, &chmod_text]);
        let chmod = match &chmod_text {
            Some((text, span)) => Some(Chmod::parse(text).map_err(|reason| Error::at(*span, reason))?),
            None => None,
        };
        let exclude = transfer.exclude.iter().map(|word| self.expand(word, &state.scope)).collect::<Result<_>>()?;
        if sources.len() + heredocs.len() > 1 && !(written.ends_with('/') || written == "." || written.ends_with("/."))
        {
            return Err(Error::at_with_help(
                transfer.destination.span,
                format!(
                    "when using {keyword} with more than one source file, the destination must be a directory and end with a /"
                ),
                format!("write `{written}/`"),
            ));
        }
        let origin = match &transfer.from {
            Some(from) => Origin::Vertex(self.source_vertex(state, from)?),
            None => Origin::Context,
        };
        let step = CopyStep {
            origin,
            sources,
            heredocs,
            destination: destination(&state.config.config.working_dir, &written),
            destination_span: transfer.destination.span,
            chown,
            chmod,
            exclude,
            link: transfer.link,
            parents: transfer.parents,
            unpack: add && transfer.unpack != Some(false),
        };
        self.add_layer(state, instruction, Operation::Copy(Box::new(step)), created_by + LAYER_MARK);
        Ok(())
    }

    fn expand_optional(&self, state: &StageState, word: Option<&Word>) -> Result<Option<(String, Span)>> {
        word.map(|word| Ok((self.expand(word, &state.scope)?, word.span))).transpose()
    }
}

fn check_local(text: &str, span: Span, add: bool) -> Result<()> {
    let is_url = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    let is_git = ["git://", "ssh://", "git@"].iter().any(|scheme| text.starts_with(scheme));
    if !is_url && !is_git {
        return Ok(());
    }
    if add {
        let message = format!("ADD of {} is not supported yet", if is_url { "a URL" } else { "a git repository" });
        return Err(Error::at_with_help(span, message, "fetch it in a RUN step, or into the context before the build"));
    }
    Err(Error::at_with_help(span, "COPY takes no URL", "ADD does"))
}

/// Absolute, keeping the trailing slash that says "a directory".
fn destination(working_directory: &str, written: &str) -> String {
    let path = absolute(working_directory, written);
    let is_directory = written.ends_with('/') || written.ends_with("/.") || written == ".";
    if is_directory && path != "/" { path + "/" } else { path }
}

fn created_by(
    keyword: &str,
    transfer: &Transfer,
    sources: &[(String, Span)],
    heredocs: &[(String, String)],
    destination: &str,
    [chown, chmod]: [&Option<(String, Span)>; 2],
) -> String {
    let mut words = vec![keyword.to_owned()];
    if transfer.parents {
        words.push("--parents".to_owned());
    }
    words.extend(chown.iter().map(|(text, _)| format!("--chown={text}")));
    words.extend(chmod.iter().map(|(text, _)| format!("--chmod={text}")));
    if transfer.link {
        words.push("--link".to_owned());
    }
    words.extend(sources.iter().map(|(text, _)| text.clone()));
    words.extend(heredocs.iter().map(|(name, _)| format!("<<{name}")));
    words.push(destination.to_owned());
    words.join(" ")
}
