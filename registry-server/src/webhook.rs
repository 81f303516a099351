//! Notifications of pushes and deletions, in distribution's envelope. Each receiver has a queue and a task of its own,
//! so that a slow one holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config;
use crate::error::{Error, chain};
use crate::metrics::Metrics;
use crate::outbound;
use crate::pattern::Patterns;

/// Notifications that wait for one receiver; further ones are dropped, and counted.
const MOST_WAITING: usize = 4_096;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long all that waits may take after the shutdown began.
const LAST_CALL: Duration = Duration::from_secs(10);
const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// What happened.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// `push` or `delete`.
    pub(crate) action: &'static str,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
    pub(crate) media_type: Option<String>,
    /// In bytes, of the manifest.
    pub(crate) size: Option<usize>,
    /// Where the manifest is, or was.
    pub(crate) url: String,
    pub(crate) actor: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    pub(crate) method: String,
    pub(crate) agent: String,
}

impl Event {
    fn envelope(&self) -> Value {
        let mut bytes = [0_u8; 16];
        // Without random bytes the id is of zeros: a receiver can still read the rest.
        let _ = getrandom::fill(&mut bytes);
        let id = format!("{:032x}", u128::from_be_bytes(bytes));
        let target = json!({
            "mediaType": self.media_type, "digest": self.digest, "size": self.size, "length": self.size,
            "repository": self.repository, "tag": self.tag, "url": self.url,
        });
        let present = |value: Value| match value {
            Value::Object(map) => Value::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect()),
            other => other,
        };
        json!({"events": [{
            "id": id,
            "timestamp": jiff::Timestamp::now().to_string(),
            "action": self.action,
            "target": present(target),
            "request": {"addr": self.client, "host": self.host, "method": self.method, "useragent": self.agent},
            "actor": present(json!({"name": self.actor})),
            "source": {"addr": self.host},
        }]})
    }
}

/// Everyone who is told.
#[derive(Debug)]
pub(crate) struct Webhooks {
    receivers: Vec<Receiver>,
    metrics: Arc<Metrics>,
}

/// The sending end of one receiver's queue.
#[derive(Debug)]
struct Receiver {
    events: Vec<String>,
    repositories: Patterns,
    queue: mpsc::Sender<Arc<Event>>,
    /// Until it is started.
    delivery: std::sync::Mutex<Option<Delivery>>,
}

/// The receiving end, and how it is sent on.
#[derive(Debug)]
struct Delivery {
    url: Url,
    http: Client,
    key: Option<hmac::Key>,
    timeout: Duration,
    attempts: u32,
    queue: mpsc::Receiver<Arc<Event>>,
}

impl Webhooks {
    pub(crate) fn open(config: &[config::Webhook], metrics: Arc<Metrics>) -> Result<Self, Error> {
        let receivers = config.iter().map(Receiver::open).collect::<Result<_, _>>()?;
        Ok(Self { receivers, metrics })
    }

    /// Whether anybody wants to know.
    pub(crate) fn are_wanted(&self) -> bool {
        !self.receivers.is_empty()
    }

    /// Tells everyone who asked for such events.
    pub(crate) fn tell(&self, event: Event) {
        let event = Arc::new(event);
        for receiver in self.receivers.iter().filter(|receiver| receiver.wants(&event)) {
            if let Err(TrySendError::Full(_)) = receiver.queue.try_send(Arc::clone(&event)) {
                self.metrics.webhook("dropped");
            }
        }
    }

    /// Starts the tasks that deliver. When the sender of `stopped` is gone they send what waits, and end.
    pub(crate) fn start(&self, stopped: &watch::Receiver<()>) -> Vec<JoinHandle<()>> {
        let deliveries = self
            .receivers
            .iter()
            .filter_map(|receiver| receiver.delivery.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        deliveries.map(|delivery| tokio::spawn(delivery.run(stopped.clone(), Arc::clone(&self.metrics)))).collect()
    }
}

impl Receiver {
    fn open(config: &config::Webhook) -> Result<Self, Error> {
        let url = outbound::url(&config.url)?;
        let http = outbound::client(&url, config.timeout.0, None)?;
        let key = config.secret_file.as_ref().map(|path| {
            let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
            Ok::<_, Error>(hmac::Key::new(hmac::HMAC_SHA256, bytes.trim_ascii_end()))
        });
        let (sender, queue) = mpsc::channel(MOST_WAITING);
        let delivery =
            Delivery { url, http, key: key.transpose()?, timeout: config.timeout.0, attempts: config.attempts, queue };
        Ok(Self {
            events: config.events.clone(),
            repositories: config.repositories.clone(),
            queue: sender,
            delivery: std::sync::Mutex::new(Some(delivery)),
        })
    }

    fn wants(&self, event: &Event) -> bool {
        self.events.iter().any(|action| action == event.action) && self.repositories.matches(&event.repository)
    }
}

impl Delivery {
    async fn run(mut self, mut stopped: watch::Receiver<()>, metrics: Arc<Metrics>) {
        loop {
            let event = tokio::select! {
                event = self.queue.recv() => event,
                _ = stopped.changed() => break,
            };
            let Some(event) = event else { return };
            metrics.webhook(self.deliver(&event, &mut stopped).await);
        }
        let last = async {
            while let Ok(event) = self.queue.try_recv() {
                metrics.webhook(self.deliver(&event, &mut stopped).await);
            }
        };
        if tokio::time::timeout(LAST_CALL, last).await.is_err() {
            tracing::warn!(url = %self.url, "notifications were not delivered before the end");
        }
    }

    /// Tries until it is taken, or there were too many attempts. Returns what became of it.
    async fn deliver(&self, event: &Event, stopped: &mut watch::Receiver<()>) -> &'static str {
        let body = event.envelope().to_string();
        let mut pause = Duration::from_secs(1);
        for attempt in 1..=self.attempts.max(1) {
            match self.send(&body).await {
                Ok(()) => return "delivered",
                Err(reason) => tracing::warn!(url = %self.url, attempt, reason, "a notification was not taken"),
            }
            if stopped.has_changed().is_err() {
                break; // there is no time for further attempts
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.changed() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        "failed"
    }

    async fn send(&self, body: &str) -> Result<(), String> {
        let mut request = self.http.post(self.url.clone()).timeout(self.timeout).body(body.to_owned());
        request = request.header(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(key) = &self.key {
            let tag = hmac::sign(key, body.as_bytes());
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            request = request.header("X-Kiln-Signature", format!("sha256={hex}"));
        }
        let response = request.send().await.map_err(|error| chain(&error.without_url()))?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}
