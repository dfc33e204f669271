//! `tmpcred token`

use crate::cli::App;
use crate::cli::args::Token;
use crate::cli::prepare::{freshness, prepare};
use crate::deliver;
use crate::error::Result;
use crate::pipeline;

pub(super) fn run(app: &App, args: &Token) -> Result<()> {
    let prepared = prepare(app, &args.wanted)?;
    let (credential, _) = pipeline::credential(
        &prepared.host,
        &prepared.cache,
        &prepared.plan,
        freshness(&args.fresh),
    )?;
    app.ui.secret(&deliver::token::line(&credential)?)
}
