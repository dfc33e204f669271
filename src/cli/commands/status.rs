//! `tmpcred status`

use serde_json::json;
use time::OffsetDateTime;

use crate::cache::{Cache, Contents, CredentialLabel, SessionLabel, StoreChoice};
use crate::cli::App;
use crate::cli::args::Status;
use crate::cli::prepare::cache;
use crate::cli::show;
use crate::config;
use crate::error::Result;
use crate::identity::{self, Stray};
use crate::reach::{self, Resting};

/// How many characters a full lifetime takes.
const BAR: usize = 16;

pub(super) fn run(app: &App, args: &Status) -> Result<()> {
    let (cache, store, strays) = match config::load(&app.host) {
        Ok(config) => {
            let cache = cache(&app.host, &config)?;
            let store = cache.store_name();
            let strays = identity::strays(&cache, &config.identities);
            (cache, Some(store), Some(strays))
        }
        // What is cached is there all the same; only where new entries go is not known.
        Err(error) => {
            app.host.interact.warn(&format!(
                "the configuration cannot be used, as `tmpcred config check` shows: {}",
                error.message()
            ));
            (Cache::new(app.host.clone(), StoreChoice::default()), None, None)
        }
    };
    let contents = cache.contents()?;
    let now = app.host.clock.now();
    let resting = reach::resting(&app.host);
    if args.json {
        let mut report = report(&contents, now, store, strays.as_deref());
        report["left_alone"] = resting.iter().map(left_alone).collect();
        return app.ui.json(&report);
    }
    let store = store.map(|store| format!("\nThey are kept in: {store}"));
    let tell_rest = || {
        store.iter().try_for_each(|store| app.ui.line(store))?;
        if resting.is_empty() {
            return Ok(());
        }
        let row = |one: &Resting| {
            let left = show::duration(one.until - now);
            [one.address.clone(), left, one.error.to_string()]
        };
        app.ui.line("")?;
        app.ui.table(["LEFT ALONE", "FOR", "BECAUSE"], resting.iter().map(row))
    };
    if contents.sessions.is_empty() {
        app.ui.line("No sessions. Log in with: tmpcred login")?;
    } else {
        let rows = contents.sessions.iter().map(|session| {
            [
                session.identity.clone(),
                session.principal.subject.clone(),
                session.principal.issuer.clone(),
                match (session.ended, stray(session, strays.as_deref())) {
                    (true, _) => "ended: login required".into(),
                    (false, Some(stray)) => format!(
                        "{}; no identity of this configuration leads to it, `tmpcred logout {}` ends it",
                        show::ago(now - session.since),
                        if stray.is_access_keys() { session.identity.as_str() } else { "--all" },
                    ),
                    (false, None) => show::ago(now - session.since),
                },
            ]
        });
        app.ui.table(["SESSION", "WHO", "ISSUER", "SINCE"], rows)?;
    }
    if contents.credentials.is_empty() {
        app.ui.line("\nNo cached credentials.")?;
        return tell_rest();
    }
    let rows = contents.credentials.iter().map(|credential| {
        [
            credential.profile.clone(),
            credential.role.clone(),
            bar(credential, now),
            show::duration(credential.lifetime.remaining(now)),
        ]
    });
    app.ui.line("")?;
    app.ui.table(["PROFILE", "ROLE", "LEFT", ""], rows)?;
    tell_rest()
}

/// An address that nobody asks at present, as it is reported.
pub(super) fn left_alone(one: &Resting) -> serde_json::Value {
    json!({
        "address": one.address,
        "until": show::moment(one.until),
        "failures": one.failures,
        "because": one.error.to_string(),
    })
}

/// Whether an identity leads to a session; `None` where the configuration is broken.
fn is_configured(session: &SessionLabel, strays: Option<&[Stray]>) -> Option<bool> {
    strays.map(|_| stray(session, strays).is_none())
}

/// The session as one that no identity leads to.
fn stray<'a>(session: &SessionLabel, strays: Option<&'a [Stray]>) -> Option<&'a Stray> {
    strays?.iter().find(|stray| stray.label == *session)
}

/// What is left of a lifetime, as a bar.
fn bar(credential: &CredentialLabel, now: OffsetDateTime) -> String {
    let ttl = credential.lifetime.ttl().as_seconds_f64().max(1.0);
    let left = credential.lifetime.remaining(now).as_seconds_f64() / ttl;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of BAR, rounded up, so that what is not over shows"
    )]
    let full = ((left * BAR as f64).ceil() as usize).min(BAR);
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn report(
    contents: &Contents,
    now: OffsetDateTime,
    store: Option<&str>,
    strays: Option<&[Stray]>,
) -> serde_json::Value {
    let sessions: Vec<_> = contents
        .sessions
        .iter()
        .map(|session| {
            json!({
                "identity": session.identity,
                "issuer": session.principal.issuer,
                "subject": session.principal.subject,
                "since": show::moment(session.since),
                "login_required": session.ended,
                "configured": is_configured(session, strays),
            })
        })
        .collect();
    let credentials: Vec<_> = contents
        .credentials
        .iter()
        .map(|credential| {
            json!({
                "profile": credential.profile,
                "role": credential.role,
                "issuer": credential.principal.issuer,
                "subject": credential.principal.subject,
                "expires_at": show::moment(credential.lifetime.expires_at),
                "remaining_seconds": credential.lifetime.remaining(now).whole_seconds(),
            })
        })
        .collect();
    json!({ "sessions": sessions, "credentials": credentials, "store": store })
}
