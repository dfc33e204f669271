//! `tmpcred exec`

use crate::cli::args::{Exec, Output};
use crate::cli::hide::{Hiding, hide};
use crate::cli::prepare::prepare;
use crate::cli::{App, misuse};
use crate::deliver::supervisor::AtEnd;
use crate::deliver::{self, Outcome, mask};
use crate::error::Result;

pub(super) fn run(app: &App, args: &Exec) -> Result<Outcome> {
    can_mask(app, args.output)?;
    let prepared = prepare(app, &args.wanted)?;
    let supervised = prepared.supervised_because(args.at_exit, args.output)?.is_some();
    let revoked = prepared.revoked_because(args.at_exit)?.is_some();
    let credential = if revoked {
        prepared.own_credential(&args.fresh)?
    } else {
        prepared.credential(&args.fresh)?
    };
    let at_end =
        if revoked { AtEnd::doing(|| prepared.revoke(&credential)) } else { AtEnd::default() };
    let handout = prepared.handout(&credential);
    hide(app, &handout, Hiding::Command)?;
    if supervised {
        let masked = match prepared.masked_because(args.output) {
            Some(_) => Some(mask::Patterns::of(&handout.secrets()?)?),
            None => None,
        };
        deliver::supervisor::run(&handout, &args.command, app.core, masked, at_end)
    } else {
        deliver::exec::replace(&handout, &args.command, app.core)
    }
}

/// Refuses to promise what cannot be kept.
fn can_mask(app: &App, output: Output) -> Result<()> {
    if output.mask != Some(true) {
        return Ok(());
    }
    let cannot = |why: &str| misuse("--mask cannot be kept").because_of(why);
    if cfg!(not(unix)) {
        return Err(cannot("the output of a command cannot be masked on this system"));
    }
    let terminal = match (app.ui.stdout_is_terminal(), app.ui.stderr_is_terminal()) {
        (false, false) => return Ok(()),
        (true, true) => "standard output and error are a terminal",
        (true, false) => "standard output is a terminal",
        (false, true) => "standard error is a terminal",
    };
    Err(cannot(&format!("{terminal}, and only pipes and files can be masked"))
        .hint("send both through a pipe: `tmpcred exec --mask -- COMMAND 2>&1 | cat`"))
}
