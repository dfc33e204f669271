//! `tmpcred elevate`

mod decide;
mod drill;
mod end;
mod keys;
mod list;
pub(crate) mod request;
mod show;
mod sign;
mod uses;

use crate::cli::App;
use crate::cli::args::{At, Elevate, ElevateCommand};
use crate::cli::elsewhere::Elsewhere;
use crate::error::Result;

pub(super) fn run(app: &App, args: &Elevate) -> Result<()> {
    match &args.command {
        ElevateCommand::Request(args) => request::run(app, args),
        ElevateCommand::Status(args) => request::status(app, args),
        ElevateCommand::Drill(args) => drill::run(app, args),
        ElevateCommand::List(args) => list::run(app, args),
        ElevateCommand::Approve(args) => decide::approve(app, args),
        ElevateCommand::Deny(args) => decide::deny(app, args),
        ElevateCommand::Withdraw(args) => end::own(app, args, "withdraw"),
        ElevateCommand::Revoke(args) => end::revoke(app, args),
        ElevateCommand::Relinquish(args) => end::own(app, args, "relinquish"),
        ElevateCommand::Review(args) => decide::review(app, args),
        ElevateCommand::Keys(args) => keys::run(app, args),
        ElevateCommand::Sign(args) => sign::sign(app, args),
        ElevateCommand::Submit(args) => sign::submit(app, args),
    }
}

pub(crate) use show::moment;

/// The broker that is asked.
fn open(app: &App, at: &At) -> Result<Elsewhere> {
    Elsewhere::open(app, at.at.as_deref())
}
