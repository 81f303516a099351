//! Any text behind each instruction's keyword: flags, exec forms, pairs, words, health checks, triggers.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/invariants/mod.rs"]
#[allow(dead_code, reason = "each target checks one thing")]
mod invariants;

const HEADS: [&str; 20] = [
    "FROM ",
    "ARG ",
    "FROM x\nADD ",
    "FROM x\nARG ",
    "FROM x\nCMD ",
    "FROM x\nCOPY ",
    "FROM x\nENTRYPOINT ",
    "FROM x\nENV ",
    "FROM x\nEXPOSE ",
    "FROM x\nHEALTHCHECK ",
    "FROM x\nLABEL ",
    "FROM x\nMAINTAINER ",
    "FROM x\nONBUILD ",
    "FROM x\nRUN ",
    "FROM x\nSHELL ",
    "FROM x\nSTOPSIGNAL ",
    "FROM x\nUSER ",
    "FROM x\nVOLUME ",
    "FROM x\nWORKDIR ",
    "# escape=`\nFROM x\nENV ",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let mut source = HEADS[usize::from(*choice) % HEADS.len()].as_bytes().to_vec();
    source.extend_from_slice(rest);
    invariants::check_dockerfile(&source);
});
