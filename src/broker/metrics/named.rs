//! What is counted by names of the configuration. There are as many counts as it has names
//! now: what it has no more is forgotten, and whoever asks for something makes none.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::labels::Authorization;
use crate::broker::rulebook::Rulebook;

/// Stands for the route of what is for none of the configuration.
const NO_ROUTE: &str = "unknown";

/// What is counted of a renewal.
const RENEWED: &str = "renewed";

/// The name of a role's table in the configuration.
type Role = [(&'static str, String); 1];

/// The name of a route's table in the configuration, and how a decision ended.
type Decided = [(&'static str, String); 2];

/// Counts by a name of the configuration, and by what came of it.
#[derive(Default)]
pub(super) struct Named(Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>);

impl Named {
    /// Counts one more; the name is of the configuration, or was a moment ago.
    fn count(&self, name: &str, what: &'static str) {
        let mut table = self.table();
        match table.get_mut(name) {
            Some(counts) => *counts.entry(what).or_default() += 1,
            None => drop(table.insert(name.to_string(), BTreeMap::from([(what, 1)]))),
        }
    }

    /// How many there are.
    fn get(&self, name: &str, what: &'static str) -> u64 {
        let table = self.table();
        table.get(name).and_then(|counts| counts.get(what)).copied().unwrap_or_default()
    }

    /// Forgets those that are not among these.
    fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.table().retain(|name, _| is_there(name));
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<&'static str, u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    /// Counts a token of this role that was issued while another one was good.
    pub fn renewed(&self, role: &str) {
        self.renewals.count(role, RENEWED);
    }

    /// Counts a decision about a request that a proxy held up, and that is for this route, where
    /// there is one for it.
    pub fn authorized(&self, route: Option<&str>, outcome: Authorization) {
        self.authorizations.count(route.unwrap_or(NO_ROUTE), outcome.as_str());
    }

    /// Tells of all names that there are now, at zero where nothing was counted: a count that
    /// appears with its first one hides that from `rate`.
    pub(super) fn sample_named(&self, registry: &mut Registry, book: &Rulebook) {
        self.sample_renewals(registry, book);
        self.sample_authorizations(registry, book);
    }

    fn sample_renewals(&self, registry: &mut Registry, book: &Rulebook) {
        let renewals = Family::<Role, Counter>::default();
        self.renewals.keep(|role| book.roles().contains_key(role));
        for role in book.roles().keys() {
            let count = self.renewals.get(role, RENEWED);
            renewals.get_or_create(&[("role", role.clone())]).inc_by(count);
        }
        let help = "Tokens issued to somebody who had one from this process that was good, of the same role and for the same audience, by role";
        registry.register("issuance_renewals", help, renewals);
    }

    fn sample_authorizations(&self, registry: &mut Registry, book: &Rulebook) {
        let decisions = Family::<Decided, Counter>::default();
        let routes = || book.authz().into_iter().flat_map(|authz| authz.route.keys());
        self.authorizations.keep(|name| name == NO_ROUTE || routes().any(|route| route == name));
        let named = routes().map(|route| (route.as_str(), Authorization::AT_ROUTES));
        for (route, outcomes) in named.chain([(NO_ROUTE, Authorization::AT_NONE)]) {
            for outcome in outcomes {
                let label = [("route", route.to_string()), ("outcome", (*outcome).to_string())];
                let count = self.authorizations.get(route, outcome);
                // A route may be called what stands for none.
                let counter = decisions.get_or_create(&label).clone();
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
        let help = "Decisions about requests that a proxy held up, by route and outcome";
        registry.register("authz_decisions", help, decisions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_from_the_configuration_is_forgotten() {
        let named = Named::default();
        for (name, what) in [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")] {
            named.count(name, what);
        }
        assert_eq!(["x", "y", "z"].map(|what| named.get("a", what)), [2, 1, 0]);
        named.keep(|name| name == "b");
        assert_eq!(["a", "b", "c"].map(|name| named.get(name, "x")), [0, 1, 0]);
        assert_eq!(named.table().len(), 1);
    }
}
