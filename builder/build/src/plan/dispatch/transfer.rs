//! COPY and ADD.

use kiln_grammar::Span;
use kiln_grammar::ast::{Instruction, Transfer, TransferSource, Word};

use super::instructions::absolute;
use super::{Planner, StageState};
use crate::chmod::Chmod;
use crate::plan::history::LAYER_MARK;
use crate::plan::{CopySource, CopyStep, Operation, Origin, Vertex};
use crate::remote::{Fetch, Form, Location, Remote};
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
                    sources.push((self.expand(word, &state.scope)?, word.span));
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
        let local = match &transfer.from {
            Some(from) => self.origin(state, from)?,
            None => self.context_origin(),
        };
        let checksum = self.expand_optional(state, transfer.checksum.as_ref())?;
        let mut copied = Vec::with_capacity(sources.len());
        for (path, span) in sources {
            let remote = Location::parse_remote(&path).map_err(|reason| Error::at(span, reason))?;
            copied.push(match remote {
                _ if transfer.from.is_some() => local_source(local, path, span, false),
                Some(_) if !add => {
                    let help = format!("ADD fetches it: `ADD {path} {written}`");
                    return Err(Error::at_with_help(span, "COPY takes no URL", help)
                        .labelled("expected a path of the build context"));
                }
                Some(location) => self.remote_source(transfer, location, &path, span, checksum.as_ref())?,
                None => local_source(local, path, span, add && transfer.unpack != Some(false)),
            });
        }
        check_checksum(&copied, checksum.as_ref(), transfer)?;
        let step = CopyStep {
            sources: copied,
            heredocs,
            destination: destination(&state.config.config.working_dir, &written),
            destination_span: transfer.destination.span,
            chown,
            chmod,
            exclude,
            link: transfer.link,
            parents: transfer.parents,
        };
        self.add_layer(state, instruction, Operation::Copy(Box::new(step)), created_by + LAYER_MARK);
        Ok(())
    }

    /// A source of ADD that is fetched first.
    fn remote_source(
        &mut self,
        transfer: &Transfer,
        location: Location,
        written: &str,
        span: Span,
        checksum: Option<&(String, Span)>,
    ) -> Result<CopySource> {
        let (source, unpack) = match location {
            Location::Http(url) => (Remote::Http(url), transfer.unpack == Some(true)),
            Location::Git(mut git) => {
                git.keep_git_dir = transfer.keep_git_dir.or(git.keep_git_dir);
                (Remote::Git(git), false)
            }
            Location::Path(_) | Location::Stdin => return Err(Error::at(span, "expected a URL or a repository")),
        };
        let checksum = checksum.map(|(text, _)| text.clone());
        let path = if matches!(source, Remote::Http(_)) { "/*" } else { "/" };
        let fetch = Fetch { source, checksum, form: Form::File };
        let vertex = self.fetch_vertex(fetch, written, span)?;
        Ok(CopySource { origin: Origin::Vertex(Some(vertex)), path: path.to_owned(), span, unpack })
    }

    /// The vertex of what is fetched.
    pub(super) fn fetch_vertex(&mut self, fetch: Fetch, written: &str, span: Span) -> Result<usize> {
        let fetch = self.request.policy.fetch(fetch).map_err(|reason| Error::at(span, reason))?;
        let name = format!("[fetch] {}", written.split(['?', '#']).next().unwrap_or_default());
        let operation = Operation::Fetch(Box::new(fetch));
        Ok(self.add(Vertex { name, step: String::new(), span, parent: None, operation }))
    }

    fn expand_optional(&self, state: &StageState, word: Option<&Word>) -> Result<Option<(String, Span)>> {
        word.map(|word| Ok((self.expand(word, &state.scope)?, word.span))).transpose()
    }
}

fn local_source(origin: Origin, path: String, span: Span, unpack: bool) -> CopySource {
    CopySource { origin, path, span, unpack }
}

/// What `--checksum` and `--keep-git-dir` are about must be there.
fn check_checksum(sources: &[CopySource], checksum: Option<&(String, Span)>, transfer: &Transfer) -> Result<()> {
    let local = sources.iter().any(|source| matches!(source.origin, Origin::Context(_)));
    match checksum {
        Some((_, span)) if sources.len() != 1 || local || !transfer.sources.iter().all(is_path) => {
            Err(Error::at_with_help(*span, "--checksum is for a single URL or git repository", "give each its own ADD"))
        }
        _ => Ok(()),
    }
}

fn is_path(source: &TransferSource) -> bool {
    matches!(source, TransferSource::Path(_))
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
