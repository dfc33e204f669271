//! What becomes of a request for a role: which event leads from which state to which.
//!
//! ```text
//! PENDING ──▶ APPROVED ──▶ ACTIVE ──▶ EXPIRED │ REVOKED │ RELINQUISHED
//! PENDING ──▶ DENIED │ WITHDRAWN │ LAPSED          APPROVED ──▶ LAPSED │ REVOKED │ WITHDRAWN
//! PENDING ──▶ EMERGENCY_ACTIVE ──▶ EXPIRED │ REVOKED │ RELINQUISHED
//! ```
//!
//! A review is a state of its own: none, due once access has ended, then reviewed or disputed.
//!
//! Nothing here has an effect, and nothing is asked of anybody: an event brings along what has
//! to be known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::tally::Tally;
use super::{Approval, Elevation, Ended, Party, Path, Reviewed, Span};

/// Whether the role is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It waits for approvals.
    Pending,
    /// Enough have approved; it has not begun.
    Approved,
    /// It is had.
    Active,
    /// It is had without approval, because there is an emergency.
    EmergencyActive,
    /// Its time was over.
    Expired,
    /// Somebody else ended it.
    Revoked,
    /// Who had it gave it back.
    Relinquished,
    /// Somebody said no.
    Denied,
    /// Who asked took it back.
    Withdrawn,
    /// Nobody approved in time, or it was not begun in time.
    Lapsed,
}

impl Access {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Approved,
        Self::Active,
        Self::EmergencyActive,
        Self::Expired,
        Self::Revoked,
        Self::Relinquished,
        Self::Denied,
        Self::Withdrawn,
        Self::Lapsed,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Active => "active",
            Self::EmergencyActive => "emergency-active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Relinquished => "relinquished",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
            Self::Lapsed => "lapsed",
        }
    }

    /// Whether the role is had, as far as the clock allows.
    pub fn is_had(self) -> bool {
        matches!(self, Self::Active | Self::EmergencyActive)
    }

    /// Whether nothing comes after it.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Approved) && !self.is_had()
    }

    /// Whether the role was had.
    pub(super) fn was_had(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked | Self::Relinquished)
    }
}

/// Whether what was done was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Review {
    /// There is nothing to look at, or not yet.
    None,
    /// Somebody has to.
    Due,
    /// Somebody did, and found it in order.
    Reviewed,
    /// Somebody did, and did not.
    Disputed,
}

impl Review {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Due => "due",
            Self::Reviewed => "reviewed",
            Self::Disputed => "disputed",
        }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody approves, with what of all approvals counts then.
    Approve(Approval, Tally),
    /// Somebody says no.
    Deny(Party, String),
    /// Who asked takes it back.
    Withdraw(Party),
    /// Who asked begins, with what of the approvals counts at this moment, and the longest
    /// that the role may be had.
    Activate(Party, Tally, Duration),
    /// Who asked begins because there is an emergency; for so long at most.
    Emergency(Party, Duration),
    /// Who has the role gives it back.
    Relinquish(Party),
    /// Somebody ends it.
    Revoke(Party, String),
    /// The clock has come to something, with how long after its approval it has to begin.
    Tick(Duration),
    /// Somebody looked at it.
    Review {
        /// Who.
        by: Party,
        /// Whether they have approved it, by whatever they were called then.
        has_approved: bool,
        /// Whether they found it in order.
        in_order: bool,
        /// What they found.
        note: String,
    },
}

/// Why an event leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// That cannot be done in this state.
    State(Access),
    /// The same, and what it is ended by in this state.
    Instead(Access, &'static str),
    /// Its time is over.
    Over,
    /// It has not come to that yet.
    Early(OffsetDateTime),
    /// Only who asked may do that.
    NotYours,
    /// Who asked, or acts for them, may not do that, by whatever name.
    Own,
    /// Machines never approve, deny or review.
    Machine,
    /// They have done that already, and it counts.
    Already,
    /// What they were shown is not what is asked for, or no longer.
    Changed,
    /// Not enough have approved of those who may at this moment.
    Short(Tally),
    /// Who approved may not review.
    Approver,
    /// There is nothing to review.
    NoReview(Review),
    /// That is for the other path.
    Path(Path),
}

impl Refused {
    /// What is told where somebody tried what they never may; nothing where it is only that it
    /// cannot be done at present.
    pub fn against_the_rules(&self) -> Option<&'static str> {
        match self {
            Self::Own => Some("nobody decides about what is for themselves, by whatever name"),
            Self::Machine => {
                Some("only people decide, and none of the directory is known by this identity")
            }
            Self::Approver => Some("who approved does not review it"),
            Self::NotYours => Some("only who asked may do that"),
            _ => None,
        }
    }
}

/// What is told of it, for people.
impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(said) = self.against_the_rules() {
            return f.write_str(said);
        }
        match self {
            Self::State(access) => write!(f, "that cannot be done any more, or not yet: it is {}", access.as_str()),
            Self::Instead(access, by) => write!(f, "that cannot be done any more, or not yet: it is {}, and what ends it is `{by}`", access.as_str()),
            Self::Over => f.write_str("its time is over"),
            Self::Early(start) => {
                write!(f, "it starts at {}", start.replace_nanosecond(0).unwrap_or(*start))
            }
            Self::Already => f.write_str("you have done that already"),
            Self::Changed => f.write_str("what you were shown is not what is asked for by the rules that are in force now: look at it again"),
            Self::Short(tally) => {
                let missing = tally.needs.iter().filter(|need| need.missing() > 0);
                let missing: Vec<_> = missing
                    .map(|need| format!("{} {}", need.missing(), need.threshold.said()))
                    .collect();
                write!(f, "of those who may approve at this moment, not enough have: missing are {}", missing.join(", and "))
            }
            Self::NoReview(Review::None) => f.write_str("there is nothing to review, or not yet"),
            Self::NoReview(review) => write!(f, "it is {}", review.as_str()),
            Self::Path(path) => write!(f, "it is on the {} path", path.as_str()),
            Self::Own | Self::Machine | Self::Approver | Self::NotYours => Ok(()),
        }
    }
}

impl Elevation {
    /// The same after this event at this moment. `reviews` says whether its grants are
    /// reviewed.
    ///
    /// # Errors
    /// Where the event leads nowhere: it is as it was.
    pub fn after(
        &self,
        event: &Event,
        now: OffsetDateTime,
        reviews: bool,
    ) -> Result<Self, Refused> {
        let mut next = self.clone();
        next.version += 1;
        let state = self.cannot(event);
        match event {
            Event::Approve(approval, tally) => {
                self.check_undecided(now)?;
                self.check_other(&approval.by)?;
                if tally.hash != approval.hash {
                    return Err(Refused::Changed);
                }
                let counts = |known: &Approval| known.by.is(&approval.by);
                // Whoever logs in has approved whatever becomes of the key that they signed by.
                // Whoever is called otherwise by now says it again, so that it counts.
                let same = |known: &&Approval| {
                    known.hash == approval.hash
                        && known.by.person == approval.by.person
                        && approval.groups.is_subset(&known.groups)
                        && (known.signed.is_none() || approval.signed.is_some())
                };
                if self.approvals.iter().filter(|known| counts(known)).any(|known| same(&known)) {
                    return Err(Refused::Already);
                }
                next.approvals.retain(|known| !counts(known));
                next.approvals.push(approval.clone());
                if self.access == Access::Pending && tally.is_met() {
                    next.access = Access::Approved;
                    next.approved_at = Some(now);
                }
            }
            Event::Deny(by, why) => {
                if self.access != Access::Pending {
                    return Err(state);
                }
                self.check_undecided(now)?;
                self.check_other(by)?;
                next.end(Access::Denied, Some(by), now, Some(why));
            }
            Event::Withdraw(by) => {
                if !matches!(self.access, Access::Pending | Access::Approved) {
                    return Err(state);
                }
                self.check_own(by)?;
                next.end(Access::Withdrawn, Some(by), now, None);
            }
            Event::Activate(by, tally, longest) => {
                self.check_own(by)?;
                // The answer of the first time was lost, or they wait at two places.
                if self.access.is_had() {
                    self.check_lasts(now)?;
                    return Err(Refused::Already);
                }
                if self.access != Access::Approved {
                    return Err(state);
                }
                if !tally.is_met() {
                    return Err(Refused::Short(tally.clone()));
                }
                if let Some(start) = self.asked.start.filter(|start| now < *start) {
                    return Err(Refused::Early(start));
                }
                // What it rested on stays to be seen, whatever becomes of who approved.
                next.approvals.iter_mut().for_each(|one| one.void = !tally.counts(one));
                next.begin(Access::Active, now, *longest);
            }
            Event::Emergency(by, longest) => {
                self.check_own(by)?;
                if self.asked.path != Path::Emergency {
                    return Err(Refused::Path(self.asked.path));
                }
                if self.access != Access::Pending {
                    return Err(state);
                }
                self.check_undecided(now)?;
                next.begin(Access::EmergencyActive, now, *longest);
            }
            Event::Relinquish(by) => {
                self.check_own(by)?;
                if !self.access.is_had() {
                    return Err(state);
                }
                self.check_lasts(now)?;
                next.end(Access::Relinquished, Some(by), now, None);
            }
            Event::Revoke(by, why) => {
                match self.access {
                    Access::Approved => {}
                    access if access.is_had() => self.check_lasts(now)?,
                    _ => return Err(state),
                }
                next.end(Access::Revoked, Some(by), now, Some(why));
            }
            Event::Tick(window) => match self.access {
                Access::Pending if now >= self.asked.lapses_at => {
                    next.end(Access::Lapsed, None, now, None);
                }
                Access::Approved if self.begin_by(*window).is_some_and(|by| now >= by) => {
                    next.end(Access::Lapsed, None, now, None);
                }
                Access::Active | Access::EmergencyActive if !self.is_active(now) => {
                    next.end(Access::Expired, None, now, None);
                }
                _ => return Err(state),
            },
            Event::Review { by, has_approved, in_order, note } => {
                if self.review != Review::Due {
                    return Err(Refused::NoReview(self.review));
                }
                self.check_other(by)?;
                if *has_approved || self.approvals.iter().any(|approval| approval.by.is(by)) {
                    return Err(Refused::Approver);
                }
                next.review = if *in_order { Review::Reviewed } else { Review::Disputed };
                next.reviewed = Some(Reviewed { by: by.clone(), at: now, note: note.clone() });
            }
        }
        let ends = next.access != self.access && next.access.was_had();
        if ends && self.access.is_had() && (reviews || self.asked.path == Path::Emergency) {
            next.review = Review::Due;
        }
        Ok(next)
    }

    /// That this cannot be done in the state in which it is. Whoever wants it to end is told how.
    fn cannot(&self, event: &Event) -> Refused {
        let had = self.access.is_had();
        let by = match (event, self.access) {
            (Event::Deny(..), access) if had || access == Access::Approved => "revoke",
            (Event::Revoke(..), Access::Pending) => "deny",
            (Event::Relinquish(_), Access::Pending | Access::Approved) => "withdraw",
            (Event::Withdraw(_), _) if had => "relinquish",
            _ => return Refused::State(self.access),
        };
        Refused::Instead(self.access, by)
    }

    /// Until when it has to be begun, once it is approved.
    pub fn begin_by(&self, window: Duration) -> Option<OffsetDateTime> {
        let from = self.approved_at?.max(self.asked.start.unwrap_or(OffsetDateTime::UNIX_EPOCH));
        Some(from.saturating_add(window))
    }

    /// When the clock has come to something, if nothing else happens before; `None` where
    /// it never does.
    pub fn next_at(&self, window: Duration, review_within: Duration) -> Option<OffsetDateTime> {
        match (self.access, self.review, &self.ended) {
            (Access::Pending, ..) => Some(self.asked.lapses_at),
            (Access::Approved, ..) => self.begin_by(window),
            (Access::Active | Access::EmergencyActive, ..) => self.grant.map(|grant| grant.until),
            (_, Review::Due, Some(ended)) => Some(ended.at.saturating_add(review_within)),
            _ => None,
        }
    }

    fn begin(&mut self, access: Access, now: OffsetDateTime, longest: Duration) {
        let wanted = Duration::seconds(i64::try_from(self.asked.ttl).unwrap_or(i64::MAX));
        self.access = access;
        self.grant = Some(Span { from: now, until: now.saturating_add(wanted.min(longest)) });
    }

    fn end(
        &mut self,
        access: Access,
        by: Option<&Party>,
        now: OffsetDateTime,
        why: Option<&String>,
    ) {
        self.access = access;
        self.ended = Some(Ended { by: by.cloned(), at: now, reason: why.cloned() });
    }

    /// Whether somebody is a person, and none of those whom it is for.
    fn check_other(&self, by: &Party) -> Result<(), Refused> {
        match by.person {
            None => Err(Refused::Machine),
            Some(_) if self.is_for(by) => Err(Refused::Own),
            Some(_) => Ok(()),
        }
    }

    /// Whether it can still be said yes or no to.
    fn check_undecided(&self, now: OffsetDateTime) -> Result<(), Refused> {
        match self.access {
            Access::Pending if now >= self.asked.lapses_at => Err(Refused::Over),
            // It has to be begun in time, and may have to be approved anew before that.
            Access::Pending | Access::Approved => Ok(()),
            other => Err(Refused::State(other)),
        }
    }

    /// Whether what is had is not over by the clock.
    fn check_lasts(&self, now: OffsetDateTime) -> Result<(), Refused> {
        if self.is_active(now) { Ok(()) } else { Err(Refused::Over) }
    }

    fn check_own(&self, by: &Party) -> Result<(), Refused> {
        if self.asked.by.is(by) { Ok(()) } else { Err(Refused::NotYours) }
    }
}
