//! What somebody signed is good once.

use data_encoding::HEXLOWER;
use time::OffsetDateTime;

use crate::broker::Broker;
use crate::broker::authenticate::BySignature;
use crate::broker::config::MAX_LEEWAY;
use crate::broker::elevation::verdict::Refusal;
use crate::broker::operate::Asked as Who;
use crate::broker::store::{Consumed, Effect, Once};
use crate::error::Result as Outcome;

impl Broker {
    /// Whether nobody has used what they signed.
    pub(in crate::broker::elevation) async fn check_unused(
        &self,
        who: &Who,
    ) -> Result<(), Refusal> {
        match self.is_used(who).await? {
            true => Err(used_before()),
            false => Ok(()),
        }
    }

    /// Whether what somebody signed was used, where they are known by that.
    pub(in crate::broker::elevation) async fn is_used(&self, who: &Who) -> Outcome<bool> {
        let Some(signed) = who.caller.signed() else { return Ok(false) };
        let (kind, id) = once(signed);
        self.store.any_consumed(kind, &[id]).await
    }
}

/// The refusal of what was used before.
pub(in crate::broker::elevation) fn used_before() -> Refusal {
    Refusal::Malformed("the statement was used before: make it anew".into())
}

/// What uses up what somebody signed, where they are known by that.
pub(in crate::broker::elevation) fn used_up(who: &Who, now: OffsetDateTime) -> Option<Effect> {
    let signed = who.caller.signed()?;
    let (kind, id) = once(signed);
    // The clock of another process may be behind.
    let longest = time::Duration::try_from(MAX_LEEWAY).unwrap_or_default();
    let keep_until = signed.expires.saturating_add(longest);
    Some(Effect::Consume(Consumed { kind, id, at: now, keep_until }))
}

/// By what a statement is good once: one that is good for a token is used up for that as an
/// assertion is.
fn once(signed: &BySignature) -> (Once, String) {
    match signed.is_use {
        true => (Once::Assertion, HEXLOWER.encode(&signed.statement)),
        false => (Once::Statement, once_of(&signed.key, &signed.nonce)),
    }
}

/// By what a statement with this nonce is good once that this key signed. A nonce is no secret:
/// whoever takes one over from somebody else's statement uses up none but their own.
pub(in crate::broker) fn once_of(key: &str, nonce: &str) -> String {
    format!("{key} {nonce}")
}
