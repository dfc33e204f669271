//! The linter: what can be used and is hardly meant.

mod elevation;
mod issuers;
mod names;
mod patterns;
mod reach;
mod shape;

use time::OffsetDateTime;

use super::finding::{Finding, Rule};
use super::load::{Source, World};
use super::{Policy, view};
use crate::error::Result;

/// Everything that is wrong with policies, or looks as if it was not meant; in the
/// order of the files. There may be nothing that can be used, and then what can be
/// read is looked at all the same.
///
/// # Errors
/// Only what is no fault of the policies.
pub fn check(sources: &[Source], world: World<'_>, now: OffsetDateTime) -> Result<Vec<Finding>> {
    let (policy, mut findings) = match Policy::check(sources, world)? {
        Ok(policy) => (Some(policy), Vec::new()),
        Err(findings) => (None, findings),
    };
    let views = view::all(sources);
    for view in &views {
        patterns::look(view, &mut findings);
        names::look(view, world, &mut findings);
        reach::look(view, world, &mut findings);
    }
    // What cannot be read may permit what nothing else does.
    if !findings.iter().any(|finding| finding.rule == Rule::Syntax) {
        reach::look_at_all(&views, world, &mut findings);
    }
    issuers::look(&views, world, &mut findings);
    elevation::look(&views, world, policy.as_ref(), now, &mut findings);
    let order = |finding: &Finding| {
        let place = finding.place.as_ref();
        let file = place.and_then(|place| sources.iter().position(|s| s.path == place.file));
        (file.unwrap_or(usize::MAX), place.and_then(|place| Some((place.line?, place.column?))))
    };
    findings.sort_by(|a, b| {
        (order(a), a.severity, a.rule, &a.message).cmp(&(order(b), b.severity, b.rule, &b.message))
    });
    findings.dedup();
    Ok(findings)
}

#[cfg(test)]
mod tests;
