//! The keys: the broker's own, and those that it fetches of issuers and clients.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use time::OffsetDateTime;

use super::Label;
use super::sample::{Number, signed};
use crate::broker::authenticate::FetchedKeys;
use crate::broker::keys::{Algorithms, KeyState, Purpose, StoredKey, is_shown};

/// A key of the broker's own: its id, its algorithm and its state.
type Own = [(&'static str, String); 3];

/// The name of an issuer's or a client's table in the configuration.
type Whose = [(&'static str, String); 1];

/// The same, and the version of the keys.
type Version = [(&'static str, String); 2];

pub(super) fn sample(
    registry: &mut Registry,
    keys: &[StoredKey],
    algorithms: Algorithms,
    now: OffsetDateTime,
) {
    // Those that sign checkpoints are not rotated.
    let keys: Vec<_> = keys.iter().filter(|key| key.purpose == Purpose::AccessToken).collect();
    let by_state = Family::<Label, Gauge>::default();
    for state in KeyState::ALL {
        let count = keys.iter().filter(|key| key.state == state).count();
        by_state.get_or_create(&[("state", state.as_str())]).set(signed(count));
    }
    registry.register("signing_keys", "Signing keys, by state", by_state);
    let shown = Family::<Own, Gauge>::default();
    for key in keys.iter().filter(|key| is_shown(key, now)) {
        let (kid, algorithm) = (key.kid.clone(), key.algorithm.clone());
        let state = key.state.as_str().to_string();
        let labels = [("kid", kid), ("algorithm", algorithm), ("state", state)];
        shown.get_or_create(&labels).set(1);
    }
    let help = "The keys that the broker shows to verifiers now, by their ids";
    registry.register("signing_key_info", help, shown);
    // Those of an algorithm that is configured no more sign nothing, and stay as they are.
    let signs = |key: &&&StoredKey| algorithms.iter().any(|algorithm| key.signs_by(algorithm));
    let active = keys.iter().filter(signs).map(|key| key.changed_at).min();
    if let Some(since) = active {
        let age = Number::default();
        age.set((now - since).as_seconds_f64().max(0.0));
        let help = "How long the key that signs has done so; the oldest, where there are several";
        registry.register_with_unit("signing_key_age", help, Unit::Seconds, age);
    }
}

pub(super) fn sample_turn(
    registry: &mut Registry,
    turn: Option<OffsetDateTime>,
    now: OffsetDateTime,
) {
    let Some(turn) = turn else { return };
    let left = Number::default();
    left.set((turn - now).as_seconds_f64());
    let help = "In how long another key is to sign, by the rotation that is due first; less than zero where that is late";
    registry.register_with_unit("signing_key_rotation_due", help, Unit::Seconds, left);
}

/// What is known of keys that are fetched, of issuers or of clients.
#[derive(Default)]
struct Fetched {
    ages: Family<Whose, Number>,
    limits: Family<Whose, Number>,
    failures: Family<Whose, Counter>,
    versions: Family<Version, Gauge>,
}

impl Fetched {
    /// Adds those of one, whose name is the value of this label.
    fn add(&self, label: &'static str, keys: &FetchedKeys<'_>) {
        let whose = [(label, keys.name.to_string())];
        self.failures.get_or_create(&whose).inc_by(keys.failures);
        self.limits.get_or_create(&whose).set(keys.max_age.as_seconds_f64());
        if let Some(age) = keys.age {
            self.ages.get_or_create(&whose).set(age.as_seconds_f64().max(0.0));
        }
        if let Some(version) = &keys.version {
            let [whose] = whose;
            self.versions.get_or_create(&[whose, ("version", version.clone())]).set(1);
        }
    }
}

pub(super) fn sample_issuers<'a>(
    registry: &mut Registry,
    issuers: impl Iterator<Item = FetchedKeys<'a>>,
) {
    let fetched = Fetched::default();
    let (skews, pauses) = (Family::<Whose, Number>::default(), Family::<Whose, Number>::default());
    for issuer in issuers {
        fetched.add("issuer", &issuer);
        let label = [("issuer", issuer.name.to_string())];
        pauses.get_or_create(&label).set(issuer.retry_in.as_seconds_f64());
        if let Some(skew) = issuer.skew {
            skews.get_or_create(&label).set(skew.as_seconds_f64());
        }
    }
    let help = "How long ago the keys of a trusted issuer were fetched that are used now, be it by a process before this one";
    registry.register_with_unit("jwks_age", help, Unit::Seconds, fetched.ages);
    let help = "How old the keys of a trusted issuer may become";
    registry.register_with_unit("jwks_max_age", help, Unit::Seconds, fetched.limits);
    let help = "How often the keys of a trusted issuer, or its metadata, could not be fetched";
    registry.register("jwks_fetch_failures", help, fetched.failures);
    let help = "The keys of a trusted issuer that are used now, by their version: a part of the SHA-256 of the document";
    registry.register("jwks_info", help, fetched.versions);
    let help = "In how long the broker asks a trusted issuer by itself again that could not be asked for its keys, or its metadata; 0 where it leaves none alone";
    registry.register_with_unit("jwks_retry", help, Unit::Seconds, pauses);
    let help = "How far the clock of a trusted issuer is ahead of the broker's, as last seen; none where its keys are in a file, for it is not asked then";
    registry.register_with_unit("clock_skew", help, Unit::Seconds, skews);
}

pub(super) fn sample_clients<'a>(
    registry: &mut Registry,
    clients: impl Iterator<Item = FetchedKeys<'a>>,
) {
    let fetched = Fetched::default();
    for client in clients {
        fetched.add("client", &client);
    }
    let help = "How long ago the keys of a client were fetched that are used now";
    registry.register_with_unit("client_jwks_age", help, Unit::Seconds, fetched.ages);
    let help = "How old the keys of a client may become";
    registry.register_with_unit("client_jwks_max_age", help, Unit::Seconds, fetched.limits);
    let help = "How often the keys of a client could not be fetched";
    registry.register("client_jwks_fetch_failures", help, fetched.failures);
    let help = "The keys of a client that are used now, by their version: a part of the SHA-256 of the document";
    registry.register("client_jwks_info", help, fetched.versions);
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    #[test]
    fn keys_that_are_not_shown_any_more_are_not_told_of() {
        let key = |kid: &str, purpose, state, days| StoredKey {
            kid: kid.into(),
            purpose,
            algorithm: "ES256".into(),
            state,
            sealed: Vec::new(),
            sealed_by: String::new(),
            created_at: NOON - Duration::days(900),
            changed_at: NOON - Duration::days(days),
        };
        let keys = [
            key("log", Purpose::Checkpoint, KeyState::Active, 9),
            key("signs", Purpose::AccessToken, KeyState::Active, 0),
            key("next", Purpose::AccessToken, KeyState::Prepared, 0),
            key("before", Purpose::AccessToken, KeyState::Retired, 0),
            key("old", Purpose::AccessToken, KeyState::Retired, 90),
            key("gone", Purpose::AccessToken, KeyState::Revoked, 0),
        ];
        let mut registry = Registry::default();
        sample(&mut registry, &keys, Algorithms::default(), NOON);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("signing_key_info{"));
        let mut told: Vec<_> = lines.collect();
        told.sort_unstable();
        let of = |kid, state| format!("kid=\"{kid}\",algorithm=\"ES256\",state=\"{state}\"}} 1");
        assert_eq!(told, [of("before", "retired"), of("next", "prepared"), of("signs", "active")]);
        assert!(text.contains("signing_keys{state=\"retired\"} 2"), "{text}");
    }
}
