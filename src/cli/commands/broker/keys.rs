//! `tmpcred broker keys`

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::check_reason;
use crate::api::operate::{Key, KeyRevocation, Keys, Rotate, Rotation};
use crate::broker::keys::manage::{Manager, Report, Which};
use crate::broker::keys::{JWKS_MAX_AGE, KeyState, Purpose, SigningAlgorithm};
use crate::cli::App;
use crate::cli::args::{BrokerFile, BrokerKeys, BrokerPlace};
use crate::cli::elsewhere::Elsewhere;
use crate::cli::show::printable;
use crate::cli::{misuse, show};
use crate::error::{ErrorKind, Result};
use crate::host::process;
use crate::wire::{KEYS_PATH, KEYS_REVOKE_PATH, KEYS_ROTATE_PATH};

pub(super) fn run(app: &App, command: &BrokerKeys) -> Result<()> {
    match command {
        BrokerKeys::List { at, json } => list(app, at, *json),
        BrokerKeys::Rotate { algorithms, log, all, at, json } => {
            let algorithm = |name: &String| {
                SigningAlgorithm::from_name(name)
                    .ok_or_else(|| misuse(format!("there is no algorithm '{name}'")))
            };
            let algorithms = algorithms.iter().map(algorithm).collect::<Result<_>>()?;
            rotate(app, at, &Which { algorithms, log: *log, all: *all }, *json)
        }
        BrokerKeys::Revoke { kids, at, reason, json } => {
            let (keys, before) = revoked(app, at, kids, reason.as_deref())?;
            match json {
                true => app.ui.json(&json!({
                    "revoked": kids,
                    "revoked_before": before,
                    "keys": reports(&keys),
                })),
                false => {
                    tell_revoked(app, kids, (&keys, &before));
                    Ok(())
                }
            }
        }
        BrokerKeys::Export { directory, of } => export(app, of, directory),
    }
}

fn list(app: &App, at: &BrokerPlace, as_json: bool) -> Result<()> {
    let keys = match &at.at {
        Some(profile) => {
            let keys = Elsewhere::open(app, Some(profile))?;
            keys.ask(async |client| client.get::<Keys>(KEYS_PATH, &()).await)?.keys
        }
        None => seen(&with(app, at.file()?, async |manager| manager.list().await)?),
    };
    if as_json {
        return app.ui.json(&reports(&keys));
    }
    let rows = keys.iter().map(|key| {
        let (kid, algorithm, state) = (key.kid.clone(), key.algorithm.clone(), key.state.clone());
        [kid, signs_what(key), algorithm, state, show::moment(key.changed_at), next(key)]
    });
    app.ui.table(["KEY", "SIGNS", "ALGORITHM", "STATE", "SINCE", ""], rows)
}

fn rotate(app: &App, at: &BrokerPlace, which: &Which, as_json: bool) -> Result<()> {
    let (rotation, made) = match &at.at {
        // A broker that runs has a key of each of its algorithms.
        Some(profile) => {
            (rotate_elsewhere(&Elsewhere::open(app, Some(profile))?, which)?, Vec::new())
        }
        None => {
            let rotation = with(app, at.file()?, async |manager| manager.rotate(which).await)?;
            let (begun, under_way) = (rotation.begun, rotation.under_way);
            (Rotation { begun, under_way, keys: seen(&rotation.keys) }, rotation.made)
        }
    };
    if as_json {
        return app.ui.json(&json!({
            "begun": rotation.begun,
            "made": made,
            "under_way": rotation.under_way,
            "keys": reports(&rotation.keys),
        }));
    }
    for line in told(&rotation, &made) {
        app.host.interact.note(&line);
    }
    Ok(())
}

/// What became of a rotation, for people.
fn told(rotation: &Rotation, made: &[String]) -> Vec<String> {
    let mut told = Vec::new();
    let of = |kids: &[String]| -> Vec<&Key> {
        rotation.keys.iter().filter(|key| kids.contains(&key.kid)).collect()
    };
    for key in of(made) {
        told.push(format!(
            "The key {} is made and published; no other one signs {} by {}. Brokers that run show it\n\
             within seconds. Restart them with this configuration in ten minutes: by then whoever keeps\n\
             jwks.json has it.",
            printable(&key.kid),
            signs_what(key),
            printable(&key.algorithm),
        ));
    }
    let begun = [
        ("The rotation has begun.", &rotation.begun),
        ("A rotation is under way.", &rotation.under_way),
    ];
    for (what, kids) in begun {
        for key in of(kids) {
            let kid = printable(&key.kid);
            told.push(format!("{what} The key {kid} is published, and {}.", next(key)));
            if let Some(public) =
                key.log_key.as_deref().filter(|_| rotation.begun.contains(&key.kid))
            {
                told.push(format!(
                    "Until then the key {kid} signs the log besides the one before. Give it to those who check\n\
                     the log:\n{}",
                    printable(public)
                ));
            }
        }
    }
    if told.is_empty() {
        told.push(format!("The rotation that was under way is done. {}", signs(&rotation.keys)));
    }
    told
}

/// One request has one algorithm.
fn rotate_elsewhere(broker: &Elsewhere, which: &Which) -> Result<Rotation> {
    let yes = |flag: bool| flag.then_some(true);
    let named = which.algorithms.iter().map(|algorithm| Some(algorithm.name()));
    let mut asked: Vec<_> =
        named.map(|algorithm| Rotate { algorithm, ..Rotate::default() }).collect();
    if asked.is_empty() {
        asked.push(Rotate::default());
    }
    asked[0] = Rotate { log: yes(which.log), all: yes(which.all), ..asked[0] };
    let mut all: Option<Rotation> = None;
    for one in &asked {
        let done =
            broker.ask(async |client| client.post::<Rotation>(KEYS_ROTATE_PATH, one).await)?;
        let before = all.take().map(|before| (before.begun, before.under_way));
        let (mut begun, mut under_way) = before.unwrap_or_default();
        begun.extend(done.begun);
        under_way.extend(done.under_way);
        all = Some(Rotation { begun, under_way, keys: done.keys });
    }
    all.ok_or_else(|| misuse("nothing is to be rotated"))
}

/// Revokes; all keys, as they are then, and which of these were revoked before.
fn revoked(
    app: &App,
    at: &BrokerPlace,
    kids: &[String],
    reason: Option<&str>,
) -> Result<(Vec<Key>, BTreeSet<String>)> {
    reason.map_or(Ok(()), check_reason)?;
    match &at.at {
        Some(profile) => revoke_elsewhere(&Elsewhere::open(app, Some(profile))?, kids, reason),
        None => {
            let why = reason.unwrap_or("an operator asked for it");
            let (keys, before) =
                with(app, at.file()?, async |manager| manager.revoke(kids, why).await)?;
            Ok((seen(&keys), before))
        }
    }
}

fn tell_revoked(app: &App, kids: &[String], (keys, before): (&[Key], &BTreeSet<String>)) {
    for kid in before {
        let kid = printable(kid);
        app.host.interact.note(&format!("The key {kid} was revoked before: nothing was changed."));
    }
    let is_new = |key: &&Key| kids.contains(&key.kid) && !before.contains(&key.kid);
    let revoked: Vec<_> = keys.iter().filter(is_new).collect();
    if revoked.is_empty() {
        return;
    }
    let is_in_place = |key: &&Key| {
        let same = |other: &&Key| key.purpose == other.purpose && key.algorithm == other.algorithm;
        revoked.iter().any(same)
    };
    let in_place: Vec<_> = keys.iter().filter(is_in_place).cloned().collect();
    let many = show::count(revoked.len(), "key is", "keys are");
    app.host.interact.note(&format!(
        "{many} revoked. {}\nBrokers that run notice within seconds.",
        signs(&in_place)
    ));
    let is = |purpose: Purpose| revoked.iter().any(|key| key.purpose == purpose.as_str());
    if is(Purpose::AccessToken) {
        app.host.interact.note(
            "Whoever checks tokens on their own goes by the old keys until their copy is out of date,\n\
             which is five minutes at most.",
        );
        // In one commit with the revocation.
        let took_over = |key: &&Key| {
            key.state == KeyState::Active.as_str()
                && key.purpose == Purpose::AccessToken.as_str()
                && revoked.iter().any(|revoked| revoked.changed_at == key.changed_at)
        };
        for key in in_place.iter().filter(took_over) {
            let is_new = key.changed_at < key.created_at.saturating_add(JWKS_MAX_AGE);
            let what = match is_new {
                true => "is new. Until then some of them may refuse what it signs.",
                false => {
                    "was in the database beside the one before. Revoke it too, where it may have leaked with that."
                }
            };
            app.host.interact.note(&format!("The key {} {what}", printable(&key.kid)));
        }
    }
    if is(Purpose::Checkpoint) {
        app.host.interact.note(
            "No checkpoint counts any more that a revoked key alone has signed. Whoever checks the log has\n\
             to have the new key from you: `tmpcred broker audit checkpoint --key` prints it.",
        );
    }
}

/// One request has one key. The one that signs comes last: what signs instead is the one that most
/// people know, and that may be another one of these.
fn revoke_elsewhere(
    broker: &Elsewhere,
    kids: &[String],
    reason: Option<&str>,
) -> Result<(Vec<Key>, BTreeSet<String>)> {
    let (mut keys, mut before) = (Vec::new(), BTreeSet::new());
    let mut kids: Vec<_> = kids.iter().collect();
    if kids.len() > 1 {
        let there = match broker.ask(async |client| client.get::<Keys>(KEYS_PATH, &()).await) {
            Ok(there) => there.keys,
            // Whoever may revoke need not be one who may list them: then it is in this order.
            Err(error) if error.kind() == ErrorKind::Denied => Vec::new(),
            Err(error) => return Err(error),
        };
        let active = KeyState::Active.as_str();
        kids.sort_by_key(|kid| there.iter().any(|key| key.kid == **kid && key.state == active));
    }
    for kid in kids {
        let mut form = vec![("kid", kid.as_str())];
        form.extend(reason.map(|reason| ("reason", reason)));
        let done = broker
            .ask(async |client| client.post::<KeyRevocation>(KEYS_REVOKE_PATH, &form).await)?;
        before.extend(done.was_revoked.then(|| kid.clone()));
        keys = done.keys;
    }
    Ok((keys, before))
}

fn export(app: &App, of: &BrokerFile, directory: &Path) -> Result<()> {
    let (written, issuer) = with(app, &of.file, async |manager| {
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
fn with<T>(app: &App, file: &Path, work: impl AsyncFnOnce(&Manager) -> Result<T>) -> Result<T> {
    process::runtime()?.block_on(async {
        let manager = Manager::open(&app.host, file).await?;
        let outcome = work(&manager).await;
        manager.close().await;
        outcome
    })
}

/// Keys as a broker shows them to those who ask it.
fn seen(keys: &[Report]) -> Vec<Key> {
    let keys = keys.iter().map(|key| Key {
        kid: key.kid.clone(),
        purpose: key.purpose.as_str().into(),
        log_key: key.of_log.clone(),
        algorithm: key.algorithm.clone(),
        state: key.state.as_str().into(),
        shown: key.shown,
        created_at: key.created_at,
        changed_at: key.changed_at,
        signs_from: key.signs_from,
        shown_until: key.shown_until,
    });
    keys.collect()
}

/// What a key signs.
fn signs_what(key: &Key) -> String {
    match Purpose::from_name(&key.purpose) {
        Some(Purpose::AccessToken) => "tokens".into(),
        Some(Purpose::Checkpoint) => "the log".into(),
        #[cfg(test)]
        Some(Purpose::Another) => String::new(),
        None => printable(&key.purpose),
    }
}

/// What will become of a key.
fn next(key: &Key) -> String {
    match (key.signs_from, key.shown_until) {
        (Some(from), _) => format!("signs from {}", show::moment(from)),
        (_, Some(until)) if key.shown => format!("shown until {}", show::moment(until)),
        _ if key.state == KeyState::Prepared.as_str() => "waits for its turn".into(),
        _ => String::new(),
    }
}

fn signs(keys: &[Key]) -> String {
    let active = keys.iter().filter(|key| key.state == KeyState::Active.as_str());
    let said: Vec<_> = active
        .map(|key| format!("The key {} signs {}.", printable(&key.kid), signs_what(key)))
        .collect();
    said.join(" ")
}

fn reports(keys: &[Key]) -> Vec<Value> {
    keys.iter().map(report).collect()
}

fn report(key: &Key) -> Value {
    json!({
        "kid": key.kid,
        "purpose": key.purpose,
        "log_key": key.log_key,
        "algorithm": key.algorithm,
        "state": key.state,
        "shown": key.shown,
        "created_at": show::moment(key.created_at),
        "changed_at": show::moment(key.changed_at),
        "signs_from": key.signs_from.map(show::moment),
        "shown_until": key.shown_until.map(show::moment),
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn key(kid: &str, purpose: Purpose, state: KeyState) -> Key {
        let at = datetime!(2026-01-01 12:00 UTC);
        Key {
            kid: kid.into(),
            purpose: purpose.as_str().into(),
            log_key: (purpose == Purpose::Checkpoint).then(|| format!("public half of {kid}")),
            algorithm: "EdDSA".into(),
            state: state.as_str().into(),
            shown: true,
            created_at: at,
            changed_at: at,
            signs_from: (state == KeyState::Published).then_some(at + time::Duration::DAY),
            shown_until: None,
        }
    }

    #[test]
    fn a_key_that_was_made_is_told_from_a_rotation_that_is_done() {
        let keys = vec![key("new", Purpose::AccessToken, KeyState::Active)];
        let rotation = Rotation { begun: Vec::new(), under_way: Vec::new(), keys };
        let [made] = &told(&rotation, &["new".into()])[..] else { panic!() };
        let says = "The key new is made and published; no other one signs tokens by EdDSA.";
        assert!(made.starts_with(says) && made.contains("in ten minutes"), "{made}");
        let done = "The rotation that was under way is done. The key new signs tokens.";
        assert_eq!(told(&rotation, &[]), [done]);
    }

    #[test]
    fn what_is_said_of_the_key_of_the_log_follows_it_and_names_it() {
        // Whichever comes first of them.
        let mut keys = vec![
            key("l", Purpose::Checkpoint, KeyState::Published),
            key("t", Purpose::AccessToken, KeyState::Published),
        ];
        for _ in 0..2 {
            let begun = keys.iter().map(|key| key.kid.clone()).collect();
            let rotation = Rotation { begun, under_way: Vec::new(), keys: keys.clone() };
            let told = told(&rotation, &[]);
            let of_log = told.iter().position(|line| line.contains("The key l ")).unwrap();
            let next = &told[of_log + 1];
            assert!(next.starts_with("Until then the key l signs the log besides"), "{told:?}");
            assert!(next.ends_with("\npublic half of l") && told.len() == 3, "{told:?}");
            keys.reverse();
        }
        // Those who check the log have had it.
        let rotation = Rotation { begun: Vec::new(), under_way: vec!["l".into()], keys };
        assert_eq!(told(&rotation, &[]).len(), 1);
    }
}
