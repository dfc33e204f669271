//! Removing what nobody needs any more, now and then, while requests are served.

use std::sync::{Arc, Mutex, PoisonError};

use time::{Duration, OffsetDateTime};

use super::Broker;
use super::store::{Once, Store};
use crate::error::Result;

/// How often what nobody needs any more is looked for, at most.
const EVERY: Duration = Duration::minutes(10);

/// How much is removed at a time, and how many times in one go: others wait for the store
/// meanwhile.
const BATCH: u32 = 500;
const BATCHES: usize = 200;

/// How long the others have in between.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// How much longer than needed revocations are kept: a clock that is ahead for a
/// while must not make tokens good again.
const GRACE: Duration = Duration::days(1);

/// The same of proofs of a key, of which there may be many, and which are good for a minute.
const PROOF_GRACE: Duration = Duration::hours(1);

/// How long it can be looked up what became of a request for a role; the audit log has it for
/// as long as there is a log.
const KEPT_ELEVATIONS: Duration = Duration::days(90);

/// How long an enrolled key waits for somebody to approve it.
pub(super) const PENDING: Duration = Duration::days(7);

/// When was swept last; nothing where there was more than could be removed in one go.
#[derive(Default)]
pub(super) struct Sweeping(Arc<Mutex<Option<OffsetDateTime>>>);

impl Sweeping {
    /// Whether it is time to remove what nobody needs; true for one who asks.
    fn is_due(&self, now: OffsetDateTime) -> bool {
        let mut swept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = swept.is_none_or(|last| (now - last).abs() >= EVERY);
        if due {
            *swept = Some(now);
        }
        due
    }
}

impl Broker {
    /// Removes what nobody needs any more, now and then, and looks what time it is at the store;
    /// nobody waits for it.
    pub(super) fn sweep(&self, now: OffsetDateTime) {
        if !self.sweeping.is_due(now) {
            return;
        }
        let (store, swept) = (self.store.clone(), self.sweeping.0.clone());
        let (store_clock, clock) = (self.store_clock.clone(), self.clock.clone());
        tokio::spawn(async move {
            // Where nobody asks for metrics, the log says that clocks differ all the same.
            let _ = store_clock.look(store.as_ref(), clock.as_ref()).await;
            match sweep(store.as_ref(), now).await {
                Ok(Swept::All) => {}
                // Whoever comes next goes on with it.
                Ok(Swept::Some) => *swept.lock().unwrap_or_else(PoisonError::into_inner) = None,
                Err(error) => tracing::warn!(%error, "what is old cannot be looked for"),
            }
        });
    }
}

/// How much of what nobody needs was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swept {
    All,
    Some,
}

/// What is removed once nobody needs it.
#[derive(Clone, Copy, Debug)]
enum Old {
    /// That something was used up.
    Consumed(Once),
    /// That many tokens were revoked at once.
    Cutoffs,
    /// What opaque tokens say.
    OpaqueTokens,
    /// Requests for a role that came to an end.
    Elevations,
    /// What was done under grants that are forgotten.
    Uses,
    /// What people were told.
    Messages,
    /// Keys that somebody enrolled, and nobody ever approved.
    Pending,
}

impl Old {
    /// All, each with how much longer than needed it is kept.
    const ALL: [(Self, Duration); 12] = [
        (Self::Consumed(Once::RevokedToken), GRACE),
        (Self::Consumed(Once::DpopProof), PROOF_GRACE),
        (Self::Consumed(Once::ClientAssertion), GRACE),
        (Self::Consumed(Once::Assertion), GRACE),
        (Self::Consumed(Once::AssertionUse), GRACE),
        (Self::Consumed(Once::Statement), GRACE),
        (Self::Cutoffs, GRACE),
        (Self::OpaqueTokens, GRACE),
        (Self::Elevations, KEPT_ELEVATIONS),
        (Self::Uses, Duration::ZERO),
        (Self::Messages, GRACE),
        (Self::Pending, PENDING),
    ];

    async fn forget(self, store: &dyn Store, before: OffsetDateTime, limit: u32) -> Result<u64> {
        match self {
            Self::Consumed(kind) => store.forget_consumed(kind, before, limit).await,
            Self::Cutoffs => store.forget_cutoffs(before, limit).await,
            Self::OpaqueTokens => store.forget_opaque(before, limit).await,
            Self::Elevations => store.forget_elevations(before, limit).await,
            Self::Uses => store.forget_uses(limit).await,
            Self::Messages => store.forget_messages(before, limit).await,
            Self::Pending => store.forget_pending(before, limit).await,
        }
    }
}

/// Removes what nobody needs, a little at a time. Where several processes do it, each
/// finds less. What they share is not forgotten early because one of their clocks is ahead.
async fn sweep(store: &dyn Store, now: OffsetDateTime) -> Result<Swept> {
    let now = store.now().await?.map_or(now, |there| there.min(now));
    let mut swept = Swept::All;
    for (what, grace) in Old::ALL {
        let before = now.saturating_sub(grace);
        let (mut removed, mut last) = (0, u64::from(BATCH));
        for _ in 0..BATCHES {
            last = match what.forget(store, before, BATCH).await {
                Ok(last) => last,
                // It keeps nobody from removing what else there is.
                Err(error) => {
                    tracing::warn!(?what, %error, "what is old cannot be removed");
                    0
                }
            };
            removed += last;
            if last < u64::from(BATCH) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if last >= u64::from(BATCH) {
            swept = Swept::Some;
        }
        if removed > 0 {
            tracing::info!(?what, removed, "forgot what nobody needs");
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests;
