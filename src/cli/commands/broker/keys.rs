//! `tmpcred broker keys`

use std::path::Path;

use serde_json::{Value, json};

use crate::broker::keys::KeyState;
use crate::broker::keys::manage::{Manager, Report};
use crate::cli::App;
use crate::cli::args::{BrokerFile, BrokerKeys};
use crate::cli::show;
use crate::error::Result;
use crate::host::process;

pub(super) fn run(app: &App, command: &BrokerKeys) -> Result<()> {
    match command {
        BrokerKeys::List { of, json } => list(app, of, *json),
        BrokerKeys::Rotate { of } => rotate(app, of),
        BrokerKeys::Revoke { kids, of, reason } => revoke(app, of, kids, reason.as_deref()),
        BrokerKeys::Export { directory, of } => export(app, of, directory),
    }
}

fn list(app: &App, of: &BrokerFile, as_json: bool) -> Result<()> {
    let keys = with(app, of, async |manager| manager.list().await)?;
    if as_json {
        return app.ui.json(&keys.iter().map(report).collect::<Vec<_>>());
    }
    let rows = keys.iter().map(|key| {
        let state = key.state.as_str().to_string();
        [key.kid.clone(), key.algorithm.clone(), state, show::moment(key.changed_at), next(key)]
    });
    app.ui.table(["KEY", "ALGORITHM", "STATE", "SINCE", ""], rows)
}

fn rotate(app: &App, of: &BrokerFile) -> Result<()> {
    let rotation = with(app, of, async |manager| manager.rotate().await)?;
    let Some(key) = rotation.keys.iter().find(|key| key.state == KeyState::Published) else {
        app.host
            .interact
            .note(&format!("The rotation that was under way is done. {}", signs(&rotation.keys)));
        return Ok(());
    };
    app.host.interact.note(&format!(
        "{} The key {} is published, and {}.",
        if rotation.begun { "The rotation has begun." } else { "A rotation is under way." },
        key.kid,
        next(key)
    ));
    Ok(())
}

fn revoke(app: &App, of: &BrokerFile, kids: &[String], reason: Option<&str>) -> Result<()> {
    let why = reason.unwrap_or("an operator asked for it");
    let keys = with(app, of, async |manager| manager.revoke(kids, why).await)?;
    let revoked = show::count(kids.len(), "key is", "keys are");
    app.host.interact.note(&format!(
        "{revoked} revoked. {}\n\
         Brokers that run notice within seconds. Whoever checks tokens on their own goes by the\n\
         old keys until their copy is out of date, which is five minutes at most.",
        signs(&keys)
    ));
    Ok(())
}

fn export(app: &App, of: &BrokerFile, directory: &Path) -> Result<()> {
    let (written, issuer) = with(app, of, async |manager| {
        Ok((manager.export(directory).await?, manager.issuer().to_string()))
    })?;
    for path in written {
        app.ui.line(path.display().to_string())?;
    }
    app.host.interact.note(&format!(
        "To be shown at {issuer}. Export anew after each change of a key, and before a published one signs."
    ));
    Ok(())
}

/// Opens the database, does this, and closes it.
fn with<T>(app: &App, of: &BrokerFile, work: impl AsyncFnOnce(&Manager) -> Result<T>) -> Result<T> {
    process::runtime()?.block_on(async {
        let manager = Manager::open(&app.host, &of.file).await?;
        let outcome = work(&manager).await;
        manager.close().await;
        outcome
    })
}

/// What will become of a key.
fn next(key: &Report) -> String {
    match (key.signs_from, key.shown_until) {
        (Some(from), _) => format!("signs from {}", show::moment(from)),
        (_, Some(until)) if key.shown => format!("shown until {}", show::moment(until)),
        _ => String::new(),
    }
}

fn signs(keys: &[Report]) -> String {
    let active = keys.iter().find(|key| key.state == KeyState::Active);
    active.map(|key| format!("The key {} signs.", key.kid)).unwrap_or_default()
}

fn report(key: &Report) -> Value {
    json!({
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": key.state.as_str(),
        "shown": key.shown,
        "created_at": show::moment(key.created_at),
        "changed_at": show::moment(key.changed_at),
        "signs_from": key.signs_from.map(show::moment),
        "shown_until": key.shown_until.map(show::moment),
    })
}
