//! Health checks: a command in the container, every so often, whose status says whether the container works.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use kiln_image::config::Healthcheck;
use kiln_sandbox::join::Joined;
use kiln_sandbox::{Channel, Exit};
use rustix::pipe::{PipeFlags, pipe_with};

use super::explain;
use super::serve::Supervisor;
use crate::directory::now;
use crate::protocol::Command;
use crate::state::{Check, Health};
use crate::{Error, Result};

const INTERVAL: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// Checks that are kept.
const KEPT: usize = 5;
/// Bytes of output that are kept of each.
const OUTPUT: usize = 4096;

/// The checks of a running container.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    due: Option<Instant>,
    started: Option<Instant>,
    current: Option<Current>,
}

/// A check that runs.
#[derive(Debug)]
struct Current {
    channel: Channel,
    joined: Option<Joined>,
    output: OwnedFd,
    text: Vec<u8>,
    began: i64,
    deadline: Instant,
    late: bool,
}

impl Checks {
    /// What may have news.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.current.iter().flat_map(|current| {
            let channel = current.joined.as_ref().map_or(current.channel.as_fd(), Joined::ended);
            [channel, current.output.as_fd()]
        })
    }
}

/// The command of a check; none when there is nothing to check.
fn command(health: &Healthcheck) -> Option<Vec<String>> {
    let words = health.test.as_ref()?;
    match words.split_first() {
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Some(rest.to_vec()),
        Some((kind, [line, ..])) if kind == "CMD-SHELL" => {
            Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()])
        }
        _ => None,
    }
}

fn duration(nanoseconds: i64, default: Duration) -> Duration {
    u64::try_from(nanoseconds).ok().filter(|value| *value > 0).map_or(default, Duration::from_nanos)
}

impl Supervisor {
    fn health(&self) -> Option<&Healthcheck> {
        self.job.record.settings.health.as_ref().filter(|health| command(health).is_some())
    }

    /// The container has started.
    pub(super) fn begin_checks(&mut self) {
        if self.health().is_none() {
            return;
        }
        self.state.health = Some(Health { status: "starting".to_owned(), ..Health::default() });
        self.checks = Checks { started: Some(Instant::now()), ..Checks::default() };
        self.plan_check();
        self.write_state();
    }

    /// The container has ended.
    pub(super) fn end_checks(&mut self) {
        self.checks = Checks::default();
    }

    pub(super) fn next_check(&self) -> Option<Instant> {
        self.checks.current.as_ref().map_or(self.checks.due, |current| (!current.late).then_some(current.deadline))
    }

    fn is_starting(&self) -> bool {
        let period = self.health().map_or(0, |health| health.start_period);
        let starting = self.state.health.as_ref().is_some_and(|health| health.status == "starting");
        starting && self.checks.started.is_some_and(|started| started.elapsed() < duration(period, Duration::ZERO))
    }

    fn plan_check(&mut self) {
        let Some(health) = self.health() else { return };
        let pause = if self.is_starting() {
            duration(health.start_interval, START_INTERVAL)
        } else {
            duration(health.interval, INTERVAL)
        };
        self.checks.due = Some(Instant::now() + pause);
    }

    /// Begins a check, or ends one that takes too long; and hears those that are done.
    pub(super) fn check_when_due(&mut self, now: Instant) {
        self.hear_check();
        if let Some(current) = &mut self.checks.current {
            if current.deadline <= now && !current.late {
                current.late = true;
                if let Some(joined) = &current.joined {
                    let _ = joined.signal(9);
                }
            }
            return;
        }
        if self.run.is_none() || self.checks.due.is_none_or(|due| due > now) {
            return;
        }
        self.checks.due = None;
        if let Err(error) = self.begin_check(now) {
            let check = Check { times: (self::now(), self::now()), status: -1, output: explain(&error) };
            self.judge(check);
        }
    }

    fn begin_check(&mut self, now: Instant) -> Result<()> {
        let Some((health, args)) = self.health().and_then(|health| Some((health, command(health)?))) else {
            return Ok(());
        };
        let io = |error: std::io::Error| Error::io("check the health of", &self.home.path, error);
        let timeout = duration(health.timeout, INTERVAL);
        let entry = self.entry(&Command { args, ..Command::default() })?;
        let null = std::fs::File::open("/dev/null").map_err(io)?;
        let (output, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| io(error.into()))?;
        let (channel, theirs) = Channel::pair().map_err(io)?;
        for fd in [output.as_fd(), channel.as_fd()] {
            rustix::io::ioctl_fionbio(fd, true).map_err(|error| io(error.into()))?;
        }
        let streams = [null.into(), write.try_clone().map_err(io)?, write];
        let child = Joined::request(&entry, &streams, theirs).map_err(io)?;
        self.helpers.add(child);
        self.checks.current = Some(Current {
            channel,
            joined: None,
            output,
            text: Vec::new(),
            began: self::now(),
            deadline: now + timeout,
            late: false,
        });
        Ok(())
    }

    fn hear_check(&mut self) {
        let Some(current) = &mut self.checks.current else { return };
        let ended = current.hear();
        let Some(status) = ended else { return };
        let Some(current) = self.checks.current.take() else { return };
        let mut output = String::from_utf8_lossy(&current.text).into_owned();
        let status = if current.late { -1 } else { status };
        if current.late {
            output = "the health check took too long".to_owned();
        }
        self.judge(Check { times: (current.began, now()), status, output });
    }

    /// Keeps the result of a check.
    fn judge(&mut self, check: Check) {
        let starting = self.is_starting();
        let retries = self.health().map_or(0, |health| health.retries);
        let retries = if retries > 0 { retries } else { RETRIES };
        if let Some(health) = &mut self.state.health {
            if check.status == 0 {
                health.failing = 0;
                "healthy".clone_into(&mut health.status);
            } else if !starting {
                health.failing += 1;
                if i64::from(health.failing) >= retries {
                    "unhealthy".clone_into(&mut health.status);
                }
            }
            health.log.push(check);
            if health.log.len() > KEPT {
                health.log.remove(0);
            }
        }
        self.write_state();
        self.plan_check();
    }
}

impl Current {
    /// Reads what there is; the status when the check has ended.
    fn hear(&mut self) -> Option<i32> {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = rustix::io::read(&self.output, &mut bytes) {
            let room = OUTPUT.saturating_sub(self.text.len());
            self.text.extend_from_slice(&bytes[..length.min(room)]);
        }
        if self.joined.is_none() {
            match Joined::poll(&self.channel) {
                None => return None,
                Some(Ok(joined)) => {
                    // It took too long before it had begun.
                    if self.late {
                        let _ = joined.signal(9);
                    }
                    self.joined = Some(joined);
                }
                Some(Err(error)) => {
                    self.text = explain(&error).into_bytes();
                    return Some(i32::from(super::serve::status_of(&error)));
                }
            }
        }
        match self.joined.as_ref()?.try_wait()? {
            Exit::Code(code) => Some(i32::from(code)),
            Exit::Signal(signal) => Some(128 + signal),
        }
    }
}
