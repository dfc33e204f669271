//! Whether what roles want to be approved could ever be.
//!
//! Where policies look at what is asked for, it is tried with requests of many kinds: somebody
//! may be found for one of them.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::eligible::Eligible;
use super::{Asked, Party};
use crate::broker::config::{Role, Threshold};
use crate::broker::decide::Rules as Policies;
use crate::broker::directory::Directory;
use crate::broker::policy::Reads;

/// How many kinds of requests are tried at most.
const MOST: usize = 64;

/// How long a request is that hardly lasts, in seconds.
const SHORT: u64 = 60;

/// What nobody could ever meet, and what leaves nobody for one of those who could: of each role
/// that is had by elevation, in words. Said of a moment at which the directory is fresh.
#[derive(Default)]
pub(in crate::broker) struct Reach {
    /// What would never come about.
    pub(in crate::broker) never: Vec<String>,
    /// What would not come about for those who approve others, or not for each request.
    pub(in crate::broker) barely: Vec<String>,
}

impl Reach {
    /// Looks at all roles.
    pub(in crate::broker) fn of(policies: Policies<'_>, now: OffsetDateTime) -> Self {
        let mut reach = Self::default();
        let Some(people) = policies.policy.directory().filter(|people| !people.is_stale(now))
        else {
            return reach;
        };
        for (name, role) in policies.roles {
            if role.elevation.is_some() {
                reach.look(policies, people, (name, role), now);
            }
        }
        reach
    }

    fn look(
        &mut self,
        policies: Policies<'_>,
        people: &Directory,
        (name, role): (&str, &Role),
        now: OffsetDateTime,
    ) {
        let Some(rules) = &role.elevation else { return };
        if let (Some(_), Some(why)) = (&rules.provider_down, policies.policy.needs().untold(None)) {
            self.never.push(format!(
                "the role '{name}' has provider_down, and {why}: nobody could ever have it that way"
            ));
        }
        let reads = policies.policy.reads_to_approve(name);
        let kinds = Kinds::of((name, role), reads, people, now);
        let mut best: Option<Tried> = None;
        for asked in &kinds.asked {
            // Who is in no directory stands for all others where it is the same who asks.
            let thresholds = match reads.subject {
                true => asked.thresholds(&rules.approvals),
                false => rules.approvals.clone(),
            };
            let tried = Tried::new(policies, asked, thresholds, now);
            if best.as_ref().is_none_or(|best| tried.missing < best.missing) {
                best = Some(tried);
            }
            if best.as_ref().is_some_and(|best| best.missing == 0) {
                break;
            }
        }
        let Some(best) = best else { return };
        if best.missing > 0 {
            let all = format!("the role '{name}' wants approvals of");
            let there = |(threshold, there): (&Threshold, &usize)| {
                let (wanted, who) = (threshold.count.get(), threshold.said());
                (*there < wanted as usize)
                    .then(|| format!("{all} {wanted} people {who}, and policies let {there}: "))
            };
            let short = best.thresholds.iter().zip(&best.there).filter_map(there);
            if kinds.are_all {
                self.never.extend(short.map(|said| said + "nobody could ever have it"));
            } else {
                let may_be = match reads.time {
                    true => {
                        "of all kinds of requests that were tried nobody could have any at this hour"
                    }
                    false => "of all kinds of requests that were tried nobody could have any",
                };
                self.barely.extend(short.map(|said| said + may_be));
            }
            return;
        }
        if reads.subject && best.by_outsider {
            self.barely.push(format!(
                "nobody in the directory could have the role '{name}': only who is in none, as far as policies let them ask"
            ));
        }
        let reviewed = match rules.review_within {
            Some(_) => ", and nobody could review it who has not approved it",
            None => "",
        };
        // Where it depends on who asks, they may have others to approve it, or not be let ask.
        let machines = match reads.subject {
            false => ", nor could a job, which takes one more",
            true => "",
        };
        for (threshold, there) in best.thresholds.iter().zip(&best.there) {
            let wanted = threshold.count.get();
            if *there == wanted as usize {
                let who = threshold.said();
                self.barely.push(format!(
                    "the role '{name}' wants approvals of {wanted} people {who}, and there are just as many: none of them could have it{machines}{reviewed}"
                ));
            }
        }
        if reads.ttl && best.ttl < kinds.longest {
            self.barely.push(format!(
                "nobody could approve the role '{name}' for as long as `longest` says"
            ));
        }
    }
}

/// Requests that are as different as policies can tell them apart.
struct Kinds {
    asked: Vec<Asked>,
    /// Whether there is no other kind.
    are_all: bool,
    longest: u64,
}

impl Kinds {
    fn of(
        (name, role): (&str, &Role),
        reads: Reads,
        people: &Directory,
        now: OffsetDateTime,
    ) -> Self {
        let longest = role.elevation.as_ref().map_or(0, |rules| rules.longest.as_secs());
        let nobody = Asked::by_nobody(name, now).by;
        let (mut parties, everybody) = if reads.subject { parties(people) } else { (vec![], true) };
        // Those who are in no directory ask too.
        parties.push(nobody);
        let audiences: Vec<_> = match reads.audience {
            true => role.audiences.iter().cloned().collect(),
            false => vec![role.audiences.first().cloned().unwrap_or_default()],
        };
        let scopes = match reads.scope {
            true => vec![None, Some(role.scopes.clone()), Some(BTreeSet::new())],
            false => vec![None],
        };
        let ttls = if reads.ttl { vec![longest, SHORT.min(longest)] } else { vec![longest] };
        let mut asked = Vec::new();
        for ttl in ttls {
            for scope in &scopes {
                for audience in &audiences {
                    asked.extend(parties.iter().map(|by| Asked {
                        by: by.clone(),
                        audience: audience.clone(),
                        scope: scope.clone(),
                        ttl,
                        ..Asked::by_nobody(name, now)
                    }));
                }
            }
        }
        let open = reads.scope || reads.ttl || reads.time;
        let are_all = everybody && !open && asked.len() <= MOST;
        // It is to be had by people, where it can be.
        asked.sort_by_key(|asked: &Asked| asked.by.person.is_none());
        asked.truncate(MOST);
        Self { asked, are_all, longest }
    }
}

/// People of whom no two are in the same groups, by one of their ids; all of them by all of
/// their ids, where they are few, and whether it is all.
fn parties(people: &Directory) -> (Vec<Party>, bool) {
    let few = people.people().map(|(_, person)| person.ids.len()).sum::<usize>() < MOST;
    let mut known = BTreeSet::new();
    let others = people.people().filter(|(_, person)| known.insert(&person.groups) || few);
    let parties = others.flat_map(|(name, person)| {
        let ids = person.ids.iter().take(if few { usize::MAX } else { 1 });
        ids.map(move |id| Party {
            issuer: id.issuer.clone(),
            subject: id.subject.clone(),
            person: Some(name.to_string()),
        })
    });
    (parties.collect(), few)
}

/// What came of one of them.
struct Tried {
    /// How many are missing in all.
    missing: usize,
    thresholds: Vec<Threshold>,
    /// How many there are for each threshold.
    there: Vec<usize>,
    ttl: u64,
    /// Whether somebody asks who is in no directory.
    by_outsider: bool,
}

impl Tried {
    fn new(
        policies: Policies<'_>,
        asked: &Asked,
        thresholds: Vec<Threshold>,
        now: OffsetDateTime,
    ) -> Self {
        let eligible = Eligible::new(policies, asked, now);
        let all = eligible.people();
        let there: Vec<_> =
            thresholds.iter().map(|threshold| eligible.people_for(threshold, &all).len()).collect();
        let missing = thresholds
            .iter()
            .zip(&there)
            .map(|(threshold, there)| (threshold.count.get() as usize).saturating_sub(*there));
        let by_outsider = asked.by.person.is_none();
        Self { missing: missing.sum(), thresholds, there, ttl: asked.ttl, by_outsider }
    }
}
