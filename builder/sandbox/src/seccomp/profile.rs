//! What the rules of the table mean for a process with given capabilities.

use rustix::thread::CapabilitySet;

/// When a system call may be called.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// Always.
    Allow,
    /// With this capability.
    Needs(CapabilitySet),
    /// With one of these.
    NeedsEither(CapabilitySet, CapabilitySet),
    /// Not for AF_VSOCK, which leaves the machine.
    Socket,
    /// For the harmless personalities.
    Personality,
    /// Always, but where there is one id only, it could but fail.
    Owner,
    /// With CAP_SYS_ADMIN, or without new namespaces.
    Clone,
    /// With CAP_SYS_ADMIN; else it "does not exist", so that libc falls back to clone, whose flags can be seen.
    Clone3,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Allow,
    /// EPERM
    Deny,
    /// ENOSYS
    Missing,
    /// Unless the first argument is this, in its low word.
    AllowUnless(u32),
    /// If the first argument is one of these.
    AllowIfOneOf(&'static [u32]),
    /// If the first argument has none of these bits.
    AllowWithout(u32),
    /// Nothing is done, and that is called a success.
    Pretend,
}

const AF_VSOCK: u32 = 40;
/// PER_LINUX, PER_LINUX32, UNAME26, both, and "tell me".
const PERSONALITIES: &[u32] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// All CLONE_NEW* that the clone call knows.
const NAMESPACES: u32 = 0x7e02_0000;

/// Whom the rules are applied to.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    /// What it may have.
    pub(crate) capabilities: CapabilitySet,
    /// It has a single id, which is root's: files cannot be given to others, and package managers insist on trying.
    pub(crate) single_id: bool,
}

impl Rule {
    pub(super) fn action(self, subject: Subject) -> Action {
        let Subject { capabilities, single_id } = subject;
        let has = |capability: CapabilitySet| capabilities.intersects(capability);
        let when = |allowed: bool, otherwise: Action| if allowed { Action::Allow } else { otherwise };
        match self {
            Self::Allow => Action::Allow,
            Self::Needs(one) => when(has(one), Action::Deny),
            Self::NeedsEither(one, other) => when(has(one) || has(other), Action::Deny),
            Self::Owner => when(!single_id, Action::Pretend),
            Self::Socket => Action::AllowUnless(AF_VSOCK),
            Self::Personality => Action::AllowIfOneOf(PERSONALITIES),
            Self::Clone => when(has(CapabilitySet::SYS_ADMIN), Action::AllowWithout(NAMESPACES)),
            Self::Clone3 => when(has(CapabilitySet::SYS_ADMIN), Action::Missing),
        }
    }
}
