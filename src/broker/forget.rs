//! Erasing what the database has of a person besides the audit log: in elevations, with what was
//! done under them and what people were told of them, and in keys that they enrolled.
//!
//! What is sealed is sealed again. That there was an elevation stays, with its role, its times
//! and its id, which leads to what is left of its story in the log; so does that a key was
//! somebody's, so that it is nobody else's ever. Each change is on record.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::audit::Record;
use super::audit::erase::Erasure;
use super::audit::leaf::ERASED;
use super::elevation::{Elevation, ElevationSeal, Party};
use super::enroll::EnrollmentSeal;
use super::keys::RootKey;
use super::store::{
    Effect, ElevationFilter, Enrollment, EnrollmentState, Outcome, Store, Unit, Unless,
};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};

/// How many elevations are looked through at a time.
const PART: u32 = 500;

/// How many of those that are under way are named.
const NAMED: usize = 5;

/// How often something is looked at anew that was changed meanwhile.
const TRIES: u32 = 5;

/// What was erased besides records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many elevations told of the person.
    pub elevations: u64,
    /// How many keys.
    pub keys: u64,
}

/// Erases what elevations and enrolled keys have of a person.
///
/// # Errors
/// Where there are elevations of theirs of which something may still come: then nothing was
/// erased. Otherwise what keeps it from being done; what was done until then is done.
pub async fn forget(
    store: &dyn Store,
    root_key: &RootKey,
    what: &Erasure<'_>,
    now: OffsetDateTime,
) -> Result<Forgotten> {
    let is = whether_it_is(what);
    let seal = ElevationSeal::new(root_key, what.issuer);
    let found = elevations_of(store, &seal, &is).await?;
    let names: BTreeSet<String> = found.iter().flat_map(|one| one.names(&is)).collect();
    // What they are called in the directory is in elevations. Those come last: where this ends
    // amid its work, whoever does it again finds by them what is left.
    let keys = forget_keys(store, root_key, (what, names), now).await?;
    let mut elevations = 0;
    for elevation in found {
        elevations += u64::from(forget_elevation(store, &seal, (what, elevation), now).await?);
    }
    Ok(Forgotten { elevations, keys })
}

/// Those that tell of somebody.
async fn elevations_of(
    store: &dyn Store,
    seal: &ElevationSeal,
    is: &impl Fn(&Party) -> bool,
) -> Result<Vec<Elevation>> {
    let mut found: Vec<Elevation> = Vec::new();
    let mut filter = ElevationFilter::default();
    loop {
        let part = store.elevations(&filter, PART).await?;
        for one in &part {
            filter.below = Some((one.asked_at, one.id));
            let elevation = seal.open(&one.sealed)?;
            if elevation.tells_of(is) {
                found.push(elevation);
            }
        }
        if part.len() < PART as usize {
            break;
        }
    }
    let open = found.iter().filter(|one| !one.is_settled());
    let open: Vec<Uuid> = open.map(|one| one.id).collect();
    if open.is_empty() {
        return Ok(found);
    }
    let named: Vec<_> = open.iter().take(NAMED).map(Uuid::to_string).collect();
    let more = if open.len() > NAMED { ", …" } else { "" };
    let message = "there are elevations of theirs that are under way, or to be reviewed";
    Err(Error::new(ErrorKind::Usage, message)
        .because_of(format!("nothing was erased, because of {}{more}", named.join(", ")))
        .hint("let them be ended (`tmpcred elevate revoke`) and reviewed (`tmpcred elevate review`), then do it again"))
}

/// Erases what an elevation has of a person. Returns whether there was anything.
async fn forget_elevation(
    store: &dyn Store,
    seal: &ElevationSeal,
    (what, mut elevation): (&Erasure<'_>, Elevation),
    now: OffsetDateTime,
) -> Result<bool> {
    let is = whether_it_is(what);
    for _ in 0..TRIES {
        let next = elevation.without(&is);
        let stored = seal.over(&next, None)?;
        let record = Record {
            reason: format!("{} asked for it: {}", what.by, what.reason),
            role: next.asked.role.clone(),
            elevation: Some(next.id),
            ..what.record_of(now, "elevation.erase")
        };
        let uses = is(&elevation.asked.by);
        let messages = elevation.message_keys();
        let beside = Effect::ForgetBeside { elevation: next.id, messages, uses };
        let unit =
            Unit::of(record).with(Effect::ChangeElevation(stored, Unless::default())).with(beside);
        if commit(store, unit).await? {
            return Ok(true);
        }
        // It is another one by now, or forgotten.
        let Some(sealed) = store.elevation(elevation.id).await? else { return Ok(false) };
        elevation = seal.open(&sealed)?;
        if !elevation.tells_of(&is) {
            return Ok(false);
        }
    }
    Err(overtaken())
}

/// Erases that they approved keys of others, and then keys of theirs, by which it is found what
/// they are called.
async fn forget_keys(
    store: &dyn Store,
    root_key: &RootKey,
    (what, mut names): (&Erasure<'_>, BTreeSet<String>),
    now: OffsetDateTime,
) -> Result<u64> {
    let seal = EnrollmentSeal::new(root_key);
    let mut all = store.all_enrollments().await?;
    let is_theirs = |row: &Enrollment| row.principal == *what.person;
    names.extend(all.iter().filter(|row| is_theirs(row)).map(|row| row.person.clone()));
    all.sort_by_key(is_theirs);
    let mut count = 0;
    for row in all {
        count += u64::from(forget_key(store, &seal, (what, &names), row, now).await?);
    }
    Ok(count)
}

/// Erases what a key has of a person who has these names. Returns whether there was anything.
async fn forget_key(
    store: &dyn Store,
    seal: &EnrollmentSeal,
    (what, names): (&Erasure<'_>, &BTreeSet<String>),
    mut before: Enrollment,
    now: OffsetDateTime,
) -> Result<bool> {
    for _ in 0..TRIES {
        let own = before.principal == *what.person;
        let approved = before.approved.as_ref().is_some_and(|(by, _)| names.contains(by));
        if !own && !approved {
            return Ok(false);
        }
        if !seal.is_good(&before) {
            let message = "an enrolled key in the database is not as the broker wrote it";
            return Err(Error::new(ErrorKind::Verification, message)
                .because_of(format!("it is {}", before.fingerprint))
                .hint("somebody else wrote it, or the key-encryption key is another one"));
        }
        let mut after = before.clone();
        if approved {
            after.approved = after.approved.map(|(_, at)| (ERASED.to_string(), at));
        }
        if own {
            after.public_key = String::new();
            after.label = String::new();
            // No name of a directory is like that, so nobody is who had it.
            after.person = ERASED.into();
            after.principal = Principal { issuer: ERASED.into(), subject: ERASED.into() };
            after.state = EnrollmentState::Removed;
        }
        let after = Box::new(seal.over(after));
        let record = Record {
            reason: format!("{} asked for it: {}", what.by, what.reason),
            ..what.record_of(now, "enrollment.erase")
        };
        let id = before.id;
        if commit(store, Unit::of(record).with(Effect::ChangeEnrollment { before, after })).await? {
            return Ok(true);
        }
        // Its owner may have logged in at this moment.
        let Some(changed) = store.enrollment(id).await? else { return Ok(false) };
        before = changed;
    }
    Err(overtaken())
}

/// Tells whether somebody is the person, by whichever of their names.
fn whether_it_is(what: &Erasure<'_>) -> impl Fn(&Party) -> bool + use<> {
    let callers = what.traces().callers;
    move |party| {
        callers.iter().any(|one| (&one.issuer, &one.subject) == (&party.issuer, &party.subject))
    }
}

/// Returns whether it was done: not where something is another one than was looked at.
async fn commit(store: &dyn Store, unit: Unit) -> Result<bool> {
    Ok(store.commit(&[unit]).await?.into_iter().all(Outcome::is_committed))
}

fn overtaken() -> Error {
    Error::new(ErrorKind::Other, "something was changed again and again while it was erased")
        .hint("do it again: what is erased is left as it is")
}
