//! `tmpcred exec`

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::{Exec, OnExpiryArg, Output};
use crate::cli::elevated::{self, Elevated};
use crate::cli::hide::{Hiding, hide};
use crate::cli::prepare;
use crate::cli::renewal::Own;
use crate::cli::traced::Ended;
use crate::cli::{App, misuse, show};
use crate::deliver::deadline::{Deadline, OnExpiry, Recall};
use crate::deliver::renewal::Renewal;
use crate::deliver::supervisor::{Beginning, Beside, Masking, Meanwhile};
use crate::deliver::{self, Handout, Outcome, mask};
use crate::error::Result;

/// How long an attempt to mint or to renew that is under way is waited for at the end: a
/// refresh token that is being replaced would be lost with it, and so would a credential
/// that is to be revoked.
const LAST_ATTEMPT: Duration = Duration::from_secs(3);

pub(super) fn run(app: &App, args: &Exec) -> Result<Outcome> {
    can_mask(args.output)?;
    let prepared = match args.elevated.elevate.as_deref() {
        Some(role) => prepare::elevated(app, &args.wanted, role)?,
        None => prepare::prepare(app, &args.wanted)?,
    };
    let mut prepared = prepared.ending(args.at_exit);
    prepared.host = app.traced.for_command(&prepared.host);
    // What cannot be kept is said before anything is minted.
    prepared.can_be_handed_on()?;
    let by_signature = args.elevated.down.provider_down;
    // What is signed for is not renewed by itself.
    let expected = by_signature.then(|| prepared.plan.expected_runtime.take()).flatten();
    let renewed = prepared.renewed_because(args.renew, None)?;
    prepared.supervised_because(args.at_exit, args.output, None)?;
    if let Some(why) = renewed.filter(|_| by_signature) {
        return Err(misuse("with --provider-down no credential is renewed")
            .because_of("each would have to be signed for")
            .because_of(why)
            .hint("ask for one that lasts: --ttl"));
    }
    let beginning = Beginning::default();
    let elevated = Elevated::begin(app, &prepared, &args.elevated, &beginning)?;
    if let Some(elevated) = &elevated {
        prepared.plan = prepared.plan.under(elevated.id());
    }
    // What is issued under a grant is of no use after it, so it is never kept.
    let own = (elevated.is_some() || prepared.revoked_because(args.at_exit)?.is_some())
        .then(Arc::<Own>::default);
    let renewal: OnceCell<Renewal> = OnceCell::new();
    let recall = Recall::default();
    // However it goes on from here, a grant of this run's own ends with it.
    let mut at_end = beginning.ending(|| {
        recall.close(LAST_ATTEMPT);
        if let Some(renewal) = renewal.get() {
            renewal.end(LAST_ATTEMPT);
        }
        let minted = own.iter().flat_map(|own| own.end(LAST_ATTEMPT)).collect::<Vec<_>>();
        match &elevated {
            // It has ended with all that was issued under it, as far as that can be.
            Some(elevated) if recall.has_come() => elevated.ended(app, &prepared, &minted),
            Some(elevated) => elevated.end(app, &prepared, &minted),
            None => prepared.revoke(&minted),
        }
    });
    let credential = match &own {
        Some(own) => {
            // What is minted is revoked, whatever comes from here on.
            at_end.heed()?;
            let minted = match &elevated {
                Some(elevated) => {
                    at_end.meanwhile(elevated.minting(app, &prepared, &args.fresh, own)?)?
                }
                None => at_end.meanwhile(prepared.minting(&args.fresh, None, own)?)?,
            };
            match minted {
                Meanwhile::Done(minted) => minted?,
                Meanwhile::ToldToEnd(outcome) => return Ok(outcome),
            }
        }
        None => prepared.credential(&args.fresh)?,
    };
    let renewed = prepared.renewed_because(args.renew, Some(&credential))?;
    let left = credential.lifetime.remaining(app.host.clock.now()).unsigned_abs();
    if let Some(expected) = expected.filter(|expected| left < *expected) {
        app.host.interact.warn(&format!(
            "the command is expected to run for {}, and its credential, which would have to be signed for again, is not renewed: it is good until {}",
            humantime::format_duration(expected),
            show::moment(credential.lifetime.expires_at_local())
        ));
    }
    let supervised = elevated.is_some()
        || prepared.supervised_because(args.at_exit, args.output, renewed.as_deref())?.is_some();
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
    let masked = masked.map(Masking::of);
    let beside = renewal.map(|renewal| renewal as &dyn Beside);
    let Some(elevated) = &elevated else {
        return deliver::supervisor::run(&handout, &args.command, app.core, masked, at_end, beside);
    };
    let on_expiry = match args.elevated.on_expiry {
        Some(OnExpiryArg::Warn) => OnExpiry::Warn,
        Some(OnExpiryArg::Term) | None => OnExpiry::Term,
    };
    let (clock, interact) = (app.host.clock.clone(), app.host.interact.clone());
    let deadline = Deadline::new(elevated.until(), on_expiry, clock, beside);
    let deadline = deadline.recalled_by(&recall);
    elevated.look_after(&recall)?;
    std::thread::scope(|scope| {
        scope.spawn(|| deadline.watch(|told| elevated::tell(&*interact, told)));
        let beside = Some(&deadline as &dyn Beside);
        let outcome =
            deliver::supervisor::run(&handout, &args.command, app.core, masked, at_end, beside);
        deadline.close();
        outcome
    })
}

/// Refuses to promise what cannot be kept.
fn can_mask(output: Output) -> Result<()> {
    if cfg!(unix) || output.mask != Some(true) {
        return Ok(());
    }
    Err(misuse("--mask cannot be kept")
        .because_of("the output of a command cannot be masked on this system"))
}
