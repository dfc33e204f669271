//! Keys that people enroll while they can still show who they are, so that their signatures
//! count while no provider can say it.
//!
//! Whoever is in the directory enrolls a key of theirs by signing with it that it is theirs.
//! It counts once somebody else has approved it whom policy lets, until 30 days have passed
//! since the last login of its owner that the broker saw, and as long as the directory has
//! them by the id by which they enrolled. Each row is sealed: who can write to the database
//! is not who says whose signatures count.

mod refusal;
mod seal;
mod seen;

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

pub(super) use refusal::Refused;
pub(super) use seal::EnrollmentSeal;
pub(super) use seen::Logins;
use seen::logged_in_at;

use super::Broker;
use super::audit::{Author, Decision};
use super::authenticate::Caller;
use super::elevation::once_of;
use super::operate::Asked;
use super::rulebook::Rulebook;
use super::store::enrollment::{LASTS, MAX_KEYS};
use super::store::{Consumed, Effect, Enrollment, EnrollmentState, Once, Unit};
use super::sweep::PENDING;
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::sshsig::{self, PublicKey, Said, Signed};

/// What its records say was asked for.
const ACTION: &str = "enroll";

/// How often a key is looked at anew that was changed meanwhile, as by the login that the very
/// same request shows.
const TRIES: u32 = 5;

/// Somebody whose signature counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Who it is, by their name in the directory.
    pub person: String,
    /// As whom they enrolled the key.
    pub principal: Principal,
    /// What names the enrollment.
    pub enrollment: Uuid,
}

impl Broker {
    /// Whose key this is, where its signatures count at this time.
    ///
    /// # Errors
    /// Where that cannot be told at present, which counts as no.
    pub async fn enrolled_signer(
        &self,
        book: &Rulebook,
        key: &PublicKey,
        now: OffsetDateTime,
    ) -> Result<Option<Signer>> {
        let found = self.live_key(book, &key.fingerprint(), now).await?;
        let line = key.line()?;
        Ok(found.filter(|found| found.public_key == line).map(|found| Signer {
            person: found.person,
            principal: found.principal,
            enrollment: found.id,
        }))
    }

    /// The enrollment of the key with this fingerprint, where its signatures count at this time.
    pub(super) async fn live_key(
        &self,
        book: &Rulebook,
        fingerprint: &str,
        now: OffsetDateTime,
    ) -> Result<Option<Enrollment>> {
        let found = self.store.enrollment_of(fingerprint).await?;
        Ok(found.filter(|found| self.counts(book, found, now).is_some()))
    }

    /// The key of an enrollment, where its signatures count at this time. The identity by which
    /// somebody enrolled it has to be theirs still: whoever gets their name later gets no key
    /// with it.
    pub(super) fn counts(
        &self,
        book: &Rulebook,
        found: &Enrollment,
        now: OffsetDateTime,
    ) -> Option<PublicKey> {
        let kinds = book.config().enrollment.demands().kinds;
        let is_approved = found.state == EnrollmentState::Approved && found.approved.is_some();
        let counts = self.enrollment_seal.is_good(found)
            && is_approved
            && now < found.lapses_at()
            && person_of(book, &found.principal, now) == Some(found.person.as_str());
        let (key, _) = PublicKey::parse(&found.public_key).ok().filter(|_| counts)?;
        kinds.contains(&key.kind()).then_some(key)
    }

    /// All keys of which signatures count at this time.
    pub(super) async fn live_keys(
        &self,
        book: &Rulebook,
        now: OffsetDateTime,
    ) -> Result<Vec<(Enrollment, PublicKey)>> {
        let all = self.store.enrollments().await?.into_iter();
        Ok(all.filter_map(|one| self.counts(book, &one, now).map(|key| (one, key))).collect())
    }

    /// Enrolls the key by which this statement is signed, for whoever asks.
    pub(super) async fn enroll(
        self: &Arc<Self>,
        book: &Rulebook,
        asked: &Asked,
        signed: &str,
    ) -> Result<Enrollment, Refused> {
        let now = self.clock.now();
        let person = person_asking(book, &asked.caller, now)?;
        let signed = sshsig::read(signed, book.config().enrollment.demands())?;
        let [Signed { statement, signatures }] = &signed[..] else {
            return Err(Refused::malformed("it has more than one statement"));
        };
        let ([signature], Said::Enrollment { key, label }) = (&signatures[..], &statement.said)
        else {
            let why = "it is not an enrollment that is signed by one key";
            return Err(Refused::malformed(why));
        };
        statement.check(&self.issuer, now)?;
        if *key != signature.key().fingerprint() {
            return Err(Refused::malformed("it is not signed by the key that it is about"));
        }
        if statement.person != person {
            let why = format!("it is not by you, whom the directory names '{person}'");
            return Err(Refused::malformed(why));
        }
        let seen_at = logged_in_at(&asked.caller, now);
        if now >= seen_at.saturating_add(LASTS) {
            let why = format!(
                "you last logged in more than {} days ago, so the key would not count",
                LASTS.whole_days()
            );
            return Err(Refused::denied(why).hint("log in anew, and enroll it then"));
        }
        let used_by = once_of(key, &statement.nonce.text());
        let new = self.enrollment_seal.over(Enrollment {
            id: Uuid::new_v4(),
            fingerprint: key.clone(),
            public_key: signature.key().line()?,
            person: person.to_string(),
            principal: asked.caller.principal().clone(),
            label: label.clone(),
            state: EnrollmentState::Pending,
            enrolled_at: now,
            approved: None,
            seen_at,
            seal: Vec::new(),
        });
        let used = Effect::Consume(Consumed {
            kind: Once::Statement,
            id: used_by.clone(),
            at: now,
            keep_until: statement.expires,
        });
        let by = on_their_own(book, asked);
        let mut record = by.record(now, ACTION, Decision::Changed);
        record.policy_id = None;
        record.reason = format!("{person} enrolls {}; it is to be approved", named(&new));
        let unit = Unit::of(record).with(used).with(Effect::Enroll(new.clone()));
        if self.audit.commit(unit.with(Self::at_once(now))).await?.is_none() {
            self.check_moment(now).await?;
            return Err(self.why_not_enrolled(&new, used_by).await?);
        }
        self.logins.read_anew(self).await;
        self.sweep(now);
        tracing::info!(key, "a key was enrolled, and is to be approved");
        Ok(new)
    }

    /// Why the store did not take an enrollment.
    async fn why_not_enrolled(&self, new: &Enrollment, used_by: String) -> Result<Refused> {
        if self.store.any_consumed(Once::Statement, &[used_by]).await? {
            return Ok(Refused::malformed("it was used before").hint("make it anew"));
        }
        let known = self.store.enrollment_of(&new.fingerprint).await?;
        Ok(match known {
            // Nobody is told whose.
            Some(known) if known.person != new.person => {
                Refused::malformed("the key is or was another person's").hint("make another one")
            }
            Some(known)
                if known.state != EnrollmentState::Removed
                    && new.enrolled_at < known.lapses_at() =>
            {
                Refused::malformed("the key is enrolled already")
            }
            _ => Refused::malformed(format!(
                "you have {MAX_KEYS} keys enrolled, and may not have more"
            ))
            .hint("remove one of them"),
        })
    }

    /// Approves a key, for whoever policy lets, and who is somebody else than its owner.
    pub(super) async fn approve_enrollment(
        self: &Arc<Self>,
        book: &Rulebook,
        asked: &Asked,
        by: &Author,
        (id, meant): (Uuid, Option<String>),
    ) -> Result<Enrollment, Refused> {
        for _ in 0..TRIES {
            let tried = self.try_to_approve(book, asked, by, (id, meant.as_deref())).await?;
            if let Some(approved) = tried {
                self.logins.read_anew(self).await;
                return Ok(approved);
            }
        }
        Err(overtaken().into())
    }

    /// Approves a key as it is now, unless it is changed at this moment: then it is nothing.
    async fn try_to_approve(
        &self,
        book: &Rulebook,
        asked: &Asked,
        by: &Author,
        (id, meant): (Uuid, Option<&str>),
    ) -> Result<Option<Enrollment>, Refused> {
        self.check_clock().await?;
        let now = self.clock.now();
        let approver = person_asking(book, &asked.caller, now)?;
        let before = self.known_enrollment(id).await?;
        if before.state != EnrollmentState::Pending {
            return Err(Refused::malformed("the key does not wait to be approved"));
        }
        if meant.is_some_and(|meant| meant != before.fingerprint) {
            return Err(Refused::malformed("the key with this id has another fingerprint"));
        }
        if before.enrolled_at.saturating_add(PENDING) <= now {
            let why = "nobody approved the key in time";
            return Err(Refused::malformed(why).hint("let its owner remove it and enroll it anew"));
        }
        if now >= before.lapses_at() {
            let why = "its owner has not logged in for so long that the key would count no more";
            return Err(Refused::malformed(why).hint("let its owner log in and enroll it anew"));
        }
        // By whichever of their ids they come.
        if before.person == approver || before.principal == *asked.caller.principal() {
            return Err(Refused::denied("nobody approves a key of their own"));
        }
        if person_of(book, &before.principal, now) != Some(before.person.as_str()) {
            return Err(Refused::denied("the directory does not have its owner any more"));
        }
        let after = self.enrollment_seal.over(Enrollment {
            state: EnrollmentState::Approved,
            approved: Some((approver.to_string(), now)),
            ..before.clone()
        });
        let mut record = by.record(now, ACTION, Decision::Changed);
        record.reason = format!("{approver} approves {} of {}", named(&before), before.person);
        let unit = Unit::of(record).with(Self::at_once(now));
        if !self.change_enrollment(before, &after, unit).await? {
            self.check_moment(now).await?;
            return Ok(None);
        }
        Ok(Some(after))
    }

    /// Removes a key: everybody theirs, and whoever policy lets those of others; then it says
    /// by which policy.
    pub(super) async fn remove_enrollment(
        &self,
        asked: &Asked,
        (by, why): (&Author, &str),
        id: Uuid,
    ) -> Result<Enrollment, Refused> {
        for _ in 0..TRIES {
            if let Some(removed) = self.try_to_remove(asked, (by, why), id).await? {
                return Ok(removed);
            }
        }
        Err(overtaken().into())
    }

    /// Removes a key as it is now, unless it is changed at this moment: then it is nothing. Whose
    /// it is stays for as long as it is not removed, so whoever may remove it may still.
    async fn try_to_remove(
        &self,
        asked: &Asked,
        (by, why): (&Author, &str),
        id: Uuid,
    ) -> Result<Option<Enrollment>, Refused> {
        let before = self.known_enrollment(id).await?;
        if before.state == EnrollmentState::Removed {
            return Err(Refused::unknown());
        }
        let now = self.clock.now();
        let mut record = by.record(now, ACTION, Decision::Changed);
        record.policy_id = record.policy_id.filter(|id| !id.is_empty());
        record.reason =
            format!("{} removes {} of {}: {why}", asked.caller.id(), named(&before), before.person);
        // Whose it was stays, so that it is nobody else's ever.
        let after = self.enrollment_seal.over(Enrollment {
            state: EnrollmentState::Removed,
            public_key: String::new(),
            label: String::new(),
            ..before.clone()
        });
        let is_removed = self.change_enrollment(before, &after, Unit::of(record)).await?;
        Ok(is_removed.then_some(after))
    }

    /// Changes an enrollment with all that is in this unit. Returns whether all of it could be.
    async fn change_enrollment(
        &self,
        before: Enrollment,
        after: &Enrollment,
        unit: Unit,
    ) -> Result<bool> {
        let effect = Effect::ChangeEnrollment { before, after: Box::new(after.clone()) };
        Ok(self.audit.commit(unit.with(effect)).await?.is_some())
    }

    /// The enrollment with this id, where this broker wrote it.
    async fn known_enrollment(&self, id: Uuid) -> Result<Enrollment, Refused> {
        let found = self.store.enrollment(id).await?;
        found.filter(|found| self.enrollment_seal.is_good(found)).ok_or_else(Refused::unknown)
    }

    /// Whether this is a key of whoever asks.
    pub(super) async fn is_their_own(
        &self,
        book: &Rulebook,
        caller: &Caller,
        id: Uuid,
    ) -> Result<bool> {
        let found = self.store.enrollment(id).await?;
        let person = person_asking(book, caller, self.clock.now()).ok();
        Ok(found.is_some_and(|found| {
            self.enrollment_seal.is_good(&found) && person == Some(found.person.as_str())
        }))
    }

    /// All enrolled keys, but for such as this broker did not write.
    pub(super) async fn all_enrollments(&self) -> Result<Vec<Enrollment>> {
        let all = self.store.enrollments().await?;
        Ok(all.into_iter().filter(|one| self.enrollment_seal.is_good(one)).collect())
    }
}

/// In the name of somebody who does what everybody may.
pub(super) fn on_their_own(book: &Rulebook, asked: &Asked) -> Author {
    Author::caller(&asked.caller, asked.source, asked.request_id, ("", book.hash()))
}

/// Who asks, by their name in the directory.
pub(super) fn person_asking<'a>(
    book: &'a Rulebook,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<&'a str, Refused> {
    if !caller.actors().is_empty() || caller.actor().is_some() {
        return Err(Refused::denied("nobody may do this in the place of somebody else"));
    }
    person_of(book, caller.principal(), now).ok_or_else(|| {
        Refused::denied("only people may do this whom the broker's directory has")
            .hint("the directory may be out of date, or there may be none")
    })
}

/// Who has this id, as far as the directory may be believed.
fn person_of<'a>(
    book: &'a Rulebook,
    principal: &Principal,
    now: OffsetDateTime,
) -> Option<&'a str> {
    let directory = book.directory().filter(|directory| !directory.is_stale(now))?;
    directory.person(principal).map(|(name, _)| name)
}

/// Nothing is wrong with the request: it may be made again.
fn overtaken() -> Error {
    Error::new(ErrorKind::Other, "an enrolled key was changed again and again meanwhile")
}

/// A key as records name it.
fn named(enrollment: &Enrollment) -> String {
    format!("the key {} '{}' ({})", enrollment.fingerprint, enrollment.label, enrollment.id)
}
