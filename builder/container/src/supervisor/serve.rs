//! The supervisor's loop: one thread, which waits for everything at once.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use kiln_sandbox::cgroup::Cgroup;
use kiln_sandbox::process::Error;
use kiln_sandbox::{Channel, Exit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketFlags;

use super::client::Client;
use super::execute::Helpers;
use super::explain;
use super::health::Checks;
use super::resources::Resources;
use super::run::Run;
use crate::Result;
use crate::directory::{Home, Retired};
use crate::log::Log;
use crate::protocol::{Attachment, Event, Job, Packet, Request, Stream};
use crate::state::{Phase, State};

/// The first pause before a restart; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A command that ran so long starts again after the first pause.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// How long whoever is slow is waited for at the end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Supervisor {
    pub(super) home: Home,
    pub(super) job: Job,
    listener: OwnedFd,
    pub(super) state: State,
    log: Log,
    pub(super) clients: Vec<Client>,
    pub(super) run: Option<Run>,
    pub(super) helpers: Helpers,
    pub(super) checks: Checks,
    pub(super) resources: Resources,
    /// Somebody wants it to end, whatever its restart policy.
    stopping: bool,
    /// When it is killed.
    kill_at: Option<Instant>,
    started: Instant,
    pause: Duration,
    /// When it starts again.
    restart_at: Option<Instant>,
}

impl Supervisor {
    pub(super) fn new(home: Home, job: Job, listener: OwnedFd) -> Self {
        let state = State::read(&home.path);
        let settings = &job.record.settings;
        let log = Log::open(&home.path, settings.log_driver.as_deref(), settings.log_limits);
        Self {
            home,
            job,
            listener,
            state: State { restarts: 0, health: None, ..state },
            log: log.unwrap_or_else(|_| Log::nowhere()),
            clients: Vec::new(),
            run: None,
            helpers: Helpers::default(),
            checks: Checks::default(),
            resources: Resources::default(),
            stopping: false,
            kill_at: None,
            started: Instant::now(),
            pause: FIRST_PAUSE,
            restart_at: None,
        }
    }

    /// Until the container has ended for good. The first client is whoever started it.
    pub(super) fn serve(mut self, channel: Channel, attachment: Attachment) {
        if let Ok(client) = Client::new(channel, attachment) {
            self.clients.push(client);
        }
        match self.start() {
            Ok(()) => self.clients.iter_mut().for_each(|client| client.tell(Event::Started)),
            Err(error) => {
                let (status, text) = (error.exit_status(), explain(&error));
                // As docker's, which has never run then.
                if self.state.started == 0 {
                    self.state.status = status;
                } else {
                    self.state.end(status);
                }
                self.state.error.clone_from(&text);
                let _ = self.state.write(&self.home.path);
                return self.finish(Some(&(status, text)));
            }
        }
        while self.run.is_some() || self.restart_at.is_some() {
            self.wait();
        }
        self.finish(None);
    }

    fn start(&mut self) -> Result<()> {
        self.provide()?;
        let run = Run::start(&self.job.spec, &self.job.record, &self.home.path)?;
        self.started = Instant::now();
        self.state.begin(run.first.pid());
        if self.job.record.settings.runtime.is_some() {
            // The runtime has made one of its own.
            self.state.cgroup = Cgroup::of_process(run.first.pid());
            self.job.spec.cgroups = self.state.cgroup.directories();
        }
        self.run = Some(run);
        self.write_state();
        self.begin_checks();
        Ok(())
    }

    pub(super) fn write_state(&self) {
        // The lock tells the truth where this could not be written.
        let _ = self.state.write(&self.home.path);
    }

    /// Waits for something to happen, and deals with all that did.
    fn wait(&mut self) {
        let behind = self.clients.iter().any(|client| client.attachment.output && client.is_behind());
        let mut polled = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for client in &self.clients {
            let out = if client.is_behind() { PollFlags::OUT } else { PollFlags::empty() };
            polled.push(PollFd::from_borrowed_fd(client.fd(), PollFlags::IN | out));
        }
        if let Some(run) = &self.run {
            polled.push(PollFd::from_borrowed_fd(run.first.ended(), PollFlags::IN));
            polled.extend(run.input().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
            if !behind {
                polled.extend(run.outputs().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            }
        }
        polled.extend(self.checks.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        polled.extend(self.helpers.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = self.next_time().map(|time| {
            let left = time.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let _ = poll(&mut polled, timeout.as_ref());
        let ended = self.run.as_ref().is_some_and(|_| !polled[1 + self.clients.len()].revents().is_empty());
        drop(polled);
        self.accept();
        self.hear_clients();
        self.move_bytes(behind);
        self.tend_helpers();
        self.look_at_the_clock();
        if ended {
            self.end();
        }
        self.clients.iter_mut().for_each(Client::flush);
        self.clients.retain(|client| !client.gone);
    }

    fn next_time(&self) -> Option<Instant> {
        [self.kill_at, self.restart_at, self.next_check()].into_iter().flatten().min()
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|time| time <= now) {
            self.kill_at = None;
            self.signal(9);
        }
        if self.restart_at.is_some_and(|time| time <= now) {
            self.restart_at = None;
            self.state.restarts += 1;
            if let Err(error) = self.start() {
                self.state.error = explain(&error);
                self.after(error.exit_status());
            }
        }
        self.check_when_due(now);
    }

    fn accept(&mut self) {
        while let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            self.clients.extend(Client::new(Channel::from_fd(socket), Attachment::default()));
        }
    }

    fn hear_clients(&mut self) {
        for at in 0..self.clients.len() {
            loop {
                match Packet::receive(&self.clients[at].channel) {
                    Ok(Some((packet, fds))) => self.answer(at, packet, fds),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Ok(None) | Err(_) => {
                        self.clients[at].gone = true;
                        break;
                    }
                }
            }
        }
    }

    fn answer(&mut self, at: usize, packet: Packet, fds: Vec<OwnedFd>) {
        let interactive = self.job.record.settings.interactive;
        match packet {
            Packet::Input(bytes) if interactive && self.clients[at].attachment.input => {
                if self.run.as_mut().is_none_or(|run| run.write(&bytes)) {
                    self.clients[at].tell(Event::Ready);
                }
            }
            Packet::Request(Request::Attach(attachment)) => {
                self.clients[at].attachment = attachment;
                self.clients[at].tell(Event::Started);
            }
            Packet::Request(Request::CloseInput) => {
                if self.clients[at].attachment.input
                    && self.job.record.settings.stdin_once
                    && let Some(run) = &mut self.run
                {
                    run.close_input();
                }
            }
            Packet::Request(Request::Resize(rows, columns)) => {
                if let Some(run) = &self.run {
                    run.resize((rows, columns));
                }
            }
            Packet::Request(Request::Signal(signal)) => {
                self.stopping |= signal == 9;
                self.state.stopped |= signal == 9;
                let sent = self.signal(signal);
                self.clients[at].tell(if sent { Event::Done } else { Event::Failed(1, "it has ended".to_owned()) });
            }
            Packet::Request(Request::Stop(signal, seconds)) => self.stop(at, signal, seconds),
            Packet::Request(Request::Freeze(frozen)) => {
                let event = self.freeze(frozen);
                self.clients[at].tell(event);
            }
            Packet::Request(Request::Update(limits, restart)) => {
                let event = self.update(*limits, restart);
                self.clients[at].tell(event);
            }
            Packet::Request(Request::Wait) => self.clients[at].waits = true,
            Packet::Request(Request::Detach) => {
                self.clients[at].attachment = Attachment::default();
                self.clients[at].tell(Event::Detached);
            }
            Packet::Request(Request::Execute(command)) => self.execute(at, &command, fds),
            Packet::Request(Request::List) => {
                let list = self.run.as_ref().map(|run| crate::top::processes(run.first.pid()));
                self.clients[at].tell(Event::Listed(list.unwrap_or_default()));
            }
            Packet::Request(Request::Measure) => {
                let usage = self.run.as_ref().map(|run| crate::stats::of_processes(run.first.pid()));
                self.clients[at].tell(Event::Measured(usage.unwrap_or_default()));
            }
            Packet::Input(_) | Packet::Output(..) | Packet::Event(_) | Packet::Request(Request::Launch(_)) => {}
        }
    }

    fn stop(&mut self, at: usize, signal: i32, seconds: i64) {
        self.stopping = true;
        self.state.stopped = true;
        self.clients[at].waits = true;
        if self.restart_at.take().is_some() {
            self.state.phase = Phase::Exited;
            self.write_state();
            return;
        }
        self.signal(signal);
        let kill_at = u64::try_from(seconds).ok().map(|seconds| Instant::now() + Duration::from_secs(seconds));
        self.kill_at = self.kill_at.into_iter().chain(kill_at).min();
    }

    fn signal(&mut self, signal: i32) -> bool {
        let sent = self.run.as_ref().is_some_and(|run| run.first.signal(signal).is_ok());
        self.thaw();
        sent
    }

    fn move_bytes(&mut self, behind: bool) {
        let Some(run) = &mut self.run else { return };
        if run.input().is_some() && run.flush() {
            self.clients
                .iter_mut()
                .filter(|client| client.attachment.input)
                .for_each(|client| client.tell(Event::Ready));
        }
        if !behind {
            self.pass_output(false);
        }
    }

    /// To the log, and to whoever is attached.
    fn pass_output(&mut self, all: bool) {
        let Some(run) = &mut self.run else { return };
        let (log, clients) = (&mut self.log, &mut self.clients);
        run.read(all, &mut |stream: Stream, bytes: Vec<u8>| {
            log.write(stream, &bytes);
            let packet = Packet::Output(stream, bytes);
            clients.iter_mut().filter(|client| client.attachment.output).for_each(|client| client.send(&packet));
        });
    }

    /// The command has ended.
    fn end(&mut self) {
        self.pass_output(true);
        let Some(run) = self.run.take() else { return };
        let status = match run.first.reap() {
            Ok(Exit::Code(code)) => code,
            Ok(Exit::Signal(signal)) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
            Err(_) => 255,
        };
        self.after(status);
    }

    /// Keeps how it ended, tells, and decides whether it starts again.
    fn after(&mut self, status: u8) {
        self.kill_at = None;
        self.end_checks();
        self.state.end(status);
        self.state.out_of_memory = self.was_out_of_memory();
        let again = !self.stopping && self.job.record.settings.restart.applies(status, self.state.restarts);
        if again {
            self.pause = if self.started.elapsed() >= GOOD_RUN { FIRST_PAUSE } else { self.pause };
            self.restart_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LAST_PAUSE);
            self.state.phase = Phase::Restarting;
        }
        self.write_state();
        let removed = self.job.record.settings.remove;
        for client in self.clients.iter_mut().filter(|client| client.attachment != Attachment::default()) {
            client.attachment = Attachment::default();
            // Of one that goes, when it has gone.
            if removed {
                client.waits = true;
            } else {
                client.tell(Event::Ended(status));
            }
        }
    }

    /// The container goes if it is to, and everybody gets what is theirs: why it did not start, or how it ended. What
    /// the next command may want is free before anybody is told; all else takes its time afterwards.
    fn finish(mut self, failure: Option<&(u8, String)>) {
        self.accept();
        self.hear_clients();
        let Self { home, job, state, mut clients, listener, mut resources, .. } = self;
        resources.leave();
        let (kept, retired) = match job.record.settings.remove {
            true => (None, home.retire(&job.record, true).ok()),
            false => (Some(home), None),
        };
        drop(listener);
        for client in &mut clients {
            match failure {
                Some((status, text)) => client.tell(Event::Failed(*status, text.clone())),
                None if client.waits => client.tell(Event::Ended(state.status)),
                None => {}
            }
        }
        let idle = resources.release(&state);
        drop(retired.map(Retired::clear));
        drop(kept);
        see_off(clients);
        if let Some(idle) = idle {
            idle.watch();
        }
    }
}

/// Waits for those who have not taken everything yet.
fn see_off(mut clients: Vec<Client>) {
    let patience = Instant::now() + PATIENCE;
    while clients.iter().any(Client::is_behind) && Instant::now() < patience {
        let mut polled: Vec<_> = clients
            .iter()
            .filter(|client| client.is_behind())
            .map(|client| PollFd::from_borrowed_fd(client.channel.as_fd(), PollFlags::OUT))
            .collect();
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        drop(polled);
        clients.iter_mut().for_each(Client::flush);
    }
}

/// Docker's exit status for a command that was not started.
pub(super) fn status_of(error: &Error) -> u8 {
    match error {
        Error::NotFound(_) => 127,
        Error::NotExecutable(..) => 126,
        _ => 125,
    }
}
