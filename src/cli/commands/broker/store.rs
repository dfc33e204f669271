//! `tmpcred broker backup`, `restore` and `move`

use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::json;

use crate::broker::config::{self, Config, KEK_VARIABLE};
use crate::broker::keys::Kek;
use crate::broker::restored::{self, InForce};
use crate::broker::store::sql::Copied;
use crate::broker::store::transfer;
use crate::cli::App;
use crate::cli::args::BrokerStore;
use crate::cli::show::count;
use crate::error::Result;
use crate::host::{files, process};

pub(super) fn backup(app: &App, args: &BrokerStore) -> Result<()> {
    let config = config::load(&args.of.file)?;
    let runtime = process::runtime()?;
    let kek = runtime.block_on(kek(app, &config))?;
    let copied = {
        let _waiting = app.host.interact.waiting("copying the store");
        let env = &app.host.env;
        runtime.block_on(transfer::backup(&config.store, env, &args.database, kek.as_ref()))?
    };
    let told = Told {
        copied,
        file: &args.database,
        kek: kek.as_ref(),
        filled: false,
        on_record: None,
        in_force: None,
    };
    tell(app, args, &told)?;
    if !args.json {
        if copied.earlier {
            app.host.interact.note(
                "An earlier version made the database, and the backup is as that has it: that version can restore it,\n\
                 and so can this one. Another copy of it was brought up to date to be looked at.",
            );
        }
        app.host.interact.note(
            "The keys in it are sealed: without the key-encryption key it is worth nothing. Keep the two apart.",
        );
    }
    Ok(())
}

pub(super) fn restore(app: &App, args: &BrokerStore) -> Result<()> {
    let config = config::load(&args.of.file)?;
    let runtime = process::runtime()?;
    let kek = runtime.block_on(kek(app, &config))?;
    let (copied, record) = {
        let _waiting = app.host.interact.waiting("filling the store");
        let (file, kek) = (&args.database, kek.as_ref());
        runtime.block_on(restored::restore(&config, &app.host, file, kek))?
    };
    let on_record = Some(record.is_ok());
    let in_force = runtime.block_on(restored::in_force(&config, &app.host));
    let counts = in_force.as_ref().ok().copied();
    let (file, kek) = (args.database.as_path(), kek.as_ref());
    tell(app, args, &Told { copied, file, kek, filled: true, on_record, in_force: counts })?;
    if let Err(error) = record {
        let said = "In its audit log it is not on record that it was restored";
        app.host.interact.warn(&format!("{said}: {error}"));
    }
    if let Err(error) = in_force {
        app.host
            .interact
            .warn(&format!("Which grants and enrolled keys count cannot be told: {error}"));
    }
    if !args.json {
        app.host.interact.note(
            "What happened after the backup is not in it: tokens that were revoked since are good again. Unless you\n\
             know of none, revoke all tokens before a broker is started, `tmpcred broker revoke --all`, and the keys\n\
             that were active since then, `tmpcred broker keys revoke`.",
        );
        if let Some(counts) = counts.filter(|counts| *counts != InForce::default()) {
            app.host.interact.note(&still(&counts));
        }
    }
    Ok(())
}

/// What is said of that which no revocation of tokens ends.
fn still(counts: &InForce) -> String {
    let InForce { grants, requests, enrolled_keys } = *counts;
    format!(
        "As of the backup there are {}, {} and {}, also where they were ended or removed since. No revocation of\n\
         tokens ends those. Have the broker issue nothing at first, as docs/storage.md says under \u{ab}Restore\u{bb}, look at\n\
         them, and end them: `tmpcred elevate list`, `tmpcred elevate revoke`, `tmpcred elevate deny`; of enrolled\n\
         keys `GET /v1/enrollments`, `POST /v1/enrollments/ID/remove`.",
        counted(grants, "grant that is had", "grants that are had"),
        counted(
            requests,
            "request that was approved or waits",
            "requests that were approved or wait"
        ),
        counted(enrolled_keys, "enrolled key that counts", "enrolled keys that count"),
    )
}

fn counted(number: u64, one: &str, many: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), one, many)
}

pub(super) fn move_in(app: &App, args: &BrokerStore) -> Result<()> {
    let config = config::load(&args.of.file)?;
    let runtime = process::runtime()?;
    let kek = runtime.block_on(kek(app, &config))?;
    let (copied, moved) = {
        let _waiting = app.host.interact.waiting("moving the store");
        let env = &app.host.env;
        let (file, kek) = (&args.database, kek.as_ref());
        runtime.block_on(transfer::move_in(&config.store, env, file, kek, &config.issuer))?
    };
    let (file, kek) = (moved.as_path(), kek.as_ref());
    let told = Told { copied, file, kek, filled: true, on_record: None, in_force: None };
    tell(app, args, &told)?;
    if !args.json {
        app.host.interact.note(&format!(
            "Everything is in the other database now. The file is called {} from now on, so that no broker goes on with it.",
            moved.display()
        ));
        if copied.earlier {
            app.host.interact.note(
                "An earlier version made it, and the file is as that has it. A copy was brought up to date.",
            );
        }
    }
    Ok(())
}

/// The key-encryption key, where it is at hand: whoever makes backups need not have it.
async fn kek(app: &App, config: &Config) -> Result<Option<Kek>> {
    let keys = &config.keys;
    let variable = keys.kek_env.as_deref().unwrap_or(KEK_VARIABLE);
    let at_hand = match (&keys.kek_command, &keys.kek_file) {
        (Some(_), _) => true,
        (None, Some(path)) => files::exists(path) && !files::is_withheld(path),
        (None, None) => app.host.env.get(variable).is_some(),
    };
    if !at_hand {
        return Ok(None);
    }
    Kek::load(keys, &app.host.env).await.map(Some).map_err(|error| match keys.kek_command {
        // A KMS that is down is not to pass for a check that was made.
        Some(_) => {
            error.hint("whoever makes backups without the key has a broker.toml without [keys]")
        }
        None => error,
    })
}

/// What was copied.
struct Told<'a> {
    copied: Copied,
    file: &'a Path,
    /// The key by which it is told how the log ends and whose it is, where it was at hand.
    kek: Option<&'a Kek>,
    /// Whether a store was filled from it, which has to be that of the same broker.
    filled: bool,
    /// Whether the log says so itself, where it should.
    on_record: Option<bool>,
    /// What counts in it that may have been ended since.
    in_force: Option<InForce>,
}

fn tell(app: &App, args: &BrokerStore, told: &Told<'_>) -> Result<()> {
    let Told { copied, file, kek, filled, on_record, in_force } = told;
    let root = HEXLOWER.encode(&copied.root);
    if args.json {
        return app.ui.json(&json!({
            "file": file,
            "records": copied.records,
            "keys": copied.keys,
            "key_encryption_keys": copied.key_encryption_keys,
            "consumed": copied.consumed,
            "cutoffs": copied.cutoffs,
            "opaque_tokens": copied.opaque_tokens,
            "enrolled_keys": copied.enrolled_keys,
            "checkpoints": copied.checkpoints,
            "messages": copied.messages,
            "root": root,
            "seal_checked": copied.seal_checked,
            "earlier_version": copied.earlier,
            "on_record": on_record,
            "grants": in_force.map(|counts| counts.grants),
            "requests": in_force.map(|counts| counts.requests),
            "enrolled_keys_in_force": in_force.map(|counts| counts.enrolled_keys),
        }));
    }
    app.ui.line(format!(
        "{}, {}, {}, {}, {}, {}, {} and {}; the tree over the records is the same ({root}).",
        counted(copied.records, "record", "records"),
        counted(copied.keys, "key", "keys"),
        counted(copied.consumed, "thing revoked or used up", "things revoked or used up"),
        counted(copied.cutoffs, "cut-off", "cut-offs"),
        counted(copied.opaque_tokens, "opaque token", "opaque tokens"),
        counted(copied.enrolled_keys, "enrolled key", "enrolled keys"),
        counted(copied.checkpoints, "checkpoint", "checkpoints"),
        counted(copied.messages, "message", "messages"),
    ))?;
    if copied.seal_checked {
        return app.ui.line("The log ends as the broker sealed it.");
    }
    if kek.is_some() {
        return app.ui.line("The log is empty: there is no end that a broker has sealed.");
    }
    let whose = match filled {
        true => ", and whether it is that of a broker with this `issuer`,",
        false => "",
    };
    app.ui.line(format!(
        "Whether the log ends as the broker sealed it{whose} was not checked: the key-encryption key is not at hand.",
    ))
}
