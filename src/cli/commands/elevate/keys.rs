//! `tmpcred elevate keys`: the keys with which somebody signs while no identity provider can say
//! who they are.

use time::Duration;

use super::open;
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
    let signed = say(app, desk.broker(), (&person, &signer), said, LASTING)?;
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
    if let Some(person) = &person {
        let (desk, _) = Desk::open(app, args.at.at.as_deref())?;
        Known::change(&app.host, desk.broker(), |known| known.person = Some(person.clone()))?;
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
