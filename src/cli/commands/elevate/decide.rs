//! `tmpcred elevate approve|deny|review`

use super::{open, show, uses};
use crate::api::elevations::Event;
use crate::cli::args::{ElevateApprove, ElevateReasoned, ElevateReview};
use crate::cli::{App, misuse};
use crate::error::Result;

pub(super) fn approve(app: &App, args: &ElevateApprove) -> Result<()> {
    let broker = open(app, &args.at)?;
    let hash = match &args.hash {
        Some(hash) => hash.clone(),
        None => {
            let shown = broker.ask(async |client| client.elevation(args.id).await)?;
            // Whoever says yes has to see to what.
            if !app.host.interact.may_ask() || !app.ui.stderr_is_terminal() {
                return Err(misuse("nobody is there to be asked whether to approve")
                    .hint("look at it with `tmpcred elevate status`, then name what you approve: --hash HASH"));
            }
            match args.at.json || !app.ui.stdout_is_terminal() {
                true => show::beside(app, &shown),
                false => show::one(app, &shown, false)?,
            }
            if !app.ui.confirm("Approve exactly this?")? {
                app.host.interact.note("not approved; to say no to it: tmpcred elevate deny");
                return Ok(());
            }
            shown.hash
        }
    };
    let event = Event { hash: Some(&hash), reason: args.reason.as_deref(), ..Event::default() };
    let done = broker.ask(async |client| client.settle(args.id, "approve", &event).await)?;
    show::one(app, &done, args.at.json)
}

pub(super) fn deny(app: &App, args: &ElevateReasoned) -> Result<()> {
    let event = Event { reason: Some(&args.reason), ..Event::default() };
    let broker = open(app, &args.at)?;
    let done = broker.ask(async |client| client.settle(args.id, "deny", &event).await)?;
    show::one(app, &done, args.at.json)
}

pub(super) fn review(app: &App, args: &ElevateReview) -> Result<()> {
    let outcome = if args.dispute { "disputed" } else { "reviewed" };
    let event = Event { outcome: Some(outcome), note: Some(&args.note), ..Event::default() };
    let broker = open(app, &args.at)?;
    // What is decided about is seen before.
    let shown = broker.ask(async |client| client.elevation(args.id).await)?;
    let uses = uses::of(app, &broker, &shown);
    if !args.at.json
        && let Some(uses) = &uses
    {
        uses::table(app, uses)?;
        app.ui.line("")?;
    }
    let done = broker.ask(async |client| client.settle(args.id, "review", &event).await)?;
    match args.at.json {
        true => uses::with(app, &done, uses.as_ref(), true),
        false => show::one(app, &done, false),
    }
}
