//! `tmpcred broker keys`

use std::path::Path;

use serde_json::{Value, json};

use crate::broker::keys::manage::{Manager, Report, Which};
use crate::broker::keys::{KeyState, Purpose, SigningAlgorithm};
use crate::cli::App;
use crate::cli::args::{BrokerFile, BrokerKeys};
use crate::cli::{misuse, show};
use crate::error::Result;
use crate::host::process;

pub(super) fn run(app: &App, command: &BrokerKeys) -> Result<()> {
    match command {
        BrokerKeys::List { of, json } => list(app, of, *json),
        BrokerKeys::Rotate { algorithms, log, all, of } => {
            let algorithm = |name: &String| {
                SigningAlgorithm::from_name(name)
                    .ok_or_else(|| misuse(format!("there is no algorithm '{name}'")))
            };
            let algorithms = algorithms.iter().map(algorithm).collect::<Result<_>>()?;
            rotate(app, of, &Which { algorithms, log: *log, all: *all })
        }
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
        let (kid, algorithm) = (key.kid.clone(), key.algorithm.clone());
        [kid, signs_what(key), algorithm, state, show::moment(key.changed_at), next(key)]
    });
    app.ui.table(["KEY", "SIGNS", "ALGORITHM", "STATE", "SINCE", ""], rows)
}

fn rotate(app: &App, of: &BrokerFile, which: &Which) -> Result<()> {
    let rotation = with(app, of, async |manager| manager.rotate(which).await)?;
    if rotation.begun.is_empty() && rotation.under_way.is_empty() {
        app.host
            .interact
            .note(&format!("The rotation that was under way is done. {}", signs(&rotation.keys)));
        return Ok(());
    }
    let begun = [
        ("The rotation has begun.", &rotation.begun),
        ("A rotation is under way.", &rotation.under_way),
    ];
    for (what, kids) in begun {
        for key in rotation.keys.iter().filter(|key| kids.contains(&key.kid)) {
            app.host.interact.note(&format!(
                "{what} The key {} is published, and {}.",
                key.kid,
                next(key)
            ));
        }
    }
    if let Some(key) =
        rotation.keys.iter().find(|key| rotation.begun.contains(&key.kid) && key.of_log.is_some())
    {
        let public = key.of_log.as_deref().unwrap_or_default();
        app.host.interact.note(&format!(
            "Until then it signs the log besides the one before. Give it to those who check the log:\n{public}"
        ));
    }
    Ok(())
}

/// What a key signs.
fn signs_what(key: &Report) -> String {
    match key.purpose {
        Purpose::AccessToken => "tokens".into(),
        Purpose::Checkpoint => "the log".into(),
        #[cfg(test)]
        Purpose::Another => String::new(),
    }
}

fn revoke(app: &App, of: &BrokerFile, kids: &[String], reason: Option<&str>) -> Result<()> {
    let why = reason.unwrap_or("an operator asked for it");
    let keys = with(app, of, async |manager| manager.revoke(kids, why).await)?;
    let revoked = show::count(kids.len(), "key is", "keys are");
    app.host.interact.note(&format!(
        "{revoked} revoked. {}\nBrokers that run notice within seconds.",
        signs(&keys)
    ));
    let is = |purpose| keys.iter().any(|key| key.purpose == purpose && kids.contains(&key.kid));
    if is(Purpose::AccessToken) {
        app.host.interact.note(
            "Whoever checks tokens on their own goes by the old keys until their copy is out of date,\n\
             which is five minutes at most.",
        );
    }
    if is(Purpose::Checkpoint) {
        app.host.interact.note(
            "No checkpoint counts any more that a revoked key alone has signed. Whoever checks the log has\n\
             to have the new key from you: `tmpcred broker audit checkpoint --key` prints it.",
        );
    }
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
    let active = keys.iter().filter(|key| key.state == KeyState::Active);
    let said: Vec<_> =
        active.map(|key| format!("The key {} signs {}.", key.kid, signs_what(key))).collect();
    said.join(" ")
}

fn report(key: &Report) -> Value {
    json!({
        "kid": key.kid,
        "purpose": key.purpose.as_str(),
        "log_key": key.of_log,
        "algorithm": key.algorithm,
        "state": key.state.as_str(),
        "shown": key.shown,
        "created_at": show::moment(key.created_at),
        "changed_at": show::moment(key.changed_at),
        "signs_from": key.signs_from.map(show::moment),
        "shown_until": key.shown_until.map(show::moment),
    })
}
