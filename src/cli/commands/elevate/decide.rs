//! `tmpcred elevate approve|deny|review`

use uuid::Uuid;

use super::{open, show, uses};
use crate::api::elevations::Event;
use crate::cli::args::{At, ElevateApprove, ElevateDeny, ElevateReview};
use crate::cli::{App, misuse};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::elevation::Elevation;

pub(super) fn approve(app: &App, args: &ElevateApprove) -> Result<()> {
    let broker = open(app, &args.at)?;
    let hash = match &args.hash {
        Some(hash) => hash.clone(),
        None => {
            let shown = broker.ask(async |client| client.elevation(args.id).await)?;
            if !can_ask(app) {
                return Err(misuse("nobody is there to be asked whether to approve")
                    .hint("look at it with `tmpcred elevate status`, then name what you approve: --hash HASH"));
            }
            if !asked(app, &shown, &args.at, "Approve exactly this?")? {
                app.host.interact.note("not approved; to say no to it: tmpcred elevate deny");
                return Ok(());
            }
            shown.hash
        }
    };
    let event = Event { hash: Some(&hash), reason: args.reason.as_deref(), ..Event::default() };
    let done = broker.ask(async |client| client.settle(args.id, "approve", &event).await);
    let done = done.map_err(|error| unknown(error, args.id))?;
    show::one(app, &done, args.at.json)
}

pub(super) fn deny(app: &App, args: &ElevateDeny) -> Result<()> {
    let event = Event { reason: Some(&args.reason), ..Event::default() };
    let broker = open(app, &args.at)?;
    if !args.yes {
        let shown = broker.ask(async |client| client.elevation(args.id).await)?;
        if !can_ask(app) {
            return Err(misuse("nobody is there to be asked whether to deny")
                .hint("look at it with `tmpcred elevate status`, then deny it with --yes"));
        }
        if !asked(app, &shown, &args.at, "Deny exactly this?")? {
            app.host.interact.note("not denied");
            return Ok(());
        }
    }
    let done = broker.ask(async |client| client.settle(args.id, "deny", &event).await);
    let done = done.map_err(|error| unknown(error, args.id))?;
    show::one(app, &done, args.at.json)
}

/// What is said where an answer may have been lost, and not the question.
fn unknown(error: Error, id: Uuid) -> Error {
    match error.kind() {
        ErrorKind::Unreachable => error.hint(format!(
            "it may have been done all the same: `tmpcred elevate status {id}` tells"
        )),
        _ => error,
    }
}

/// Whether somebody can be asked who sees what about.
fn can_ask(app: &App) -> bool {
    app.host.interact.may_ask() && app.ui.stderr_is_terminal()
}

/// Shows what somebody decides about, and asks.
fn asked(app: &App, shown: &Elevation, at: &At, question: &str) -> Result<bool> {
    match at.json || !app.ui.stdout_is_terminal() {
        true => show::beside(app, shown),
        false => show::one(app, shown, false)?,
    }
    app.ui.confirm(question)
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
