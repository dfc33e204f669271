//! Revoking: record, then note that the token is good no more. Both are on the
//! disk before anybody is told.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use time::{Duration, OffsetDateTime};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::Broker;
use super::audit::{Decision, Record};
use super::own::OwnToken;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::jwt::LEEWAY;

/// How often revocations that nobody needs any more are removed, at most.
const SWEEP_EVERY: Duration = Duration::minutes(10);

/// How many tokens can be revoked side by side.
const LANES: usize = 32;

/// That a token is good no more, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The token.
    pub jti: Uuid,
    /// Since when.
    pub at: OffsetDateTime,
    /// When nobody accepts the token any more, so that this may be forgotten.
    pub keep_until: OffsetDateTime,
}

/// What keeps requests to revoke in order.
#[derive(Default)]
pub(super) struct Revoking {
    /// A token has its lane, so that a storm of requests for it leaves one record.
    lanes: [tokio::sync::Mutex<()>; LANES],
    swept: Mutex<Option<OffsetDateTime>>,
}

impl Revoking {
    async fn turn(&self, jti: Uuid) -> MutexGuard<'_, ()> {
        // The remainder is below the length.
        let lane = usize::from(jti.as_bytes()[15]) % LANES;
        self.lanes[lane].lock().await
    }

    /// Whether it is time to remove what nobody needs; true for one who asks.
    fn sweeps(&self, now: OffsetDateTime) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = swept.is_none_or(|last| (now - last).abs() >= SWEEP_EVERY);
        if due {
            *swept = Some(now);
        }
        due
    }
}

impl Broker {
    /// Revokes a token. When this returns, that is durable, and so is its record.
    /// A second time changes nothing.
    ///
    /// # Errors
    /// Whatever keeps either from being durable: then the token counts as good.
    pub async fn revoke(&self, token: &OwnToken, source: IpAddr, request_id: Uuid) -> Result<()> {
        let _turn = self.revoking.turn(token.jti).await;
        if self.store.is_revoked(token.jti).await? {
            return Ok(());
        }
        let now = self.clock.now();
        let record = Record {
            at: now,
            request_id,
            action: "revoke".into(),
            decision: Decision::Revoked,
            reason: "somebody who holds the token asked for it".into(),
            principal: token.principal.clone(),
            client: token.client.clone(),
            source: source.to_canonical().to_string(),
            role: token.role.clone(),
            audience: token.audience.clone(),
            scope: token.scope.clone(),
            ttl: (token.expires_at - token.issued_at).whole_seconds().unsigned_abs(),
            jti: Some(token.jti),
            policy_id: None,
            policy_hash: self.policy.hash().to_string(),
        };
        let receipt = self.audit.append(record.clone()).await?;
        let noted = if receipt.redeem(token.jti) {
            let keep_until = token.expires_at.saturating_add(LEEWAY);
            self.store.revoke(&Revocation { jti: token.jti, at: now, keep_until }).await
        } else {
            Err(Error::new(ErrorKind::Other, "the receipt is for another token"))
        };
        if let Err(error) = noted {
            let aborted = record.aborted("the revocation could not be written");
            if let Err(error) = self.audit.append(aborted).await {
                tracing::error!(%error, jti = %token.jti, "a revocation that failed is on record");
            }
            return Err(error);
        }
        tracing::info!(role = token.role, subject = token.subject, "revoked");
        self.sweep(now).await;
        Ok(())
    }

    /// Removes what nobody needs any more, now and then.
    async fn sweep(&self, now: OffsetDateTime) {
        if !self.revoking.sweeps(now) {
            return;
        }
        match self.store.forget_revocations(now).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "forgot revocations of expired tokens"),
            Err(error) => tracing::warn!(%error, "old revocations cannot be removed"),
        }
    }
}
