//! `tmpcred logout`

use serde_json::{Value, json};

use crate::cache::Cache;
use crate::cli::App;
use crate::cli::args::Logout as Args;
use crate::cli::misuse;
use crate::cli::prepare::{cache, identity as named};
use crate::config;
use crate::error::Result;
use crate::host::process;
use crate::identity::{self, Context, Logout};
use crate::plan;

pub(super) fn run(app: &App, args: &Args) -> Result<()> {
    let config = config::load(&app.host)?;
    let identities = if args.all {
        config
            .identities
            .keys()
            .map(|name| plan::identity(&config, Some(name)))
            .collect::<Result<Vec<_>>>()?
    } else {
        vec![named(&app.host, &config, args.identity.as_deref())?]
    };
    let cache = cache(&app.host, &config)?;
    let mut reports = Vec::new();
    for identity in &identities {
        if let Some(report) = end(app, &cache, identity, args.all)? {
            reports.push(report);
        }
    }
    if args.all {
        for stray in identity::strays(&cache, &config.identities) {
            let cx = Context::new(&app.host, &cache);
            let ended = process::runtime()?.block_on(stray.end(cx, &config.identities))?;
            reports.push(report(app, &stray.label.identity, ended, false));
        }
    }
    if args.json { app.ui.json(&reports) } else { Ok(()) }
}

fn end(app: &App, cache: &Cache, identity: &plan::Identity, all: bool) -> Result<Option<Value>> {
    let source = identity.settings.open(&identity.name);
    let Some(session) = source.session() else {
        // With --all, identities without sessions are passed over.
        return if all {
            Ok(None)
        } else {
            Err(misuse(format!("the identity '{}' has no sessions", identity.name)))
        };
    };
    let cx = Context::new(&app.host, cache);
    let outcome = process::runtime()?.block_on(session.logout(cx))?;
    Ok(Some(report(app, &identity.name, outcome, true)))
}

/// Tells what became of a session. `configured`: whether an identity leads to it.
fn report(app: &App, name: &str, outcome: Logout, configured: bool) -> Value {
    let (state, principal, why) = match outcome {
        Logout::NoSession => {
            app.host.interact.note(&format!("{name}: nobody is logged in"));
            ("none", None, None)
        }
        Logout::Revoked(principal) => {
            app.host.interact.note(&format!(
                "{name}: the session of {principal} has been revoked and forgotten"
            ));
            ("revoked", Some(principal), None)
        }
        Logout::Ended(principal) => {
            app.host.interact.note(&format!(
                "{name}: the session of {principal} had ended; what was left of it has been forgotten"
            ));
            ("ended", Some(principal), None)
        }
        Logout::ForgottenOnly(principal, why) => {
            app.host.interact.warn(&format!(
                "{name}: the session of {principal} has been forgotten here, but the provider does not know: {why}"
            ));
            ("forgotten", Some(principal), Some(why))
        }
    };
    json!({
        "identity": name,
        "configured": configured,
        "session": state,
        "issuer": principal.as_ref().map(|p| &p.issuer),
        "subject": principal.as_ref().map(|p| &p.subject),
        "because": why,
    })
}
