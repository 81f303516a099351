//! What one client may ask for, so that the others get their share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config;
use crate::failure::{Code, Failure};

/// How long an upload waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds of its rate that a client may use up at once.
const BURST: f64 = 10.0;
/// Clients whose rate is known; when there are more, those who rested are forgotten.
const MOST_CLIENTS: usize = 16_384;

/// The limits of one server.
#[derive(Debug)]
pub(crate) struct Limits {
    rate: f64,
    clients: Mutex<HashMap<IpAddr, Allowance>>,
    uploads: Arc<Semaphore>,
    patience: Duration,
}

/// Requests that a client may still send at once, and when that was reckoned.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Limits {
    pub(crate) fn new(config: &config::Limits) -> Self {
        let uploads = usize::try_from(config.uploads).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            rate: f64::from(config.requests_per_second),
            clients: Mutex::default(),
            uploads: Arc::new(Semaphore::new(uploads)),
            patience: PATIENCE,
        }
    }

    /// Counts a request of this client.
    ///
    /// # Errors
    /// 429, with the seconds to wait, when it sent too many.
    pub(crate) fn admit(&self, client: IpAddr, now: Instant) -> Result<(), Failure> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let full = self.rate * BURST;
        let refilled = |allowance: &Allowance| {
            let rested = now.saturating_duration_since(allowance.at).as_secs_f64();
            (allowance.left + rested * self.rate).min(full)
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MOST_CLIENTS {
            clients.retain(|_, allowance| refilled(allowance) < full);
            if clients.len() >= MOST_CLIENTS {
                clients.clear();
            }
        }
        let allowance = clients.entry(network(client)).or_insert(Allowance { left: full, at: now });
        let left = refilled(allowance);
        *allowance = Allowance { left: if left < 1.0 { left } else { left - 1.0 }, at: now };
        if left >= 1.0 {
            return Ok(());
        }
        let seconds = ((1.0 - left) / self.rate).ceil().max(1.0);
        Err(busy(seconds as u64).detail("too many requests from this address"))
    }

    /// The right to send bytes; it ends when this is dropped.
    ///
    /// # Errors
    /// 429 when others did not finish in time.
    pub(crate) async fn upload(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.uploads).acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(busy(5).detail("too many uploads at once")),
        }
    }
}

fn busy(seconds: u64) -> Failure {
    Failure::new(Code::TooManyRequests).header(header::RETRY_AFTER, HeaderValue::from(seconds))
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6((six.to_bits() >> 64 << 64).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests_per_second: u32) -> Limits {
        Limits::new(&config::Limits { requests_per_second, ..config::Limits::default() })
    }

    #[test]
    fn a_client_that_rests_may_go_on_and_others_never_stop() {
        let limits = limits(2);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        for _ in 0..20 {
            limits.admit(one, start).unwrap();
        }
        assert_eq!(limits.admit(one, start).unwrap_err().code(), Code::TooManyRequests);
        limits.admit(other, start).unwrap();
        assert!(limits.admit(one, start + Duration::from_millis(400)).is_err());
        limits.admit(one, start + Duration::from_millis(600)).unwrap();
        let unlimited = super::Limits::new(&config::Limits::default());
        assert!((0..10_000).all(|_| unlimited.admit(one, start).is_ok()));
    }

    #[tokio::test]
    async fn an_upload_that_waits_too_long_for_its_turn_is_sent_away() {
        let config = config::Limits { uploads: 2, ..config::Limits::default() };
        let limits = Limits { patience: Duration::from_millis(50), ..Limits::new(&config) };
        let turns = (limits.upload().await.unwrap(), limits.upload().await.unwrap());
        assert_eq!(limits.upload().await.unwrap_err().code(), Code::TooManyRequests);
        drop(turns.0);
        drop(limits.upload().await.unwrap());
    }

    #[test]
    fn the_addresses_of_one_network_count_together_and_memory_is_bounded() {
        let limits = limits(1);
        let start = Instant::now();
        for number in 0..10_u64 {
            limits.admit(format!("2001:db8::{number}").parse().unwrap(), start).unwrap();
        }
        assert!(limits.admit("2001:db8::ffff".parse().unwrap(), start).is_err());
        for number in 0..40_000_u32 {
            limits.admit(IpAddr::V4(number.into()), start).unwrap();
        }
        assert!(limits.clients.lock().unwrap().len() <= MOST_CLIENTS);
    }
}
