//! Drills: the same request, the same people and the same messages, under which nothing is
//! issued.
//!
//! A drill is an elevation like any other but for three things. Whatever is said of it says so.
//! No token is issued under it. And it counts for nothing but other drills: nobody who practises
//! is kept from having the role in earnest. When it has ended, how long each step took is on
//! record with it.

use time::{Duration, OffsetDateTime};

use super::Elevation;

/// What it means that something is a drill.
pub(super) const MEANS: &str = "this is practised; nothing is issued";

/// How what is said of a drill begins.
const MARK: &str = "DRILL: ";

/// A title, which says that it is of a drill where it is.
pub(super) fn titled(elevation: &Elevation, title: &str) -> String {
    match elevation.asked.drill {
        true => format!("{MARK}{title}"),
        false => title.to_string(),
    }
}

/// What goes on record of an event, which says that it is of a drill where it is; and at its
/// end, how it went.
pub(super) fn marked(elevation: &Elevation, event: &str, said: String) -> String {
    if !elevation.asked.drill {
        return said;
    }
    let ends = elevation.access.is_over() && !event.starts_with("review");
    match ends {
        true => format!("{MARK}{said} ({})", told(&steps(elevation))),
        false => format!("{MARK}{said}"),
    }
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
