//! `tmpcred elevate keys`: the keys with which somebody signs while no identity provider can say
//! who they are.

use time::{Duration, OffsetDateTime};

use super::{moment, open};
use crate::api::enrollments::{Key, Keys};
use crate::cache::Cache;
use crate::cli::App;
use crate::cli::args::{
    ElevateKeys, ElevateReasoned, KeysApprove, KeysCommand, KeysEnroll, KeysList, SigningKey,
};
use crate::cli::elsewhere::Elsewhere;
use crate::cli::signed::{Desk, Known, Signer, say};
use crate::error::{Error, ErrorKind, Result};
use crate::sshsig::{Said, write};

/// How long the statement that a key is somebody's is good.
const LASTING: Duration = Duration::minutes(15);

/// How long before a key lapses its owner is told.
const SOON: Duration = Duration::days(7);

pub(super) fn run(app: &App, args: &ElevateKeys) -> Result<()> {
    match &args.command {
        KeysCommand::Enroll(args) => enroll(app, args),
        KeysCommand::List(args) => list(app, args),
        KeysCommand::Approve(args) => approve(app, args),
        KeysCommand::Remove(args) => remove(app, args),
    }
}

fn enroll(app: &App, args: &KeysEnroll) -> Result<()> {
    let broker = open(app, &args.at)?;
    let (desk, prepared) = Desk::open(app, args.at.at.as_deref())?;
    check_lasting(app, &prepared.cache, &args.key)?;
    let person = myself(&broker)?;
    let signer = Signer::of(app, &prepared.cache, &args.key, None, true)?;
    let fingerprint = signer.public().fingerprint();
    let said = Said::Enrollment { key: fingerprint.clone(), label: args.label.clone() };
    let signed = say(&app.host, desk.broker(), (&person, &signer), said, LASTING)?;
    let text = write(&[signed])?;
    let enrolled = broker.ask(async |client| client.enroll(&text).await)?;
    Known::change(&app.host, desk.broker(), |known| {
        known.person = Some(person.clone());
        known.key = Some(fingerprint.clone());
    })?;
    // What it says now is good enough where it cannot be asked.
    if let Err(error) = desk.rules() {
        app.host
            .interact
            .warn(&format!("the rules of the broker could not be taken note of: {error}"));
    }
    one(app, &enrolled, args.at.json)?;
    app.host.interact.note(&format!(
        "somebody else approves it, to whom you read its fingerprint: tmpcred elevate keys approve {} --fingerprint {}",
        enrolled.id, enrolled.fingerprint
    ));
    Ok(())
}

/// Looks whether a key of the keyring would be there when it is needed.
fn check_lasting(app: &App, cache: &Cache, key: &SigningKey) -> Result<()> {
    if key.agent || key.key.is_some() {
        return Ok(());
    }
    if cache.ends_with_process() {
        return Err(Error::new(ErrorKind::Config, "the key would be gone when this run has ended")
            .because_of("there is no keyring that keeps it")
            .hint("enroll one of your SSH agent: --agent, or --key FILE.pub"));
    }
    if cache.ends_with_restart() {
        app.host.interact.warn(
            "the kernel keeps your keyring, and a restart of this machine empties it: then nobody can sign with this key any more. One of your SSH agent lasts: --agent, or --key FILE.pub",
        );
    }
    Ok(())
}

/// Who somebody is in the broker's directory.
fn myself(broker: &Elsewhere) -> Result<String> {
    let mine = broker.ask(async |client| client.enrolled_keys(true).await)?;
    mine.person.ok_or_else(|| {
        Error::new(ErrorKind::Verification, "the broker does not say who you are in its directory")
            .hint("it may be older than this program")
    })
}

fn list(app: &App, args: &KeysList) -> Result<()> {
    let broker = open(app, &args.at)?;
    let Keys { person, keys } = broker.ask(async |client| client.enrolled_keys(!args.all).await)?;
    let (desk, _) = Desk::open(app, args.at.at.as_deref())?;
    if let Some(person) = &person {
        Known::change(&app.host, desk.broker(), |known| known.person = Some(person.clone()))?;
    }
    let mine = person.clone().or_else(|| Known::of(&app.host, desk.broker()).person);
    for key in keys.iter().filter(|key| mine.as_ref() == Some(&key.person)) {
        if let Some(left) = lapses_within(key, app.host.corrected_now(), SOON) {
            app.host.interact.warn(&format!(
                "your key '{}' lapses in {}: log in anew before, then use the broker",
                crate::cli::show::printable(&key.label),
                crate::cli::show::duration(left)
            ));
        }
    }
    if args.at.json {
        return app.ui.json(&Keys { person, keys });
    }
    if keys.is_empty() {
        return app.ui.line("No key is enrolled.");
    }
    let rows = keys
        .into_iter()
        .map(|key| [key.id, key.person, key.label, key.fingerprint, key.state, key.lapses_at]);
    app.ui.table(["KEY", "WHOSE", "LABEL", "FINGERPRINT", "STATE", "LAPSES"], rows)
}

/// How long a key still lasts that counts and lapses this soon.
fn lapses_within(key: &Key, now: OffsetDateTime, soon: Duration) -> Option<Duration> {
    let left = moment(&key.lapses_at)? - now;
    (key.state == "approved" && left <= soon).then_some(left)
}

fn approve(app: &App, args: &KeysApprove) -> Result<()> {
    let broker = open(app, &args.at)?;
    let done = broker.ask(async |client| client.approve_key(args.id, &args.fingerprint).await)?;
    one(app, &done, args.at.json)
}

fn remove(app: &App, args: &ElevateReasoned) -> Result<()> {
    let broker = open(app, &args.at)?;
    let done = broker.ask(async |client| client.remove_key(args.id, &args.reason).await)?;
    one(app, &done, args.at.json)
}

fn one(app: &App, key: &Key, json: bool) -> Result<()> {
    if json {
        return app.ui.json(key);
    }
    let facts = [
        ("id", &key.id),
        ("whose", &key.person),
        ("label", &key.label),
        ("key", &key.fingerprint),
        ("state", &key.state),
        ("lapses", &key.lapses_at),
    ];
    for (label, value) in facts {
        app.ui.line(format!("{label:>10}  {}", crate::cli::show::printable(value)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn who_owns_a_key_is_told_a_week_before_it_lapses() {
        let now = datetime!(2026-01-01 12:00 UTC);
        let key = |state: &str, lapses_at: &str| Key {
            id: String::new(),
            fingerprint: String::new(),
            person: "alice".into(),
            label: "laptop".into(),
            state: state.into(),
            enrolled_at: String::new(),
            approved_by: None,
            lapses_at: lapses_at.into(),
        };
        let left = |key: &Key| lapses_within(key, now, SOON);
        assert_eq!(left(&key("approved", "2026-01-08T12:00:00Z")), Some(Duration::days(7)));
        assert_eq!(left(&key("approved", "2026-01-08T12:00:01Z")), None);
        assert_eq!(left(&key("pending", "2026-01-02T12:00:00Z")), None);
        assert_eq!(left(&key("lapsed", "2025-12-31T12:00:00Z")), None);
        assert_eq!(left(&key("approved", "soon")), None);
    }
}
