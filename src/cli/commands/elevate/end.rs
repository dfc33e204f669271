//! `tmpcred elevate withdraw|relinquish|revoke`: ending, by a login or by a signature.

use uuid::Uuid;

use super::{open, show};
use crate::api::elevations::Event;
use crate::cli::App;
use crate::cli::args::{At, ElevateEnd, ElevateRevoke, EndDown};
use crate::cli::signed::{self, Desk, Known, SHORT, Signer, say};
use crate::error::Result;
use crate::sshsig::{Named, Said, write};

/// Takes back or gives back what is one's own.
pub(super) fn own(app: &App, args: &ElevateEnd, what: &str) -> Result<()> {
    let ending = Ending { id: args.id, what, reason: &args.reason };
    match by_signature(&args.down)? {
        true => ending.signed(app, &args.down, &args.at),
        false => ending.shown(app, &args.at, &Event::default()),
    }
}

/// Ends somebody's grant.
pub(super) fn revoke(app: &App, args: &ElevateRevoke) -> Result<()> {
    let ending = Ending { id: args.id, what: "revoke", reason: &args.reason };
    let event = Event { reason: Some(&args.reason), ..Event::default() };
    match by_signature(&args.down)? {
        true => ending.signed(app, &args.down, &args.at),
        false => ending.shown(app, &args.at, &event),
    }
}

/// What ends, and how.
struct Ending<'a> {
    id: Uuid,
    what: &'a str,
    reason: &'a str,
}

impl Ending<'_> {
    /// By who is logged in.
    fn shown(&self, app: &App, at: &At, event: &Event<'_>) -> Result<()> {
        let broker = open(app, at)?;
        let done = broker.ask(async |client| client.settle(self.id, self.what, event).await)?;
        broker.forget_ended(&done);
        show::one(app, &done, at.json)
    }

    /// By who signs, whatever it was asked for by.
    fn signed(&self, app: &App, down: &EndDown, at: &At) -> Result<()> {
        let (desk, prepared) = Desk::open(app, at.at.as_deref())?;
        let known = Known::of(&app.host, desk.broker());
        let person = signed::person(down.person.as_deref(), &known)?;
        let signer = Signer::of(app, &prepared.cache, &down.key, known.key.as_deref(), false)?;
        let said = Said::Ending { of: Named::Elevation(self.id), reason: self.reason.into() };
        let text = write(&[say(&app.host, desk.broker(), (&person, &signer), said, SHORT)?])?;
        let done = desk.ask(async |client| client.bring_to(self.id, self.what, &text).await)?;
        show::one(app, &done, at.json)
    }
}

/// Whether it is signed; options about a key are of use then alone.
fn by_signature(down: &EndDown) -> Result<bool> {
    signed::check(down.provider_down, &down.key)?;
    Ok(down.provider_down)
}
