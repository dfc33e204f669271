//! `tmpcred exec`

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::{Exec, Output};
use crate::cli::hide::{Hiding, hide};
use crate::cli::prepare::prepare;
use crate::cli::renewal::Own;
use crate::cli::traced::Ended;
use crate::cli::{App, misuse};
use crate::deliver::renewal::Renewal;
use crate::deliver::supervisor::{AtEnd, Beside};
use crate::deliver::{self, Handout, Outcome, mask};
use crate::error::Result;

/// How long an attempt to renew that is under way is waited for at the end: a refresh
/// token that is being replaced would be lost with it, and so would a credential that
/// is to be revoked.
const LAST_ATTEMPT: Duration = Duration::from_secs(3);

pub(super) fn run(app: &App, args: &Exec) -> Result<Outcome> {
    can_mask(args.output)?;
    let mut prepared = prepare(app, &args.wanted)?.ending(args.at_exit);
    prepared.host = app.traced.for_command(&prepared.host);
    // What cannot be kept is said before anything is minted.
    prepared.can_be_handed_on()?;
    prepared.renewed_because(args.renew, None)?;
    prepared.supervised_because(args.at_exit, args.output, None)?;
    let own = prepared.revoked_because(args.at_exit)?.map(|_| Arc::<Own>::default());
    let credential = match &own {
        Some(own) => {
            let minted = prepared.own_credential(&args.fresh)?;
            own.keep(&minted);
            minted.credential
        }
        None => prepared.credential(&args.fresh)?,
    };
    let renewal: OnceCell<Renewal> = OnceCell::new();
    let what = || {
        if let Some(renewal) = renewal.get() {
            renewal.end(LAST_ATTEMPT);
        }
        for minted in own.iter().flat_map(|own| own.take()) {
            prepared.revoke(&minted);
        }
    };
    // Hiding may take a while.
    let at_end = if own.is_some() { AtEnd::heeding(what)? } else { AtEnd::doing(what) };
    let renewed = prepared.renewed_because(args.renew, Some(&credential))?;
    let supervised =
        prepared.supervised_because(args.at_exit, args.output, renewed.as_deref())?.is_some();
    if !supervised {
        drop(at_end);
        let handout = prepared.handout(&credential);
        hide(app, &handout, Hiding::Command)?;
        app.traced.end(Ended::Replaced);
        return deliver::exec::replace(&handout, &args.command, app.core);
    }
    if renewed.is_some() {
        let on_renewal = args.renew.on_renew.unwrap_or_default();
        let made = prepared.renewal(&credential, on_renewal, own.clone())?;
        // It is the first.
        let _ = renewal.set(made);
    }
    let renewal = renewal.get();
    let outlet = renewal.and_then(Renewal::outlet);
    let handout = Handout { outlet, ..prepared.handout(&credential) };
    hide(app, &handout, Hiding::Command)?;
    let masked = match prepared.masked_because(args.output) {
        Some(_) => Some(Arc::new(mask::Patterns::of(&prepared.secrets(&handout)?))),
        None => None,
    };
    if let Some(renewal) = renewal {
        renewal.begin(masked.clone())?;
    }
    let beside = renewal.map(|renewal| renewal as &dyn Beside);
    deliver::supervisor::run(&handout, &args.command, app.core, masked, at_end, beside)
}

/// Refuses to promise what cannot be kept.
fn can_mask(output: Output) -> Result<()> {
    if cfg!(unix) || output.mask != Some(true) {
        return Ok(());
    }
    Err(misuse("--mask cannot be kept")
        .because_of("the output of a command cannot be masked on this system"))
}
