//! What an issuance rests on, and who was quicker where that is so no more.
//!
//! All of it is a condition of the commit that puts the token on record: between the look
//! at it and that commit somebody may have revoked what the token comes of, or used the
//! same proof or the same assertion.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Broker;
use super::audit::{Receipt, Record};
use super::authenticate::Caller;
use super::cutoff::{in_seconds, next_issued};
use super::elevation::Underway;
use super::issue::Ask;
use super::once::Uses;
use super::proof::consume;
use super::readiness::CLOCKS_AGREE;
use super::store::{Effect, Enrollment, EnrollmentState, Issuance, Once, Revocable, Unit, Whose};
use crate::dpop::Proof;
use crate::error::{Error, ErrorKind, Result};

/// What has to be so for a token to be issued, besides that its assertions are unused.
pub(super) struct Grounds<'a> {
    /// The broker's own tokens that it comes of: none of them was revoked.
    lineage: Vec<String>,
    /// The same, and the token itself, as they can be revoked together with others.
    issuances: Vec<Issuance>,
    /// The keys that signed those that it comes of: none of them was revoked.
    keys: Vec<String>,
    /// Nor was the one that is to sign, where one is.
    signer: Option<String>,
    /// The key that somebody enrolled and signed with, where that is how they are known: it counts.
    enrolled: Option<String>,
    /// The proof of a key: nobody has used it.
    proof: Option<&'a Proof>,
    /// The grant under which it is issued, where it is: nothing has happened to it.
    grant: Option<Underway>,
}

/// Who was quicker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overtaken {
    /// Somebody revoked what the token was to come of.
    Revoked,
    /// Somebody revoked all that was issued until now, the token itself with it.
    CutOff {
        /// From when on it can be issued.
        until: OffsetDateTime,
    },
    /// Somebody revoked the key that was to sign it.
    KeyRevoked,
    /// Something happened to the grant under which it was to be issued.
    Elevation,
    /// Somebody removed the key by whose signature it was asked for, or it has lapsed.
    Unenrolled,
    /// It is another time by the clock of the database.
    ClocksDiffer {
        /// How far this machine's clock is ahead of it.
        by: Duration,
    },
    /// Somebody used the proof of a key.
    Replayed,
    /// Somebody used an assertion that is good once.
    Reused,
    /// The client's key for this request was used for another one, or too long ago.
    Repeated,
}

impl Broker {
    /// What the issuance of this record rests on.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub(super) async fn grounds<'a>(
        &self,
        caller: &Caller,
        ask: &'a Ask,
        record: &Record,
    ) -> Result<Grounds<'a>> {
        let lineage = caller.lineage();
        let mut issuances = self.issuances(&lineage).await?;
        issuances.push(self.issuance(record));
        let lineage = lineage.iter().map(Uuid::to_string).collect();
        let keys = caller.lineage_keys().into_iter().collect();
        Ok(Grounds {
            lineage,
            issuances,
            keys,
            signer: None,
            enrolled: caller.signed().map(|signed| signed.key.clone()),
            proof: ask.proof.as_ref(),
            grant: None,
        })
    }
}

impl Grounds<'_> {
    /// The same for a token that the key with this id is to sign, where one is.
    pub(super) fn signed_by(self, signer: Option<String>) -> Self {
        Self { signer, ..self }
    }

    /// The same under this grant, where there is one.
    pub(super) fn under(self, grant: Option<Underway>) -> Self {
        Self { grant, ..self }
    }

    /// The token as it would be, had it been issued at this moment.
    pub(super) fn as_of(&self, at: OffsetDateTime) -> Option<Issuance> {
        self.issuances.last().map(|own| Issuance { at: in_seconds(at), ..own.clone() })
    }

    /// The same as conditions of a commit, of which the proof is used up.
    pub(super) fn effects(&self, at: OffsetDateTime) -> Vec<Effect> {
        let unrevoked = Revocable {
            tokens: self.lineage.clone(),
            keys: self.keys.iter().chain(&self.signer).cloned().collect(),
            issued: self.issuances.clone(),
        };
        [Effect::IfNotRevoked(unrevoked), Broker::at_once(at)]
            .into_iter()
            .chain(self.grant.as_ref().map(Underway::condition))
            .chain(self.enrolled.clone().map(|key| Effect::IfEnrolled { keys: vec![key], at }))
            .chain(self.proof.map(|proof| consume(proof, at)))
            .collect()
    }
}

impl Broker {
    /// Puts an issuance on record if all is so that it rests on, and uses up what is good
    /// once: both in one commit. `effects` are what else comes about with a token of this
    /// id, which the record gets.
    ///
    /// # Errors
    /// As with [`Audit::commit`](super::audit::Audit::commit).
    pub(super) async fn commit_issuance(
        &self,
        grounds: &Grounds<'_>,
        uses: Option<&Uses>,
        record: &mut Record,
        mut effects: impl FnMut(Uuid) -> Result<Vec<Effect>>,
    ) -> Result<Result<Receipt, Overtaken>> {
        if let Some(uses) = uses {
            return self.commit_use(uses, grounds, record, effects).await;
        }
        let mut unit = Unit { records: vec![record.clone()], effects: grounds.effects(record.at) };
        unit.effects.extend(record.jti.map(&mut effects).transpose()?.into_iter().flatten());
        if let Some(receipt) = self.audit.commit(unit).await? {
            return Ok(Ok(receipt));
        }
        match self.overtaken_in(grounds, record.at).await? {
            Some(by) => Ok(Err(by)),
            None => Err(nothing_against()),
        }
    }

    /// By what nothing like this can be issued, which was revoked together with others.
    async fn cut_off(&self, own: &Issuance) -> Result<Overtaken> {
        let mut until = own.at.saturating_add(Duration::SECOND);
        for whose in &own.names {
            let Some(before) = self.store.revoked_until(whose).await? else { continue };
            if own.at >= before {
                continue;
            }
            // Nothing more is issued under that one, however long anybody waits.
            if matches!(whose, Whose::Grant(_)) {
                return Ok(Overtaken::Elevation);
            }
            until = until.max(next_issued(before));
        }
        Ok(Overtaken::CutOff { until })
    }

    /// Who was quicker than what began at this moment, where anybody was; who used an assertion is
    /// not looked at.
    pub(super) async fn overtaken_in(
        &self,
        grounds: &Grounds<'_>,
        at: OffsetDateTime,
    ) -> Result<Option<Overtaken>> {
        if let Some(there) = self.store.now().await? {
            // The commit has compared when it began, which may be a while ago.
            let by = [self.clock.now() - there, at - there];
            if let Some(by) = by.into_iter().find(|by| by.abs() > CLOCKS_AGREE) {
                return Ok(Some(Overtaken::ClocksDiffer { by }));
            }
        }
        let (tokens, keys) = (grounds.lineage.clone(), grounds.keys.clone());
        let of = Revocable { tokens, keys, issued: Vec::new() };
        if self.store.any_revoked(of).await? {
            return Ok(Some(Overtaken::Revoked));
        }
        if self.store.any_consumed(Once::RevokedKey, grounds.signer.as_slice()).await? {
            return Ok(Some(Overtaken::KeyRevoked));
        }
        if let Some((own, lineage)) = grounds.issuances.split_last() {
            if self.store.any_revoked(Revocable::together(lineage)).await? {
                return Ok(Some(Overtaken::Revoked));
            }
            if self.store.any_revoked(Revocable::together([own.clone()])).await? {
                return self.cut_off(own).await.map(Some);
            }
        }
        if let Some(grant) = &grounds.grant
            && !self.is_underway(grant).await?
        {
            return Ok(Some(Overtaken::Elevation));
        }
        if let Some(key) = &grounds.enrolled {
            let found = self.store.enrollment_of(key).await?;
            let counts = |found: &Enrollment| {
                found.state == EnrollmentState::Approved && self.clock.now() < found.lapses_at()
            };
            if !found.as_ref().is_some_and(counts) {
                return Ok(Some(Overtaken::Unenrolled));
            }
        }
        let Some(proof) = grounds.proof else { return Ok(None) };
        let used = self.store.any_consumed(Once::DpopProof, std::slice::from_ref(&proof.id));
        Ok(used.await?.then_some(Overtaken::Replayed))
    }
}

/// That something was not committed, and nobody can tell why.
pub(super) fn nothing_against() -> Error {
    Error::new(ErrorKind::Other, "the audit log cannot be written")
        .because_of("the store refuses the record, and has nothing against it")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::broker::testbed::failing::Failing;
    use crate::broker::testbed::{Shifted, now};

    /// What began by a clock that was wrong is found to have, also where it was set since; and what
    /// begins by one that is, while the request before it was right.
    #[tokio::test]
    async fn clocks_are_compared_as_they_are_and_as_they_were() {
        let clock = Arc::new(Shifted::default());
        let (bed, store) = Failing::bed(|options| options.clock = clock.clone()).await;
        // (With 0 the store would have no clock.)
        store.behind.store(1, Ordering::Relaxed);
        for (began, ahead, differ) in [
            (0, 0, None),
            (30, 0, None),
            (-30, 0, None),
            (90, 0, Some(91)),
            (-90, 0, Some(-89)),
            (0, 90, Some(91)),
            (0, -90, Some(-89)),
        ] {
            clock.0.store(ahead, Ordering::Relaxed);
            let grounds = Grounds {
                lineage: Vec::new(),
                issuances: Vec::new(),
                keys: Vec::new(),
                signer: None,
                enrolled: None,
                proof: None,
                grant: None,
            };
            let at = now() + Duration::seconds(began);
            let found = bed.broker.overtaken_in(&grounds, at).await.unwrap();
            let Some(differ) = differ else {
                assert_eq!(found, None, "{began} {ahead}");
                continue;
            };
            let Some(Overtaken::ClocksDiffer { by }) = found else {
                panic!("{began} {ahead}: {found:?}")
            };
            // (As long as it takes to look, at most.)
            let off = by - Duration::seconds(differ);
            assert!(off.abs() < Duration::seconds(20), "{began} {ahead}: {by}");
        }
    }
}
