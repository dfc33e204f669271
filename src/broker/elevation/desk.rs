//! Where requests for a role are taken, and what is done about them.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::admission::{beginning, check, check_audience, check_login, leaves_unchecked, unless};
use super::allowed::About;
use super::crowd::Lane;
use super::eligible::Eligible;
use super::life::{Event, Refused};
use super::names::askers_of;
use super::signed::{self, SignedApproval};
use super::verdict::{Refusal, Request, Verdict};
use super::{Access, Approval, Asked, Elevation, Ended, Party, Path, Review, Yields};
use crate::broker::Broker;
use crate::broker::audit::{Decision, Record};
use crate::broker::config::{Elevation as Rules, Login};
use crate::broker::decide::{Denied, Rules as Policies, Why};
use crate::broker::directory::Directory;
use crate::broker::ids;
use crate::broker::operate::Asked as Who;
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{Cutoff, Effect, Unit, Unless, Whose};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result as Outcome};
use crate::oidc::jwt::LEEWAY;

/// How many times something is weighed again because somebody was quicker.
const TRIES: u32 = 50;

impl Broker {
    /// Takes a request for a role. In an emergency it is had when this returns.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::broker) async fn elevate(
        &self,
        book: &Rulebook,
        who: &Who,
        request: Request,
    ) -> Result<Elevation, Refusal> {
        self.check_clock().await?;
        let now = self.moment().await?;
        self.sweep(now);
        let role =
            book.roles().get(&request.role).and_then(|role| Some((role, role.elevation.as_ref()?)));
        let Some((role, rules)) = role else {
            let why = format!("the role '{}' is not had by elevation", request.role);
            return Err(Refusal::Malformed(why));
        };
        let by = self.known_about(book, who, About::request(&request), now).await?;
        let actors =
            who.caller.actors().iter().map(|actor| party(directory_of(book), actor.principal()));
        let audience = request.audience.as_ref().or(role.audiences.first());
        let longest = longest(rules, request.path);
        let asked = Asked {
            path: request.path,
            drill: request.drill,
            by: by.clone(),
            actors: actors.collect(),
            role: request.role.clone(),
            audience: audience.cloned().unwrap_or_default(),
            scope: request.scope.clone(),
            ttl: request.ttl.unwrap_or(longest).as_secs(),
            start: request.start,
            key: request.key.clone(),
            reason: request.reason.clone(),
            ticket: request.ticket.clone(),
            ticket_unchecked: leaves_unchecked(rules, &request),
            at: now,
            lapses_at: signed::lapses_at(who, after(now, rules.pending)),
            source: who.source.to_canonical().to_string(),
            signed: request.signed.clone(),
        };
        // Who names none may mean each of them.
        let others = role.audiences.iter().filter(|_| request.audience.is_none());
        let author = self.may_elevate(book, who, &asked, others).await?;
        // Whoever may not have it anyway is not told what it would take.
        check_audience(request.audience.as_deref(), role)?;
        check(&asked, rules, &role.scopes, now)?;
        if request.path == Path::Emergency {
            let max_age = rules.emergency.as_ref().map(|emergency| emergency.max_age);
            check_login(&who.caller, &Login { max_age, acr: BTreeSet::new() }, now)?;
        }
        let id = match (who.caller.signed(), &request.idempotency_key) {
            (Some(signed), _) => signed::id_of(&signed.statement),
            (None, Some(key)) => id_of(&by, key),
            (None, None) => ids::new(now),
        };
        let is_named = who.caller.signed().is_some() || request.idempotency_key.is_some();
        if is_named && let Some(known) = self.same_as(book, id, &asked).await? {
            return Ok(known);
        }
        // Nobody is asked so often that they say yes to have it end. An emergency is one.
        let (turn, lane) = match request.path {
            Path::Emergency => (None, Lane::Alarming),
            _ => {
                let lane = if by.person.is_some() { Lane::Asking } else { Lane::Machines };
                (Some(self.turn_to_ask(book, &asked)?), lane)
            }
        };
        if !asked.ticket_unchecked {
            self.check_ticket(rules, &asked).await?;
        }
        let mut elevation = Elevation {
            id,
            version: 1,
            asked,
            access: Access::Pending,
            review: Review::None,
            approvals: Vec::new(),
            approved_at: None,
            grant: None,
            ended: None,
            reviewed: None,
            tried: None,
            yields: None,
        };
        let mut name = "request";
        if request.path == Path::Emergency {
            let begin = Event::Emergency(by, span(longest));
            elevation = elevation.after(&begin, now, true)?.noting([role]);
            elevation.version = 1;
            name = "emergency";
        }
        let stored = self.elevations.over(&elevation, Some(role))?;
        let askers = self.askers_of(book, &elevation);
        let unless = Unless { askers, ..unless(rules, request.path, now) };
        let record = self.record_of(&elevation, author.record(now, name, Decision::Changed));
        let record = signed::noted(record, who);
        let mut unit = Unit::of(record).with(Effect::AddElevation(stored, unless));
        unit.effects.push(Self::at_once(now));
        let told = self.telling(book, (&elevation, name), lane, now);
        unit.effects.extend(told.await?);
        unit.effects.extend(signed::used_up(who, now));
        unit.effects.extend(signed::resting_on(who, &[], now));
        if self.metrics.recording(self.audit.commit(unit)).await?.is_some() {
            if let Some(turn) = turn {
                turn.keep();
            }
            return Ok(elevation);
        }
        self.check_moment(now).await?;
        // The same again, whose answer was lost, or another one that speaks against it.
        if let Some(known) = self.same_as(book, id, &elevation.asked).await? {
            return Ok(known);
        }
        self.check_unused(who).await?;
        self.check_signer(book, who).await?;
        Err(self.against(book, rules, &elevation, now).await?)
    }

    /// The request with this id, where it is the same one again.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] where it is another one.
    async fn same_as(
        &self,
        book: &Rulebook,
        id: Uuid,
        asked: &Asked,
    ) -> Result<Option<Elevation>, Refusal> {
        let Some(known) = self.elevation_with(id).await? else { return Ok(None) };
        let those = Eligible::new(rules_of(book), &known.asked, asked.at);
        let theirs = those.is_who_asked(&asked.by);
        if theirs && known.asked.is_same(asked) {
            return Ok(Some(known));
        }
        let why = "the idempotency_key was used for another request".into();
        Err(Refusal::Conflict { why, with: theirs.then_some(known.id) })
    }

    /// Does something about a request, if it can be done; durable when it returns.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::broker) async fn settle(
        &self,
        book: &Rulebook,
        who: &Who,
        id: Uuid,
        verdict: &Verdict,
    ) -> Result<Elevation, Refusal> {
        if !verdict.only_ends() {
            self.check_clock().await?;
        }
        let mut began = None;
        for _ in 0..TRIES {
            let now = self.moment().await?;
            // However often: who it is and what the rules are was looked at before the first time.
            let began = *began.get_or_insert(now);
            let Some(elevation) = self.elevation_with(id).await? else {
                return Err(Refusal::Unknown);
            };
            // What was signed by a key that does not count any more does not, either.
            let counting = match verdict {
                Verdict::Approve { .. } | Verdict::Activate => {
                    let mut keys = signed::LiveKeys::default();
                    self.counting(book, &elevation, now, &mut keys).await?
                }
                _ => elevation.clone(),
            };
            let about = About::of(&elevation, verdict.name());
            let by = match self.known_about(book, who, about, now).await {
                // Whoever can be told from others only by their token can still end something.
                Err(Refusal::Stale) if verdict.only_ends() => party(None, who.caller.principal()),
                known => known?,
            };
            if !self.sees(book, who, &elevation, &by)? {
                return Err(self.deny_unseen(book, who, &elevation, verdict).await);
            }
            let eligible = Eligible::new(rules_of(book), &elevation.asked, now);
            let rules = eligible.rules();
            let author = self.may_settle(book, who, (&elevation, &by), verdict).await?;
            if let Some(rules) = rules
                && verdict.decides()
            {
                match who.caller.signed() {
                    Some(signed) => signed::check_login(signed, rules, now)?,
                    None => check_login(&who.caller, &rules.approver_login, now)?,
                }
            }
            let longest = rules
                .map_or(time::Duration::ZERO, |rules| span(longest(rules, elevation.asked.path)));
            let now_called = by.clone();
            let by = eligible.as_asked(by);
            let mut before = elevation.clone();
            let mut unless = Unless::default();
            let event = match verdict.clone() {
                Verdict::Approve { hash, reason } => {
                    // Theirs by a key that counts no more makes room for the new one; those of
                    // others stay to be seen.
                    before
                        .approvals
                        .retain(|one| !one.by.is(&by) || counting.approvals.contains(one));
                    let signed = who.caller.signed().map(SignedApproval::of);
                    let groups = eligible.approves_as(&by).unwrap_or_default();
                    let approval =
                        Approval { by, at: now, hash, reason, groups, signed, void: false };
                    let tally = eligible.tally(&counting, Some(&approval));
                    Event::Approve(approval, tally)
                }
                Verdict::Deny { reason } => Event::Deny(by, reason),
                Verdict::Withdraw => Event::Withdraw(by),
                Verdict::Activate => {
                    if let Some(rules) = rules
                        && elevation.access == Access::Approved
                        && let Some(begin_by) = elevation.begin_by(span(rules.start_window))
                        && now >= begin_by
                    {
                        return Err(Refused::Over.into());
                    }
                    if let Some(rules) = rules {
                        let askers = self.askers_of(book, &elevation);
                        unless = Unless { askers, ..beginning(rules, &elevation, now) };
                    }
                    Event::Activate(by, eligible.tally(&counting, None), longest)
                }
                Verdict::Relinquish => Event::Relinquish(by),
                Verdict::Revoke { reason } => Event::Revoke(by, reason),
                Verdict::Review { in_order, note } => {
                    let has_approved = eligible.has_approved(&elevation, &by);
                    Event::Review { by, has_approved, in_order, note }
                }
            };
            let reviews = rules.is_none_or(|rules| rules.review_within.is_some());
            let next = match before.after(&event, now, reviews) {
                Ok(next) if next.access == elevation.access => next,
                Ok(next) => {
                    let next = self.noting(book, next).await;
                    let ends = next.asked.drill && matches!(verdict, Verdict::Relinquish);
                    let tried = ends.then(|| self.would_issue(book, who, &elevation, now));
                    let ended = next
                        .ended
                        .clone()
                        .map(|ended| Ended { by: ended.by.map(|_| now_called.clone()), ..ended });
                    Elevation { tried, ended, ..next }
                }
                // It is as they want it.
                Err(Refused::Already) => return Ok(elevation),
                Err(refused) => {
                    let Some(said) = refused.against_the_rules() else {
                        return Err(refused.into());
                    };
                    let denied = Denied::new(Why::Forbidden, said);
                    let about = About::of(&elevation, verdict.name());
                    return Err(self.deny_elevation(book, who, about, denied).await);
                }
            };
            let record = author.record(now, verdict.name(), Decision::Changed);
            let record = match &event {
                Event::Activate(_, tally, _) => self.record_with(&next, record, &tally.counted),
                _ => self.record_of(&next, record),
            };
            let record = signed::noted(record, who);
            // What is to end waits for nothing else.
            let lane = match next.access.is_over() && elevation.access.is_had() {
                true => Lane::Ending,
                false => Lane::Settling,
            };
            let told = self.telling(book, (&next, verdict.name()), lane, now);
            let mut effects = told.await?;
            effects.extend(signed::used_up(who, now));
            let approvals = match &event {
                Event::Approve(..) | Event::Activate(..) => &counting.approvals[..],
                _ => &[],
            };
            effects.extend(signed::resting_on(who, approvals, now));
            effects.extend((!verdict.only_ends()).then(|| Self::at_once(began)));
            let change = (&elevation, &next, unless);
            if self.commit_next(book, change, record, effects, now).await? {
                return Ok(next);
            }
            if !verdict.only_ends() {
                self.check_moment(began).await?;
            }
            self.check_unused(who).await?;
            self.check_signer(book, who).await?;
            let Event::Activate(..) = &event else { continue };
            let Some(rules) = rules else { continue };
            if let Some(refusal) = self.against_beginning(book, rules, &next, now).await? {
                return Err(refusal);
            }
        }
        let why =
            "so many people do something about it that nothing can be done about it at present";
        Err(Error::new(ErrorKind::Other, why).into())
    }

    /// Commits what follows from an event, together with its record and the end of what was
    /// issued, where that ends. Returns whether nobody was quicker.
    pub(super) async fn commit_next(
        &self,
        book: &Rulebook,
        (before, next, unless): (&Elevation, &Elevation, Unless),
        record: Record,
        effects: Vec<Effect>,
        now: OffsetDateTime,
    ) -> Outcome<bool> {
        let stored = self.elevations.over(next, book.roles().get(&next.asked.role))?;
        let mut unit = Unit::of(record).with(Effect::ChangeElevation(stored, unless));
        if before.access.is_had()
            && next.access.is_over()
            && let Some(grant) = next.grant
            // Nothing was issued under a drill.
            && !next.asked.drill
        {
            let end = grant.until.max(now).saturating_add(LEEWAY);
            let whose = Whose::Grant(next.id);
            let cutoff = Cutoff { whose, before: end, at: now, keep_until: end };
            unit = unit.with(Effect::CutOff(cutoff));
        }
        unit.effects.extend(effects);
        Ok(self.metrics.recording(self.audit.commit(unit)).await?.is_some())
    }

    /// The same with what was issued under it: its role's tokens, and those of other roles that
    /// somebody got for such tokens.
    pub(super) async fn noting(&self, book: &Rulebook, mut next: Elevation) -> Elevation {
        let mut roles = BTreeSet::from([next.asked.role.clone()]);
        if next.access.is_over() && next.grant.is_some() {
            match self.store.roles_issued_under(next.id).await {
                Ok(found) => roles.extend(found),
                // It ends all the same, and is told to reach as little as it may.
                Err(error) => {
                    tracing::warn!(%error, elevation = %next.id, "what was issued under a grant is not known");
                    let known = next.yields.unwrap_or_default();
                    next.yields = Some(Yields { signed: true, ..known });
                }
            }
        }
        next.noting(roles.iter().filter_map(|role| book.roles().get(role)))
    }

    /// By whom else it may have been asked for by the same one.
    fn askers_of(&self, book: &Rulebook, elevation: &Elevation) -> Vec<String> {
        askers_of(directory_of(book), &elevation.asked.by, self.issuer.as_str())
    }

    /// What time it is, by the store's clock where it has one: grants begin and end by the same
    /// clock at all replicas.
    async fn moment(&self) -> Outcome<OffsetDateTime> {
        Ok(self.store.now().await?.unwrap_or_else(|| self.clock.now()))
    }

    /// The elevation with this id.
    pub(super) async fn elevation_with(&self, id: Uuid) -> Outcome<Option<Elevation>> {
        let sealed = self.store.elevation(id).await?;
        sealed.as_ref().map(|sealed| self.elevations.open(sealed)).transpose()
    }
}

/// The policies and roles of a rulebook.
pub(super) fn rules_of(book: &Rulebook) -> Policies<'_> {
    Policies { policy: book, roles: book.roles() }
}

/// The directory of people, where there is one.
pub(super) fn directory_of(book: &Rulebook) -> Option<&Directory> {
    book.directory().map(AsRef::as_ref)
}

/// Somebody, with who they are in the directory.
pub(in crate::broker) fn party(directory: Option<&Directory>, principal: &Principal) -> Party {
    let person = directory.and_then(|directory| directory.person(principal));
    Party {
        issuer: principal.issuer.clone(),
        subject: principal.subject.clone(),
        person: person.map(|(name, _)| name.to_string()),
    }
}

/// How long a role is had at most on this path.
pub(in crate::broker) fn longest(rules: &Rules, path: Path) -> Duration {
    match (path, &rules.emergency) {
        (Path::Emergency, Some(emergency)) => emergency.longest.min(rules.longest),
        _ => rules.longest,
    }
}

pub(super) fn span(span: Duration) -> time::Duration {
    span.try_into().unwrap_or(time::Duration::MAX)
}

fn after(now: OffsetDateTime, by: Duration) -> OffsetDateTime {
    now.saturating_add(span(by))
}

/// The id of a request that somebody makes by this key: the same each time.
fn id_of(by: &Party, key: &str) -> Uuid {
    let mut hasher = Context::new(&SHA256);
    for part in [by.key().as_str(), key] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(hasher.finish().as_ref());
    ids::hashed(&hash)
}
