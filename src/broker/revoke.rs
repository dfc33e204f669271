//! Revoking: that a token is good no more, and the record of it, in one commit.
//! Both are on the disk before anybody is told.

use std::net::IpAddr;

use uuid::Uuid;

use super::Broker;
use super::audit::{Decision, Record};
use super::client::Proved;
use super::issue::acting;
use super::metrics::Revocation;
use super::own::OwnToken;
use super::policy::Policy;
use super::store::{Consumed, Effect, Once, Revocable, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::jwt::LEEWAY;
use crate::trace;

impl Broker {
    /// Revokes a token, and with it all that came of it, as `client` asks for it. When this
    /// returns, that is durable, and so is its record, which names the policies that are in
    /// force. A second time changes nothing, also where it is
    /// at the same time, or at another process.
    ///
    /// # Errors
    /// Whatever keeps it from being durable: then the token may still be good.
    pub async fn revoke(
        &self,
        policy: &Policy,
        token: &OwnToken,
        client: &Proved,
        source: IpAddr,
        request_id: Uuid,
    ) -> Result<()> {
        let revoking = self.revoke_once(policy, token, client, source, request_id);
        self.metrics.revocation(revoking).await.map(drop)
    }

    /// Whether this very token was revoked: whoever does so again costs no commit.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub(super) async fn was_revoked(&self, token: &OwnToken) -> Result<bool> {
        self.store.any_consumed(Once::RevokedToken, &[token.jti.to_string()]).await
    }

    async fn revoke_once(
        &self,
        policy: &Policy,
        token: &OwnToken,
        client: &Proved,
        source: IpAddr,
        request_id: Uuid,
    ) -> Result<Revocation> {
        let id = token.jti.to_string();
        let now = self.clock.now();
        let record = Record {
            at: now,
            request_id,
            trace_id: trace::id(),
            action: "revoke".into(),
            decision: Decision::Revoked,
            reason: match client.id() {
                None => "somebody who holds the token asked for it".into(),
                Some(client) => {
                    format!("the client '{client}', which holds the token, asked for it")
                }
            },
            principal: token.principal.clone(),
            actor: acting(&token.actors),
            client: token.client.clone(),
            source: source.to_canonical().to_string(),
            role: token.role.clone(),
            audience: token.audience.clone(),
            scope: token.scope.clone(),
            ttl: (token.expires_at - token.issued_at).whole_seconds().unsigned_abs(),
            jti: Some(token.jti),
            parent: token.ancestors.last().copied(),
            elevation: token.elevation.as_ref().map(|grant| grant.id),
            claims: None,
            policy_id: None,
            policy_hash: policy.hash().to_string(),
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
        if receipt.redeem(token.jti).is_none() {
            return Err(Error::new(ErrorKind::Other, "the receipt is for another token"));
        }
        tracing::info!(role = token.role, jti = %token.jti, "revoked");
        self.sweep(now);
        Ok(Revocation::Revoked)
    }

    /// Whether a token was revoked, or one of those that it came of, or a key that signed one of
    /// these. The keys that this process has in memory are a second old at most; whoever was told
    /// within that second that nothing of a key is good any more is contradicted nowhere.
    pub(super) async fn is_revoked(&self, token: &OwnToken) -> Result<bool> {
        let tokens = token.ancestors.iter().chain([&token.jti]).map(Uuid::to_string).collect();
        let keys = token.keys.iter().cloned().collect();
        let issued = self.issuances_of(token).await?;
        self.store.any_revoked(Revocable { tokens, keys, issued }).await
    }
}
