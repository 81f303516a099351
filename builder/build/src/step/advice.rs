//! What a command that failed probably lacks, and what an image that has not what it is asked for.

use std::path::Path;

use kiln_grammar::Span;
use kiln_grammar::diagnostic::nearest;
use kiln_store::Snapshot;

use crate::Error;

/// Bytes of an image's list of users that are looked at, at most.
const LARGEST_LIST: u64 = 1 << 20;

/// A user or group that cannot be told. `linked` is a COPY that lies on nothing.
pub(crate) fn of_user(snapshot: &Snapshot, error: kiln_image::Error, span: Span, linked: bool) -> Error {
    let kiln_image::Error::NoSuchUser { kind, name, file } = &error else { return Error::from(error).located(span) };
    let list = snapshot.read(Path::new(file.trim_start_matches('/')), LARGEST_LIST).ok().flatten().unwrap_or_default();
    let list = String::from_utf8_lossy(&list);
    let names: Vec<&str> = list.lines().filter_map(|line| line.split(':').next()).collect();
    let help = match nearest(name, &names) {
        _ if linked => "with --link nothing of the image is there, its users neither: give numbers".to_owned(),
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("make the {kind} in a step above, or give its number"),
    };
    Error::at_with_help(span, error.to_string(), help).labelled(format!("no such {kind} in the image"))
}

/// A command that ran, by its exit status and what it wrote last.
pub(crate) fn of_status(status: u8, args: &[String], tail: &[u8]) -> Option<String> {
    let tail = String::from_utf8_lossy(tail);
    let says = |words: &str| tail.contains(words);
    let help = match status {
        _ if says("\r: not found") || says("\r': No such file") || says("^M: bad interpreter") => {
            "a script has Windows' line ends: save it with `\\n` alone"
        }
        126 => "a file is there and may not be executed: set its mode with `COPY --chmod=755` or `RUN chmod +x`",
        127 => "a command is not in the image or not in PATH: install it in a step above, or check its spelling",
        137 => "the kernel or somebody else killed it: most often the memory was not enough",
        139 => "it crashed: most often a program made for another kind of machine, or against another C library",
        _ if says("Exec format error") || says("exec format error") => {
            "the program is for another kind of machine: check --platform"
        }
        _ if says("No space left on device") => "the disk, or a tmpfs mount, is full",
        _ if says("Temporary failure in name resolution") || says("Could not resolve") => {
            "names are not resolved: check the network, --network and the host's resolv.conf"
        }
        _ if says("Permission denied") => "check USER, and the owner and mode of what it works on",
        _ if says("externally-managed-environment") => {
            "Debian's Python wants a virtual environment: `python3 -m venv /venv`, then `/venv/bin/pip install …`"
        }
        100 if args.iter().any(|arg| arg.contains("apt")) => {
            "apt needs `apt-get update` in the same RUN, and -y since nobody answers"
        }
        _ => return None,
    };
    Some(help.to_owned())
}

/// A command that could not be started.
pub(crate) fn of_start(status: Option<u8>, args: &[String]) -> Option<String> {
    let program = args.first()?;
    let is_shell = args.get(1).is_some_and(|arg| arg == "-c");
    let help = match (status?, is_shell) {
        (127, true) => format!(
            "the image has no {program}: take a base image with a shell, copy one in, or write the command as a JSON array"
        ),
        (127, false) => format!(
            "the image has no {program}, or not the interpreter or C library that it names: check its path and spelling"
        ),
        _ => format!(
            "{program} is there and cannot be executed: set its mode with `COPY --chmod=755`, and check --platform"
        ),
    };
    Some(help)
}
