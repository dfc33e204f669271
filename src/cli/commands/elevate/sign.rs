//! `tmpcred elevate request --provider-down`, `sign` and `submit`: what travels as files.

use std::io::Read;
use std::path::Path;

use data_encoding::HEXLOWER;
use serde::Serialize;
use time::Duration;

use super::show;
use crate::cli::args::{ElevateRequest, ElevateSign, ElevateSubmit};
use crate::cli::prepare;
use crate::cli::show::{duration, moment, printable};
use crate::cli::signed::{self, Ask, Desk, Known, SignedGrant, Signer, say};
use crate::cli::{App, misuse, require_file};
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;
use crate::sshsig::{MAX_FILE, Named, Said, Signed, write};

/// What was signed, as it is reported.
#[derive(Serialize)]
struct Report<'a> {
    /// The hash of the request.
    request: String,
    /// Who signed.
    person: &'a str,
    /// With which key.
    key: String,
    /// The request, with all that is said about it.
    text: &'a str,
}

pub(super) fn request(app: &App, args: &ElevateRequest) -> Result<()> {
    let (desk, prepared) = Desk::open(app, args.at.at.as_deref())?;
    let audience = args.audience.as_deref();
    let ask = Ask {
        role: &args.role,
        because: &args.because,
        down: &args.down,
        audience,
        scope: (!args.scope.is_empty()).then(|| args.scope.join(" ")),
        rules: args.rules.as_deref(),
        drill: false,
    };
    let grant = SignedGrant::ask(app, desk, &prepared, &ask)?;
    if let Some(out) = &args.out {
        if args.at.json {
            let text = grant.text()?;
            put(app, Some(out), &text, false)?;
            let [request] = &signed::read(&text)?[..] else { return Err(strange()) };
            return report(app, request, &text);
        }
        let text = grant.text()?;
        put(app, Some(out), &text, true)?;
        let [request] = &signed::read(&text)?[..] else { return Err(strange()) };
        let hash = HEXLOWER.encode(&request.statement.hash()?);
        app.host.interact.note(&format!("the hash of the request is {hash}"));
        return Ok(());
    }
    let asked = grant.bring()?;
    let waits = args.wait
        || args.patience.wait_at_most.is_some()
        || !args.no_wait && !args.at.json && app.ui.stderr_is_terminal();
    if asked.access == "pending" {
        signed::tell(app, &grant)?;
    }
    if !waits {
        return show::one(app, &asked, args.at.json);
    }
    if !args.at.json {
        show::one(app, &asked, false)?;
    }
    let begun = grant.wait(app, asked, args.patience, None)?;
    show::one(app, &begun, args.at.json)
}

pub(super) fn sign(app: &App, args: &ElevateSign) -> Result<()> {
    let mut statements = signed::read(&take(&args.file)?)?;
    let Some((request, said)) = statements.split_first() else { return Err(strange()) };
    let Said::Request { .. } = &request.statement.said else {
        return Err(misuse("the first statement is no request"));
    };
    let (hash, broker) = (request.statement.hash()?, request.statement.broker.clone());
    if said.iter().any(|one| one.statement.said.request() != Some(&hash)) {
        return Err(misuse("something in it is about another request"));
    }
    let known = Known::of(&app.host, &broker);
    if known.person.is_none() && args.person.is_none() {
        return Err(misuse(format!("nothing is known here of the broker {broker}"))
            .because_of("you have not enrolled a key there from here")
            .hint("if it is yours, name yourself: --person NAME"));
    }
    let person = signed::person(args.person.as_deref(), &known)?;
    let now = app.host.corrected_now();
    let left = request.statement.expires - now;
    if left <= Duration::ZERO {
        return Err(misuse("the request has expired").hint("have it made anew"));
    }
    let config = config::load(&app.host)?;
    let cache = prepare::cache(&app.host, &config)?;
    let signer = Signer::of(app, &cache, &args.key, known.key.as_deref(), false)?;
    match &args.hash {
        Some(named) if *named == HEXLOWER.encode(&hash) => {}
        Some(_) => {
            return Err(Error::new(ErrorKind::Verification, "the request has another hash")
                .because_of(format!("it is {}", HEXLOWER.encode(&hash))));
        }
        None if !app.host.interact.may_ask() || args.file == Path::new("-") => {
            return Err(misuse("nobody is there to be asked whether to sign")
                .because_of(format!("the hash of the request is {}", HEXLOWER.encode(&hash)))
                .hint("see by another way that whoever asks tells the same, then name what you sign for: --hash HASH"));
        }
        None => {
            for (label, value) in facts(request, said)? {
                // What is written may go to standard output.
                app.host.interact.note(&format!("{label:>10}  {}", printable(&value)));
            }
            let question = match (args.approve, args.deny) {
                (true, _) => "Approve exactly this?",
                (_, true) => "Deny exactly this?",
                _ => "End exactly this?",
            };
            if !app.ui.confirm(question)? {
                app.host.interact.note("nothing was signed");
                return Ok(());
            }
        }
    }
    let said = match &args.reason {
        Some(reason) if args.deny => Said::Denial { request: hash, reason: reason.clone() },
        Some(reason) if args.end => {
            Said::Ending { of: Named::Request(hash), reason: reason.clone() }
        }
        _ => Said::Approval { request: hash },
    };
    let mine = say(&app.host, &broker, (&person, &signer), said, left.min(Duration::hours(4)))?;
    statements.push(mine.clone());
    let text = write(&statements)?;
    let out = args.out.as_deref();
    if args.json {
        put(app, out, &text, false)?;
        return report(app, &mine, &text);
    }
    put(app, out, &text, true)
}

pub(super) fn submit(app: &App, args: &ElevateSubmit) -> Result<()> {
    let (desk, _) = Desk::open(app, args.at.at.as_deref())?;
    let mut all: Vec<Signed> = Vec::new();
    for file in &args.files {
        for signed in signed::read(&take(file)?)? {
            if !all.contains(&signed) {
                all.push(signed);
            }
        }
    }
    // The request first, in whichever file it is.
    all.sort_by_key(|signed| !matches!(signed.statement.said, Said::Request { .. }));
    let text = write(&all)?;
    let told = desk.ask(async |client| client.bring(&text).await)?;
    for not_taken in &told.not_taken {
        let (kind, person) = (printable(&not_taken.kind), printable(&not_taken.person));
        let why = printable(&not_taken.why);
        app.host.interact.warn(&format!("the {kind} of {person} came to nothing: {why}"));
    }
    show::one(app, &told, args.at.json)
}

/// All that a request says, line by line, and what others say about it.
fn facts(request: &Signed, said: &[Signed]) -> Result<Vec<(&'static str, String)>> {
    let statement = &request.statement;
    let Said::Request { subject, rules, ticket, reason } = &statement.said else {
        return Err(strange());
    };
    let audience = subject.audience.clone().unwrap_or_else(|| "the only one of the role".into());
    let seconds = Duration::seconds(i64::try_from(subject.seconds).unwrap_or(i64::MAX));
    let key = |signed: &Signed| {
        signed.signatures.first().map(|one| one.key().fingerprint()).unwrap_or_default()
    };
    let drill = subject.drill.then(|| ("DRILL", show::PRACTISED.to_string()));
    let mut facts: Vec<_> = drill.into_iter().collect();
    facts.extend([
        ("role", format!("{}, for {audience}", subject.role)),
        ("scope", subject.scope.clone().unwrap_or_else(|| "all that policy gives".into())),
        ("for", duration(seconds)),
        ("who", format!("{}, by the key {}", statement.person, key(request))),
        ("reason", reason.clone()),
    ]);
    facts.extend(ticket.clone().map(|ticket| ("ticket", ticket)));
    facts.extend(subject.bound_to.clone().map(|key| ("key", format!("bound to {key}"))));
    facts.push(("broker", statement.broker.to_string()));
    facts.push(("rules", rules.clone()));
    facts.push(("made", moment(statement.made)));
    facts.push(("good until", moment(statement.expires)));
    for one in said {
        let who = format!("of {}, by the key {}", one.statement.person, key(one));
        facts.push((one.statement.said.kind(), who));
    }
    facts.push(("hash", HEXLOWER.encode(&statement.hash()?)));
    facts.push(("", "whether these are their keys is for the broker to find".into()));
    Ok(facts)
}

fn report(app: &App, signed: &Signed, text: &str) -> Result<()> {
    let statement = &signed.statement;
    let request = match statement.said.request() {
        Some(request) => HEXLOWER.encode(request),
        None => HEXLOWER.encode(&statement.hash()?),
    };
    let key = signed.signatures.first().map(|one| one.key().fingerprint()).unwrap_or_default();
    app.ui.json(&Report { request, person: &statement.person, key, text })
}

/// Reads a file, or standard input.
fn take(file: &Path) -> Result<String> {
    let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    if file != Path::new("-") {
        require_file(file)?;
        return Ok(files::read_text(file, most)?.unwrap_or_default());
    }
    let mut text = String::new();
    std::io::stdin().lock().take(most.saturating_add(1)).read_to_string(&mut text).map_err(
        |cause| Error::new(ErrorKind::Io, "standard input cannot be read").because(cause),
    )?;
    Ok(text)
}

/// Writes to a file, or to standard output.
fn put(app: &App, out: Option<&Path>, text: &str, tells: bool) -> Result<()> {
    match out.filter(|out| *out != Path::new("-")) {
        None if tells => app.ui.line(text.trim_end()),
        None => Ok(()),
        Some(out) => {
            files::write_private(out, text.as_bytes())?;
            if tells {
                app.host.interact.note(&format!("written to {}", out.display()));
            }
            Ok(())
        }
    }
}

fn strange() -> Error {
    Error::new(ErrorKind::Verification, "there is no request in it")
}
