//! Ending containers: signals, waiting, removing.

use kiln_sandbox::Channel;
use kiln_store::Store;
use rustix::fs::FlockOperation;

use crate::directory::{Home, lock};
use crate::protocol::{Event, Packet, Request};
use crate::record::Container;
use crate::{Error, Result, find, supervisor};

/// Seconds between the signal and the kill, by default.
const TIMEOUT: i64 = 10;

/// By name, with or without `SIG`, or by number; `RTMIN+3` too.
///
/// # Errors
/// There is no such signal.
pub fn parse_signal(text: &str) -> Result<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    const REAL_TIME: (i32, i32) = (34, 64);
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = || NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok());
    let real_time = || {
        let rest = |prefix| name.strip_prefix(prefix);
        match (rest("RTMIN"), rest("RTMAX")) {
            (Some(""), _) => Some(REAL_TIME.0),
            (Some(more), _) => Some(REAL_TIME.0 + more.strip_prefix('+')?.parse::<i32>().ok()?),
            (_, Some("")) => Some(REAL_TIME.1),
            (_, Some(less)) => Some(REAL_TIME.1 - less.strip_prefix('-')?.parse::<i32>().ok()?),
            _ => None,
        }
    };
    let number = name.parse::<i32>().ok().or_else(named).or_else(real_time);
    let number = number.filter(|number| (1..=REAL_TIME.1).contains(number));
    number.ok_or_else(|| Error::Invalid(format!("invalid signal: {text}")))
}

/// The supervisor of a container that runs.
pub(crate) fn supervisor_of(container: &Container) -> Result<Option<Channel>> {
    if !container.state.is_alive() {
        return Ok(None);
    }
    supervisor::connect(&container.path)
}

/// Asks a supervisor for something; [`Event::Failed`] is an error.
pub(crate) fn ask(container: &Container, channel: &Channel, request: Request) -> Result<Event> {
    Packet::Request(request)
        .send(channel, &[])
        .map_err(|error| Error::io("ask the supervisor of", &container.record.name, error))?;
    answer(container, channel)
}

pub(crate) fn answer(container: &Container, channel: &Channel) -> Result<Event> {
    let name = &container.record.name;
    loop {
        match Packet::receive(channel) {
            Ok(Some((Packet::Event(Event::Failed(status, text)), _))) => {
                return Err(Error::NotStarted { status, text });
            }
            Ok(Some((Packet::Event(event), _))) => return Ok(event),
            Ok(Some(_)) => {}
            Ok(None) => return Err(Error::Lost(name.clone())),
            Err(error) => return Err(Error::io("hear the supervisor of", name, error)),
        }
    }
}

/// Ends a container for good: a signal, and when it has not ended after so many seconds, the kill. One that does not
/// run is no error.
///
/// # Errors
/// Its supervisor cannot be reached.
pub fn stop(container: &Container, signal: Option<i32>, timeout: Option<i64>) -> Result<()> {
    let Some(channel) = supervisor_of(container)? else { return Ok(()) };
    let settings = &container.record.settings;
    let own = settings.stop_signal.as_deref().map(parse_signal).transpose()?;
    let signal = signal.or(own).unwrap_or(15);
    let timeout = timeout.or(settings.stop_timeout).unwrap_or(TIMEOUT);
    match ask(container, &channel, Request::Stop(signal, timeout)) {
        Ok(_) | Err(Error::Lost(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The processes of a container that runs.
///
/// # Errors
/// It does not.
pub fn processes(container: &Container) -> Result<Vec<crate::Process>> {
    let not_running = || Error::NotRunning(container.record.name.clone());
    let channel = supervisor_of(container)?.ok_or_else(not_running)?;
    match ask(container, &channel, Request::List)? {
        Event::Listed(processes) => Ok(processes),
        _ => Err(not_running()),
    }
}

/// Sends a signal to a container that runs.
///
/// # Errors
/// It does not.
pub fn kill(container: &Container, signal: i32) -> Result<()> {
    let not_running = || Error::NotRunning(container.record.name.clone());
    let channel = supervisor_of(container)?.ok_or_else(not_running)?;
    ask(container, &channel, Request::Signal(signal)).map(drop)
}

/// Stops all processes of a container where they are, or lets them go on.
///
/// # Errors
/// It does not run, or is (not) paused already; the user has no control group that could do it.
pub fn pause(container: &Container, frozen: bool) -> Result<()> {
    let name = &container.record.name;
    let channel = supervisor_of(container)?.ok_or_else(|| Error::NotRunning(name.clone()))?;
    ask(container, &channel, Request::Freeze(frozen)).map(drop)
}

/// Waits until a container has ended for good; its status.
///
/// # Errors
/// It cannot be read any more.
pub fn wait(container: &mut Container) -> Result<u8> {
    if let Some(channel) = supervisor_of(container)? {
        match ask(container, &channel, Request::Wait) {
            Ok(Event::Ended(status)) => return Ok(status),
            // It has gone with its supervisor: nothing is left that tells.
            Err(lost @ Error::Lost(_)) if !container.path.exists() => return Err(lost),
            Ok(_) | Err(Error::Lost(_)) => {}
            Err(error) => return Err(error),
        }
    }
    container.refresh();
    Ok(container.state.status)
}

/// Takes the lock of a container that has ended, but whose supervisor may not have; `None` when it runs.
pub(crate) fn wait_for_lock(container: &Container) -> Result<Option<Home>> {
    let mut container = container.clone();
    container.refresh();
    if container.state.is_alive() {
        return Ok(None);
    }
    match lock(&container.path.join("lock"), FlockOperation::LockShared) {
        // It has gone meanwhile.
        Err(_) if !container.path.exists() => return Ok(None),
        held => drop(held?),
    }
    Home::take(&container.path)
}

/// Removes a container that does not run, its anonymous volumes too when `volumes`; one that runs is killed when
/// `force`.
///
/// # Errors
/// It runs; its files cannot be removed.
pub fn remove(container: &Container, force: bool, volumes: bool) -> Result<()> {
    let record = &container.record;
    if container.state.is_alive() {
        if !force {
            return Err(Error::Running(record.name.clone()));
        }
        stop(container, Some(9), Some(0))?;
    }
    match Home::take(&container.path)?.map_or_else(|| wait_for_lock(container), |home| Ok(Some(home)))? {
        Some(home) => home.remove(record, volumes),
        // One that goes by itself is gone.
        None if !container.path.exists() => Ok(()),
        None => Err(Error::Running(record.name.clone())),
    }
}

/// Gives a container another name.
///
/// # Errors
/// The name is somebody's, or none.
pub fn rename(store: &Store, container: &Container, name: &str) -> Result<()> {
    let all = store.directory("containers")?;
    crate::names::check("container", name)?;
    let _naming = crate::names::lock_all(&all)?;
    if let Ok(owner) = find(store, name)
        && owner.record.name == name
    {
        return Err(Error::NameTaken { name: name.to_owned(), id: owner.record.short_id().to_owned() });
    }
    let mut record = container.record.clone();
    crate::names::give(&all, name, &record.id)?;
    let before = std::mem::replace(&mut record.name, name.to_owned());
    crate::directory::write_record(&container.path, &record)?;
    crate::names::take_away(&all, &before, &record.id);
    crate::network::rename(store.root(), &record.id, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        let table = [("TERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX", 64), ("WINCH", 28)];
        for (text, number) in table {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for wrong in ["", "0", "65", "-1", "SIGNOT", "RTMIN-1", "RTMAX+1"] {
            assert!(parse_signal(wrong).is_err(), "{wrong}");
        }
    }
}
