//! `tmpcred elevate approve|deny|review`

use uuid::Uuid;

use super::{open, show, uses};
use crate::api::elevations::Event;
use crate::cli::args::{At, ElevateApprove, ElevateDeny, ElevateReview};
use crate::cli::elsewhere::Elsewhere;
use crate::cli::{App, misuse};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::elevation::Elevation;

pub(super) fn approve(app: &App, args: &ElevateApprove) -> Result<()> {
    let broker = open(app, &args.at)?;
    let hash = match &args.hash {
        Some(hash) => hash.clone(),
        None => {
            let otherwise = "name what you approve: --hash HASH";
            let Some(seen) = seen(app, &broker, (args.id, &args.at), ("Approve", otherwise))?
            else {
                app.host.interact.note("not approved; to say no to it: tmpcred elevate deny");
                return Ok(());
            };
            seen.hash
        }
    };
    let event = Event { hash: Some(&hash), reason: args.reason.as_deref(), ..Event::default() };
    let done = broker.ask(async |client| client.settle(args.id, "approve", &event).await);
    let done = done.map_err(|error| unknown(error, args.id, &broker))?;
    show::one(app, &done, args.at.json)
}

pub(super) fn deny(app: &App, args: &ElevateDeny) -> Result<()> {
    let broker = open(app, &args.at)?;
    if !args.yes
        && seen(app, &broker, (args.id, &args.at), ("Deny", "deny it with --yes"))?.is_none()
    {
        app.host.interact.note("not denied");
        return Ok(());
    }
    let event = Event { reason: Some(&args.reason), ..Event::default() };
    let done = broker.ask(async |client| client.settle(args.id, "deny", &event).await);
    let done = done.map_err(|error| unknown(error, args.id, &broker))?;
    show::one(app, &done, args.at.json)
}

/// What is said where an answer may have been lost, and not the question.
fn unknown(error: Error, id: Uuid, broker: &Elsewhere) -> Error {
    match error.kind() {
        ErrorKind::Unreachable => error.hint(format!(
            "it may have been done all the same: `tmpcred elevate status {id}{}` tells",
            broker.at()
        )),
        _ => error,
    }
}

/// Shows what somebody decides about, and asks whether to do that; nothing where they say no.
/// Whoever decides has to see about what: `otherwise` is what to do where nobody can.
fn seen(
    app: &App,
    broker: &Elsewhere,
    (id, at): (Uuid, &At),
    (what, otherwise): (&str, &str),
) -> Result<Option<Elevation>> {
    let shown = broker.ask(async |client| client.elevation(id).await)?;
    if !app.host.interact.may_ask() || !app.ui.stderr_is_terminal() {
        let what = what.to_lowercase();
        return Err(misuse(format!("nobody is there to be asked whether to {what}")).hint(
            format!(
                "look at it with `tmpcred elevate status {id}{}`, then {otherwise}",
                broker.at()
            ),
        ));
    }
    match at.json || !app.ui.stdout_is_terminal() {
        true => show::beside(app, &shown),
        false => show::one(app, &shown, false)?,
    }
    let is_wanted = app.ui.confirm(&format!("{what} exactly this?"))?;
    Ok(is_wanted.then_some(shown))
}

pub(super) fn review(app: &App, args: &ElevateReview) -> Result<()> {
    let outcome = if args.dispute { "disputed" } else { "reviewed" };
    let event = Event { outcome: Some(outcome), note: Some(&args.note), ..Event::default() };
    let broker = open(app, &args.at)?;
    // What is decided about is seen before.
    let shown = broker.ask(async |client| client.elevation(args.id).await)?;
    let uses = uses::asked(&broker, &shown).map_err(|error| {
        error.context("what was done under it cannot be told, so it is not reviewed yet")
    })?;
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
