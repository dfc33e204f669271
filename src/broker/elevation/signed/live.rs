//! What is approved by keys that do not count any more.

use std::collections::HashMap;

use time::OffsetDateTime;

use crate::broker::Broker;
use crate::broker::elevation::{Access, Elevation};
use crate::broker::rulebook::Rulebook;
use crate::error::Result as Outcome;

/// Whether keys count at one moment, by their fingerprints: each is looked up once, however
/// much it has approved.
#[derive(Default)]
pub(in crate::broker::elevation) struct LiveKeys(HashMap<String, bool>);

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
                Some(signed) => self.is_live(book, &signed.key, now, known).await?,
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

    async fn is_live(
        &self,
        book: &Rulebook,
        key: &str,
        now: OffsetDateTime,
        LiveKeys(known): &mut LiveKeys,
    ) -> Outcome<bool> {
        if let Some(known) = known.get(key) {
            return Ok(*known);
        }
        let counts = self.live_key(book, key, now).await?.is_some();
        known.insert(key.to_string(), counts);
        Ok(counts)
    }
}
