//! Programs for other machines: what the kernel runs through an interpreter, by its binfmt_misc.

use std::path::Path;

/// How programs for an architecture run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emulation {
    /// The processor runs them.
    Native,
    /// Through the interpreter of this handler.
    Handler(String),
    /// Not at all: no handler knows them.
    None,
    /// Not at all: the kernel's list of handlers is not mounted.
    NotMounted,
}

impl Emulation {
    /// Whether they run.
    pub fn runs(&self) -> bool {
        matches!(self, Self::Native | Self::Handler(_))
    }
}

/// Where the kernel lists its handlers.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";
/// Architectures (by Go's names) with what their programs say of themselves: 64 bits, big-endian, ELF machine.
const MACHINES: [(&str, bool, bool, u16); 14] = [
    ("386", false, false, 3),
    ("amd64", true, false, 62),
    ("arm", false, false, 40),
    ("arm64", true, false, 183),
    ("loong64", true, false, 258),
    ("mips", false, true, 8),
    ("mipsle", false, false, 8),
    ("mips64", true, true, 8),
    ("mips64le", true, false, 8),
    ("ppc64", true, true, 21),
    ("ppc64le", true, false, 21),
    ("riscv64", true, false, 243),
    ("s390x", true, true, 22),
    ("sparc64", true, true, 43),
];

/// How programs for an architecture run on a machine; both by Go's names.
pub fn of(machine: &str, architecture: &str) -> Emulation {
    let native = machine == architecture || matches!((machine, architecture), ("amd64", "386") | ("arm64", "arm"));
    if native { Emulation::Native } else { handler(Path::new(HANDLERS), architecture) }
}

fn handler(directory: &Path, architecture: &str) -> Emulation {
    if !directory.join("register").exists() {
        return Emulation::NotMounted;
    }
    let Some(header) = header(architecture) else { return Emulation::None };
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !matches!(name.as_str(), "register" | "status"))
        .collect();
    names.sort();
    let is_it = |name: &String| std::fs::read_to_string(directory.join(name)).is_ok_and(|text| takes(&text, &header));
    names.into_iter().find(is_it).map_or(Emulation::None, Emulation::Handler)
}

/// The beginning of a program.
fn header(architecture: &str) -> Option<[u8; 20]> {
    let (_, wide, big, machine) = MACHINES.into_iter().find(|(name, ..)| *name == architecture)?;
    let mut header = [0; 20];
    header[..4].copy_from_slice(b"\x7fELF");
    header[4] = if wide { 2 } else { 1 };
    header[5] = if big { 2 } else { 1 };
    header[6] = 1;
    let bytes = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    header[16..18].copy_from_slice(&bytes(2));
    header[18..20].copy_from_slice(&bytes(machine));
    Some(header)
}

/// Whether a handler, as the kernel describes it, takes a program that begins so.
fn takes(description: &str, header: &[u8]) -> bool {
    let mut lines = description.lines();
    if lines.next() != Some("enabled") {
        return false;
    }
    let (mut offset, mut magic, mut mask) = (0, None, None);
    for line in lines {
        match line.split_once(' ') {
            Some(("offset", text)) => offset = text.parse().unwrap_or(usize::MAX),
            Some(("magic", text)) => magic = hex(text),
            Some(("mask", text)) => mask = hex(text),
            _ => {}
        }
    }
    let Some(magic) = magic else { return false };
    let Some(part) = header.get(offset..) else { return false };
    // Of a longer magic, what there is of the header has to do.
    magic.iter().zip(part).enumerate().all(|(at, (wanted, byte))| {
        let mask = mask.as_ref().and_then(|mask| mask.get(at)).copied().unwrap_or(0xff);
        byte & mask == wanted & mask
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim().as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(pair).collect::<Option<_>>())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's qemu-user-static registers it.
    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn a_handler_is_found_by_what_it_takes() {
        let directory = tempfile::tempdir().unwrap();
        let find = |architecture| handler(directory.path(), architecture);
        assert_eq!(find("arm64"), Emulation::NotMounted);
        for name in ["register", "status"] {
            std::fs::write(directory.path().join(name), "enabled\n").unwrap();
        }
        assert_eq!(find("arm64"), Emulation::None);
        std::fs::write(directory.path().join("qemu-aarch64"), ARM64).unwrap();
        assert_eq!(find("arm64"), Emulation::Handler("qemu-aarch64".to_owned()));
        assert_eq!(find("riscv64"), Emulation::None);
        assert_eq!(find("what"), Emulation::None);
        std::fs::write(directory.path().join("qemu-aarch64"), ARM64.replace("enabled", "disabled")).unwrap();
        assert_eq!(find("arm64"), Emulation::None);
    }

    #[test]
    fn some_machines_run_the_programs_of_others() {
        assert_eq!(of("amd64", "386"), Emulation::Native);
        assert_eq!(of("arm64", "arm"), Emulation::Native);
        assert!(!of("386", "amd64").runs());
    }
}
