//! `tmpcred broker kek`

use std::io::Read as _;
use std::path::Path;

use serde_json::json;

use super::check_reason;
use crate::broker::config;
use crate::broker::keys::Kek;
use crate::broker::keys::keks::Keks;
use crate::cli::args::{BrokerKek, OtherKek};
use crate::cli::{App, require_file, show};
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;
use crate::secret::Secret;

/// Why, where nobody says.
const ASKED: &str = "an operator asked for it";

pub(super) fn run(app: &App, command: &BrokerKek) -> Result<()> {
    match command {
        BrokerKek::List { of, json } => list(app, &of.file, *json),
        BrokerKek::Add { other, of, reason } => add(app, &of.file, other, reason.as_deref()),
        BrokerKek::Remove { id, of, reason } => remove(app, &of.file, id, reason.as_deref()),
    }
}

fn list(app: &App, file: &Path, as_json: bool) -> Result<()> {
    let keks = with(app, file, async |keks| keks.list().await)?;
    if as_json {
        let report = keks.iter().map(|one| {
            json!({
                "id": one.id,
                "added_at": one.added_at.map(show::moment),
                "configured": one.is_configured,
                "root": one.is_root,
            })
        });
        return app.ui.json(&report.collect::<Vec<_>>());
    }
    let rows = keks.iter().map(|one| {
        let since = one.added_at.map(show::moment).unwrap_or_default();
        let which = [
            one.is_configured.then_some("the one of the configuration"),
            one.is_root.then_some("the root key itself"),
        ];
        let which: Vec<_> = which.into_iter().flatten().collect();
        [one.id.clone(), since, which.join(", ")]
    });
    app.ui.table(["KEY-ENCRYPTION KEY", "SINCE", ""], rows)
}

fn add(app: &App, file: &Path, other: &OtherKek, reason: Option<&str>) -> Result<()> {
    reason.map_or(Ok(()), check_reason)?;
    // It may be long until standard input has it.
    let other = process::runtime()?.block_on(read(app, other))?;
    let id = other.id();
    let why = reason.unwrap_or(ASKED);
    let is_new = with(app, file, async |keks| keks.add(&other, why).await)?;
    app.host.interact.note(&match is_new {
        true => format!(
            "The key-encryption key {id} opens the database, too. Name it in the configuration of each\n\
             broker, restart them one after the other, and then remove the one from before."
        ),
        false => format!("The key-encryption key {id} opens the database already."),
    });
    Ok(())
}

async fn read(app: &App, other: &OtherKek) -> Result<Kek> {
    let keys = match (&other.kek, &other.of_config) {
        (Some(path), _) if path == Path::new("-") => return from_standard_input(),
        (Some(path), _) => {
            require_file(path)?;
            config::Keys { kek_file: Some(path.clone()), ..config::Keys::default() }
        }
        (None, Some(path)) => config::load(path)?.keys,
        // The arguments have one of them.
        (None, None) => config::Keys::default(),
    };
    Kek::load_another(&keys, &app.host.env).await
}

fn from_standard_input() -> Result<Kek> {
    let mut text = Secret::new(String::new());
    let most = Kek::MAX_LEN as u64;
    std::io::stdin().lock().take(most).read_to_string(text.expose_mut()).map_err(|cause| {
        Error::new(ErrorKind::Io, "standard input cannot be read").because(cause)
    })?;
    Kek::parse(text.expose()).ok_or_else(|| {
        Error::new(ErrorKind::Config, "standard input does not hold 32 bytes in base64")
            .hint("make one with `openssl rand -base64 32`")
    })
}

fn remove(app: &App, file: &Path, id: &str, reason: Option<&str>) -> Result<()> {
    reason.map_or(Ok(()), check_reason)?;
    let is_root = with(app, file, async |keks| keks.remove(id, reason.unwrap_or(ASKED)).await)?;
    app.host.interact.note(&format!(
        "The key-encryption key {id} opens the database no more. Backups from before it opens still,\n\
         and those from before another one was added nothing else does: make a backup now, and keep\n\
         the key apart until none of those is needed."
    ));
    if is_root {
        app.host.interact.warn(
            "It is the root key, because an earlier version began this database: whoever has it reads\n\
             any copy, whichever key-encryption key opens that. Where it has leaked, begin a new database.",
        );
    }
    Ok(())
}

/// Opens the database, does this, and closes it.
fn with<T>(app: &App, file: &Path, work: impl AsyncFnOnce(&Keks) -> Result<T>) -> Result<T> {
    process::runtime()?.block_on(async {
        let keks = Keks::open(&app.host, file).await?;
        let outcome = work(&keks).await;
        keks.close().await;
        outcome
    })
}
