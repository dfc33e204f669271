//! What is approved by keys that do not count any more, and what rests on those that do.

use std::collections::HashMap;

use time::OffsetDateTime;

use crate::broker::Broker;
use crate::broker::elevation::verdict::Refusal;
use crate::broker::elevation::{Access, Approval, Elevation};
use crate::broker::operate::Asked as Who;
use crate::broker::rulebook::Rulebook;
use crate::broker::store::Effect;
use crate::error::Result as Outcome;

/// Since when keys count, of those that do at one moment, by their fingerprints: each is looked up
/// once, however much it has approved.
#[derive(Default)]
pub(in crate::broker::elevation) struct LiveKeys(HashMap<String, Option<OffsetDateTime>>);

impl Broker {
    /// The same without approvals that were signed by keys which do not count at this time.
    async fn with_live_keys(
        &self,
        book: &Rulebook,
        mut elevation: Elevation,
        now: OffsetDateTime,
        known: &mut LiveKeys,
    ) -> Outcome<Elevation> {
        let mut approvals = Vec::new();
        for approval in elevation.approvals {
            let counts = match &approval.signed {
                // One that was removed and is enrolled anew brings nothing back.
                Some(signed) => {
                    let since = self.live_since(book, &signed.key, now, known).await?;
                    since.is_some_and(|since| since <= approval.at)
                }
                None => true,
            };
            approvals.extend(counts.then_some(approval));
        }
        elevation.approvals = approvals;
        Ok(elevation)
    }

    /// The elevation by which it is counted who has approved: what began stays approved by those
    /// by whom it was.
    pub(in crate::broker::elevation) async fn counting(
        &self,
        book: &Rulebook,
        elevation: &Elevation,
        now: OffsetDateTime,
        known: &mut LiveKeys,
    ) -> Outcome<Elevation> {
        match elevation.access {
            Access::Pending | Access::Approved => {
                self.with_live_keys(book, elevation.clone(), now, known).await
            }
            _ => Ok(elevation.clone()),
        }
    }

    /// Whether the key still counts by which somebody is known, where that is how they are known.
    pub(in crate::broker::elevation) async fn check_signer(
        &self,
        book: &Rulebook,
        who: &Who,
    ) -> Result<(), Refusal> {
        let Some(signed) = who.caller.signed() else { return Ok(()) };
        match self.live_key(book, &signed.key, self.clock.now()).await? {
            Some(_) => Ok(()),
            None => Err(Refusal::Denied("its key does not count any more".into())),
        }
    }

    async fn live_since(
        &self,
        book: &Rulebook,
        key: &str,
        now: OffsetDateTime,
        LiveKeys(known): &mut LiveKeys,
    ) -> Outcome<Option<OffsetDateTime>> {
        if let Some(known) = known.get(key) {
            return Ok(*known);
        }
        let found = self.live_key(book, key, now).await?;
        let since = found.and_then(|found| found.approved).map(|(_, at)| at);
        known.insert(key.to_string(), since);
        Ok(since)
    }
}

/// That the keys still count that somebody and these approvals signed by, as a condition of the
/// commit of what rests on them: that of an approver may be removed between the look and the
/// commit.
pub(in crate::broker::elevation) fn resting_on(
    who: &Who,
    approvals: &[Approval],
    at: OffsetDateTime,
) -> Option<Effect> {
    let own = who.caller.signed().map(|signed| signed.key.clone());
    let approved = approvals.iter().filter_map(|one| Some(one.signed.as_ref()?.key.clone()));
    let keys: Vec<_> = own.into_iter().chain(approved).collect();
    (!keys.is_empty()).then_some(Effect::IfEnrolled { keys, at })
}
