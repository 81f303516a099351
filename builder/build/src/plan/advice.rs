//! What to say besides of an error of the plan: what was expected at its place, and which stage may have been meant.

use kiln_grammar::ast::{Dockerfile, InstructionKind, Word};
use kiln_grammar::diagnostic::nearest;
use kiln_grammar::{Diagnostic, Span};

use crate::Error;

/// Completes an error.
pub(super) fn advise(error: Error, dockerfile: &Dockerfile) -> Error {
    let Error::Dockerfile(mut diagnostic) = error else { return error };
    if let Some(place) = place(dockerfile, diagnostic.span) {
        complete(&mut diagnostic, &place, dockerfile);
    }
    Error::Dockerfile(diagnostic)
}

/// What stands where an error is.
enum Place<'a> {
    /// The image of a FROM.
    Base(&'a str),
    /// A `--from` or the `from=` of a mount.
    Source(&'a str),
    /// `--platform`
    Platform,
    /// A port.
    Port,
    /// A signal.
    Signal,
    /// The mode of a COPY.
    Mode,
    /// The user of a COPY.
    Owner,
    /// A mount.
    Mount,
    /// Where a COPY goes.
    Destination,
}

fn place(dockerfile: &Dockerfile, span: Span) -> Option<Place<'_>> {
    let from = dockerfile.instructions.partition_point(|instruction| instruction.span.end < span.start);
    let instruction = dockerfile.instructions.get(from)?;
    let at = |word: &Word| word.span == span;
    match &instruction.kind {
        InstructionKind::From(from) if at(&from.image) => Some(Place::Base(&from.image.raw)),
        InstructionKind::From(from) if from.platform.as_ref().is_some_and(at) => Some(Place::Platform),
        InstructionKind::Expose(words) if words.iter().any(at) => Some(Place::Port),
        InstructionKind::StopSignal(word) if at(word) => Some(Place::Signal),
        InstructionKind::Run(run) => {
            let mount = run.mounts.iter().find(|word| at(word))?;
            let source = mount.raw.split(',').find_map(|option| option.trim().strip_prefix("from="));
            Some(source.map_or(Place::Mount, Place::Source))
        }
        InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => {
            if let Some(word) = transfer.from.as_ref().filter(|word| at(word)) {
                return Some(Place::Source(&word.raw));
            }
            let places = [
                (transfer.chmod.as_ref(), Place::Mode),
                (transfer.chown.as_ref(), Place::Owner),
                (Some(&transfer.destination), Place::Destination),
            ];
            places.into_iter().find(|(word, _)| word.is_some_and(at)).map(|(_, place)| place)
        }
        _ => None,
    }
}

fn complete(diagnostic: &mut Diagnostic, place: &Place<'_>, dockerfile: &Dockerfile) {
    let expected = match place {
        Place::Base(_) => "expected an image, or a stage above",
        Place::Source(_) => "expected a stage, an image or a named context",
        Place::Platform => "expected `os/architecture`, such as `linux/arm64`",
        Place::Port => "expected a port, a range such as `7000-7010`, or `53/udp`",
        Place::Signal => "expected a signal's name or number",
        Place::Mode => "expected `644`, `u=rwX,go=rX` or the like",
        Place::Owner => "expected a user and perhaps a group, by name or number",
        Place::Mount => "this mount",
        Place::Destination => "expected a directory: a path that ends with `/`",
    };
    diagnostic.label.get_or_insert_with(|| expected.to_owned());
    if diagnostic.help.is_some() {
        return;
    }
    diagnostic.help = match place {
        Place::Base(name) | Place::Source(name) => {
            let meant = stage_meant(name, dockerfile).or_else(|| variables_meant(name));
            meant.or_else(|| lower_case_meant(name)).or_else(|| colons_meant(name))
        }
        Place::Platform => Some("use `$BUILDPLATFORM`, `$TARGETPLATFORM` or a platform's name".to_owned()),
        _ => None,
    };
}

/// A name's first component is taken for a registry where it has an upper-case letter: perhaps it was not meant so.
fn lower_case_meant(name: &str) -> Option<String> {
    let (first, _) = name.split_once('/')?;
    let is_upper = first.chars().any(char::is_uppercase) && !first.contains(['.', ':', '$']);
    is_upper.then(|| format!("{first:?} is taken for a registry here: did you mean `{}`?", name.to_lowercase()))
}

/// A name that is wrong with its variables' values is most often one that lacks some.
fn variables_meant(name: &str) -> Option<String> {
    name.contains('$').then(|| {
        format!(
            "it is what became of `{name}`: give an ARG before the first FROM a default, or a value with --build-arg"
        )
    })
}

/// An image's name has one colon before its tag, and perhaps one before a port.
fn colons_meant(name: &str) -> Option<String> {
    let path = name.split('@').next().unwrap_or(name).rsplit('/').next().unwrap_or(name);
    (path.matches(':').count() > 1).then(|| "an image is written `[registry[:port]/]name[:tag][@digest]`".to_owned())
}

/// A name that no image has is perhaps a stage's, misspelled.
fn stage_meant(name: &str, dockerfile: &Dockerfile) -> Option<String> {
    let names = dockerfile.instructions.iter().filter_map(|instruction| match &instruction.kind {
        InstructionKind::From(from) => Some(from.name.as_ref()?.value.as_str()),
        _ => None,
    });
    let names: Vec<&str> = names.take(1_000).collect();
    match nearest(name, &names) {
        Some(near) if !near.eq_ignore_ascii_case(name) => Some(format!("did you mean the stage `{near}`?")),
        _ => None,
    }
}
