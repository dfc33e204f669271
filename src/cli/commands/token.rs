//! `tmpcred token`

use crate::cli::App;
use crate::cli::args::Token;
use crate::cli::hide::{Hiding, hide};
use crate::cli::prepare::prepare;
use crate::deliver;
use crate::error::Result;

pub(super) fn run(app: &App, args: &Token) -> Result<()> {
    let prepared = prepare(app, &args.wanted)?;
    // Nobody logs in for what cannot be printed.
    if prepared.plan.target.yields_aws() {
        return Err(deliver::token::no_token());
    }
    let credential = prepared.credential(&args.fresh)?;
    let line = deliver::token::line(&credential)?;
    hide(app, &prepared.handout(&credential), Hiding::Printed)?;
    app.ui.secret(&line)
}
