//! Elevations as they are seen from outside: how many there are of each role that the
//! configuration has, by what is to be done about them.

use std::collections::BTreeMap;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use time::{Duration, OffsetDateTime};

use super::Metrics;
use super::sample::STORE_TIME;
use crate::broker::Broker;
use crate::broker::config::{Elevation as Rules, Threshold};
use crate::broker::decide::Rules as Policies;
use crate::broker::elevation::{Asked, Eligible, Party};
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{CountedElevations, Enrollment};
use crate::error::Result;
use crate::sshsig::PublicKey;

/// A role of the configuration, and the groups of one of its thresholds.
type Signers = [(&'static str, String); 2];

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
        self.sample_signers(registry, book, now).await;
        match tokio::time::timeout(STORE_TIME, self.counted(roles, now)).await {
            Ok(Ok((roles, counted))) => sample(registry, &roles, &counted),
            Ok(Err(error)) => tracing::warn!(%error, "elevations cannot be counted"),
            Err(_) => tracing::warn!("elevations cannot be counted in time"),
        }
    }
}

impl Broker {
    /// Counts, also of roles that are had by elevation no more, where something is left of them
    /// to review. Returns the roles, too.
    async fn counted(
        &self,
        mut roles: Vec<(String, OffsetDateTime)>,
        now: OffsetDateTime,
    ) -> Result<(Vec<(String, OffsetDateTime)>, Vec<CountedElevations>)> {
        let mut counted = self.store.count_elevations(now, &roles).await?;
        let is_gone = |one: &&CountedElevations| {
            one.state == "review-due" && !roles.iter().any(|(role, _)| *role == one.role)
        };
        // As long as a review may take where nothing is said.
        let since = now.saturating_sub(Duration::HOUR);
        let gone: Vec<_> =
            counted.iter().filter(is_gone).map(|one| (one.role.clone(), since)).collect();
        if !gone.is_empty() {
            let overdue = self.store.count_elevations(now, &gone).await?.into_iter();
            counted.extend(overdue.filter(|one| one.state == "review-overdue"));
            roles.extend(gone);
        }
        Ok((roles, counted))
    }

    /// Counts for each role that is had by signatures who could approve by one, and how many have
    /// to.
    async fn sample_signers(&self, registry: &mut Registry, book: &Rulebook, now: OffsetDateTime) {
        let roles: Vec<_> = (book.roles().iter())
            .filter_map(|(name, role)| Some((name, role.elevation.as_ref()?)))
            .filter(|(_, rules)| rules.provider_down.is_some())
            .collect();
        if roles.is_empty() {
            return;
        }
        let keys = match tokio::time::timeout(STORE_TIME, self.live_keys(book, now)).await {
            Ok(Ok(keys)) => keys,
            Ok(Err(error)) => {
                return tracing::warn!(%error, "the keys that people enrolled cannot be counted");
            }
            Err(_) => {
                return tracing::warn!("the keys that people enrolled cannot be counted in time");
            }
        };
        let could = Family::<Signers, Gauge>::default();
        let needed = Family::<Signers, Gauge>::default();
        for (name, rules) in roles {
            let people = signers_of(book, (name, rules), &keys, now).await;
            for (threshold, count) in rules.approvals.iter().zip(people) {
                let groups: Vec<_> = threshold.groups.iter().map(String::as_str).collect();
                let labels = [("role", name.clone()), ("groups", groups.join(" "))];
                could.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
                needed.get_or_create(&labels).set(threshold.count.get().into());
            }
        }
        let help = "People who could approve by a key that counts while no provider can say who they are, by role and by the groups of which so many have to";
        registry.register("elevation_signers", help, could);
        let help = "How many of them have to approve";
        registry.register("elevation_signers_needed", help, needed);
    }
}

/// How many people could meet each threshold of a role by a signature.
async fn signers_of(
    book: &Rulebook,
    (role, rules): (&str, &Rules),
    keys: &[(Enrollment, PublicKey)],
    now: OffsetDateTime,
) -> Vec<usize> {
    let asked = Asked::by_nobody(role, now);
    let policies = Policies { policy: book, roles: book.roles() };
    let mut answers = Eligible::new(policies, &asked, now).answers();
    let stands = rules.provider_down.as_ref().is_some_and(|down| down.verified_as_login);
    let serves = |key: &PublicKey| {
        rules.approver_login.is_any() || stands && key.kind().is_on_security_key()
    };
    // Several keys of one person are one person.
    let mut people = BTreeMap::new();
    for (enrolled, _) in keys.iter().filter(|(_, key)| serves(key)) {
        let by = Party {
            issuer: enrolled.principal.issuer.clone(),
            subject: enrolled.principal.subject.clone(),
            person: Some(enrolled.person.clone()),
        };
        let told = book.needs().untold(Some(&by.issuer)).is_none();
        if let Some(groups) = answers.groups(&by).filter(|_| told) {
            people.insert(enrolled.person.as_str(), groups);
        }
        answers.rest().await;
    }
    let takers =
        |threshold: &Threshold| people.values().filter(|groups| threshold.takes(groups)).count();
    rules.approvals.iter().map(takers).collect()
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
    // A broker that knows no elevations shows nothing of them.
    if roles.is_empty() {
        return;
    }
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
