//! `tmpcred broker kek`

use std::io::Read as _;
use std::path::Path;

use serde_json::json;

use crate::broker::config;
use crate::broker::keys::Kek;
use crate::broker::keys::keks::Keks;
use crate::cli::args::{BrokerKek, OtherKek};
use crate::cli::{App, show};
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
                "added_at": one.added_at.map(|at| at.unix_timestamp()),
                "configured": one.is_configured,
            })
        });
        return app.ui.json(&report.collect::<Vec<_>>());
    }
    let rows = keks.iter().map(|one| {
        let since = one.added_at.map(show::moment).unwrap_or_default();
        let which = if one.is_configured { "the one of the configuration" } else { "" };
        [one.id.clone(), since, which.into()]
    });
    app.ui.table(["KEY-ENCRYPTION KEY", "SINCE", ""], rows)
}

fn add(app: &App, file: &Path, other: &OtherKek, reason: Option<&str>) -> Result<()> {
    let (id, is_new) = with(app, file, async |keks| {
        let other = read(app, other).await?;
        let is_new = keks.add(&other, reason.unwrap_or(ASKED)).await?;
        Ok((other.id().to_string(), is_new))
    })?;
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
        (Some(path), _) => config::Keys { kek_file: Some(path.clone()), ..config::Keys::default() },
        (None, Some(path)) => config::load(path)?.keys,
        // The arguments have one of them.
        (None, None) => config::Keys::default(),
    };
    Kek::load(&keys, &app.host.env).await
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
    with(app, file, async |keks| keks.remove(id, reason.unwrap_or(ASKED)).await)?;
    app.host.interact.note(&format!(
        "The key-encryption key {id} opens the database no more. Copies and backups from before it\n\
         still opens: keep them apart from it, or destroy it."
    ));
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
