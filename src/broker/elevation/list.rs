//! Which elevations there are for somebody.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::admission::check_login;
use super::crowd::Lane;
use super::desk::{directory_of, party, rules_of};
use super::eligible::Eligible;
use super::life::{Access, Review};
use super::names::theirs;
use super::sift::Sift;
use super::signed::LiveKeys;
use super::verdict::Refusal;
use super::{Elevation, Party, Tally};
use crate::broker::Broker;
use crate::broker::config::Login;
use crate::broker::operate::Asked as Who;
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{Among, CountedElevations, ElevationFilter, FoundElevation};
use crate::error::Result as Outcome;

/// How many are looked at at a time.
const PART: u32 = 500;

/// How many of one person are looked at, where they cannot be read.
const MOST_OF_ONE: u32 = 5000;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that somebody has asked for.
    Mine,
    /// Those that wait for their approval.
    ToApprove,
    /// Those that are had.
    Active,
    /// Those that they can review.
    ToReview,
}

impl Which {
    /// All of them.
    pub const NAMES: [&str; 4] = ["mine", "to-approve", "active", "to-review"];

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Mine, Self::ToApprove, Self::Active, Self::ToReview]
            .into_iter()
            .zip(Self::NAMES)
            .find(|(_, known)| *known == name)
            .map(|(which, _)| which)
    }
}

/// An elevation, with what is to be told of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The elevation.
    pub elevation: Elevation,
    /// What of its approvals counts.
    pub tally: Tally,
    /// For each of its needs the people who could meet it.
    pub people: Vec<Vec<String>>,
    /// What whoever asks may do about it.
    pub may: Vec<&'static str>,
}

/// A page of them.
#[derive(Clone, Debug)]
pub struct Page {
    /// The newest first.
    pub elevations: Vec<Seen>,
    /// Where older ones begin, where there may be some.
    pub below: Option<Uuid>,
}

impl Broker {
    /// An elevation, as somebody sees it.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] also where they may not see it.
    pub(in crate::broker) async fn elevation_for(
        &self,
        book: &Rulebook,
        who: &Who,
        id: Uuid,
    ) -> Result<Seen, Refusal> {
        let (found, by) = self.elevation_visible_to(book, who, id).await?;
        self.seen_now(book, found, (&by, Some(who)), Lane::Looking).await
    }

    /// An elevation that somebody may see, and who they are.
    ///
    /// # Errors
    /// As with [`Self::elevation_for`].
    pub(in crate::broker) async fn elevation_visible_to(
        &self,
        book: &Rulebook,
        who: &Who,
        id: Uuid,
    ) -> Result<(Elevation, Party), Refusal> {
        let by = self.known(book, &who.caller, self.clock.now())?;
        let found = self.elevation_with(id).await?.ok_or(Refusal::Unknown)?;
        match self.sees(book, who, &found, &by)? {
            true => Ok((found, by)),
            false => Err(Refusal::Unknown),
        }
    }

    /// The same as whoever did something about it sees it.
    ///
    /// # Errors
    /// Where it cannot be looked up which keys count.
    pub(in crate::broker) async fn seen_by(
        &self,
        book: &Rulebook,
        who: &Who,
        elevation: Elevation,
    ) -> Result<Seen, Refusal> {
        let known = self.known(book, &who.caller, self.clock.now());
        let by = known.unwrap_or_else(|_| party(None, who.caller.principal()));
        self.seen_now(book, elevation, (&by, Some(who)), Lane::Answering).await
    }

    /// The same as it is told to whoever brings what others signed about it.
    ///
    /// # Errors
    /// As with [`Self::seen_by`].
    pub(in crate::broker) async fn seen_by_nobody(
        &self,
        book: &Rulebook,
        elevation: Elevation,
    ) -> Result<Seen, Refusal> {
        let nobody = Party { issuer: String::new(), subject: String::new(), person: None };
        self.seen_now(book, elevation, (&nobody, None), Lane::Answering).await
    }

    /// All of one, as somebody sees it, who shows a token.
    async fn seen_now(
        &self,
        book: &Rulebook,
        elevation: Elevation,
        (by, who): (&Party, Option<&Who>),
        lane: Lane,
    ) -> Result<Seen, Refusal> {
        let (now, mut keys) = (self.clock.now(), LiveKeys::default());
        let asked = elevation.asked.clone();
        let eligible = Eligible::new(rules_of(book), &asked, now);
        // Who could approve is told while that matters.
        let all = match elevation.access {
            Access::Pending | Access::Approved => {
                let found = self.crowds.people(&eligible, lane).await;
                match lane {
                    // What was done is told all the same.
                    Lane::Answering => found.unwrap_or_default(),
                    _ => found?,
                }
            }
            _ => Vec::new(),
        };
        let counting = self.counting(book, &elevation, now, &mut keys).await?;
        let may_revoke =
            who.is_some_and(|who| self.may_revoke(book, who, &elevation.asked.role, now));
        Ok(self.seen(book, (elevation, &counting), (by, may_revoke), &all))
    }

    /// What else the same somebody has asked for, as far as this one may see it: the newest.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::broker) async fn recent_of(
        &self,
        book: &Rulebook,
        who: &Who,
        of: &Elevation,
        most: usize,
    ) -> Result<Vec<Elevation>, Refusal> {
        let now = self.clock.now();
        let by = self.known(book, &who.caller, now)?;
        let among = Some(theirs(directory_of(book), &of.asked.by, self.issuer.as_str()));
        let mut filter = ElevationFilter { among, ..Default::default() };
        let those = Eligible::new(rules_of(book), &of.asked, now);
        let mut recent = Vec::new();
        // Where each may be seen, what is shown is read, with the one that they are beside.
        let mut wanted = u32::try_from(most).unwrap_or(PART).saturating_add(1).min(PART);
        let (mut read, mut looked_at) = (0, 0);
        while read < PART && looked_at < MOST_OF_ONE {
            let part = self.store.elevations(&filter, wanted).await?;
            for found in &part {
                filter.below = Some((found.asked_at, found.id));
                let Some(other) = self.legible(&found.sealed) else { continue };
                read += 1;
                let is_theirs = those.are_one(&of.asked.by, &other.asked.by);
                if is_theirs && other.id != of.id && self.sees(book, who, &other, &by)? {
                    recent.push(other);
                }
                if recent.len() == most {
                    return Ok(recent);
                }
            }
            if part.len() < wanted as usize {
                break;
            }
            looked_at += wanted;
            wanted = wanted.saturating_mul(2).min(PART);
        }
        Ok(recent)
    }

    /// How somebody would have to log in to decide about it, where they have not logged in
    /// like that.
    pub(in crate::broker) fn login_for(
        &self,
        book: &Rulebook,
        who: &Who,
        elevation: &Elevation,
    ) -> Option<Login> {
        let rules = book.roles().get(&elevation.asked.role)?.elevation.as_ref()?;
        let login = &rules.approver_login;
        check_login(&who.caller, login, self.clock.now()).is_err().then(|| login.clone())
    }

    /// What is told of an elevation; by what of it counts, to somebody who may revoke all tokens of
    /// its role or not, and with those of these people who could meet its needs.
    fn seen(
        &self,
        book: &Rulebook,
        (elevation, counting): (Elevation, &Elevation),
        (by, may_revoke): (&Party, bool),
        all: &[&str],
    ) -> Seen {
        let now = self.clock.now();
        let eligible = Eligible::new(rules_of(book), &elevation.asked, now);
        let tally = eligible.tally_shown(counting);
        let named = |need: &super::Need| {
            eligible
                .people_for(&need.threshold, all)
                .into_iter()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        let people = tally.needs.iter().map(named).collect();
        let is = Is {
            asker: eligible.is_asker(by),
            decides: eligible.groups(by).is_some(),
            counts: eligible.approves_as(by).is_some(),
            has_approved: eligible.has_approved(&elevation, by),
            reviews_the_rest: eligible.reviews_the_rest(by, || may_revoke),
        };
        let mut may = self.may(&elevation, by, is, &tally, now);
        let stands = elevation.is_active(now) || elevation.access == Access::Approved;
        if may_revoke && stands && !may.contains(&"revoke") {
            may.push("revoke");
        }
        Seen { elevation, tally, people, may }
    }

    /// What somebody may do about it, as far as can be told.
    fn may(
        &self,
        elevation: &Elevation,
        by: &Party,
        is: Is,
        tally: &Tally,
        now: OffsetDateTime,
    ) -> Vec<&'static str> {
        let (own, other) = (is.asker, !elevation.is_for(by) && is.decides);
        let reviews = other || !elevation.is_for(by) && is.reviews_the_rest;
        let counted = by.person.as_ref().is_some_and(|person| tally.counted.contains(person));
        let active = elevation.is_active(now);
        let pending = elevation.access == Access::Pending && now < elevation.asked.lapses_at;
        let approved = elevation.access == Access::Approved;
        let waits = pending || approved;
        let begins = approved && elevation.asked.start.is_none_or(|start| start <= now);
        let all = [
            ("approve", other && is.counts && waits && !counted),
            ("deny", other && pending),
            ("withdraw", own && waits),
            ("activate", own && begins && tally.is_met()),
            ("relinquish", own && active),
            ("revoke", other && (active || approved)),
            ("review", reviews && elevation.review == Review::Due && !is.has_approved),
        ];
        all.into_iter().filter(|(_, may)| *may).map(|(name, _)| name).collect()
    }

    /// Those of one kind, page by page.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::broker) async fn elevations_for(
        &self,
        book: &Rulebook,
        who: &Who,
        which: Which,
        below: Option<Uuid>,
        limit: usize,
    ) -> Result<Page, Refusal> {
        let now = self.clock.now();
        let by = self.known(book, &who.caller, now)?;
        let mut sift = Sift::new(rules_of(book), &by, now);
        let mut view = View { which, book, who, by: &by, now, revokes: BTreeSet::new() };
        if which == Which::ToReview {
            view.revokes = self.roles_with_the_rest(book, who, now).await?;
        }
        let mut keys = LiveKeys::default();
        let mut filter = self.filter_of(&mut view, &sift);
        if let Some(id) = below {
            let known = self.elevation_with(id).await?.ok_or(Refusal::Unknown)?;
            filter.below = Some((known.asked.at, known.id));
        }
        let mut page = Page { elevations: Vec::new(), below: None };
        // Where each is shown, a page is read and no more.
        let mut wanted = u32::try_from(limit).unwrap_or(PART).min(PART);
        loop {
            let part = self.store.elevations(&filter, wanted).await?;
            for found in &part {
                filter.below = Some((found.asked_at, found.id));
                if let Some(seen) = self.shown_of(&view, (&mut sift, &mut keys), found).await? {
                    page.elevations.push(seen);
                }
                if page.elevations.len() >= limit {
                    page.below = Some(found.id);
                    return Ok(page);
                }
            }
            if part.len() < wanted as usize {
                return Ok(page);
            }
            wanted = PART;
            // It may take long, where policies look at each: others go on meanwhile.
            tokio::task::yield_now().await;
        }
    }

    /// The roles that are had by elevation no more of which something is still to be reviewed,
    /// and of which somebody may revoke everything.
    async fn roles_with_the_rest(
        &self,
        book: &Rulebook,
        who: &Who,
        now: OffsetDateTime,
    ) -> Outcome<BTreeSet<String>> {
        let mut due = self.store.roles_to_review().await?;
        due.retain(|role| !has_rules(book, role) && self.may_revoke(book, who, role, now));
        Ok(due.into_iter().collect())
    }

    /// What waits, is had or is to be reviewed of roles that are had by elevation no more.
    pub(super) async fn left_of_roles(
        &self,
        book: &Rulebook,
        now: OffsetDateTime,
    ) -> Outcome<Vec<CountedElevations>> {
        let mut counted = self.store.count_elevations(now, &[]).await?;
        counted.retain(|one| !has_rules(book, &one.role));
        Ok(counted)
    }

    /// What is looked through: nothing of which it is known beforehand that it is not shown.
    fn filter_of(&self, view: &mut View<'_>, sift: &Sift<'_>) -> ElevationFilter {
        let View { book, by, who, now, .. } = *view;
        // By whatever name: who asked decides about nothing of it.
        let others_than = vec![by.key(), by.id()];
        let all = ElevationFilter::default();
        let own = || theirs(directory_of(book), by, self.issuer.as_str());
        let sifted = || Some(sift.roles().cloned().map(Among::Role).collect());
        match view.which {
            Which::Mine => ElevationFilter { among: Some(own()), ..all },
            Which::ToApprove => ElevationFilter {
                access: vec![Access::Pending.as_str(), Access::Approved.as_str()],
                among: sifted(),
                going_on_at: Some(now),
                others_than,
                ..all
            },
            Which::ToReview => ElevationFilter {
                review: Some(Review::Due.as_str()),
                among: Some(sift.roles().chain(&view.revokes).cloned().map(Among::Role).collect()),
                others_than,
                ..all
            },
            Which::Active => {
                let elevated = book.roles().iter().filter(|(_, role)| role.elevation.is_some());
                let elevated = elevated.map(|(name, _)| name);
                let revokes = elevated.filter(|name| self.may_revoke(book, who, name, now));
                view.revokes = revokes.cloned().collect();
                let roles = sift.roles().chain(&view.revokes).cloned().collect::<BTreeSet<_>>();
                let own = own().into_iter().chain([Among::Acted]);
                ElevationFilter {
                    access: vec![Access::Active.as_str(), Access::EmergencyActive.as_str()],
                    among: Some(roles.into_iter().map(Among::Role).chain(own).collect()),
                    going_on_at: Some(now),
                    ..all
                }
            }
        }
    }

    /// One of those that were found, where it is shown; what is not, is not opened as far as
    /// that can be told.
    async fn shown_of(
        &self,
        view: &View<'_>,
        (sift, keys): (&mut Sift<'_>, &mut LiveKeys),
        found: &FoundElevation,
    ) -> Result<Option<Seen>, Refusal> {
        let View { which, book, by, now, .. } = *view;
        let decided = matches!(which, Which::ToApprove | Which::ToReview);
        let is_rest = which == Which::ToReview && view.revokes.contains(&found.role);
        if decided && !is_rest && !sift.may_take(&found.role, found.question.as_deref()) {
            return Ok(None);
        }
        let Some(elevation) = self.legible(&found.sealed) else { return Ok(None) };
        let asked = &elevation.asked;
        let those = Eligible::new(rules_of(book), asked, now);
        let is_one = match which {
            Which::Mine => those.is_for(by),
            // One that was approved may be short of approvals again, for as long as it can begin.
            Which::ToApprove => {
                let waits = elevation.access == Access::Approved || now < asked.lapses_at;
                waits && sift.takes(asked)
            }
            Which::Active => {
                let sees =
                    those.is_for(by) || view.revokes.contains(&asked.role) || sift.takes(asked);
                elevation.is_active(now) && sees
            }
            Which::ToReview => {
                let reviews = sift.takes(asked) || those.reviews_the_rest(by, || is_rest);
                reviews && !those.has_approved(&elevation, by)
            }
        };
        if !is_one {
            return Ok(None);
        }
        let counting = self.counting(book, &elevation, now, keys).await?;
        let may_revoke = view.revokes.contains(&elevation.asked.role);
        let seen = self.seen(book, (elevation, &counting), (by, may_revoke), &[]);
        // Of one that is approved, and has enough approvals still, nobody has to see to that.
        let is_done = seen.elevation.access == Access::Approved && seen.tally.is_met();
        let is_wanted = seen.may.contains(&"approve") && !is_done;
        Ok((which != Which::ToApprove || is_wanted).then_some(seen))
    }
}

/// Whether this role is had by elevation.
fn has_rules(book: &Rulebook, role: &str) -> bool {
    book.roles().get(role).is_some_and(|role| role.elevation.is_some())
}

/// What somebody is to an elevation.
#[derive(Clone, Copy)]
struct Is {
    /// They asked for it.
    asker: bool,
    /// They decide about it.
    decides: bool,
    /// Their approval would count.
    counts: bool,
    /// They have approved it.
    has_approved: bool,
    /// They review what is left of its role.
    reviews_the_rest: bool,
}

/// Who looks at which elevations, and when.
struct View<'a> {
    which: Which,
    book: &'a Rulebook,
    who: &'a Who,
    by: &'a Party,
    now: OffsetDateTime,
    /// The roles of which they may revoke everything.
    revokes: BTreeSet<String>,
}
