//! What would be revoked, and whether anything is known of those whose tokens are.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Operator, Revoked, What, issuance, unreadable};
use crate::broker::audit::{Decision, Record};
use crate::broker::config::{Config, MAX_TTL};
use crate::broker::keys::{CheckpointKeys, Kek};
use crate::broker::store::{self, Filter, Once, Revocable, Whose};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::oidc::jwt::LEEWAY;

/// How many records are read at a time.
const PAGE: u32 = 1000;

/// How many records are looked through, at most.
const MOST_PAGES: u32 = 100;

impl Operator {
    /// Opens the database as [`open`](Self::open) does, for somebody who changes nothing.
    ///
    /// # Errors
    /// As there.
    pub async fn open_to_look(host: &Host, config: &Config) -> Result<Self> {
        let kek = Kek::load(&config.keys, &host.env).await?;
        let store = store::open_to_read(&config.store, &host.env).await?;
        CheckpointKeys::of_broker(&store, &kek, &config.issuer).await?;
        Ok(Self::beside(Arc::new(store), host.clock.clone(), config.issuer.clone()))
    }

    /// What [`revoke`](Self::revoke) would revoke at this moment. Nothing is changed.
    ///
    /// # Errors
    /// As there.
    pub async fn would_revoke(&self, what: &What) -> Result<Revoked> {
        let here = self.clock.now();
        let now = self.store.now().await?.unwrap_or(here);
        let (whose, before) = match what {
            What::Token(jti) => return self.would_revoke_one(*jti, now).await,
            What::Many { whose, before } => (whose, *before),
        };
        let since = self.store.revoked_until(whose).await;
        let before = match before {
            Some(before) => {
                self.require_passed(before, now).await?;
                before
            }
            None => self.require_one_time(here, now).await?,
        };
        Ok(self.revoked(whose, (since, before), now).await)
    }

    async fn would_revoke_one(&self, jti: Uuid, now: OffsetDateTime) -> Result<Revoked> {
        let (issued, end) = self.issued(jti).await?;
        let revoked = self.store.any_consumed(Once::RevokedToken, &[jti.to_string()]).await?
            || self.is_cut_off(&issued).await?;
        Ok(Revoked {
            tokens: Some(u64::from(!revoked && end > now)),
            before: now,
            on_record: Some(true),
        })
    }

    /// Whether the token of this record was revoked together with others.
    pub(super) async fn is_cut_off(&self, issued: &Record) -> Result<bool> {
        let one = issuance(issued, &self.issuer);
        self.store.any_revoked(Revocable::together([one])).await
    }

    /// The record of a token that was issued, and when the token ends.
    pub(super) async fn issued(&self, jti: Uuid) -> Result<(Record, OffsetDateTime)> {
        let filter =
            Filter { jti: Some(jti), decision: Some(Decision::Issued), ..Filter::default() };
        let Some((_, issued)) = self.store.find(&filter, 1).await?.pop() else {
            return Err(Error::new(ErrorKind::Usage, format!("no token '{jti}' was issued"))
                .hint("`tmpcred broker audit query` shows those that were"));
        };
        let issued = issued.ok_or_else(unreadable)?;
        let lives = Duration::seconds(i64::try_from(issued.ttl).unwrap_or(i64::MAX));
        let end = issued.at.saturating_add(lives);
        Ok((issued, end))
    }

    /// Refuses a moment that is yet to come, unless something is on record of one before it.
    pub(super) async fn require_passed(
        &self,
        before: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<()> {
        match before > now && !self.is_on_record(before, now).await? {
            true => Err(Error::new(ErrorKind::Usage, "the time is yet to come")
                .hint("whatever is issued until then can be revoked then")),
            false => Ok(()),
        }
    }

    /// Whether the log has any token of theirs of late, be it good or not: whoever is spelt
    /// otherwise than in their tokens has none. `None` where that says nothing of them, or
    /// there is more to look through than anybody waits for.
    pub(super) async fn knows(&self, whose: &Whose, now: OffsetDateTime) -> Result<Option<bool>> {
        let late = Filter {
            decision: Some(Decision::Issued),
            since: Some(now - MAX_TTL - LEEWAY),
            ..Filter::default()
        };
        let is_meant: &(dyn Fn(&Record) -> bool + Sync) = match whose {
            Whose::Issuer(issuer) => {
                let filter = Filter { issuer: Some(issuer.clone()), ..late };
                return Ok(Some(!self.store.find(&filter, 1).await?.is_empty()));
            }
            Whose::Subject(id) => {
                // An index leads to these.
                let (issuer, subject) = id.split_once('#').unwrap_or((id, ""));
                let subject = percent_decode_str(subject).decode_utf8_lossy().into_owned();
                let (issuer, subject) = (Some(issuer.to_string()), Some(subject));
                let filter = Filter { issuer, subject, ..late.clone() };
                if !self.store.find(&filter, 1).await?.is_empty() {
                    return Ok(Some(true));
                }
                &|record| record.actor.as_deref() == Some(id)
            }
            Whose::Client(client) => &|record| record.client == *client,
            Whose::Everybodys | Whose::Role(_) | Whose::Grant(_) => return Ok(None),
        };
        let mut filter = late;
        for _ in 0..MOST_PAGES {
            let rows = self.store.find(&filter, PAGE).await?;
            if rows.iter().filter_map(|(_, record)| record.as_ref()).any(is_meant) {
                return Ok(Some(true));
            }
            match rows.first() {
                Some((first, _)) if rows.len() == PAGE as usize => filter.below = Some(*first),
                _ => return Ok(Some(false)),
            }
        }
        Ok(None)
    }
}
