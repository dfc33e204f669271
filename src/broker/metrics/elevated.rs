//! Elevations as they are seen from outside: how many there are of each role that the
//! configuration has, by what is to be done about them.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use time::{Duration, OffsetDateTime};

use super::Metrics;
use super::sample::STORE_TIME;
use crate::broker::Broker;
use crate::broker::rulebook::Rulebook;
use crate::broker::store::CountedElevations;

/// A role of the configuration, and a state.
type Elevated = [(&'static str, String); 2];

/// The states that are counted.
const STATES: [&str; 6] =
    ["pending", "approved", "active", "emergency-active", "review-due", "review-overdue"];

impl Metrics {
    /// Counts what was done under grants and is not kept.
    pub fn uses_lost(&self, count: u64) {
        self.uses_lost.inc_by(count);
    }

    /// How many requests about elevations were counted that ended like this.
    #[cfg(test)]
    pub(in crate::broker) fn counted_elevated(
        &self,
        event: &'static str,
        outcome: &'static str,
    ) -> u64 {
        self.elevations.get_or_create(&[("event", event), ("outcome", outcome)]).get()
    }

    /// How much of that there was.
    #[cfg(test)]
    pub(in crate::broker) fn lost_uses(&self) -> u64 {
        self.uses_lost.get()
    }
}

impl Broker {
    /// Counts elevations, where there are roles that are had by those.
    pub(super) async fn sample_elevations(&self, registry: &mut Registry, book: &Rulebook) {
        let now = self.clock.now();
        let roles = reviewed_since(book, now);
        if roles.is_empty() {
            return;
        }
        match tokio::time::timeout(STORE_TIME, self.store.count_elevations(now, &roles)).await {
            Ok(Ok(counted)) => sample(registry, &roles, &counted),
            Ok(Err(error)) => tracing::warn!(%error, "elevations cannot be counted"),
            Err(_) => tracing::warn!("elevations cannot be counted in time"),
        }
    }
}

/// Each role that is had by elevation, and when access has to have ended for its review to be
/// overdue.
fn reviewed_since(book: &Rulebook, now: OffsetDateTime) -> Vec<(String, OffsetDateTime)> {
    let roles = book.roles().iter();
    let rules = roles.filter_map(|(name, role)| Some((name, role.elevation.as_ref()?)));
    rules
        .map(|(name, rules)| {
            let within = rules.review_within.and_then(|span| Duration::try_from(span).ok());
            (name.clone(), now.saturating_sub(within.unwrap_or(Duration::HOUR)))
        })
        .collect()
}

fn sample(
    registry: &mut Registry,
    roles: &[(String, OffsetDateTime)],
    counted: &[CountedElevations],
) {
    let gauges = Family::<Elevated, Gauge>::default();
    for (role, _) in roles {
        for state in STATES {
            let found = counted.iter().filter(|one| one.role == *role && one.state == state);
            let count: u64 = found.map(|one| one.count).sum();
            let labels = [("role", role.clone()), ("state", state.to_string())];
            gauges.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    let help = "Elevations that wait, are had or are to be reviewed, of all processes that share the database, by role";
    registry.register("elevations", help, gauges);
}
