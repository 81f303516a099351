//! Notifications of pushes and deletions, in distribution's envelope. Each receiver has a queue in the database, which
//! outlives the server, and a task of its own, so that a slow one holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::config;
use crate::database::{self, Database};
use crate::error::{Error, chain};
use crate::metrics::Metrics;
use crate::outbound;
use crate::pattern::Patterns;

/// Notifications that wait for one receiver; further ones are dropped, and counted.
const MOST_WAITING: i64 = 16_384;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long all that waits may take after the shutdown began; the rest is sent after the next start.
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
    database: Arc<Database>,
    metrics: Arc<Metrics>,
}

/// Who is told of what.
#[derive(Debug)]
struct Receiver {
    events: Vec<String>,
    repositories: Patterns,
    delivery: Arc<Delivery>,
}

/// One receiver's queue, and how it is sent on.
#[derive(Debug)]
struct Delivery {
    /// What its queue is called.
    name: String,
    url: Url,
    http: Client,
    key: Option<hmac::Key>,
    timeout: Duration,
    attempts: u32,
    /// There is something in the queue.
    queued: Notify,
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// After too many attempts.
    Failed,
    /// The server ends: it stays in the queue.
    Kept,
}

impl Webhooks {
    pub(crate) fn open(
        config: &[config::Webhook],
        database: Arc<Database>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let mut receivers: Vec<Receiver> = Vec::new();
        for webhook in config {
            let same = receivers.iter().filter(|receiver| receiver.delivery.url.as_str() == webhook.url).count();
            receivers.push(Receiver::open(webhook, same)?);
        }
        Ok(Self { receivers, database, metrics })
    }

    /// Whether anybody wants to know.
    pub(crate) fn are_wanted(&self) -> bool {
        !self.receivers.is_empty()
    }

    /// Tells everyone who asked for such events: when this returns, nothing but the receiver can prevent it.
    pub(crate) async fn tell(&self, event: &Event) -> Result<(), Error> {
        let wanting: Vec<_> = self.receivers.iter().filter(|receiver| receiver.wants(event)).collect();
        if wanting.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = wanting.iter().map(|receiver| receiver.delivery.name.clone()).collect();
        let body = event.envelope().to_string();
        let queue = move |batch: &mut database::Batch<'_>| {
            let queue = |name: &String| database::queue_notification(batch, name, &body, MOST_WAITING);
            names.iter().map(queue).collect::<rusqlite::Result<Vec<bool>>>()
        };
        let queued = self.database.change("queue a notification", queue).await?;
        for (receiver, queued) in wanting.iter().zip(queued) {
            if queued {
                receiver.delivery.queued.notify_one();
            } else {
                self.metrics.webhook("dropped");
            }
        }
        Ok(())
    }

    /// Starts the tasks that deliver what is in the queues, from before as well. When the sender of `stopped` is gone
    /// they send what waits, and end.
    pub(crate) async fn start(&self, stopped: &watch::Receiver<()>) -> Vec<JoinHandle<()>> {
        let names: Vec<String> = self.receivers.iter().map(|receiver| receiver.delivery.name.clone()).collect();
        let forget = move |batch: &mut database::Batch<'_>| database::keep_receivers(batch, &names);
        if let Err(error) = self.database.change("forget receivers", forget).await {
            tracing::warn!(error = chain(&error), "notifications for nobody stay in the database");
        }
        let start = |receiver: &Receiver| {
            let delivery = Arc::clone(&receiver.delivery);
            tokio::spawn(delivery.run(stopped.clone(), Arc::clone(&self.database), Arc::clone(&self.metrics)))
        };
        self.receivers.iter().map(start).collect()
    }
}

impl Receiver {
    /// `same` others have the same URL.
    fn open(config: &config::Webhook, same: usize) -> Result<Self, Error> {
        let url = outbound::url(&config.url)?;
        let http = outbound::client(&url, config.timeout.0, None)?;
        let key = config.secret_file.as_ref().map(|path| {
            let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
            Ok::<_, Error>(hmac::Key::new(hmac::HMAC_SHA256, bytes.trim_ascii_end()))
        });
        let name = if same == 0 { config.url.clone() } else { format!("{} {same}", config.url) };
        let delivery = Delivery {
            name,
            url,
            http,
            key: key.transpose()?,
            timeout: config.timeout.0,
            attempts: config.attempts,
            queued: Notify::new(),
        };
        let (events, repositories) = (config.events.clone(), config.repositories.clone());
        Ok(Self { events, repositories, delivery: Arc::new(delivery) })
    }

    fn wants(&self, event: &Event) -> bool {
        self.events.iter().any(|action| action == event.action) && self.repositories.matches(&event.repository)
    }
}

impl Delivery {
    async fn run(self: Arc<Self>, mut stopped: watch::Receiver<()>, database: Arc<Database>, metrics: Arc<Metrics>) {
        while stopped.has_changed().is_ok() {
            match self.deliver_next(&database, &metrics, &mut stopped).await {
                Ok(true) => {}
                Ok(false) => tokio::select! {
                    () = self.queued.notified() => {}
                    _ = stopped.changed() => {}
                },
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the notifications' queue");
                    tokio::select! {
                        () = tokio::time::sleep(LONGEST_PAUSE) => {}
                        _ = stopped.changed() => {}
                    }
                }
            }
        }
        let last = async { while let Ok(true) = self.deliver_next(&database, &metrics, &mut stopped).await {} };
        if tokio::time::timeout(LAST_CALL, last).await.is_err() {
            tracing::warn!(url = %self.url, "some notifications wait for the next start");
        }
    }

    /// Delivers the oldest one; `false` when there is none, or it has to wait for the next start.
    async fn deliver_next(
        &self,
        database: &Arc<Database>,
        metrics: &Metrics,
        stopped: &mut watch::Receiver<()>,
    ) -> Result<bool, Error> {
        let name = self.name.clone();
        let next = database.read(move |connection| database::next_notification(connection, &name)).await?;
        let Some(next) = next else { return Ok(false) };
        let fate = self.deliver(&next.body, stopped).await;
        match fate {
            Fate::Delivered => metrics.webhook("delivered"),
            Fate::Failed => metrics.webhook("failed"),
            Fate::Kept => return Ok(false),
        }
        let id = next.id;
        database.change("remove a notification", move |batch| database::remove_notification(batch, id)).await?;
        Ok(true)
    }

    /// Tries until it is taken, or there were too many attempts.
    async fn deliver(&self, body: &str, stopped: &mut watch::Receiver<()>) -> Fate {
        let mut pause = Duration::from_secs(1);
        for attempt in 1..=self.attempts.max(1) {
            match self.send(body).await {
                Ok(()) => return Fate::Delivered,
                Err(reason) => tracing::warn!(url = %self.url, attempt, reason, "a notification was not taken"),
            }
            if stopped.has_changed().is_err() {
                return Fate::Kept; // there is no time for further attempts
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.changed() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Fate::Failed
    }

    async fn send(&self, body: &str) -> Result<(), String> {
        let mut request = self.http.post(self.url.clone()).timeout(self.timeout).body(body.to_owned());
        request = request.header(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(key) = &self.key {
            let tag = hmac::sign(key, body.as_bytes());
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            request = request.header("X-Kiln-Signature", format!("sha256={hex}"));
        }
        let response = request.send().await.map_err(outbound::reason)?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}
