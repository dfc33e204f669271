//! `tmpcred token`

use crate::cli::App;
use crate::cli::args::Token;
use crate::cli::prepare::prepare;
use crate::deliver;
use crate::error::Result;

pub(super) fn run(app: &App, args: &Token) -> Result<()> {
    let credential = prepare(app, &args.wanted)?.credential(&args.fresh)?;
    app.ui.secret(&deliver::token::line(&credential)?)
}
