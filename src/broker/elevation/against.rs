//! What speaks against another request for a role, for whoever asks.

use time::OffsetDateTime;

use super::admission::{beginning, said_of, said_of_beginning, unless};
use super::desk::{directory_of, rules_of, span};
use super::eligible::Eligible;
use super::life::{Access, Review};
use super::names::theirs;
use super::signed::LiveKeys;
use super::verdict::Refusal;
use super::{Elevation, Path};
use crate::broker::Broker;
use crate::broker::config::Elevation as Rules;
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{ElevationFilter, UnderWay, Unless};
use crate::error::Result as Outcome;

/// How many of somebody are looked through for the one that is in the way.
const LOOKED_AT: u32 = 50;

impl Broker {
    /// Which other elevation it is that keeps this one from being added, and what is told of it.
    /// Of one by somebody who only had the same name, nothing is.
    pub(super) async fn against(
        &self,
        book: &Rulebook,
        rules: &Rules,
        new: &Elevation,
        now: OffsetDateTime,
    ) -> Outcome<Refusal> {
        let unless = unless(rules, new.asked.path, now);
        let found = self.found_against(book, (rules, &unless), new, now).await?;
        // It has ended just now, or there are many.
        Ok(found.unwrap_or_else(|| Refusal::conflict(said_of(rules, new.asked.path))))
    }

    /// Which other one it is that keeps this one from beginning.
    pub(super) async fn against_beginning(
        &self,
        book: &Rulebook,
        rules: &Rules,
        next: &Elevation,
        now: OffsetDateTime,
    ) -> Outcome<Option<Refusal>> {
        let unless = beginning(rules, next, now);
        if unless.ended_after.is_none() {
            return Ok(None);
        }
        if let Some(found) = self.found_against(book, (rules, &unless), next, now).await? {
            return Ok(Some(found));
        }
        // Where nothing has happened to it, something is in its way all the same: of whoever had
        // the same name, or what cannot be read.
        let mut keys = LiveKeys::default();
        let Some(latest) = self.elevation_with(next.id).await? else { return Ok(None) };
        let counting = self.counting(book, &latest, now, &mut keys).await?;
        let eligible = Eligible::new(rules_of(book), &latest.asked, now);
        let is_same =
            latest.version + 1 == next.version && eligible.tally(&counting, None).is_met();
        Ok(is_same.then(|| Refusal::conflict(said_of_beginning(rules))))
    }

    async fn found_against(
        &self,
        book: &Rulebook,
        (rules, unless): (&Rules, &Unless),
        new: &Elevation,
        now: OffsetDateTime,
    ) -> Outcome<Option<Refusal>> {
        let filter = ElevationFilter {
            among: Some(theirs(directory_of(book), &new.asked.by, self.issuer.as_str())),
            role: Some(new.asked.role.clone()),
            drill: Some(new.asked.drill),
            ..ElevationFilter::default()
        };
        for known in self.legible_of(filter, LOOKED_AT).await? {
            let asked = Eligible::new(rules_of(book), &known.asked, now);
            if known.id == new.id || !asked.are_one(&known.asked.by, &new.asked.by) {
                continue;
            }
            if let Some(why) = told(rules, &known, unless) {
                return Ok(Some(Refusal::Conflict { why, with: Some(known.id) }));
            }
        }
        Ok(None)
    }
}

/// How this one is in the way of another, and until when; `None` where it is not.
fn told(rules: &Rules, known: &Elevation, unless: &Unless) -> Option<String> {
    let is_emergency = known.asked.path == Path::Emergency;
    let ended = known.ended.as_ref().map(|ended| ended.at).filter(|_| known.access.was_had());
    // Its time may be over before the clock has put that on record.
    let until = known.grant.map(|grant| grant.until).filter(|_| known.access.is_had());
    let ended = ended.or(until.filter(|until| Some(*until) <= unless.over_at));
    let after = |limit: Option<OffsetDateTime>| ended.filter(|at| Some(*at) > limit);
    if unless.emergency && is_emergency {
        if known.access == Access::EmergencyActive {
            return Some("you have the role in an emergency already".into());
        }
        if known.access.was_had() && known.review == Review::Due {
            let why = "you had the role in an emergency that was not reviewed yet: somebody else has to say that they looked at it";
            return Some(why.into());
        }
    }
    let (in_way, how) = match unless.under_way {
        None => (false, ""),
        Some(UnderWay::Any) => (true, ""),
        Some(UnderWay::On(path)) => (known.asked.path.as_str() == path, " by a signature"),
    };
    if in_way {
        match known.access {
            Access::Pending => {
                let until = whole(known.asked.lapses_at);
                return Some(format!(
                    "you have asked for the role{how} already: that waits for approval until {until}, or until it is withdrawn"
                ));
            }
            Access::Approved => {
                return Some(format!(
                    "you have asked for the role{how} already: that is approved, and to be begun or withdrawn"
                ));
            }
            access if access.is_had() => {
                let until = known.grant.map(|grant| whole(grant.until));
                let until = until.map(|until| format!(", until {until}")).unwrap_or_default();
                return Some(format!("you have the role{how} already{until}"));
            }
            _ => {}
        }
    }
    let cool_down = rules.emergency.as_ref().map(|emergency| emergency.cool_down);
    let had = match known.grant {
        Some(_) => "you had the role until",
        None => "what was approved for you was ended at",
    };
    let cooled = [
        (unless.ended_after, Some(rules.cool_down), had),
        (
            unless.emergency_ended_after.filter(|_| is_emergency),
            cool_down,
            "you had the role in an emergency until",
        ),
    ];
    cooled.into_iter().find_map(|(limit, cool_down, had)| {
        let (at, cool_down) = (limit.and_then(|limit| after(Some(limit)))?, cool_down?);
        let from = whole(at.saturating_add(span(cool_down)));
        Some(format!("{had} {}; you may have it again from {from}", whole(at)))
    })
}

/// A moment in whole seconds.
fn whole(at: OffsetDateTime) -> String {
    use time::format_description::well_known::Rfc3339;
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}
