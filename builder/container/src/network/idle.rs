//! Bridges that a container has left. The kernel takes a while to make one and longer to take one away: they go when
//! nobody has used them for a moment, so that containers that come one after the other find them there.

use std::fs::File;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::attachment::lower_if_unused;
use super::plane::Plane;
use super::record::{Network, Networks};
use crate::directory::lock;

/// How long a bridge stays after its last use.
const LINGER: Duration = Duration::from_secs(1);

/// Bridges that may be unused.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(super) networks: Networks,
    pub(super) plane: Plane,
    pub(super) bridges: Vec<Network>,
}

impl Idle {
    /// Takes them away when their time has come. Returns at once when somebody else will see to it: whoever is on one,
    /// or whoever watches it already.
    pub(crate) fn watch(self) {
        let Ok(alone) = self.networks.lock() else {
            if !self.networks.path().exists() {
                // The store is gone, and with it whoever else might look after them.
                self.bridges.iter().for_each(|network| self.plane.lower(network));
            }
            return;
        };
        let watches = self.bridges.iter().filter_map(|network| Some((network, self.begin(network)?)));
        let mut watches: Vec<(&Network, File)> = watches.collect();
        drop(alone);
        while !watches.is_empty() {
            std::thread::sleep(LINGER);
            // While nobody comes or goes: whoever leaves next finds either a bridge that is gone, or no watch.
            let alone = self.networks.lock();
            watches.retain(|(network, _)| match alone {
                Ok(_) => self.goes_on(network),
                // The store is gone.
                Err(_) => {
                    self.plane.lower(network);
                    false
                }
            });
        }
    }

    /// A watch over a bridge that nobody is on, when there is none yet.
    fn begin(&self, network: &Network) -> Option<File> {
        if !self.networks.endpoints(network).is_empty() {
            return None;
        }
        lock(&self.networks.watch(network), FlockOperation::NonBlockingLockExclusive).ok()
    }

    /// Whether a watch is still needed; an unused bridge goes.
    fn goes_on(&self, network: &Network) -> bool {
        if !self.networks.endpoints(network).is_empty() {
            return false;
        }
        let used = self.networks.last_use(network).and_then(|used| SystemTime::now().duration_since(used).ok());
        if used.is_some_and(|ago| ago < LINGER) {
            return true;
        }
        lower_if_unused(&self.networks, &self.plane, network);
        false
    }
}
