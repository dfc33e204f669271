//! When people last logged in who have a key enrolled.
//!
//! Each token that somebody shows tells of a login: of when it was (`auth_time`), where it says
//! so, and else of one just now. What has to be known for it is in memory: whose
//! keys there are, and when the store was last told of a login. It is told at most once an
//! hour of each key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use time::{Duration, OffsetDateTime};

use super::person_of;
use crate::broker::Broker;
use crate::broker::authenticate::Caller;
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{Effect, Enrollment, EnrollmentState, Unit};
use crate::error::Result;

/// How long the store is not told again.
const QUIET: Duration = Duration::hours(1);

/// How often it is looked whose keys there are: others who share the store enroll some.
const LOOK: Duration = Duration::minutes(1);

/// Whose logins matter.
#[derive(Default)]
pub(in crate::broker) struct Logins(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// When the store was last told of a login of these people, the longest ago of their keys.
    told: HashMap<String, OffsetDateTime>,
    read_at: Option<OffsetDateTime>,
}

/// What is to be done about a login.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The store is told of it.
    Tell,
    /// It is looked first whose keys there are.
    Look,
}

impl Logins {
    /// What is to be done about a login of this person at this time.
    fn due(&self, person: &str, at: OffsetDateTime, now: OffsetDateTime) -> Due {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read_at.is_none_or(|at| (now - at).abs() >= LOOK) {
            known.read_at = Some(now);
            return Due::Look;
        }
        match known.told.get_mut(person) {
            Some(told) if at - *told >= QUIET => {
                *told = at;
                Due::Tell
            }
            _ => Due::Nothing,
        }
    }

    /// Looks whose keys there are, at once. What cannot be read is looked at another time.
    pub(super) async fn read_anew(&self, broker: &Broker) {
        match broker.store.enrollments().await {
            Ok(all) => self.know(&all, broker.clock.now()),
            Err(error) => tracing::warn!(%error, "it cannot be told whose logins matter"),
        }
    }

    fn know(&self, all: &[Enrollment], now: OffsetDateTime) {
        let mut told = HashMap::new();
        for one in all.iter().filter(|one| one.state != EnrollmentState::Removed) {
            let oldest = told.entry(one.person.clone()).or_insert(one.seen_at);
            *oldest = one.seen_at.min(*oldest);
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known { told, read_at: Some(now) };
    }
}

impl Broker {
    /// Takes note that these people proved at a trusted issuer who they are. Nobody waits for
    /// it.
    pub(in crate::broker) fn saw_login(self: &Arc<Self>, book: &Rulebook, caller: &Caller) {
        let now = self.clock.now();
        for one in caller.proven() {
            // Neither a token of the broker's own nor one of somebody who acts for them is a
            // login of theirs, and no signature is.
            if one.parent().is_some() || !one.actors().is_empty() || one.signed().is_some() {
                continue;
            }
            let Some(person) = person_of(book, one.principal(), now) else { continue };
            let at = logged_in_at(one, now);
            let due = self.logins.due(person, at, now);
            if due != Due::Nothing {
                let (broker, person) = (self.clone(), person.to_string());
                tokio::spawn(async move {
                    if due == Due::Look {
                        broker.logins.read_anew(&broker).await;
                        if broker.logins.due(&person, at, now) != Due::Tell {
                            return;
                        }
                    }
                    if let Err(error) = broker.tell_of_login(&person, at, now).await {
                        tracing::warn!(%error, "the login of somebody with an enrolled key is not noted");
                    }
                });
            }
        }
    }

    /// Tells the store that somebody logged in at this time. What has lapsed stays so, and so does
    /// what somebody else enrolled who had their name.
    pub(in crate::broker) async fn tell_of_login(
        &self,
        person: &str,
        at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<()> {
        let book = self.policies();
        for before in self.all_enrollments().await? {
            let is_theirs = before.person == person && before.state != EnrollmentState::Removed;
            if !is_theirs
                || now >= before.lapses_at()
                || at - before.seen_at < QUIET
                || person_of(&book, &before.principal, now) != Some(person)
            {
                continue;
            }
            let after = self.enrollment_seal.over(Enrollment { seen_at: at, ..before.clone() });
            let effect = Effect::ChangeEnrollment { before, after: Box::new(after) };
            // Where it was changed meanwhile, somebody else saw a login, or it was removed.
            self.audit.commit(Unit::default().with(effect)).await?;
        }
        Ok(())
    }
}

/// When somebody logged in, by what their token says (`auth_time`), and never later than now; now,
/// where it says nothing of it that can be read.
pub(super) fn logged_in_at(caller: &Caller, now: OffsetDateTime) -> OffsetDateTime {
    let said = caller.tags().get("auth_time").into_iter().flatten();
    let said = said.filter_map(|text| text.parse::<i64>().ok());
    let said = said.filter_map(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    said.min().map_or(now, |at| at.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn the_store_is_told_once_an_hour_and_looked_at_once_a_minute() {
        let (logins, now) = (Logins::default(), datetime!(2026-01-01 12:00 UTC));
        assert_eq!(logins.due("alice", now, now), Due::Look);
        assert_eq!(logins.due("alice", now, now), Due::Nothing, "nothing is known of them");
        let told = HashMap::from([("alice".to_string(), now - QUIET)]);
        *logins.0.lock().unwrap() = Known { told, read_at: Some(now) };
        assert_eq!(logins.due("bob", now, now), Due::Nothing);
        // A token of today for a login of before says nothing new.
        assert_eq!(logins.due("alice", now - QUIET, now), Due::Nothing);
        assert_eq!(logins.due("alice", now - Duration::minutes(1), now), Due::Nothing);
        assert_eq!(logins.due("alice", now, now), Due::Tell);
        let later = now + Duration::seconds(59);
        assert_eq!(logins.due("alice", later, later), Due::Nothing);
        assert_eq!(logins.due("alice", later, now + LOOK), Due::Look);
    }
}
