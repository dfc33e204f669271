//! `tmpcred elevate list`

use std::collections::BTreeMap;

use super::{open, show};
use crate::api::elevations::Listed;
use crate::cli::App;
use crate::cli::args::ElevateList;
use crate::error::Result;
use crate::wire::elevation::{Elevation, Page};

/// Each kind, its name for people, and what is said where there is none.
const KINDS: [(&str, &str, &str); 4] = [
    ("to-approve", "TO APPROVE", "Nothing waits for your approval."),
    ("active", "ACTIVE", "No grant is active that you may see."),
    ("mine", "MINE", "You have asked for nothing."),
    ("to-review", "TO REVIEW", "Nothing waits for your review."),
];

pub(super) fn run(app: &App, args: &ElevateList) -> Result<()> {
    let broker = open(app, &args.at)?;
    let kinds = KINDS.iter().filter(|(kind, ..)| args.which.as_ref().is_none_or(|one| one == kind));
    let kinds: Vec<_> = kinds.collect();
    let pages: Vec<Page> = broker.ask(async |client| {
        let mut pages = Vec::new();
        for (which, ..) in &kinds {
            pages.push(client.elevations(&Listed { which, limit: args.limit }).await?);
        }
        Ok(pages)
    })?;
    if args.at.json {
        let report: BTreeMap<_, _> =
            kinds.iter().zip(&pages).map(|((kind, ..), page)| (*kind, page)).collect();
        return app.ui.json(&report);
    }
    for (number, ((_, title, none), page)) in kinds.iter().zip(&pages).enumerate() {
        if number > 0 {
            app.ui.line("")?;
        }
        if page.elevations.is_empty() {
            app.ui.line(none)?;
            continue;
        }
        let rows = page.elevations.iter().map(|elevation| row(app, elevation));
        app.ui.table([title, "ROLE", "WHO", "STATE", "REASON"], rows)?;
        if page.next_below.is_some() {
            app.ui.line("(there are more)")?;
        }
    }
    Ok(())
}

fn row(app: &App, elevation: &Elevation) -> [String; 5] {
    let missing: u32 = elevation.needs.iter().map(crate::wire::elevation::Need::missing).sum();
    let state = match elevation.access.as_str() {
        "pending" => format!("pending, {missing} missing"),
        _ => match elevation.review.as_str() {
            "none" => show::state(elevation, app.host.clock.now()),
            review => format!("{}, review {review}", elevation.access),
        },
    };
    let state = show::marked(elevation, &state);
    [
        elevation.id.clone(),
        elevation.role.clone(),
        show::short(&elevation.requester),
        state,
        elevation.reason.clone(),
    ]
}
