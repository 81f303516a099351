use rustix::thread::CapabilitySet;

use super::*;

fn subject(capabilities: CapabilitySet) -> Subject {
    Subject { capabilities, single_id: false }
}

/// Runs a program as the kernel would.
fn run(program: &[Instruction], architecture: u32, number: u32, argument: u64) -> u32 {
    let (mut at, mut register) = (0, 0_u32);
    loop {
        let step = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { step.jt } else { step.jf });
        match step.code {
            LOAD => {
                register = match step.k {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    ARGUMENT => u32::try_from(argument & 0xffff_ffff).expect("masked"),
                    ARGUMENT_HIGH => u32::try_from(argument >> 32).expect("shifted"),
                    offset => panic!("load of {offset}"),
                }
            }
            JUMP => at += step.k as usize,
            JUMP_IF_EQUAL => branch(register == step.k),
            JUMP_IF_NOT_LESS => branch(register >= step.k),
            JUMP_IF_ANY_BIT => branch(register & step.k != 0),
            RETURN => return step.k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

const EPERM: u32 = ERROR | 1;
const ENOSYS: u32 = ERROR | 38;

#[test]
fn every_number_gets_the_action_of_its_row() {
    let single = Subject { capabilities: CapabilitySet::empty(), single_id: true };
    let others = [CapabilitySet::empty(), CapabilitySet::SYS_ADMIN, CapabilitySet::all()].map(subject);
    for subject in others.into_iter().chain([single]) {
        let program = program(subject);
        assert!(program.len() < 4096, "{}", program.len());
        for (architecture, column) in ARCHITECTURES {
            for number in 0..=NEWEST + 40 {
                let row = ROWS.iter().find(|row| u32::try_from(row.numbers[*column]) == Ok(number));
                let expected = match row.map(|row| row.rule.action(subject)) {
                    _ if number > NEWEST => ENOSYS,
                    None | Some(Action::Deny) => EPERM,
                    Some(Action::Missing) => ENOSYS,
                    Some(Action::Pretend) => ERROR,
                    // An argument of 0 passes all checks.
                    Some(_) => ALLOW,
                };
                assert_eq!(run(&program, *architecture, number, 0), expected, "{number} of {architecture:#x}");
            }
        }
        assert_eq!(run(&program, 0x1234, 0, 0), EPERM);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn arguments_are_looked_at() {
    const X86_64: u32 = 0xc000_003e;
    let program = program(subject(CapabilitySet::empty()));
    let call =
        |number: libc::c_long, argument: u64| run(&program, X86_64, u32::try_from(number).expect("a number"), argument);
    assert_eq!(call(libc::SYS_clone, 0x11), ALLOW);
    for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(call(libc::SYS_clone, flag | 0x11), EPERM, "{flag:#x}");
        assert_eq!(call(libc::SYS_clone, flag | 0xffff_ffff_0000_0000), EPERM, "{flag:#x}");
    }
    assert_eq!(call(libc::SYS_clone3, 0), ENOSYS);
    assert_eq!(call(libc::SYS_socket, 40), EPERM);
    assert_eq!(call(libc::SYS_socket, 0x1_0000_0028), EPERM);
    assert_eq!(call(libc::SYS_socket, 2), ALLOW);
    assert_eq!(call(libc::SYS_personality, 0xffff_ffff), ALLOW);
    assert_eq!(call(libc::SYS_personality, 0x1_0000_0000), EPERM);
    assert_eq!(call(libc::SYS_personality, 0x4_0000), EPERM);
    assert_eq!(call(0x4000_0000, 0), ENOSYS, "x32");
    assert_eq!(call(libc::SYS_io_uring_setup, 0), EPERM);
    assert_eq!(call(libc::SYS_keyctl, 0), EPERM);
    assert_eq!(call(libc::SYS_ptrace, 0), ALLOW);
}
