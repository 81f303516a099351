//! What Prometheus is told: counts, durations and sizes. No repository's name is among them.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the labels' values")]
pub(crate) enum Endpoint {
    version,
    catalog,
    tags,
    referrers,
    manifest,
    blob,
    upload,
    token,
    page,
    health,
    metrics,
    /// Not below the prefix.
    elsewhere,
    other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: Endpoint,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    endpoint: Endpoint,
}

/// Whether something went well.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// How much there is at the moment of asking.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) repositories: i64,
    pub(crate) tags: i64,
    pub(crate) manifests: i64,
    pub(crate) blobs: i64,
    pub(crate) bytes: i64,
}

/// Every metric.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) uploads: Gauge,
    refused: Counter,
    webhooks: Family<OutcomeLabels, Counter>,
    upstream: Family<OutcomeLabels, Counter>,
    repositories: Gauge,
    tags: Gauge,
    manifests: Gauge,
    blobs: Gauge,
    bytes: Gauge,
    dropped_log_lines: Counter<u64, AtomicU64>,
}

/// Durations by endpoint, from a tenth of a millisecond to some ten seconds.
#[derive(Debug, Clone)]
struct Durations(Family<DurationLabels, Histogram, fn() -> Histogram>);

impl Default for Durations {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_1, 4.0, 9))))
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self::default();
        let mut registry = Registry::with_prefix("kiln_registry");
        registry.register("requests", "Requests answered", metrics.requests.clone());
        let help = "Seconds until an answer's head was ready";
        registry.register("request_duration_seconds", help, metrics.durations.0.clone());
        registry.register("received_bytes", "Bytes of requests' bodies", metrics.received.clone());
        registry.register("sent_bytes", "Bytes of answers' bodies", metrics.sent.clone());
        registry.register("requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("uploads_in_flight", "Requests that send a blob's bytes", metrics.uploads.clone());
        registry.register("rate_limited", "Requests refused for their number", metrics.refused.clone());
        registry.register("webhook_deliveries", "Notifications by their fate", metrics.webhooks.clone());
        registry.register("upstream_requests", "Requests to upstream registries", metrics.upstream.clone());
        registry.register("repositories", "Repositories with a manifest", metrics.repositories.clone());
        registry.register("tags", "Tags", metrics.tags.clone());
        registry.register("manifests", "Manifests", metrics.manifests.clone());
        registry.register("blobs", "Blobs", metrics.blobs.clone());
        registry.register("blob_bytes", "Bytes of all blobs", metrics.bytes.clone());
        let help = "Lines of the access log that could not be written in time";
        registry.register("access_log_dropped", help, metrics.dropped_log_lines.clone());
        metrics.registry = registry;
        metrics
    }

    pub(crate) fn count(&self, endpoint: Endpoint, method: &str, status: u16, duration: Duration) {
        // Anybody can invent methods.
        let known = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"];
        let method = known.into_iter().find(|known| *known == method).unwrap_or("other");
        self.requests.get_or_create(&RequestLabels { endpoint, method, status }).inc();
        self.durations.0.get_or_create(&DurationLabels { endpoint }).observe(duration.as_secs_f64());
    }

    pub(crate) fn refuse(&self) {
        self.refused.inc();
    }

    /// The fate of a notification: `delivered`, `failed`, `dropped`.
    pub(crate) fn webhook(&self, outcome: &'static str) {
        self.webhooks.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// What became of a question to an upstream: `ok`, `unknown`, `failed`, `stale`.
    pub(crate) fn upstream(&self, outcome: &'static str) {
        self.upstream.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// All of them as OpenMetrics text.
    pub(crate) fn text(&self, contents: Contents, dropped_log_lines: u64) -> String {
        self.repositories.set(contents.repositories);
        self.tags.set(contents.tags);
        self.manifests.set(contents.manifests);
        self.blobs.set(contents.blobs);
        self.bytes.set(contents.bytes);
        self.dropped_log_lines.inner().store(dropped_log_lines, std::sync::atomic::Ordering::Relaxed);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_endpoint_method_and_status() {
        let metrics = Metrics::new();
        metrics.count(Endpoint::manifest, "GET", 200, Duration::from_millis(1));
        metrics.count(Endpoint::manifest, "GET", 200, Duration::from_millis(1));
        metrics.count(Endpoint::blob, "BREW", 405, Duration::from_secs(100));
        metrics.webhook("delivered");
        let text = metrics.text(Contents { blobs: 3, ..Contents::default() }, 7);
        for line in [
            "kiln_registry_requests_total{endpoint=\"manifest\",method=\"GET\",status=\"200\"} 2",
            "kiln_registry_requests_total{endpoint=\"blob\",method=\"other\",status=\"405\"} 1",
            "kiln_registry_request_duration_seconds_count{endpoint=\"manifest\"} 2",
            "kiln_registry_webhook_deliveries_total{outcome=\"delivered\"} 1",
            "kiln_registry_blobs 3",
            "kiln_registry_access_log_dropped_total 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
