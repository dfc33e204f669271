//! `tmpcred exec`

use crate::cli::App;
use crate::cli::args::Exec;
use crate::cli::prepare::prepare;
use crate::deliver::supervisor::AtEnd;
use crate::deliver::{self, Outcome};
use crate::error::Result;

pub(super) fn run(app: &App, args: &Exec) -> Result<Outcome> {
    let prepared = prepare(app, &args.wanted)?;
    let supervised = prepared.supervised_because(args.at_exit)?.is_some();
    let revoked = prepared.revoked_because(args.at_exit)?.is_some();
    let credential = if revoked {
        prepared.own_credential(&args.fresh)?
    } else {
        prepared.credential(&args.fresh)?
    };
    let at_end =
        if revoked { AtEnd::doing(|| prepared.revoke(&credential)) } else { AtEnd::default() };
    let handout = prepared.handout(&credential);
    if supervised {
        deliver::supervisor::run(&handout, &args.command, app.core, at_end)
    } else {
        deliver::exec::replace(&handout, &args.command, app.core)
    }
}
