//! Which tokens are issued to somebody who has one that is good: it is counted, and nothing
//! else comes of it.
//!
//! What was issued is remembered here, by a hash, until it ends: nobody waits for the store.
//! So it is this process that tells, since it was started, and of so many at most.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use time::{Duration, OffsetDateTime};

use super::authenticate::Caller;

/// How many are remembered. Whoever comes beyond is not, so a renewal of theirs is not seen.
const REMEMBERED: usize = 64 * 1024;

/// How often it is looked which have ended, at most.
const SWEEP_EVERY: Duration = Duration::seconds(1);

/// What was issued, and until when it is good.
#[derive(Default)]
pub(super) struct Renewals(Mutex<Table>);

#[derive(Default)]
struct Table {
    ends: HashMap<[u8; 32], OffsetDateTime>,
    swept: Option<OffsetDateTime>,
}

impl Renewals {
    /// Remembers a token of this role and for this audience. Returns whether the caller had
    /// one.
    pub(super) fn note(
        &self,
        caller: &Caller,
        (role, audience): (&str, &str),
        end: OffsetDateTime,
        now: OffsetDateTime,
    ) -> bool {
        self.add(name(&[caller.id(), role, audience]), end, now)
    }

    fn add(&self, whose: [u8; 32], end: OffsetDateTime, now: OffsetDateTime) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = table.ends.get_mut(&whose) {
            let had = *before > now;
            *before = end.max(*before);
            return had;
        }
        if table.ends.len() >= REMEMBERED {
            if table.swept.is_none_or(|swept| (now - swept).abs() >= SWEEP_EVERY) {
                table.swept = Some(now);
                table.ends.retain(|_, end| *end > now);
            }
            if table.ends.len() >= REMEMBERED {
                return false;
            }
        }
        table.ends.insert(whose, end);
        false
    }
}

/// Names are long, and a hash is not.
fn name(parts: &[&str]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut name = [0; 32];
    name.copy_from_slice(hash.finish().as_ref());
    name
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    #[test]
    fn who_has_one_that_is_good_renews_it_and_nobody_else_does() {
        let renewals = Renewals::default();
        let (alice, bob) = (name(&["alice", "r", "a"]), name(&["bob", "r", "a"]));
        let end = |minutes| NOON + Duration::minutes(minutes);
        assert!(!renewals.add(alice, end(15), NOON));
        assert!(!renewals.add(bob, end(1), NOON));
        assert!(!renewals.add(name(&["alicer", "", "a"]), end(15), NOON));
        assert!(renewals.add(alice, end(5), end(10)));
        // The longer one is good still, and then none is.
        assert!(renewals.add(alice, end(15), end(14)));
        assert!(!renewals.add(alice, end(30), end(15)));
        assert!(!renewals.add(bob, end(3), end(2)));
    }

    #[test]
    fn very_many_take_bounded_memory() {
        let renewals = Renewals::default();
        let each = |n: usize| name(&[&n.to_string()]);
        for n in 0..REMEMBERED + 10 {
            assert!(!renewals.add(each(n), NOON + Duration::MINUTE, NOON));
        }
        assert_eq!(renewals.0.lock().unwrap().ends.len(), REMEMBERED);
        assert!(renewals.add(each(0), NOON + Duration::MINUTE, NOON));
        assert!(!renewals.add(each(REMEMBERED), NOON + Duration::MINUTE, NOON));
        // What has ended makes room.
        let later = NOON + Duration::minutes(2);
        assert!(!renewals.add(each(REMEMBERED), later + Duration::MINUTE, later));
        assert!(renewals.add(each(REMEMBERED), later + Duration::MINUTE, later));
        assert_eq!(renewals.0.lock().unwrap().ends.len(), 1);
    }
}
