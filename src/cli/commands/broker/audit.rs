//! `tmpcred broker audit`

mod query;

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::json;

use super::check_reason;
use crate::broker::audit::erase::{Erased, Erasure};
use crate::broker::audit::export::{Format, exported};
use crate::broker::audit::note::{Checkpoint, MAX_NOTE, VerifierKey, is_note};
use crate::broker::audit::verify::{Elsewhere, Proofs, Report, verify};
use crate::broker::audit::{self, Record, principal};
use crate::broker::config::{self, Config};
use crate::broker::forget::{Forgotten, forget};
use crate::broker::keys::{CheckpointKeys, Kek};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::{self, LogStore, Row, Store as _};
use crate::cli::App;
use crate::cli::args::{
    AuditCheckpoint, AuditCommand, AuditErase, AuditExport, AuditVerify, ExportFormat,
};
use crate::cli::ui::written;
use crate::cli::{misuse, require_file, show};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result, printable_json};
use crate::host::{files, process};

/// How many records are read at a time.
const PAGE: u32 = 1000;

pub(super) fn run(app: &App, command: &AuditCommand) -> Result<()> {
    if let AuditCommand::Query(args) = command
        && let Some(profile) = &args.at.at
    {
        return query::elsewhere(app, profile, args);
    }
    process::runtime()?.block_on(async {
        match command {
            AuditCommand::Verify(args) => verified(app, args).await,
            AuditCommand::Checkpoint(args) => checkpoint(app, args).await,
            AuditCommand::Query(args) => query::here(app, args).await,
            AuditCommand::Export(args) => export(app, args).await,
            AuditCommand::Erase(args) => erase(app, args).await,
        }
    })
}

async fn open(app: &App, file: &Path) -> Result<(Config, SqlStore)> {
    let config = config::load(file)?;
    let store = store::open_to_read(&config.store, &app.host.env).await?;
    Ok((config, store))
}

/// The keys of the broker's log, as what is sealed in its store has them.
async fn sealed_keys(app: &App, config: &Config, store: &SqlStore) -> Result<CheckpointKeys> {
    let kek = Kek::load(&config.keys, &app.host.env).await?;
    CheckpointKeys::of_broker(store, &kek, &config.issuer).await
}

async fn verified(app: &App, args: &AuditVerify) -> Result<()> {
    let (config, store) = open(app, &args.file).await?;
    let named: Vec<_> = args.key.iter().flat_map(|keys| keys.split_whitespace()).collect();
    let (keys, revoked, seal) = match named.as_slice() {
        [] => {
            let origin = audit::origin(&config.issuer);
            let sealed = sealed_keys(app, &config, &store).await.map_err(|error| {
                error.hint("or name the log's key with --key, where the KEK must not be")
            })?;
            let revoked = sealed.revoked(&origin);
            (sealed.verifiers(&origin), revoked, Some(sealed.seal().clone()))
        }
        named => {
            let keys = named.iter().map(|key| VerifierKey::parse(key));
            (keys.collect::<Result<Vec<_>>>()?, Vec::new(), None)
        }
    };
    let elsewhere = args.checkpoint.iter().map(|file| read_checkpoint(file, &keys, &revoked));
    let elsewhere = elsewhere.collect::<Result<Vec<_>>>()?;
    let off_host_by: BTreeSet<_> = elsewhere.iter().flat_map(|one| &one.by).collect();
    let report = {
        let _waiting = app.host.interact.waiting("checking the audit log");
        let (seal, now) = (seal.as_ref(), app.host.clock.now());
        let proofs = Proofs { keys: &keys, revoked: &revoked, seal, elsewhere: &elsewhere, now };
        verify(&store, &proofs).await?
    };
    let unknown = unknown(&report);
    let good = report.findings.is_empty();
    if args.json {
        app.ui.json(&json!({
            "verified": good,
            "records": report.records,
            "signed": report.signed,
            "sealed": report.sealed,
            "checkpoints": report.checkpoints,
            "keys": report.keys,
            "off_host": report.off_host,
            "off_host_keys": off_host_by.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "erased": report.erased,
            "findings": report.findings,
            "omitted": report.omitted,
            "unknown": unknown,
        }))?;
    } else {
        tell(app, &report, &elsewhere, &unknown)?;
    }
    if good {
        return Ok(());
    }
    let number = report.findings.len() + usize::try_from(report.omitted).unwrap_or(usize::MAX);
    Err(Error::new(ErrorKind::Verification, "the audit log is not good")
        .because_of(show::count(number, "thing is wrong", "things are wrong"))
        .hint("keep the database as it is, and compare it with a backup"))
}

fn tell(app: &App, report: &Report, elsewhere: &[Elsewhere], unknown: &[String]) -> Result<()> {
    for finding in &report.findings {
        app.ui.line(&finding.text)?;
    }
    if report.omitted > 0 {
        app.ui.line(format!("and {} more", report.omitted))?;
    }
    let count = |number: u64, one: &str, many: &str| {
        show::count(usize::try_from(number).unwrap_or(usize::MAX), one, many)
    };
    let records = count(report.records, "record", "records");
    let checkpoints = count(report.checkpoints, "checkpoint", "checkpoints");
    let elsewhere_too = match elsewhere.len() {
        0 => String::new(),
        1 => " and one from elsewhere".into(),
        several => format!(" and {several} from elsewhere"),
    };
    let signed = report.signed;
    app.ui.line(match report.findings.is_empty() {
        true => format!(
            "{signed} of {records} are as they were signed, by {checkpoints}{elsewhere_too}."
        ),
        // How far they reach says nothing then of what is there.
        false => format!(
            "{checkpoints}{elsewhere_too} were looked at, up to record {signed} of {}; what is wrong stands above.",
            report.records
        ),
    })?;
    // Where there is one, and the same everywhere, nobody has to be told.
    if report.keys.len() > 1 {
        for signed in &report.keys {
            app.ui.line(format!(
                "{} signed {}, of {} to {} records{}.",
                signed.key,
                show::count(
                    usize::try_from(signed.checkpoints).unwrap_or(usize::MAX),
                    "checkpoint",
                    "checkpoints"
                ),
                signed.first,
                signed.last,
                if signed.revoked { "; it was revoked, and nothing rests on that" } else { "" },
            ))?;
        }
        for Elsewhere { checkpoint, by } in elsewhere {
            for key in by {
                app.ui.line(format!(
                    "The checkpoint from elsewhere of {} records was signed by {key}.",
                    checkpoint.size
                ))?;
            }
        }
    }
    if let Some(sealed) = report.sealed {
        app.ui.line(format!("The log ends at record {sealed}, as the broker sealed it."))?;
    }
    if report.erased > 0 {
        let count = usize::try_from(report.erased).unwrap_or(usize::MAX);
        let records = show::count(count, "record has", "records have");
        app.ui.line(format!("{records} lost what was personal; the proofs are what they were."))?;
    }
    unknown.iter().try_for_each(|line| app.ui.line(line))
}

/// What was not shown, whatever was found.
fn unknown(report: &Report) -> Vec<String> {
    let mut unknown = Vec::new();
    if report.sealed.is_none() && report.signed < report.records {
        unknown.push(format!(
            "Nobody has signed what is behind record {}: whether that was changed by somebody who changed the tree too cannot be known.",
            report.signed
        ));
    }
    match report.off_host {
        None => unknown.push(
            "No checkpoint from elsewhere was given: whether the end of the log was cut off together with its checkpoints, or an older copy of the database was put in place, cannot be known. Keep what `tmpcred broker audit checkpoint` prints on another machine, and give it with --checkpoint.".into(),
        ),
        Some(size) => unknown.push(format!(
            "Whether the log was cut off behind record {size} cannot be known: no checkpoint from elsewhere reaches further."
        )),
    }
    unknown
}

fn read_checkpoint(
    file: &Path,
    keys: &[VerifierKey],
    revoked: &[VerifierKey],
) -> Result<Elsewhere> {
    let failed = |error: Error| error.context(format!("{} cannot be used", file.display()));
    // One byte more shows that it is too long.
    require_file(file).map_err(failed)?;
    let bytes = files::read_start(file, MAX_NOTE as u64 + 1)?.unwrap_or_default();
    let is_empty = bytes.is_empty();
    // What nobody has signed says nothing of the log, so it is no sign of tampering.
    let note = String::from_utf8(bytes).ok().filter(|text| is_note(text)).ok_or_else(|| {
        let what = if is_empty { "it is empty" } else { "it is no signed note" };
        failed(Error::new(ErrorKind::Usage, what)).hint(
            "it has to be a checkpoint as `tmpcred broker audit checkpoint --out FILE` writes it",
        )
    })?;
    let opened = Checkpoint::open_signed(&note, keys).map_err(|error| {
        failed(match Checkpoint::open(&note, revoked) {
            Ok(_) => error
                .because_of("the key that signed it was revoked")
                .hint("keep newer ones: nothing rests on what that key signed"),
            Err(_) => error.hint(
                "`tmpcred broker audit checkpoint --key` prints all keys that may have signed it",
            ),
        })
    });
    opened.map(|(checkpoint, by)| Elsewhere { checkpoint, by })
}

async fn checkpoint(app: &App, args: &AuditCheckpoint) -> Result<()> {
    let (config, store) = open(app, &args.file).await?;
    if args.key {
        let sealed = sealed_keys(app, &config, &store).await?;
        if sealed.active().is_none() {
            return Err(Error::new(ErrorKind::Config, "the broker has no key for its log yet")
                .hint("start the broker once"));
        }
        let keys = sealed.verifiers(&audit::origin(&config.issuer));
        let lines = keys.iter().map(|key| format!("{key}\n")).collect::<String>();
        return put(app, args, &lines);
    }
    let noted = store.latest_note().await?.ok_or_else(|| {
        Error::new(ErrorKind::Other, "there is no checkpoint of the audit log yet")
            .hint("the broker signs one within 5 seconds after the first record")
    })?;
    if !is_note(&noted.note) {
        return Err(Error::new(
            ErrorKind::Verification,
            format!("the newest checkpoint in the database, of {} records, is none", noted.size),
        )
        .because_of("somebody has changed what a broker has written")
        .hint("tmpcred broker audit verify"));
    }
    put(app, args, &noted.note)
}

/// To where it is to be. A file is there as a whole, or stays as it was.
fn put(app: &App, args: &AuditCheckpoint, text: &str) -> Result<()> {
    match args.out.as_deref().filter(|out| *out != Path::new("-")) {
        // A device would be gone.
        Some(out) if files::exists(out) && !files::is_file(out) => {
            Err(misuse(format!("{} is no file", out.display())).hint("`-` is standard output"))
        }
        Some(out) => files::write_public(out, text.as_bytes()),
        None => written(app.ui.raw_out().write_all(text.as_bytes())),
    }
}

/// A record; otherwise its number is kept.
fn known((number, record): Row, unreadable: &mut Vec<u64>) -> Option<(u64, Record)> {
    if record.is_none() {
        unreadable.push(number);
    }
    Some((number, record?))
}

/// Fails where some records are gone.
fn none_gone(gone: &[(u64, u64)]) -> Result<()> {
    let Some((first, last)) = gone.first() else { return Ok(()) };
    let number = gone.iter().map(|(first, last)| last - first + 1).sum::<u64>();
    let number =
        show::count(usize::try_from(number).unwrap_or(usize::MAX), "record is", "records are");
    Err(Error::new(ErrorKind::Verification, format!("{number} gone, {first} to {last} first"))
        .because_of("somebody has deleted what a broker has written")
        .hint("tmpcred broker audit verify"))
}

/// Fails where some records could not be handed on.
fn all_of_them(unreadable: &[u64]) -> Result<()> {
    let Some(first) = unreadable.first() else { return Ok(()) };
    let number = show::count(unreadable.len(), "record", "records");
    Err(Error::new(
        ErrorKind::Verification,
        format!("{number} cannot be read, and {first} is the first"),
    )
    .because_of("there is something in the database that no broker has written")
    .hint("tmpcred broker audit verify"))
}

async fn erase(app: &App, args: &AuditErase) -> Result<()> {
    let (Some(issuer), subject) = principal(&args.subject) else {
        return Err(misuse("--subject is no issuer, `#` and subject")
            .hint("such as https://login.example.com#alice"));
    };
    check_reason(&args.reason)?;
    let config = config::load(&args.file)?;
    let kek = Kek::load(&config.keys, &app.host.env).await?;
    let store = store::open_existing(&config.store, &app.host.env).await?;
    let keys = CheckpointKeys::of_broker(&store, &kek, &config.issuer).await?;
    let root_key = keys.root_key();
    store.seal_with(root_key.seal_of_log()).await?;
    let by = args.by.clone().unwrap_or_else(|| process::user_name(&app.host.env));
    let (person, issuer) = (Principal { issuer, subject }, &config.issuer);
    let what = Erasure { person: &person, by: &by, reason: &args.reason, issuer };
    let now = app.host.clock.now();
    // The rest first: where something may still come of it, nothing is erased.
    let outcome = async {
        let forgotten = forget(&store, root_key, &what, now).await?;
        Ok((forgotten, audit::erase::erase(&store, &what, now).await?))
    };
    let outcome: Result<_> = outcome.await;
    store.close().await;
    let (Forgotten { elevations, keys }, Erased { records, fixed }) = outcome?;
    if args.json {
        return app.ui.json(&json!({
            "erased": records, "not_erasable": fixed, "elevations": elevations, "keys": keys,
        }));
    }
    let many = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let count = |n: u64| show::count(many(n), "record is", "records are");
    app.ui.line(format!("{} erased.", count(records)))?;
    if records + fixed + elevations + keys == 0 {
        app.host.interact.note(&format!(
            "Nothing of {:?} was found, or it was erased before: is it spelt as the log has it?\n\
             `tmpcred broker audit query` shows who is on record.",
            args.subject
        ));
    }
    for (number, one, more) in
        [(elevations, "elevation", "elevations"), (keys, "enrolled key", "enrolled keys")]
    {
        if number > 0 {
            let told = show::count(many(number), one, more);
            app.ui.line(format!("It is erased from {told}, too."))?;
        }
    }
    if fixed > 0 {
        app.ui.line(format!(
            "{} from before there was a tree, and in it as written: they cannot be erased.",
            count(fixed)
        ))?;
    }
    Ok(())
}

async fn export(app: &App, args: &AuditExport) -> Result<()> {
    let (_, store) = open(app, &args.file).await?;
    let format = match args.format {
        ExportFormat::Jsonl => Format::Jsonl,
        ExportFormat::Ecs => Format::Ecs,
        ExportFormat::Ocsf => Format::Ocsf,
    };
    let mut out = BufWriter::new(app.ui.raw_out());
    let mut after = args.after;
    let (mut unreadable, mut gone) = (Vec::new(), Vec::new());
    // Asked for before: whatever is appended meanwhile is no gap.
    let size = store.size().await?;
    loop {
        let page = store.page(after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for row in page {
            // Numbers are given without gaps.
            if row.0 > after.saturating_add(1) {
                gone.push((after + 1, row.0 - 1));
            }
            after = row.0;
            if let Some((sequence, record)) = known(row, &mut unreadable) {
                let line = exported(format, sequence, &record).to_string();
                written(writeln!(out, "{}", printable_json(&line)))?;
            }
        }
    }
    if after < size {
        gone.push((after + 1, size));
    }
    written(out.flush())?;
    none_gone(&gone)?;
    all_of_them(&unreadable)
}
