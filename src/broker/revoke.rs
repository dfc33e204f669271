//! Revoking: that a token is good no more, and the record of it, in one commit.
//! Both are on the disk before anybody is told.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Broker;
use super::audit::{Decision, Record};
use super::client::Proved;
use super::metrics::Revocation;
use super::own::OwnToken;
use super::store::{Consumed, Effect, Once, Store, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::jwt::LEEWAY;

/// How often what nobody needs any more is removed, at most.
const SWEEP_EVERY: Duration = Duration::minutes(10);

/// How many revocations are removed at a time, and how many times in one go: others wait
/// for the store meanwhile.
const SWEEP_BATCH: u32 = 500;
const SWEEP_BATCHES: usize = 200;

/// How long the others have in between.
const SWEEP_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// How much longer than needed revocations are kept: a clock that is ahead for a
/// while must not make tokens good again.
const GRACE: Duration = Duration::days(1);

/// The same of proofs and client assertions, of which there may be many, and which are
/// good for minutes.
const PROOF_GRACE: Duration = Duration::hours(1);

/// When what was used up was swept last.
#[derive(Default)]
pub(super) struct Sweeping(Mutex<Option<OffsetDateTime>>);

impl Sweeping {
    /// Whether it is time to remove what nobody needs; true for one who asks.
    fn is_due(&self, now: OffsetDateTime) -> bool {
        let mut swept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = swept.is_none_or(|last| (now - last).abs() >= SWEEP_EVERY);
        if due {
            *swept = Some(now);
        }
        due
    }
}

impl Broker {
    /// Revokes a token, and with it all that came of it, as `client` asks for it. When this returns, that is
    /// durable, and so is its record. A second time changes nothing, also where it is
    /// at the same time, or at another process.
    ///
    /// # Errors
    /// Whatever keeps it from being durable: then the token may still be good.
    pub async fn revoke(
        &self,
        token: &OwnToken,
        client: &Proved,
        source: IpAddr,
        request_id: Uuid,
    ) -> Result<()> {
        let revoking = self.revoke_once(token, client, source, request_id);
        self.metrics.revocation(revoking).await.map(drop)
    }

    async fn revoke_once(
        &self,
        token: &OwnToken,
        client: &Proved,
        source: IpAddr,
        request_id: Uuid,
    ) -> Result<Revocation> {
        let id = token.jti.to_string();
        // Whoever repeats it costs no commit.
        if self.store.any_consumed(Once::RevokedToken, std::slice::from_ref(&id)).await? {
            return Ok(Revocation::Repeated);
        }
        let now = self.clock.now();
        let record = Record {
            at: now,
            request_id,
            action: "revoke".into(),
            decision: Decision::Revoked,
            reason: match client.id() {
                None => "somebody who holds the token asked for it".into(),
                Some(client) => {
                    format!("the client '{client}', which holds the token, asked for it")
                }
            },
            principal: token.principal.clone(),
            client: token.client.clone(),
            source: source.to_canonical().to_string(),
            role: token.role.clone(),
            audience: token.audience.clone(),
            scope: token.scope.clone(),
            ttl: (token.expires_at - token.issued_at).whole_seconds().unsigned_abs(),
            jti: Some(token.jti),
            parent: token.ancestors.last().copied(),
            policy_id: None,
            policy_hash: self.policies().hash().to_string(),
            count: 1,
        };
        let revoked = Effect::Consume(Consumed {
            kind: Once::RevokedToken,
            id,
            at: now,
            keep_until: token.expires_at.saturating_add(LEEWAY),
        });
        // Where it is not new, somebody was quicker, and that is on record.
        let committed = self.audit.commit(Unit::of(record).with(revoked));
        let Some(receipt) = self.metrics.recording(committed).await? else {
            return Ok(Revocation::Repeated);
        };
        if !receipt.redeem(token.jti) {
            return Err(Error::new(ErrorKind::Other, "the receipt is for another token"));
        }
        tracing::info!(role = token.role, subject = token.subject, "revoked");
        self.sweep(now);
        Ok(Revocation::Revoked)
    }

    /// Whether a token was revoked, or one of those that it came of.
    pub(super) async fn is_revoked(&self, token: &OwnToken) -> Result<bool> {
        let ids: Vec<String> =
            token.ancestors.iter().chain([&token.jti]).map(Uuid::to_string).collect();
        self.store.any_consumed(Once::RevokedToken, &ids).await
    }

    /// Removes what nobody needs any more, now and then; nobody waits for it.
    pub(super) fn sweep(&self, now: OffsetDateTime) {
        if !self.sweeping.is_due(now) {
            return;
        }
        let store = self.store.clone();
        tokio::spawn(async move {
            for (kind, grace) in [
                (Once::RevokedToken, GRACE),
                (Once::DpopProof, PROOF_GRACE),
                (Once::ClientAssertion, PROOF_GRACE),
            ] {
                let what = kind.as_str();
                match sweep(store.as_ref(), kind, now.saturating_sub(grace)).await {
                    Ok(0) => {}
                    Ok(removed) => tracing::info!(what, removed, "forgot what nobody needs"),
                    Err(error) => tracing::warn!(what, %error, "what is old cannot be removed"),
                }
            }
        });
    }
}

/// Removes what had to be kept until before this moment, a little at a time. Where
/// several processes do it, each finds less.
async fn sweep(store: &dyn Store, kind: Once, before: OffsetDateTime) -> Result<u64> {
    let mut removed = 0;
    for _ in 0..SWEEP_BATCHES {
        let now = store.forget_consumed(kind, before, SWEEP_BATCH).await?;
        removed += now;
        if now < u64::from(SWEEP_BATCH) {
            break;
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
    Ok(removed)
}
