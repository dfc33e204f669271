//! What is looked at when somebody asks, instead of being kept up to date.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use time::OffsetDateTime;

use super::{Label, Metrics, PREFIX, keys, store_clock};
use crate::broker::Broker;
use crate::broker::audit::outbox::Progress;
use crate::broker::directory::Directory;
use crate::broker::http::connections::Connections;
use crate::broker::notify::{Counted, View as _};
use crate::broker::store::Backlog;
use crate::telemetry::LogCounts;
use crate::trace::Counts;

/// The `Content-Type` of the output.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// How long the store may take to say something: a store that is stuck must not keep
/// anybody from seeing that.
pub(super) const STORE_TIME: Duration = Duration::from_secs(1);

/// A number with a fraction.
pub(super) type Number = Gauge<f64, AtomicU64>;

/// The name of a channel in the configuration, and what became of a delivery.
type Channel = [(&'static str, String); 1];
type Delivered = [(&'static str, String); 2];

/// The name of a sink of the audit log in the configuration.
type Sink = [(&'static str, String); 1];

impl Broker {
    /// All that is counted and measured, in the Prometheus text format.
    pub async fn scrape(&self, connections: &Connections) -> String {
        let mut sampled = Registry::with_prefix(PREFIX);
        match tokio::time::timeout(STORE_TIME, self.store.keys()).await {
            Ok(Ok(keys)) => {
                let now = self.clock.now();
                keys::sample(&mut sampled, &keys, self.algorithms, now);
                keys::sample_turn(&mut sampled, self.keys.next_turn(&keys), now);
            }
            Ok(Err(error)) => tracing::warn!(%error, "the keys cannot be looked at"),
            Err(_) => tracing::warn!("the keys cannot be looked at in time"),
        }
        let seen = Number::default();
        seen.set(self.keys.age().as_seconds_f64());
        let help = "How long ago the broker could last tell which of its keys signs";
        sampled.register_with_unit("signing_keys_seen_age", help, Unit::Seconds, seen);
        let policies = self.policies();
        let help = "The policies, roles, clients, people and trusted issuers that decide now, by their hash";
        sampled.register("policy", help, Info::new([("hash", policies.hash().to_string())]));
        sample_directory(&mut sampled, policies.directory().map(AsRef::as_ref), self.clock.now());
        keys::sample_issuers(&mut sampled, policies.authenticator().keys());
        keys::sample_clients(&mut sampled, policies.authenticator().clients().keys());
        self.metrics.sample_named(&mut sampled, &policies);
        sample_connections(&mut sampled, connections);
        match tokio::time::timeout(STORE_TIME, self.outbox.look(self.clock.now())).await {
            Ok(Ok(sinks)) => sample_sinks(&mut sampled, &sinks),
            Ok(Err(error)) => {
                tracing::warn!(%error, "how far records were handed on cannot be told")
            }
            Err(_) => tracing::warn!("how far records were handed on cannot be told in time"),
        }
        let channels = policies.channels().names();
        match tokio::time::timeout(STORE_TIME, self.notices.look(&channels)).await {
            Ok(Ok(channels)) => sample_channels(&mut sampled, &channels, self.clock.now()),
            Ok(Err(error)) => tracing::warn!(%error, "what people are not told yet cannot be told"),
            Err(_) => tracing::warn!("what people are not told yet cannot be told in time"),
        }
        self.sample_elevations(&mut sampled, &policies).await;
        if let Some(count) = self.active.look(&self.store, &self.clock).await {
            sample_active(&mut sampled, count);
        }
        let offset = self.store_clock.look(self.store.as_ref(), self.clock.as_ref()).await;
        store_clock::sample(&mut sampled, offset.ok().flatten());
        sample_records(&mut sampled, &self.metrics);
        let is_ready = tokio::time::timeout(STORE_TIME, self.check_readiness()).await;
        let ready = Gauge::<i64>::default();
        ready.set(i64::from(matches!(is_ready, Ok(Ok(())))));
        let help = "1 where the broker could tell within a second that it is ready to issue";
        sampled.register("ready", help, ready);
        let pending = Gauge::<i64>::default();
        pending.set(i64::from(self.is_restart_pending()));
        let help = "1 where the configuration as last read has changes that take a restart";
        sampled.register("restart_pending", help, pending);
        let refused = Gauge::<i64>::default();
        refused.set(i64::from(self.refused_files().is_some()));
        let help = "1 where the configuration and policies as last read cannot be used, so that those from before decide";
        sampled.register("policies_refused", help, refused);
        self.metrics.sample_certificate(&mut sampled, self.clock.now());
        sample_log(&mut sampled, self.metrics.log.get());
        let broken = Gauge::<i64>::default();
        broken.set(i64::from(self.audit.is_broken()));
        let help = "1 where the audit log is not what was signed of it, so that nothing is issued";
        sampled.register("audit_log_broken", help, broken);
        sample_spans(&mut sampled, self.traces.counts());
        let mut text = String::new();
        // What is written to a text never fails.
        let _ = prometheus_text::encode(&mut text, &self.metrics.registry);
        let _ = prometheus_text::encode(&mut text, &sampled);
        text
    }
}

fn sample_active(registry: &mut Registry, count: u64) {
    let active = Gauge::<i64>::default();
    active.set(i64::try_from(count).unwrap_or(i64::MAX));
    let help = "Tokens that are good, as the audit log tells, a minute ago at most";
    registry.register("tokens_active", help, active);
}

fn sample_directory(registry: &mut Registry, people: Option<&Directory>, now: OffsetDateTime) {
    let Some(people) = people else { return };
    let (stale, count) = (Gauge::<i64>::default(), Gauge::<i64>::default());
    stale.set(i64::from(people.is_stale(now)));
    count.set(signed(people.len()));
    registry.register("directory_people", "People in the directory", count);
    let help = "1 where the directory of people is out of date, so that rules that use it deny";
    registry.register("directory_stale", help, stale);
    if let Some(age) = people.age(now) {
        let gauge = Number::default();
        gauge.set(age.as_seconds_f64().max(0.0));
        let help = "How old the directory of people is, by what it says of itself";
        registry.register_with_unit("directory_age", help, Unit::Seconds, gauge);
    }
}

fn sample_connections(registry: &mut Registry, connections: &Connections) {
    let open = Gauge::<i64>::default();
    open.set(signed(connections.count()));
    registry.register("connections_open", "Connections to the public listener", open);
    let (refused, evicted) = (Counter::<u64>::default(), Counter::<u64>::default());
    refused.inc_by(connections.refused());
    evicted.inc_by(connections.evicted());
    let help = "Connections turned away because too many were busy";
    registry.register("connections_refused", help, refused);
    let help = "Connections without a whole request that gave way to others";
    registry.register("connections_evicted", help, evicted);
}

fn sample_sinks(registry: &mut Registry, sinks: &[Progress]) {
    let behind = Family::<Sink, Gauge>::default();
    let ages = Family::<Sink, Number>::default();
    let delivered = Family::<Sink, Counter>::default();
    let failures = Family::<Sink, Counter>::default();
    for sink in sinks {
        let label = [("sink", sink.counts.sink().to_string())];
        behind.get_or_create(&label).set(i64::try_from(sink.behind).unwrap_or(i64::MAX));
        ages.get_or_create(&label).set(sink.age.as_secs_f64());
        delivered.get_or_create(&label).inc_by(sink.counts.delivered());
        failures.get_or_create(&label).inc_by(sink.counts.failures());
    }
    let help = "Records that a sink has not got yet, whichever process hands them on";
    registry.register("audit_sink_lag_records", help, behind);
    let help = "How old the first of the records is that a sink has not got yet";
    registry.register_with_unit("audit_sink_lag", help, Unit::Seconds, ages);
    let help = "Records that this process has handed on to a sink";
    registry.register("audit_sink_records", help, delivered);
    let help = "How often this process failed to hand records on to a sink";
    registry.register("audit_sink_failures", help, failures);
}

fn sample_channels(
    registry: &mut Registry,
    channels: &[(String, Counted, Option<Backlog>)],
    now: OffsetDateTime,
) {
    let waiting = Family::<Channel, Gauge>::default();
    let ages = Family::<Channel, Number>::default();
    let deliveries = Family::<Delivered, Counter>::default();
    for (name, counted, backlog) in channels {
        let label = [("channel", name.clone())];
        let count = backlog.as_ref().map_or(0, |backlog| backlog.waiting);
        waiting.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        let age = backlog.as_ref().map_or(0.0, |backlog| (now - backlog.since).as_seconds_f64());
        ages.get_or_create(&label).set(age.max(0.0));
        let Counted { delivered, failed, given_up } = *counted;
        for (outcome, count) in
            [("delivered", delivered), ("failed", failed), ("given_up", given_up)]
        {
            let [channel] = label.clone();
            let label = [channel, ("outcome", outcome.to_string())];
            deliveries.get_or_create(&label).inc_by(count);
        }
    }
    let help = "Deliveries to people that have not come about yet, by channel, whichever process makes them";
    registry.register("notify_waiting", help, waiting);
    let help = "How old the first of the messages is that has not been delivered on a channel yet";
    registry.register_with_unit("notify_oldest_age", help, Unit::Seconds, ages);
    let help = "Deliveries to people by this process, by channel and outcome; each that is given up has failed before, unless its channel was removed";
    registry.register("notify_deliveries", help, deliveries);
}

fn sample_records(registry: &mut Registry, metrics: &Metrics) {
    let (count, oldest) = metrics.pending.look();
    let (waiting, lag) = (Gauge::<i64>::default(), Number::default());
    waiting.set(signed(count));
    lag.set(oldest.as_secs_f64());
    registry.register("audit_queue_records", "Records that are not durable yet", waiting);
    let help = "How long the first of the records that are not durable yet has been waiting";
    registry.register_with_unit("audit_lag", help, Unit::Seconds, lag);
}

fn sample_log(registry: &mut Registry, counts: Option<&LogCounts>) {
    let (lost, panics) = (Counter::<u64>::default(), Counter::<u64>::default());
    lost.inc_by(counts.map_or(0, LogCounts::lost));
    panics.inc_by(counts.map_or(0, LogCounts::panics));
    let help = "Lines of the log that are in none, because too many were to be written or they could not be";
    registry.register("log_lines_lost", help, lost);
    let help = "Threads and tasks that panicked, which is a mistake in the program";
    registry.register("panics", help, panics);
}

fn sample_spans(registry: &mut Registry, counts: Option<&Counts>) {
    let counts = counts.map_or([0; 3], Counts::all);
    let spans = Family::<Label, Counter>::default();
    for (outcome, count) in ["exported", "dropped", "refused"].into_iter().zip(counts) {
        spans.get_or_create(&[("outcome", outcome)]).inc_by(count);
    }
    registry.register("trace_spans", "Spans of traces, by what became of them", spans);
}

pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
