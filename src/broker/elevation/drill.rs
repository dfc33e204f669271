//! Drills: the same request, the same people and the same messages, under which nothing is
//! issued.
//!
//! A drill is an elevation like any other but for three things. Whatever is said of it says so.
//! No token is issued under it. And it counts for nothing but other drills: nobody who practises
//! is kept from having the role in earnest. When it has ended, how long each step took is on
//! record with it, and whether a token would have been issued: policy is asked that once, of
//! whoever gives it back.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::desk::rules_of;
use super::{Elevation, Refusal, Underway};
use crate::broker::Broker;
use crate::broker::audit::DRILL;
use crate::broker::decide::Wanted;
use crate::broker::operate::Asked as Who;
use crate::broker::rulebook::Rulebook;

/// What it means that something is a drill.
pub(super) const MEANS: &str = "this is practised; nothing is issued";

/// What policy said of a token under a drill, had it been one in earnest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// Whether it would have been issued.
    pub issued: bool,
    /// By which policy and for how long, or why not.
    pub said: String,
}

impl Broker {
    /// What policy says of the token that somebody would ask for who ends a drill of theirs. It is
    /// a decision, and nothing comes of it.
    pub(super) fn would_issue(
        &self,
        book: &Rulebook,
        who: &Who,
        drill: &Elevation,
        now: OffsetDateTime,
    ) -> Tried {
        let grant = Underway::of(drill, now);
        let wanted = Wanted {
            role: &drill.asked.role,
            audience: &drill.asked.audience,
            scope: drill.asked.scope.as_ref(),
            ttl: None,
            key_bound: drill.asked.key.is_some(),
            jwt: false,
            elevation: Some(&grant),
            source: who.source,
        };
        match rules_of(book).decide(&who.caller, wanted, now) {
            Ok((granted, _)) => {
                let lasting = humantime::format_duration(granted.ttl);
                let said = format!("the policy '{}' permits it for {lasting}", granted.policy_id);
                Tried { issued: true, said }
            }
            Err(denied) => Tried { issued: false, said: denied.reason },
        }
    }

    /// Whether what somebody wanted to do something about is a drill, whatever came of that.
    pub(in crate::broker) async fn is_drill(
        &self,
        outcome: &Result<Elevation, Refusal>,
        id: Uuid,
    ) -> bool {
        match outcome {
            Ok(elevation) => elevation.asked.drill,
            Err(_) => {
                self.elevation_with(id).await.ok().flatten().is_some_and(|one| one.asked.drill)
            }
        }
    }
}

/// What is said of this, which says that it is of a drill where it is.
pub(super) fn told_of(is_drill: bool, said: String) -> String {
    if is_drill { format!("{DRILL}{said}") } else { said }
}

/// A title, which says that it is of a drill where it is.
pub(super) fn titled(elevation: &Elevation, title: &str) -> String {
    told_of(elevation.asked.drill, title.to_string())
}

/// What goes on record of an event, which says that it is of a drill where it is; and at its
/// end, how it went.
pub(super) fn marked(elevation: &Elevation, event: &str, said: String) -> String {
    if !elevation.asked.drill {
        return said;
    }
    let ends = elevation.access.is_over() && !event.starts_with("review");
    let tried = elevation.tried.as_ref().map(|tried| match tried.issued {
        true => format!("; a token would have been issued: {}", tried.said),
        false => format!("; no token would have been issued: {}", tried.said),
    });
    let said = match ends {
        true => format!("{said} ({}{})", told(&steps(elevation)), tried.unwrap_or_default()),
        false => said,
    };
    told_of(true, said)
}

/// What has happened to a request so far, and how long after it was asked for.
pub(super) fn steps(elevation: &Elevation) -> Vec<(&'static str, Duration)> {
    let first = elevation.approvals.first().map(|approval| approval.at);
    let began = elevation.grant.map(|grant| grant.from);
    let ended = elevation.ended.as_ref().map(|ended| ended.at);
    let all = [
        ("first approval", first),
        ("approved", elevation.approved_at),
        ("begun", began),
        (elevation.access.as_str(), ended),
    ];
    let asked = elevation.asked.at;
    let after = |at: OffsetDateTime| (at - asked).max(Duration::ZERO);
    all.into_iter().filter_map(|(step, at)| Some((step, after(at?)))).collect()
}

fn told(steps: &[(&'static str, Duration)]) -> String {
    let steps: Vec<_> = steps
        .iter()
        .map(|(step, after)| {
            let after = std::time::Duration::from_secs(after.whole_seconds().unsigned_abs());
            format!("{step} after {}", humantime::format_duration(after))
        })
        .collect();
    steps.join(", ")
}
