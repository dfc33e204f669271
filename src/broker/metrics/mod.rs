//! What can be seen from outside: counts and times, in the Prometheus text format.
//!
//! No label has a value that a caller chooses, so nobody can make the output grow, and
//! it tells of no subject and no token. A broker has its own registry.

mod active;
mod certificate;
mod elevated;
mod keys;
mod labels;
mod named;
mod sample;
mod store_clock;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

pub(super) use active::Active;
pub(super) use labels::of_rejection;
pub use labels::{
    Administered, Authorization, ClientAuthentication, Introspection, Issuance, Reload, Revocation,
    Shed,
};
pub use sample::CONTENT_TYPE;
pub(super) use store_clock::StoreClock;

use super::authenticate::{Caller, Rejection};
use super::origins::Place;
use super::own::Flaw;
use super::proof::Fault;
use super::rate::TooOften;
use crate::error::Result;
use crate::telemetry::LogCounts;

/// What all names begin with.
const PREFIX: &str = "tmpcred";

/// The upper bounds of the classes of durations, in seconds: fine around the ten
/// milliseconds within which a token is to be issued.
const BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One label of which the values are known beforehand.
type Label = [(&'static str, &'static str); 1];

/// Route and status, as far as statuses are told apart.
type Answered = [(&'static str, String); 2];

/// A route.
type Route = [(&'static str, String); 1];

/// The statuses that are told apart from the others of their class: who has not shown who they
/// are, who may not, and who asks too often are looked after by different people.
const APART: [StatusCode; 3] =
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];

type Histograms = Family<Label, Histogram, fn() -> Histogram>;

/// What a broker counts and measures.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    answering: Family<Route, Histogram, fn() -> Histogram>,
    attempts: Counter,
    successes: Counter,
    denials: Family<Label, Counter>,
    failures: Family<Label, Counter>,
    issuing: Histograms,
    authenticating: Histogram,
    renewals: named::Named,
    rejections: Family<Label, Counter>,
    own_refused: Family<Label, Counter>,
    elsewhere: Family<Label, Counter>,
    proofs: Family<Label, Counter>,
    clients: Family<Label, Counter>,
    introspections: Family<Label, Counter>,
    authorizations: named::Named,
    revocations: Family<Label, Counter>,
    administrations: Family<Label, Counter>,
    elevations: Family<[(&'static str, &'static str); 2], Counter>,
    uses_lost: Counter,
    revoking: Histogram,
    appending: Histogram,
    unrecorded: Counter,
    shed: Family<labels::Shedding, Counter>,
    limited: Family<labels::TurnedAway, Counter>,
    reloads: Family<Label, Counter>,
    certificate: certificate::Served,
    log: OnceLock<LogCounts>,
    policy_reloads: Family<Label, Counter>,
    unsigned: Counter,
    pending: Pending,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            requests: Family::default(),
            answering: Family::new_with_constructor(durations),
            attempts: Counter::default(),
            successes: Counter::default(),
            denials: labels::all("reason", Issuance::DENIALS),
            failures: labels::all("reason", Issuance::FAILURES),
            issuing: Family::new_with_constructor(durations),
            authenticating: durations(),
            renewals: Default::default(),
            rejections: labels::all("reason", labels::FAULTS),
            own_refused: labels::all("reason", labels::FLAWS),
            elsewhere: labels::all("place", labels::PLACES),
            proofs: labels::all("reason", labels::PROOF_FAULTS),
            clients: labels::all("outcome", ClientAuthentication::ALL),
            introspections: labels::all("outcome", Introspection::ALL),
            authorizations: Default::default(),
            revocations: labels::all("outcome", Revocation::ALL),
            administrations: labels::all("outcome", Administered::ALL),
            elevations: Family::default(),
            uses_lost: Counter::default(),
            revoking: durations(),
            appending: durations(),
            unrecorded: Counter::default(),
            shed: Family::default(),
            limited: labels::all_turned_away(),
            reloads: labels::all("outcome", Reload::ALL),
            certificate: Default::default(),
            log: OnceLock::new(),
            policy_reloads: labels::all("outcome", Reload::ALL),
            unsigned: Counter::default(),
            pending: Pending::default(),
        };
        for outcome in ["issued", "denied", "failed"] {
            drop(metrics.issuing.get_or_create(&[("outcome", outcome)]));
        }
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", version);
        registry.register(
            "http_requests",
            "Requests answered by the public listener, by route and status or class of it",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "How long it took to answer requests, by route",
            Unit::Seconds,
            self.answering.clone(),
        );
        registry.register(
            "issuance_attempts",
            "Requests for a token that were begun; those without an outcome were given up by their caller",
            self.attempts.clone(),
        );
        registry.register("issuance_successes", "Tokens issued", self.successes.clone());
        registry.register(
            "issuance_denials",
            "Requests for a token that were refused, by reason",
            self.denials.clone(),
        );
        registry.register(
            "issuance_failures",
            "Requests for a token that the broker could not serve, by reason",
            self.failures.clone(),
        );
        registry.register_with_unit(
            "issuance_duration",
            "How long requests for a token took, by outcome",
            Unit::Seconds,
            self.issuing.clone(),
        );
        registry.register_with_unit(
            "authentication_duration",
            "How long it took to verify an assertion, keys fetched for it included",
            Unit::Seconds,
            self.authenticating.clone(),
        );
        registry.register(
            "assertions_rejected",
            "Assertions that were not accepted, for a token or for an introspection, by reason",
            self.rejections.clone(),
        );
        registry.register(
            "own_tokens_refused",
            "Tokens of the broker's own that were shown for an introspection, to a proxy or for an exchange and not accepted, by reason",
            self.own_refused.clone(),
        );
        registry.register(
            "tokens_used_elsewhere",
            "Tokens that were used from another network than the one that they were issued to, once for each such network, by where they were shown",
            self.elsewhere.clone(),
        );
        registry.register(
            "dpop_proofs_rejected",
            "Proofs of a key that were not accepted, wherever they were shown, by reason",
            self.proofs.clone(),
        );
        registry.register(
            "client_authentications",
            "Requests of clients that had to authenticate or to prove a key, by outcome",
            self.clients.clone(),
        );
        registry.register(
            "introspections",
            "Introspections, by outcome",
            self.introspections.clone(),
        );
        registry.register("revocations", "Revocations, by outcome", self.revocations.clone());
        registry.register(
            "administrations",
            "Requests to look after the broker from elsewhere, by outcome",
            self.administrations.clone(),
        );
        registry.register(
            "elevation_requests",
            "Requests about elevations, by what was to be done and how they ended",
            self.elevations.clone(),
        );
        registry.register(
            "elevation_uses_lost",
            "Things done under grants that were not kept, because there was no room for more or somebody has tampered with what there is",
            self.uses_lost.clone(),
        );
        registry.register_with_unit(
            "revocation_duration",
            "From the request to revoke a token until the broker itself refuses it, durably",
            Unit::Seconds,
            self.revoking.clone(),
        );
        registry.register_with_unit(
            "audit_append_duration",
            "How long it took until a record was durable",
            Unit::Seconds,
            self.appending.clone(),
        );
        registry.register(
            "audit_append_failures",
            "Records that could not be made durable in time; nothing was issued for them",
            self.unrecorded.clone(),
        );
        registry.register(
            "load_shed",
            "Requests turned away because too much was under way, by what there was too much of, and for what",
            self.shed.clone(),
        );
        registry.register(
            "rate_limited",
            "Requests turned away because there were too many of late, by whose rate it was, and for what",
            self.limited.clone(),
        );
        registry.register(
            "tls_reloads",
            "Certificates read again, by outcome",
            self.reloads.clone(),
        );
        registry.register(
            "policy_reloads",
            "Configuration and policies read again, by outcome",
            self.policy_reloads.clone(),
        );
        registry.register(
            "audit_checkpoint_failures",
            "How often no checkpoint of the audit log could be signed",
            self.unsigned.clone(),
        );
    }

    /// Counts an answer of the public listener, and how long it took.
    pub fn answered(&self, route: &str, status: StatusCode, took: Duration) {
        let status = match status {
            one if APART.contains(&one) => one.as_str().to_string(),
            other => format!("{}xx", other.as_u16() / 100),
        };
        let by_route = [("route", route.to_string())];
        self.answering.get_or_create(&by_route).observe(took.as_secs_f64());
        let [route] = by_route;
        self.requests.get_or_create(&[route, ("status", status)]).inc();
    }

    /// Counts a request for a token; its outcome follows.
    pub fn begin_issuance(&self) -> Begun {
        self.attempts.inc();
        Begun(Instant::now())
    }

    /// Counts how a request for a token ended.
    pub fn end_issuance(&self, begun: Begun, outcome: Issuance) {
        let reason = [("reason", outcome.as_str())];
        let class = match outcome.class() {
            labels::Class::Issued => {
                self.successes.inc();
                "issued"
            }
            labels::Class::Denied => {
                self.denials.get_or_create(&reason).inc();
                "denied"
            }
            labels::Class::Failed => {
                self.failures.get_or_create(&reason).inc();
                "failed"
            }
        };
        let took = begun.0.elapsed().as_secs_f64();
        self.issuing.get_or_create(&[("outcome", class)]).observe(took);
    }

    /// Measures how long it takes to say who is calling.
    pub async fn authentication(
        &self,
        work: impl Future<Output = Result<Caller, Rejection>>,
    ) -> Result<Caller, Rejection> {
        let started = Instant::now();
        let outcome = work.await;
        self.authenticating.observe(started.elapsed().as_secs_f64());
        if let Err(rejection) = &outcome {
            self.rejections.get_or_create(&[("reason", of_rejection(rejection))]).inc();
        }
        outcome
    }

    /// Counts a token of the broker's own that is not accepted.
    pub fn own_refused(&self, flaw: Flaw) {
        self.own_refused.get_or_create(&[("reason", labels::of_flaw(flaw))]).inc();
    }

    /// Counts a token that is used from another network than the one that it was issued to.
    pub fn used_elsewhere(&self, place: Place) {
        self.elsewhere.get_or_create(&[("place", place.as_str())]).inc();
    }

    /// How many were.
    #[cfg(test)]
    pub(super) fn elsewhere(&self, place: Place) -> u64 {
        self.elsewhere.get_or_create(&[("place", place.as_str())]).get()
    }

    /// Counts a proof of a key that is not accepted.
    pub fn proof_rejected(&self, fault: Fault) {
        self.proofs.get_or_create(&[("reason", labels::of_proof(fault))]).inc();
    }

    /// Measures how long it takes until a record is durable.
    pub async fn recording<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let waiting = self.pending.begin();
        let outcome = work.await;
        match &outcome {
            Ok(_) => self.appending.observe(waiting.since.elapsed().as_secs_f64()),
            Err(_) => {
                self.unrecorded.inc();
            }
        }
        outcome
    }

    /// Measures how long it takes until a token is revoked.
    pub async fn revocation(
        &self,
        work: impl Future<Output = Result<Revocation>>,
    ) -> Result<Revocation> {
        let started = Instant::now();
        let outcome = work.await;
        match &outcome {
            Ok(revocation) => {
                if *revocation == Revocation::Revoked {
                    self.revoking.observe(started.elapsed().as_secs_f64());
                }
                self.revoked(*revocation);
            }
            Err(_) => self.revoked(Revocation::Failed),
        }
        outcome
    }

    /// Counts a request to revoke a token.
    pub fn revoked(&self, outcome: Revocation) {
        self.revocations.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Counts a request to look after the broker.
    pub fn administered(&self, outcome: Administered) {
        self.administrations.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Counts a request about elevations, by what was to be done.
    pub fn elevated(&self, event: &'static str, outcome: &'static str) {
        self.elevations.get_or_create(&[("event", event), ("outcome", outcome)]).inc();
    }

    /// Counts how it ended that somebody came as a client.
    pub fn client_authenticated(&self, outcome: ClientAuthentication) {
        self.clients.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Counts an introspection.
    pub fn introspected(&self, outcome: Introspection) {
        self.introspections.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Counts a request for this route that was turned away.
    pub fn shed(&self, what: Shed, route: &str) {
        self.shed.get_or_create(&labels::shedding(what, route)).inc();
    }

    /// Counts from now on, from zero, what is turned away of this route.
    pub(super) fn counts_shed_at(&self, route: &str) {
        for what in Shed::ALL {
            drop(self.shed.get_or_create(&labels::shedding(what, route)));
        }
    }

    /// Tells from now on what is counted of this log.
    pub(super) fn tell_of_log(&self, counts: LogCounts) {
        // There is one for each process.
        let _ = self.log.set(counts);
    }

    /// Counts a request of which there were too many of late.
    pub fn limited(&self, too_often: TooOften) {
        self.limited.get_or_create(&labels::turned_away(too_often.whose, too_often.endpoint)).inc();
    }

    /// Counts policies that were read again, or could not be used.
    pub fn policies_reloaded(&self, outcome: Reload) {
        self.policy_reloads.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// How often no checkpoint could be signed: whoever signs counts here.
    pub fn unsigned(&self) -> Counter {
        self.unsigned.clone()
    }
}

/// When a request for a token came.
#[must_use]
pub struct Begun(Instant);

fn durations() -> Histogram {
    Histogram::new(BUCKETS)
}

/// The records that somebody waits for, by when they began to.
#[derive(Default)]
struct Pending(Mutex<(u64, BTreeMap<u64, Instant>)>);

struct Waiting<'a> {
    pending: &'a Pending,
    number: u64,
    since: Instant,
}

impl Pending {
    fn begin(&self) -> Waiting<'_> {
        let since = Instant::now();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = table.0;
        table.0 += 1;
        table.1.insert(number, since);
        Waiting { pending: self, number, since }
    }

    /// How many there are, and how long the first of them has been waited for.
    fn look(&self) -> (usize, Duration) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = table.1.first_key_value().map(|(_, since)| since.elapsed());
        (table.1.len(), oldest.unwrap_or_default())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.pending.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
