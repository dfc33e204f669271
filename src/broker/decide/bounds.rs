//! What of a role somebody can have at most, before policies are asked.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;

use super::{Denied, Wanted, Why};
use crate::broker::authenticate::Caller;
use crate::broker::config::Role;
use crate::broker::policy::{Moment, Question};

pub(super) fn ended() -> Denied {
    Denied::new(Why::Ended, "the token that is exchanged is at its end")
}

/// What of a role a caller can have at most.
pub(in crate::broker) struct Bounds<'a> {
    scopes: Cow<'a, BTreeSet<String>>,
    ttl: Duration,
    /// How long those tokens are still good that the caller showed.
    left: Duration,
}

impl<'a> Bounds<'a> {
    /// The role's own, and those of the token that the caller showed: who exchanges the
    /// broker's own token gets no more than it covers (RFC 8693 section 5), and nothing
    /// that outlives it.
    pub(in crate::broker) fn of(
        caller: &Caller,
        role: &'a Role,
        wanted: Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<Self, Denied> {
        let mut bounds =
            Self { scopes: Cow::Borrowed(&role.scopes), ttl: role.max_ttl, left: Duration::MAX };
        if let Some(grant) = wanted.elevation {
            bounds.left = grant.left(now);
            // In whole seconds there may be none left of it.
            if bounds.left.is_zero() {
                return Err(Denied::new(Why::Elevation, "the grant is at its end"));
            }
            bounds.ttl = bounds.ttl.min(bounds.left);
            if let Some(scope) = grant.scope() {
                let both = bounds.scopes.intersection(scope).cloned();
                bounds.scopes = Cow::Owned(both.collect());
            }
        }
        for party in caller.proven() {
            bounds.narrow(party, role, wanted, now)?;
        }
        Ok(bounds)
    }

    fn narrow(
        &mut self,
        party: &Caller,
        role: &Role,
        wanted: Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<(), Denied> {
        if let Some(parent) = party.parent() {
            let wider =
                wanted.scope.into_iter().flatten().find(|scope| !parent.scope.contains(*scope));
            if let Some(wider) = wider {
                let said =
                    format!("the token that is exchanged does not cover the scope '{wider}'");
                return Err(Denied::new(Why::Scope, said));
            }
            self.scopes = Cow::Owned(self.scopes.intersection(&parent.scope).cloned().collect());
        }
        // In the whole seconds that tokens have.
        let left = party.expires_at().unix_timestamp() - now.unix_timestamp();
        self.left = self.left.min(Duration::from_secs(u64::try_from(left).unwrap_or(0)));
        if party.ends_with_token() || role.ends_with_token {
            if left <= 0 {
                return Err(ended());
            }
            self.ttl = self.ttl.min(self.left);
        }
        Ok(())
    }

    /// What policy is asked.
    pub(in crate::broker) fn question<'q>(
        &'q self,
        wanted: Wanted<'q>,
        now: OffsetDateTime,
    ) -> Question<'q> {
        Question {
            role: wanted.role,
            role_scopes: &self.scopes,
            role_ttl: self.ttl,
            audience: wanted.audience,
            scope: wanted.scope,
            ttl: wanted.ttl,
            key_bound: wanted.key_bound,
            jwt: wanted.jwt,
            elevation: wanted.elevation.map(|grant| grant.path.as_str()),
            left: self.left,
            moment: Moment { now, source: wanted.source },
        }
    }
}
