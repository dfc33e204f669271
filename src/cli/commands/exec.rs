//! `tmpcred exec`

use crate::cli::App;
use crate::cli::args::Exec;
use crate::cli::prepare::prepare;
use crate::deliver::{self, Outcome};
use crate::error::Result;

pub(super) fn run(app: &App, args: &Exec) -> Result<Outcome> {
    let prepared = prepare(app, &args.wanted)?;
    let credential = prepared.credential(&args.fresh)?;
    let handout = prepared.handout(&credential);
    match prepared.supervised_because() {
        Some(_) => deliver::supervisor::run(&handout, &args.command, app.core),
        None => deliver::exec::replace(&handout, &args.command, app.core),
    }
}
