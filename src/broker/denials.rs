//! How often somebody may be denied something and find it on record one by one.
//!
//! Every denial is written to the disk before it is told, so whoever has any token
//! that is accepted could fill it. After a burst, denials are told as «not now», and
//! counted; the count is put on record now and then.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use time::{Duration, OffsetDateTime};

use super::rate::{Bucket, Each, Rate};
use crate::credential::Principal;

/// How many denials of one caller are on record at once, and how soon there may be
/// another.
const OF_PRINCIPAL: Rate = Rate { burst: 30, every: Duration::seconds(30) };

/// The same for all callers of one issuer: somebody may have many names there.
const OF_ISSUER: Rate = Rate { burst: 600, every: Duration::seconds(5) };

/// How many callers are remembered. Beyond, only the limit of their issuer counts.
const REMEMBERED: usize = 1024;

/// How long denials are only counted before the count goes on record.
const COUNTED_FOR: Duration = Duration::minutes(1);

/// How many denials were not put on record one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    /// Whose they were; without a subject: of several callers of this issuer.
    pub(super) principal: Principal,
    /// What they wanted, as records name it.
    pub(super) action: String,
    /// How many.
    pub(super) count: u64,
    /// Since when.
    pub(super) since: OffsetDateTime,
}

/// The denials of late.
pub(super) struct Denials {
    callers: Mutex<HashMap<Principal, Left>>,
    /// What those were denied who proved a key, by that: nobody else can use it up.
    provers: Each<(Principal, String)>,
}

impl Default for Denials {
    fn default() -> Self {
        Self { callers: Mutex::default(), provers: Each::of(OF_PRINCIPAL) }
    }
}

/// What is left of a rate, and what was counted beyond.
struct Left {
    bucket: Bucket,
    /// How many since when, by what was wanted. There are few actions, and nobody makes more.
    counted: BTreeMap<String, (u64, OffsetDateTime)>,
}

impl Left {
    fn all(up: Duration) -> Self {
        Self { bucket: Bucket::full(up), counted: BTreeMap::new() }
    }

    fn count(&mut self, action: &str, now: OffsetDateTime) {
        let (count, _) = self.counted.entry(action.to_string()).or_insert((0, now));
        *count += 1;
    }
}

impl Denials {
    /// Whether a denial may go on record by itself. Otherwise it is counted, and may
    /// be asked for again after this time. `up` is how long the machine has been up:
    /// a clock that is set makes nobody wait. All that somebody wants is limited together.
    pub(super) fn admit(
        &self,
        principal: &Principal,
        action: &str,
        now: OffsetDateTime,
        up: Duration,
    ) -> Result<(), std::time::Duration> {
        let mut buckets = self.buckets();
        let everybody = everybody(principal);
        if buckets.len() >= REMEMBERED && !buckets.contains_key(principal) {
            buckets.retain(|whose, left| {
                whose.subject.is_empty() || left.bucket.full_at > up || !left.counted.is_empty()
            });
        }
        let remembered = buckets.len() < REMEMBERED || buckets.contains_key(principal);
        let own = remembered.then_some((principal.clone(), &OF_PRINCIPAL));
        let limits: Vec<_> = own.into_iter().chain([(everybody, &OF_ISSUER)]).collect();
        for (whose, rate) in &limits {
            let left = buckets.entry(whose.clone()).or_insert_with(|| Left::all(up));
            if let Some(wait) = left.bucket.wait(rate, up) {
                left.count(action, now);
                // Denied they were all the same, where it is others who are denied too much.
                if remembered && whose != principal {
                    let own = buckets.entry(principal.clone()).or_insert_with(|| Left::all(up));
                    own.bucket.take(&OF_PRINCIPAL, up);
                }
                return Err(wait.try_into().unwrap_or_default());
            }
        }
        for (whose, rate) in limits {
            buckets.entry(whose).or_insert_with(|| Left::all(up)).bucket.take(rate, up);
        }
        Ok(())
    }

    /// Counts that somebody was denied something who has proved the key with this thumbprint,
    /// which used up a proof.
    pub(super) fn of_prover(&self, principal: &Principal, key: &str, up: Duration) {
        // Where all of it is used up, it is.
        let _ = self.provers.take((principal.clone(), key.to_string()), up);
    }

    /// Whether whoever comes as this caller, with a proof of the key with this thumbprint, was
    /// denied so much with proofs by it that none is looked at, and for how long.
    pub(super) fn are_refused(
        &self,
        principal: &Principal,
        key: &str,
        up: Duration,
    ) -> Option<std::time::Duration> {
        let wait = self.provers.wait(&(principal.clone(), key.to_string()), up)?;
        Some(wait.try_into().unwrap_or_default())
    }

    /// What has been counted for long enough to go on record. It is not given twice.
    pub(super) fn due(&self, now: OffsetDateTime) -> Vec<Tally> {
        self.take(|since| (now - since).abs() >= COUNTED_FOR)
    }

    /// All that was counted.
    pub(super) fn all(&self) -> Vec<Tally> {
        self.take(|_| true)
    }

    /// Takes back what could not be put on record.
    pub(super) fn give_back(&self, tally: Tally) {
        let mut buckets = self.buckets();
        let left = buckets.entry(tally.principal).or_insert(Left::all(Duration::ZERO));
        let (count, since) = left.counted.entry(tally.action).or_insert((0, tally.since));
        *count += tally.count;
        *since = tally.since.min(*since);
    }

    fn take(&self, due: impl Fn(OffsetDateTime) -> bool) -> Vec<Tally> {
        let mut buckets = self.buckets();
        // Nearly always nothing was counted, and each request asks.
        let some = buckets.iter_mut().filter(|(_, left)| !left.counted.is_empty());
        let counted = some.flat_map(|(principal, left)| {
            let (taken, kept) = std::mem::take(&mut left.counted)
                .into_iter()
                .partition(|(_, (_, since))| due(*since));
            left.counted = kept;
            let taken: BTreeMap<_, _> = taken;
            taken.into_iter().map(|(action, (count, since))| Tally {
                principal: principal.clone(),
                action,
                count,
                since,
            })
        });
        counted.collect()
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<Principal, Left>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All callers of an issuer. No caller has an empty subject.
fn everybody(principal: &Principal) -> Principal {
    Principal { issuer: principal.issuer.clone(), subject: String::new() }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn of(subject: &str) -> Principal {
        Principal { issuer: "https://i.example".into(), subject: subject.into() }
    }

    fn admitted(denials: &Denials, subject: &str, now: OffsetDateTime, times: u32) -> usize {
        (0..times).filter(|_| denials.admit(&of(subject), "issue", now, now - NOW).is_ok()).count()
    }

    #[test]
    fn after_a_burst_a_caller_is_counted_until_time_has_passed() {
        let denials = Denials::default();
        assert_eq!(admitted(&denials, "a", NOW, 100), 30);
        assert_eq!(admitted(&denials, "b", NOW, 1), 1, "others are not affected");
        let wait = denials.admit(&of("a"), "issue", NOW, Duration::ZERO).unwrap_err();
        assert_eq!(wait, std::time::Duration::from_secs(30));
        assert_eq!(admitted(&denials, "a", NOW + Duration::seconds(30), 9), 1);
        assert_eq!(admitted(&denials, "a", NOW + Duration::hours(1), 100), 30);
    }

    #[test]
    fn many_names_at_one_issuer_are_limited_together_and_take_bounded_memory() {
        let denials = Denials::default();
        let denied = |issuer: &str, n: usize| {
            let principal = Principal { issuer: issuer.into(), subject: n.to_string() };
            denials.admit(&principal, "issue", NOW, Duration::ZERO).is_ok()
        };
        let admitted = (0..5000).filter(|n| denied("https://i.example", *n)).count();
        assert_eq!(admitted, 600);
        assert!(denials.buckets().len() <= REMEMBERED + 1);
        assert!(denied("https://other.example", 0), "others are not affected");
        let all = denials.all();
        assert_eq!(all.iter().map(|tally| tally.count).sum::<u64>(), 4400);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].principal, of(""));
    }

    #[test]
    fn what_somebody_is_denied_with_proofs_is_between_them_and_their_key() {
        let denials = Denials::default();
        let refused = |subject: &str, key: &str, up: Duration| {
            denials.are_refused(&of(subject), key, up).map(|wait| wait.as_secs())
        };
        admitted(&denials, "a", NOW, 100);
        assert_eq!(refused("a", "key", Duration::ZERO), None, "anybody could have done that");
        for _ in 0..29 {
            denials.of_prover(&of("a"), "key", Duration::ZERO);
        }
        assert_eq!(refused("a", "key", Duration::ZERO), None);
        denials.of_prover(&of("a"), "key", Duration::ZERO);
        assert_eq!(refused("a", "key", Duration::ZERO), Some(30));
        assert_eq!(refused("a", "other", Duration::ZERO), None);
        assert_eq!(refused("b", "key", Duration::ZERO), None);
        denials.of_prover(&of("a"), "key", Duration::ZERO);
        assert_eq!(refused("a", "key", Duration::seconds(30)), None, "no more is used up than all");
    }

    #[test]
    fn what_was_counted_is_told_once_and_not_lost() {
        let denials = Denials::default();
        admitted(&denials, "a", NOW, 37);
        assert_eq!(denials.due(NOW + Duration::seconds(59)), []);
        let due = denials.due(NOW + Duration::seconds(60));
        let tally = Tally { principal: of("a"), action: "issue".into(), count: 7, since: NOW };
        assert_eq!(due, std::slice::from_ref(&tally));
        assert_eq!(denials.all(), []);
        denials.give_back(tally.clone());
        admitted(&denials, "a", NOW, 1);
        assert_eq!(denials.all(), [Tally { count: 8, ..tally }]);
    }

    #[test]
    fn what_is_counted_says_what_was_wanted_and_one_rate_is_for_all_of_it() {
        let denials = Denials::default();
        let denied = |action: &str| denials.admit(&of("a"), action, NOW, Duration::ZERO).is_err();
        let all: Vec<_> = ["issue", "elevation.request"].into_iter().cycle().take(40).collect();
        assert_eq!(all.into_iter().filter(|action| denied(action)).count(), 10);
        let mut told = denials.all();
        told.sort_by(|one, other| one.action.cmp(&other.action));
        let told: Vec<_> = told.iter().map(|one| (one.action.as_str(), one.count)).collect();
        assert_eq!(told, [("elevation.request", 5), ("issue", 5)]);
        assert_eq!(denials.all(), []);
    }
}
