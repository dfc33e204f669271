//! `tmpcred exec`

use crate::cli::args::{Exec, Output};
use crate::cli::prepare::prepare;
use crate::cli::{App, misuse};
use crate::deliver::supervisor::AtEnd;
use crate::deliver::{self, Outcome, mask};
use crate::error::Result;

pub(super) fn run(app: &App, args: &Exec) -> Result<Outcome> {
    can_mask(args.output)?;
    let mut prepared = prepare(app, &args.wanted)?;
    let supervised = prepared.supervised_because(args.at_exit, args.output)?.is_some();
    let revoked = prepared.revoked_because(args.at_exit)?.is_some();
    // AWS SDKs may be asking us; the command may ask again.
    let environment = prepared.ask_once()?;
    let credential = if revoked {
        prepared.own_credential(&args.fresh)?
    } else {
        prepared.credential(&args.fresh)?
    };
    prepared.host.env = environment;
    let at_end =
        if revoked { AtEnd::doing(|| prepared.revoke(&credential)) } else { AtEnd::default() };
    let handout = prepared.handout(&credential);
    if supervised {
        let masked = match prepared.masked_because(args.output) {
            Some(_) => Some(mask::Patterns::of(&prepared.secrets(&handout)?)?),
            None => None,
        };
        deliver::supervisor::run(&handout, &args.command, app.core, masked, at_end)
    } else {
        deliver::exec::replace(&handout, &args.command, app.core)
    }
}

/// Refuses to promise what cannot be kept.
fn can_mask(output: Output) -> Result<()> {
    if cfg!(unix) || output.mask != Some(true) {
        return Ok(());
    }
    Err(misuse("--mask cannot be kept")
        .because_of("the output of a command cannot be masked on this system"))
}
