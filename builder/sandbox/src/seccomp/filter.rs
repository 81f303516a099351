//! The BPF program: architecture, then a binary search over ranges of system call numbers with the same action.

use super::profile::{Action, Subject};
use super::table::{NEWEST, ROWS};

type Instruction = libc::sock_filter;

/// Architectures that a process here can use: AUDIT_ARCH_* and the column of the table.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[(u32, usize)] = &[(0xc000_003e, 0), (0x4000_0003, 1)];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[(u32, usize)] = &[(0xc000_00b7, 2)];

// Offsets in `struct seccomp_data`; both architectures are little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT: u32 = 16;
const ARGUMENT_HIGH: u32 = 20;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_NOT_LESS: u16 = 0x35;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const ERROR: u32 = 0x0005_0000;

const fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// `jt` instructions are skipped when the condition holds, none otherwise.
fn jump_over(code: u16, k: u32, count: usize) -> Vec<Instruction> {
    match u8::try_from(count) {
        Ok(near) => vec![instruction(code, k, near, 0)],
        // A conditional jump reaches 255 instructions: past a long block goes an unconditional one.
        Err(_) => vec![instruction(code, k, 0, 1), instruction(JUMP, u32::try_from(count).unwrap_or(u32::MAX), 0, 0)],
    }
}

/// The whole program.
pub(super) fn program(subject: Subject) -> Vec<Instruction> {
    let mut program = vec![instruction(LOAD, ARCHITECTURE, 0, 0)];
    for (architecture, column) in ARCHITECTURES {
        let mut block = vec![instruction(LOAD, NUMBER, 0, 0)];
        block.extend(search(&ranges(*column, subject)));
        // Over the jump past the block when it is this architecture.
        program.push(instruction(JUMP_IF_EQUAL, *architecture, 1, 0));
        program.push(instruction(JUMP, u32::try_from(block.len()).unwrap_or(u32::MAX), 0, 0));
        program.extend(block);
    }
    program.extend(leaf(Action::Deny));
    program
}

/// First number and action of each range, ascending from 0.
fn ranges(column: usize, subject: Subject) -> Vec<(u32, Action)> {
    let mut actions = vec![Action::Deny; NEWEST as usize + 1];
    for row in ROWS {
        let number = row.numbers.get(column).and_then(|number| usize::try_from(*number).ok());
        if let Some(action) = number.and_then(|number| actions.get_mut(number)) {
            *action = row.rule.action(subject);
        }
    }
    // x32's numbers are among those above.
    actions.push(Action::Missing);
    let mut ranges: Vec<(u32, Action)> = Vec::new();
    for (number, action) in (0..).zip(actions) {
        if ranges.last().is_none_or(|(_, last)| *last != action) {
            ranges.push((number, action));
        }
    }
    ranges
}

fn search(ranges: &[(u32, Action)]) -> Vec<Instruction> {
    match ranges {
        [] => leaf(Action::Deny),
        [(_, action)] => leaf(*action),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let start = high.first().map_or(0, |(number, _)| *number);
            let low = search(low);
            let mut block = jump_over(JUMP_IF_NOT_LESS, start, low.len());
            block.extend(low);
            block.extend(search(high));
            block
        }
    }
}

fn leaf(action: Action) -> Vec<Instruction> {
    let error = |number: i32| instruction(RETURN, ERROR | number.unsigned_abs(), 0, 0);
    let allow = instruction(RETURN, ALLOW, 0, 0);
    let deny = error(libc::EPERM);
    let load = instruction(LOAD, ARGUMENT, 0, 0);
    match action {
        Action::Allow => vec![allow],
        Action::Deny => vec![deny],
        Action::Missing => vec![error(libc::ENOSYS)],
        Action::Pretend => vec![error(0)],
        Action::AllowUnless(value) => vec![load, instruction(JUMP_IF_EQUAL, value, 0, 1), deny, allow],
        Action::AllowWithout(bits) => vec![load, instruction(JUMP_IF_ANY_BIT, bits, 0, 1), deny, allow],
        Action::AllowIfOneOf(values) => {
            let mut block =
                vec![instruction(LOAD, ARGUMENT_HIGH, 0, 0), instruction(JUMP_IF_EQUAL, 0, 1, 0), deny, load];
            for value in values {
                block.push(instruction(JUMP_IF_EQUAL, *value, 0, 1));
                block.push(allow);
            }
            block.push(deny);
            block
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
