//! `tmpcred logout`

use serde_json::{Value, json};

use crate::cache::{Cache, SessionLabel};
use crate::cli::App;
use crate::cli::args::Logout as Args;
use crate::cli::misuse;
use crate::cli::prepare::{cache, identity as named};
use crate::config;
use crate::error::Result;
use crate::host::process;
use crate::identity::{self, Context, Logout, Stray};
use crate::plan;

pub(super) fn run(app: &App, args: &Args) -> Result<()> {
    let config = config::load(&app.host)?;
    let cache = cache(&app.host, &config)?;
    let strays = identity::strays(&cache, &config.identities);
    let named_one = args.identity.as_deref();
    // What the configuration has no more is had by the name that it had then. Of what has a
    // name that it has, that is access keys alone: a session may be another configuration's.
    let is_configured = named_one.is_none_or(|name| config.identities.contains_key(name));
    let meant = |stray: &&Stray| {
        named_one == Some(stray.label.identity.as_str())
            && (!is_configured || stray.is_access_keys())
    };
    let named_strays: Vec<&Stray> = strays.iter().filter(meant).collect();
    let identities = if args.all {
        config
            .identities
            .keys()
            .map(|name| plan::identity(&config, Some(name)))
            .collect::<Result<Vec<_>>>()?
    } else if !is_configured && !named_strays.is_empty() {
        Vec::new()
    } else {
        vec![named(&app.host, &config, args.identity.as_deref())?]
    };
    let mut reports = Vec::new();
    for identity in &identities {
        // One without sessions is no mistake where it is access keys by its name that are meant.
        let may_have_none = args.all || !named_strays.is_empty();
        if let Some(report) = end(app, &cache, identity, may_have_none)? {
            reports.push(report);
        }
    }
    let all_strays: Vec<&Stray> = strays.iter().filter(|_| args.all).collect();
    for stray in all_strays.into_iter().chain(named_strays) {
        if args.all && stray.is_access_keys() {
            reports.push(kept(app, stray));
            continue;
        }
        let cx = Context::new(&app.host, &cache);
        let ended = process::runtime()?.block_on(stray.end(cx, &config.identities))?;
        reports.push(report(app, &stray.label.identity, ended, false));
    }
    if args.json { app.ui.json(&reports) } else { Ok(()) }
}

/// Ends the session of an identity; one without sessions is passed over where it `may_have_none`.
fn end(
    app: &App,
    cache: &Cache,
    identity: &plan::Identity,
    may_have_none: bool,
) -> Result<Option<Value>> {
    let source = identity.settings.open(&identity.name);
    let Some(session) = source.session() else {
        return if may_have_none {
            Ok(None)
        } else {
            Err(misuse(format!("the identity '{}' has no sessions", identity.name)))
        };
    };
    let cx = Context::new(&app.host, cache);
    let outcome = process::runtime()?.block_on(session.logout(cx))?;
    Ok(Some(report(app, &identity.name, outcome, true)))
}

/// Tells that access keys are left where they are: they may be another configuration's, and
/// nobody is shown their secret a second time.
fn kept(app: &App, stray: &Stray) -> Value {
    let SessionLabel { identity: name, principal, .. } = &stray.label;
    let why = "no identity of this configuration leads to them, and they may be kept nowhere else";
    app.host.interact.warn(&format!(
        "{name}: its access keys are left: {why}; `tmpcred logout {name}` forgets them"
    ));
    json!({
        "identity": name,
        "configured": false,
        "session": "kept",
        "issuer": principal.issuer,
        "subject": principal.subject,
        "because": why,
    })
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
